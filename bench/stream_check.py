#!/usr/bin/env python3
"""A model under a limit that it does not fit in: tokens a second beside what the disk allows.

In each round, one after the other: the disk is read bare (dd of the model's file, direct, in pieces of
1 and 16 MiB, by one, two and four readers; the fastest counts), `pinhole ask --ram LIMIT` answers with
the file forgotten by the page cache, and the disk is read bare again: the mean of both counts. What is
read for every token is `plan`'s; the disk allows its rate over these bytes. Prints both, the share, and
the peak of memory under the limit.

Of a mixture of experts, what a token reads depends on which experts it finds: it is counted (the
kernel's blocks read, of two answers of different length), and a token takes no less than these bytes
from the disk and then its time in memory, which is measured in each round too, of the same answer
without a limit (the machine must have room for the model).

Example:
  bench/stream_check.py -m 8b-Q4_K.gguf --ram 2G --ctx 1024 --rounds 3
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pinhole", default="build/release/pinhole")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--ram", required=True)
    parser.add_argument("--ctx", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def run_json(command):
    run = subprocess.run(command, capture_output=True, text=True)
    if not run.stdout:
        sys.exit(f"stream_check.py: {' '.join(command)}: {run.stderr.strip()}")
    return json.loads(run.stdout)


def read_bare(path, readers, piece):
    """GB/s past the page cache, by so many readers at once, each a part of its own."""
    count = min(1 << 30, os.path.getsize(path)) // readers // piece
    parts = os.path.getsize(path) // piece // readers
    start = time.monotonic()
    running = [
        subprocess.Popen(
            ["dd", f"if={path}", "of=/dev/null", f"bs={piece}", f"count={count}",
             f"skip={idx * parts}", "iflag=direct"],
            stderr=subprocess.DEVNULL,
        )
        for idx in range(readers)
    ]
    if any(reader.wait() for reader in running):
        sys.exit(f"stream_check.py: dd cannot read {path}")
    return readers * count * piece / 1e9 / (time.monotonic() - start)


def disk_gb_per_s(path):
    return max(
        read_bare(path, readers, piece) for readers in (1, 2, 4) for piece in (1 << 20, 16 << 20)
    )


def forget(path):
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def ask(arguments, tokens, limit):
    command = [arguments.pinhole, "ask", "--json", "-m", arguments.model, "--ctx", str(arguments.ctx)]
    command += ["--ram", arguments.ram] if limit else []
    return run_json(
        command + ["-n", str(tokens), "--ignore-eos", "Which button opens the cart?"]
    )


def read_by(run):
    """What `run` returns, and the bytes that its child processes read from disks."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock
    out = run()
    return out, 512 * (resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock - before)


def seconds_per_token(first, last):
    """Of the tokens that the second answer has more than the first."""
    ms = last["timings_ms"]["decode"] - first["timings_ms"]["decode"]
    return ms / 1e3 / (last["tokens"]["generated"] - first["tokens"]["generated"])


def check_experts(arguments):
    """A mixture's decoding beside what the disk and memory allow it."""
    few, many = arguments.tokens, 5 * arguments.tokens
    print(f"{'disk GB/s':>10} {'MB/token':>9} {'in memory':>10} {'allows':>8} {'measured':>9} "
          f"{'share':>6} {'peak MiB':>9}")
    shares = []
    for _ in range(arguments.rounds):
        with open(arguments.model, "rb", buffering=0) as file:
            while file.read(16 << 20):  # into the page cache
                pass
        in_memory = seconds_per_token(*(ask(arguments, tokens, False) for tokens in (few, many)))
        before = disk_gb_per_s(arguments.model)
        runs = []
        for tokens in (few, many):
            forget(arguments.model)
            runs.append(read_by(lambda: ask(arguments, tokens, True)))
        (first, first_read), (last, last_read) = runs
        disk = (before + disk_gb_per_s(arguments.model)) / 2
        read = (last_read - first_read) / (many - few)
        seconds = seconds_per_token(first, last)
        allows = 1 / (max(read, 0) / (disk * 1e9) + in_memory)
        shares.append(1 / seconds / allows)
        print(f"{disk:>10.2f} {read / 1e6:>9.1f} {1 / in_memory:>10.1f} {allows:>8.1f} "
              f"{1 / seconds:>9.1f} {shares[-1] * 100:>5.0f}% "
              f"{last['memory_bytes']['resident_peak'] / 2**20:>9.0f}",
              flush=True)
    print(f"median share of what disk and memory allow: {statistics.median(shares) * 100:.0f}%")


def main():
    arguments = parse_arguments()
    plan = run_json([
        arguments.pinhole, "plan", "--json", arguments.model, "--ram", arguments.ram, "--ctx",
        str(arguments.ctx), "--image", "none", "--prompt", "24",
    ])
    if "streaming_bytes" not in plan:
        sys.exit(f"stream_check.py: {arguments.model} is not streamed under {arguments.ram}")
    read = plan["streaming_bytes"]["per_token"]
    if read == 0:
        print(f"{plan['name']} under {arguments.ram}: experts are read when they are chosen")
        return check_experts(arguments)
    print(f"{plan['name']} under {arguments.ram}: {read / 1e9:.2f} GB are read for every token; "
          f"planned {plan['speed']['tokens_per_second']:.2f} tokens/s")
    print(f"{'disk GB/s':>10} {'allows':>10} {'measured':>10} {'share':>7} {'peak MiB':>9}")
    shares = []
    for _ in range(arguments.rounds):
        before = disk_gb_per_s(arguments.model)
        forget(arguments.model)
        out = ask(arguments, arguments.tokens, True)
        disk = (before + disk_gb_per_s(arguments.model)) / 2
        allows = disk * 1e9 / read
        share = out["tokens_per_second"] / allows
        shares.append(share)
        print(f"{disk:>10.2f} {allows:>10.2f} {out['tokens_per_second']:>10.2f} {share * 100:>6.0f}% "
              f"{out['memory_bytes']['resident_peak'] / 2**20:>9.0f}", flush=True)
    print(f"median share of the disk: {statistics.median(shares) * 100:.0f}%")


if __name__ == "__main__":
    main()
