#!/usr/bin/env python3
"""Several clients at once: time to the first token and tokens per second, ours and a peer's in turn.

Each server runs alone (its processes are stopped while the other is asked), --rounds times in turn;
medians over the rounds. Every request has a prompt of its own, so that nothing is found in a cache,
and asks for --tokens tokens in a stream of /v1/completions. Commands have {port} in the place of the
port that they are to listen on.

Example:
  bench/load.py --ours "build/release/pinhole serve -m text.gguf --parallel 16 --ctx 2048 --port {port}" \\
                --peer "llama-server -m text.gguf -t 2 -np 16 -c 32768 --port {port}"
"""

import argparse
import json
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

START_S = 600


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ours", required=True, help="command of a server")
    parser.add_argument("--peer", help="command of another")
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


class Server:
    def __init__(self, command):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            shlex.split(command.replace("{port}", str(self.port))), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        end = time.monotonic() + START_S
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    sys.exit(f"the server did not start: {command}")
                time.sleep(0.2)

    def pause(self, on):
        os.killpg(self.process.pid, signal.SIGSTOP if on else signal.SIGCONT)

    def stop(self):
        os.killpg(self.process.pid, signal.SIGCONT)
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()


def ask(port, number, tokens, out):
    """Appends (seconds to the first token, seconds in all, tokens)."""
    prompt = f"Letter {number}: {number * 7919 % 100003} sailors wrote home about the storm. They said"
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True}}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    begin = time.monotonic()
    first = made = None
    with urllib.request.urlopen(request, timeout=3600) as reply:
        for line in reply:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if first is None and any(c.get("text") for c in event.get("choices") or ()):
                first = time.monotonic() - begin
            if event.get("usage"):
                made = event["usage"]["completion_tokens"]
    seconds = time.monotonic() - begin
    out.append((seconds if first is None else first, seconds, made))


def measure(server, clients, first_number, tokens):
    out = []
    threads = [threading.Thread(target=ask, args=(server.port, first_number + i, tokens, out))
               for i in range(clients)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begin
    if len(out) != clients:
        sys.exit(f"{clients - len(out)} of {clients} requests failed")
    return {
        "first_token_s": statistics.median(one[0] for one in out),
        "tokens_per_second_each": statistics.median(one[2] / one[1] for one in out),
        "tokens_per_second": sum(one[2] for one in out) / seconds,
    }


def main():
    arguments = parse_arguments()
    counts = [int(n) for n in arguments.clients.split(",")]
    servers = {"ours": Server(arguments.ours)}
    if arguments.peer:
        servers["peer"] = Server(arguments.peer)
    measured = {name: {n: [] for n in counts} for name in servers}
    try:
        number = 1
        for server in servers.values():
            server.pause(True)
        for round_ in range(-1, arguments.rounds):  # the first one brings weights into memory
            for n in counts if round_ >= 0 else counts[:1]:
                for name, server in servers.items():
                    server.pause(False)
                    result = measure(server, n, number, arguments.tokens)
                    server.pause(True)
                    number += n
                    if round_ >= 0:
                        measured[name][n].append(result)
    finally:
        for server in servers.values():
            server.stop()
    table = {
        name: {n: {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
               for n, rounds in by_count.items()}
        for name, by_count in measured.items()
    }
    if arguments.json:
        print(json.dumps(table, indent=2))
        return
    print(f"{'clients':>7} {'':5} {'first token':>12} {'tok/s each':>11} {'tok/s in all':>13} {'to 1 client':>12}")
    for n in counts:
        for name, by_count in table.items():
            one = by_count[n]
            ratio = one["tokens_per_second"] / by_count[counts[0]]["tokens_per_second"]
            print(f"{n:7} {name:5} {one['first_token_s']:10.2f} s {one['tokens_per_second_each']:11.1f} "
                  f"{one['tokens_per_second']:13.1f} {ratio:11.2f}x")
        if "peer" in table:
            ours, peer = table["ours"][n], table["peer"][n]
            print(f"{n:7} ratio {peer['first_token_s'] / ours['first_token_s']:10.2f} x "
                  f"{ours['tokens_per_second_each'] / peer['tokens_per_second_each']:10.2f}x "
                  f"{ours['tokens_per_second'] / peer['tokens_per_second']:12.2f}x")


if __name__ == "__main__":
    main()
