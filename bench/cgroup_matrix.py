#!/usr/bin/env python3
"""Many requests under a memory limit of the kernel's: none may be killed, none may fail.

Each request is a `pinhole ask` in a cgroup of its own, of which the limit (v2 memory.max or v1
memory.limit_in_bytes, whichever this machine has) is what `pinhole plan` says is needed, and 5 %.
Pictures are random pixels of --pictures sizes; contexts are filled to the end. With --ram the limit
is that, and 5 %: weights are then streamed. Needs root.

Example:
  sudo bench/cgroup_matrix.py --requests 200
  sudo bench/cgroup_matrix.py -m 8b-Q4_K.gguf --ram 2G --requests 4 --ctx 1024 --tokens 8
"""

import argparse
import itertools
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import zlib


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pinhole", default="build/release/pinhole")
    parser.add_argument("-m", "--model", help="default: the bundled one")
    parser.add_argument("--mmproj")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--ram", help="limit instead of what is needed, such as 2G")
    parser.add_argument("--ctx", type=int, nargs="+", default=[512, 2048, 4096])
    parser.add_argument(
        "--pictures", nargs="+", default=["64x64", "256x160", "640x480", "1024x768", "1280x832"]
    )
    parser.add_argument("--tokens", type=int, help="of the answer (default: fill the context)")
    parser.add_argument("--margin", type=float, default=5, help="percent above the plan")
    return parser.parse_args()


def write_png(path, width, height, seed):
    noise = random.Random(seed)
    rows = b"".join(b"\0" + noise.randbytes(3 * width) for _ in range(height))
    with open(path, "wb") as out:
        out.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows, 1)),
            (b"IEND", b""),
        ):
            body = kind + data
            out.write(struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body)))


class Group:
    """A cgroup with a limit; processes enter it through `enter`."""

    def __init__(self, limit_bytes):
        v2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        root = "/sys/fs/cgroup" if v2 else "/sys/fs/cgroup/memory"
        self.path = f"{root}/pinhole-matrix-{os.getpid()}"
        os.makedirs(self.path, exist_ok=True)
        limit, self.peak_file = (
            ("memory.max", "memory.peak") if v2 else ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
        )
        with open(f"{self.path}/{limit}", "w") as file:
            file.write(str(limit_bytes))
        self.events = f"{self.path}/memory.events" if v2 else f"{self.path}/memory.oom_control"

    def enter(self):
        with open(f"{self.path}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))

    def kills(self):
        with open(self.events) as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))

    def peak(self):
        try:
            with open(f"{self.path}/{self.peak_file}") as file:
                return int(file.read())
        except OSError:
            return 0

    def remove(self):
        os.rmdir(self.path)


def main():
    arguments = parse_arguments()
    files = ["-m", arguments.model] if arguments.model else []
    files += ["--mmproj", arguments.mmproj] if arguments.mmproj else []
    cases = []
    for ctx, size in itertools.product(arguments.ctx, arguments.pictures):
        command = [arguments.pinhole, "plan", "--json", "--ctx", str(ctx), "--image", size]
        command += [arguments.model] if arguments.model else []
        command += ["--mmproj", arguments.mmproj] if arguments.mmproj else []
        command += ["--ram", arguments.ram] if arguments.ram else []
        plan = subprocess.run(command, capture_output=True, text=True)
        if not plan.stdout:
            print(f"not admitted: ctx {ctx}, {size}: {plan.stderr.strip()}")
            continue
        memory = json.loads(plan.stdout)["memory_bytes"]
        cases.append((ctx, size, memory["limit" if arguments.ram else "needed"]))
    if not cases:
        sys.exit("cgroup_matrix.py: no case is admitted")
    failures = kills = 0
    tightest = 0
    with tempfile.TemporaryDirectory(prefix="pinhole-matrix-") as folder:
        for number in range(arguments.requests):
            ctx, size, bytes_planned = cases[number % len(cases)]
            picture = os.path.join(folder, f"{size}.png")
            width, height = map(int, size.split("x"))
            write_png(picture, width, height, number)
            limit = int(bytes_planned * (1 + arguments.margin / 100))
            group = Group(limit)
            run = subprocess.run(
                [arguments.pinhole, "ask", "--json", "--ignore-eos", "--ctx", str(ctx), "-i", picture]
                + files
                + ["-n", str(arguments.tokens or ctx), f"Request {number}: what is this?"],
                capture_output=True,
                text=True,
                preexec_fn=group.enter,
            )
            kills += group.kills()
            if run.returncode != 0:
                failures += 1
                print(f"ctx {ctx}, {size}: exit code {run.returncode}: {run.stderr.strip()[-300:]}")
            tightest = max(tightest, group.peak() / limit)
            group.remove()
            os.unlink(picture)
            if sys.stderr.isatty():
                print(f"\r{number + 1} of {arguments.requests}", end="", file=sys.stderr)
    print(
        f"{arguments.requests} requests of {len(cases)} kinds: {kills} kills, {failures} failures; "
        f"at most {tightest * 100:.0f} % of a limit were in use, page cache counted"
    )
    sys.exit(1 if kills or failures else 0)


if __name__ == "__main__":
    main()
