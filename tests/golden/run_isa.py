#!/usr/bin/env python3
"""Runs `pinhole verify` on a collection of cases under one instruction set: PROGRAM ISA FOLDER FEWEST.

Passes when every case passes, the forced set really took, and the collection was not silently
thinned out. Exit code 77: skipped, for the reason printed.
"""

import os
import re
import subprocess
import sys

SKIPPED = 77


def main():
    program, isa, folder = sys.argv[1:4]
    fewest = int(sys.argv[4])
    if not os.path.isfile(os.path.join(folder, "README.md")):
        print(f"skipped: there is no golden collection at {folder}")
        return SKIPPED
    environment = dict(os.environ, PINHOLE_ISA=isa)
    probe = subprocess.run([program, "ask", "-n", "1", "Hello"], env=environment,
                           capture_output=True, text=True, timeout=300)
    if "cannot run here: it needs" in probe.stderr:
        print(f"skipped: {probe.stderr.strip()}")
        return SKIPPED
    run = subprocess.run([program, "verify", folder], env=environment, capture_output=True,
                         text=True)
    sys.stderr.write(run.stderr)
    lines = run.stdout.splitlines()
    for line in lines:
        if not line.startswith("ok "):
            print(line)
    problems = []
    if run.returncode != 0:
        problems.append(f"exit code {run.returncode}")
    took = [line for line in lines if re.match(rf"kernels: {isa}\b", line)]
    if not took:
        problems.append(f"no line 'kernels: {isa}': another set was taken")
    count = re.search(r"^(\d+) passed, (\d+) failed$", run.stdout, re.MULTILINE)
    if not count:
        problems.append("no line 'N passed, N failed'")
    elif int(count[1]) < fewest or int(count[2]) != 0:
        problems.append(f"{count[0]}; {fewest} or more must pass, none fail")
    for problem in problems:
        print(f"golden.{isa}: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
