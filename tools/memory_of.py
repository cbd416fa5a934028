#!/usr/bin/env python3
"""Runs a command and reports the memory that it and its children took at most.

Sampled from /proc/PID/status (Linux): RssAnon is what only swap could take back (heap, stacks,
private copies), RssFile and RssShmem are mapped files and shared memory, whose clean pages the
kernel may drop at any time. Each "peak" is the largest sum over the living processes of the tree at one
sample. VmHWM is the kernel's own high-water mark of RSS, per process, exact between samples;
reported is the sum over all processes ever seen of the last mark seen (for one process: its peak
RSS). Peaks shorter than the interval can escape the sums, never VmHWM.

Sizes are printed in MB of 10^6 bytes; --json gives bytes. The command's own output goes where it
went before; the report goes to stderr, or to --output. The exit status is the command's (128 + n
after signal n), or 127 when it cannot be started.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

EXAMPLES = """examples:
  tools/memory_of.py build/release/pinhole ask -m MODEL -i cat.jpg "What is this?"
  tools/memory_of.py --json --output memory.json -- llama-cli -m model.gguf -p hello
  tools/memory_of.py --interval-ms 2 --timeline anon.tsv -- ./program
"""

FIELDS = ("RssAnon", "RssFile", "RssShmem", "VmRSS", "VmHWM", "VmSwap")


def read_status(pid):
    """{field: bytes} of a process, or None when it is gone (or a zombie, which has no memory)."""
    try:
        with open(f"/proc/{pid}/status") as file:
            lines = file.readlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    out = {}
    for line in lines:
        name, _, rest = line.partition(":")
        if name in FIELDS:
            out[name] = int(rest.split()[0]) * 1024
    return out if "VmRSS" in out else None


def children_of(pid):
    out = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return out
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children") as file:
                out += [int(child) for child in file.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return out


def tree_of(root, known):
    """The living processes: the root's descendants, and those seen before whose parent has gone."""
    found, waiting = set(), [root] + [pid for pid in known if pid != root]
    while waiting:
        pid = waiting.pop()
        if pid in found:
            continue
        found.add(pid)
        waiting += children_of(pid)
    return found


def start_time(pid):
    """Tells a reused process id from the process it was seen as."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return None


class Sampler:
    def __init__(self, root):
        self.root = root
        self.living = {root: start_time(root)}
        self.high_water = {}  # (pid, start time) -> last VmHWM
        self.peak = dict.fromkeys(("anon", "mapped", "rss", "swap"), 0)
        self.samples = 0

    def sample(self):
        total = dict.fromkeys(self.peak, 0)
        living = {}
        for pid in tree_of(self.root, self.living):
            started = start_time(pid)
            if started is None or self.living.get(pid, started) != started:
                continue
            status = read_status(pid)
            if status is None:
                continue
            living[pid] = started
            self.high_water[pid, started] = status.get("VmHWM", 0)
            total["anon"] += status.get("RssAnon", 0)
            total["mapped"] += status.get("RssFile", 0) + status.get("RssShmem", 0)
            total["rss"] += status.get("VmRSS", 0)
            total["swap"] += status.get("VmSwap", 0)
        self.living = living
        self.samples += 1
        for key, value in total.items():
            self.peak[key] = max(self.peak[key], value)
        return total


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interval-ms", type=float, default=10, help="between samples (default 10)")
    parser.add_argument("--json", action="store_true", help="report as one JSON object, sizes in bytes")
    parser.add_argument("--output", metavar="FILE", help="write the report there instead of stderr")
    parser.add_argument("--timeline", metavar="FILE", help="also write every sample: ms, anon, mapped bytes (TSV)")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    options = parser.parse_args()
    if options.command[:1] == ["--"]:
        options.command = options.command[1:]
    if not options.command:
        parser.error("a command is needed")
    if options.interval_ms <= 0:
        parser.error("--interval-ms must be above 0")
    return options


def write_report(options, text):
    if options.output:
        with open(options.output, "w") as file:
            file.write(text + "\n")
    else:
        print(text, file=sys.stderr)


def main():
    options = parse_arguments()
    start = time.monotonic()
    try:
        process = subprocess.Popen(options.command)
    except OSError as error:
        print(f"memory_of.py: {options.command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    for number in (signal.SIGINT, signal.SIGTERM):  # the command decides; the report still comes
        signal.signal(number, lambda caught, _: process.send_signal(caught))
    sampler = Sampler(process.pid)
    timeline = []
    while process.poll() is None:
        total = sampler.sample()
        if options.timeline:
            timeline.append((1000 * (time.monotonic() - start), total["anon"], total["mapped"]))
        try:
            process.wait(options.interval_ms / 1000)
        except subprocess.TimeoutExpired:
            pass
    wall_s = time.monotonic() - start
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode

    if options.timeline:
        with open(options.timeline, "w") as file:
            file.write("ms\tanon_bytes\tmapped_bytes\n")
            file.writelines(f"{ms:.1f}\t{anon}\t{mapped}\n" for ms, anon, mapped in timeline)
    report = {"command": options.command, "exit_status": code, "wall_s": round(wall_s, 3),
              "peak_anon_bytes": sampler.peak["anon"], "peak_mapped_bytes": sampler.peak["mapped"],
              "peak_rss_bytes": sampler.peak["rss"], "peak_swap_bytes": sampler.peak["swap"],
              "hwm_bytes": sum(sampler.high_water.values()), "processes": len(sampler.high_water),
              "samples": sampler.samples}
    if options.json:
        write_report(options, json.dumps(report))
    else:
        mb = {key: value / 1e6 for key, value in report.items() if key.endswith("_bytes")}
        write_report(options,
                     f"peak anon {mb['peak_anon_bytes']:.1f} MB, HWM {mb['hwm_bytes']:.1f} MB, "
                     f"mapped {mb['peak_mapped_bytes']:.1f} MB"
                     + (f", swap {mb['peak_swap_bytes']:.1f} MB" if report["peak_swap_bytes"] else "")
                     + f" ({report['processes']} process{'es' if report['processes'] != 1 else ''}, "
                     f"{report['samples']} samples, {report['wall_s']:.2f} s, exit {code})")
    return code


if __name__ == "__main__":
    sys.exit(main())
