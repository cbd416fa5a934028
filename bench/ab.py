#!/usr/bin/env python3
"""Compares two shell commands by the ratio of what they measure, run in turn (A B A B ...).

Machines drift: clock, neighbours and caches change from minute to minute. Running the two in turn and
looking at ratios cancels most of that; absolute figures of one run are not to be compared with
another day's. The number is a JSON value, the first group of a regular expression, or the wall time.

Printed: both medians, the ratio B/A of the medians and its 95 % interval from a paired bootstrap (the
rounds are resampled, so that drift shared by a round's two runs does not widen the interval). An
interval that contains 1 means that no difference was shown.

Exit status: 0; 1 when a command fails or yields no number; 2 when --fail-above or --fail-below is
crossed by the whole interval. Every run's output is dropped unless a run fails.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import time

EXAMPLES = """examples:
  two builds, wall time, 15 rounds after one of warming up:
    bench/ab.py -n 15 -w 1 'build/a/pinhole ask ...' 'build/b/pinhole ask ...'
  a number out of a command's JSON (dots go into objects, digits into lists):
    bench/ab.py --json-key timings.prefill_ms 'A --json' 'B --json'
  a number out of its text:
    bench/ab.py --regex 'decode ([0-9.]+) tok/s' 'PINHOLE_ISA=avx2 A' 'PINHOLE_ISA=avx512 A'
  a gate, where more is worse: fail if B is surely more than 5 % above A
    bench/ab.py --fail-above 1.05 'BASE' 'HEAD'
"""


class RunError(Exception):
    pass


def json_value(text, path):
    """The number at `path` in the last line or whole text that is JSON and has it."""
    documents = [text] + text.splitlines()[::-1]
    for document in documents:
        try:
            value = json.loads(document)
            for key in path.split("."):
                value = value[int(key)] if isinstance(value, list) else value[key]
            return float(value)
        except (ValueError, KeyError, IndexError, TypeError):
            continue
    return None


def regex_value(text, pattern):
    """The first group (or the whole match) of the last match."""
    found = list(pattern.finditer(text))
    if not found:
        return None
    try:
        return float(found[-1].group(1) if pattern.groups else found[-1].group(0))
    except (TypeError, ValueError):
        return None


def measure(command, options):
    start = time.perf_counter()
    try:
        run = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             stdin=subprocess.DEVNULL, text=True, errors="replace", timeout=options.timeout)
    except subprocess.TimeoutExpired:
        raise RunError(f"{command}\n  ran longer than {options.timeout} s")
    wall = time.perf_counter() - start
    if run.returncode != 0:
        raise RunError(f"{command}\n  exit status {run.returncode}\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    if options.json_key is None and options.regex is None:
        return wall
    for text in (run.stdout, run.stderr):
        value = json_value(text, options.json_key) if options.json_key else regex_value(text, options.regex)
        if value is not None:
            return value
    what = f"JSON key {options.json_key!r}" if options.json_key else f"match of {options.regex.pattern!r}"
    raise RunError(f"{command}\n  no {what} with a number in its output\n{run.stdout[-2000:]}{run.stderr[-2000:]}")


def ratio_of_medians(pairs):
    a, b = (statistics.median(p[i] for p in pairs) for i in (0, 1))
    return b / a if a else float("nan")


def bootstrap(pairs, samples, seed):
    """95 % percentile interval of the ratio of medians, rounds resampled with replacement."""
    rng = random.Random(seed)
    ratios = sorted(ratio_of_medians(rng.choices(pairs, k=len(pairs))) for _ in range(samples))
    return ratios[int(0.025 * samples)], ratios[min(samples - 1, int(0.975 * samples))]


def spread(values):
    """Half the interquartile range over the median: the noise of a single run."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4)
    middle = statistics.median(values)
    return (high - low) / 2 / middle if middle else 0.0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", metavar="A", help="shell command, the base")
    parser.add_argument("b", metavar="B", help="shell command, compared with A")
    parser.add_argument("-n", "--rounds", type=int, default=10, help="rounds of A and B (default 10)")
    parser.add_argument("-w", "--warmup", type=int, default=1, help="rounds before that count for nothing (default 1)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--json-key", metavar="PATH", help="take the number at this path of a JSON output")
    source.add_argument("--regex", type=re.compile, help="take the first group of the last match")
    parser.add_argument("--unit", help="unit for the text (default: s for wall time)")
    parser.add_argument("--timeout", type=float, help="seconds that a single run may take")
    parser.add_argument("--swap", action="store_true", help="B A in every other round (order effects)")
    parser.add_argument("--fail-above", type=float, metavar="R", help="exit 2 if the interval lies above R")
    parser.add_argument("--fail-below", type=float, metavar="R", help="exit 2 if the interval lies below R")
    parser.add_argument("--samples", type=int, default=5000, help="bootstrap samples (default 5000)")
    parser.add_argument("--seed", type=int, default=1, help="of the bootstrap (default 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.rounds < 1 or options.warmup < 0 or options.samples < 40:
        parser.error("--rounds must be at least 1, --warmup at least 0, --samples at least 40")
    if options.unit is None:
        options.unit = "" if options.json_key or options.regex else "s"
    return options


def main():
    options = parse_arguments()
    pairs = []
    for number in range(options.warmup + options.rounds):
        swapped = options.swap and number % 2 == 1
        values = {}
        for name in ("ba" if swapped else "ab"):
            values[name] = measure(getattr(options, name), options)
        if number >= options.warmup:
            pairs.append((values["a"], values["b"]))
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{options.warmup + options.rounds}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r          \r", end="", file=sys.stderr)

    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    ratio, (low, high) = ratio_of_medians(pairs), bootstrap(pairs, options.samples, options.seed)
    report = {"a": options.a, "b": options.b, "rounds": len(pairs), "unit": options.unit,
              "median_a": statistics.median(a), "median_b": statistics.median(b), "ratio": ratio,
              "ratio_low": low, "ratio_high": high, "spread_a": spread(a), "spread_b": spread(b),
              "values_a": a, "values_b": b}
    if options.json:
        print(json.dumps(report))
    else:
        unit = f" {options.unit}" if options.unit else ""
        print(f"A {report['median_a']:.6g}{unit}  (+-{100 * report['spread_a']:.1f} %)  {options.a}")
        print(f"B {report['median_b']:.6g}{unit}  (+-{100 * report['spread_b']:.1f} %)  {options.b}")
        verdict = "" if low > 1 or high < 1 else "  (no difference shown)"
        print(f"B/A {ratio:.4f}, 95 % {low:.4f} to {high:.4f}, {len(pairs)} rounds{verdict}")
    failed = ((options.fail_above is not None and low > options.fail_above)
              or (options.fail_below is not None and high < options.fail_below))
    return 2 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RunError as error:
        print(f"ab.py: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
