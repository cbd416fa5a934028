#!/usr/bin/env python3
"""Greedy answers of a model in f32 arithmetic and with the fast kernels, on the bundled model's samples.

Prints how many answers, and how many of their tokens up to the first difference, are the same. The
model must know the samples' questions: the bundled one, or a quantised copy of it, whose activations
are then rounded to int8.
"""

import argparse
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAMPLES = os.path.join(ROOT, "models", "pinhole-mini")

EXAMPLES = """examples:
  bench/answers.py --pinhole build/release/pinhole
  bench/answers.py -m mini-Q8_0.gguf --mmproj mmproj-mini-Q8_0.gguf --isa avx2 --isa avx512
"""


def ask(arguments, sample, extra, isa):
    command = [arguments.pinhole, "ask", "-i", os.path.join(SAMPLES, sample["image"]), "--json"]
    if arguments.model:
        command += ["-m", arguments.model]
    if arguments.mmproj:
        command += ["--mmproj", arguments.mmproj]
    environment = dict(os.environ)
    if isa:
        environment["PINHOLE_ISA"] = isa
    result = subprocess.run(
        command + extra + [sample["question"]], capture_output=True, text=True, env=environment
    )
    if result.returncode != 0:
        sys.exit(f"answers.py: pinhole failed: {result.stderr}")
    return json.loads(result.stdout)["token_ids"]


def same_tokens(one, other):
    for i, (a, b) in enumerate(zip(one, other)):
        if a != b:
            return i
    return min(len(one), len(other))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pinhole", default=os.path.join(ROOT, "build", "release", "pinhole"))
    parser.add_argument("-m", "--model", help="default: the bundled one")
    parser.add_argument("--mmproj")
    parser.add_argument("--isa", action="append", help="kernels to compare (default: the best)")
    arguments = parser.parse_args()
    with open(os.path.join(SAMPLES, "samples.jsonl"), encoding="utf-8") as file:
        samples = [json.loads(line) for line in file]
    exact = [ask(arguments, s, ["--exact", "--kv-type", "f32"], None) for s in samples]
    tokens = sum(len(ids) for ids in exact)
    for isa in arguments.isa or [None]:
        fast = [ask(arguments, s, [], isa) for s in samples]
        answers = sum(a == b for a, b in zip(exact, fast))
        same = sum(same_tokens(a, b) for a, b in zip(exact, fast))
        print(f"{isa or 'default'}: {answers} of {len(exact)} answers, {same} of {tokens} tokens")


if __name__ == "__main__":
    main()
