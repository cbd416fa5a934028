#!/usr/bin/env python3
"""pinhole ask against an OpenAI-compatible server (llama-server) on the same files, in turn.

Each round asks both the same question about the same picture: pinhole as a process of its own (its
load time is reported apart), the server with its prompt cache off, so that both start cold. Medians
and the ratio peer / pinhole are printed (above 1: pinhole is faster or leaner). With --agree the
greedy tokens are compared too: the first difference is shown with the peer's margin between its two
likeliest tokens, since a small one is a tie that two arithmetics may break differently.

Example (two threads each):
  bench/peer.py --pinhole build/release/pinhole -m 2b-Q4_K_M.gguf --mmproj 2b-mmproj-Q8_0.gguf \\
    -i page.png --rounds 3 --server "llama-server -m 2b-Q4_K_M.gguf --mmproj 2b-mmproj-Q8_0.gguf \\
    -t 2 -c 8192 -np 1 --port {port}"
"""

import argparse
import base64
import json
import os
import shlex
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pinhole", default="build/release/pinhole")
    parser.add_argument("--server", required=True, help="command with {port}")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--mmproj")
    parser.add_argument("-i", "--image", required=True)
    parser.add_argument("-q", "--question", default="What is the title of this page?")
    parser.add_argument("-n", "--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--port", type=int, default=18600)
    parser.add_argument("--agree", action="store_true", help="compare the greedy tokens")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


class Server:
    """A server process, healthy, whose memory is sampled while it lives."""

    def __init__(self, command, port):
        self.url = f"http://127.0.0.1:{port}"
        self.anon_bytes = 0
        self.process = subprocess.Popen(
            shlex.split(command.format(port=port)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                sys.exit("peer.py: the server did not become healthy")
            time.sleep(0.1)
        threading.Thread(target=self.watch, daemon=True).start()

    def healthy(self):
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=2) as reply:
                return reply.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def watch(self):
        while self.process.poll() is None:
            self.anon_bytes = max(self.anon_bytes, anonymous_bytes(self.process.pid))
            time.sleep(0.02)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def ask(self, arguments, stream):
        with open(arguments.image, "rb") as file:
            picture = base64.b64encode(file.read()).decode()
        kind = "jpeg" if arguments.image.lower().endswith(("jpg", "jpeg")) else "png"
        content = [
            {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{picture}"}},
            {"type": "text", "text": arguments.question},
        ]
        body = {
            "messages": [{"role": "user", "content": content}],
            "max_tokens": arguments.tokens,
            "temperature": 0,
            "stream": stream,
            "ignore_eos": True,
            "cache_prompt": False,
        }
        if not stream:
            body.update(logprobs=True, top_logprobs=2)
        request = urllib.request.Request(
            self.url + "/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        start = time.perf_counter()
        with urllib.request.urlopen(request, timeout=1800) as reply:
            if not stream:
                return json.load(reply)
            return read_stream(reply, start)


def anonymous_bytes(pid):
    """RssAnon of a process and its children."""
    total = 0
    pids = [pid]
    for one in pids:
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{task}/children") as file:
                    pids += [int(child) for child in file.read().split()]
            with open(f"/proc/{one}/status") as file:
                for line in file:
                    if line.startswith("RssAnon:"):
                        total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


def read_stream(reply, start):
    """Time to the first token and tokens per second after it, from a stream of events."""
    stamps = []
    timings = {}
    for line in reply:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        event = json.loads(line[6:])
        timings = event.get("timings") or timings
        delta = (event.get("choices") or [{}])[0].get("delta", {})
        if delta.get("content"):
            stamps.append(time.perf_counter() - start)
    # Tokens may share an event when they complete a character together: the server's own count wins.
    rate = timings.get("predicted_per_second")
    if rate is None and len(stamps) > 1:
        rate = (len(stamps) - 1) / (stamps[-1] - stamps[0])
    first = timings.get("prompt_ms")
    return {
        "first_token_ms": stamps[0] * 1000 if stamps else first,
        "tokens_per_second": rate,
    }


def ask_pinhole(arguments):
    command = [arguments.pinhole, "ask", "-m", arguments.model, "-i", arguments.image, "--json"]
    command += ["--threads", str(arguments.threads), "-n", str(arguments.tokens), "--ignore-eos"]
    if arguments.mmproj:
        command += ["--mmproj", arguments.mmproj]
    result = subprocess.run(command + [arguments.question], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"peer.py: pinhole failed: {result.stderr}")
    return json.loads(result.stdout)


def compare_tokens(own, reply):
    """One line about the agreement of two greedy answers."""
    theirs = reply["choices"][0]["logprobs"]["content"]
    ids = own["token_ids"]
    for step, (mine, entry) in enumerate(zip(ids, theirs)):
        if mine == entry["id"]:
            continue
        ranked = sorted((top["logprob"] for top in entry["top_logprobs"]), reverse=True)
        second = [top.get("id") for top in entry["top_logprobs"][1:2]]
        margin = ranked[0] - ranked[1] if len(ranked) > 1 else float("inf")
        return (
            f"{step} of {len(ids)} greedy tokens agree; then pinhole says {mine}, the peer "
            f"{entry['id']} (second choice {second}), whose margin is {margin:.4f}"
        )
    return f"all {min(len(ids), len(theirs))} greedy tokens agree"


def main():
    arguments = parse_arguments()
    server = Server(arguments.server, arguments.port)
    ours, theirs = [], []
    try:
        for number in range(arguments.rounds):
            ours.append(ask_pinhole(arguments))
            theirs.append(server.ask(arguments, stream=True))
            print(f"round {number + 1} of {arguments.rounds} done", file=sys.stderr)
        agreement = None
        if arguments.agree:
            agreement = compare_tokens(ours[0], server.ask(arguments, stream=False))
    finally:
        server.stop()

    median = statistics.median
    rows = [
        (
            "first token, ms",
            median(run["timings_ms"]["first_token"] for run in ours),
            median(run["first_token_ms"] for run in theirs),
            True,
        ),
        (
            "decode, tokens/s",
            median(run["tokens_per_second"] for run in ours),
            median(run["tokens_per_second"] for run in theirs),
            False,
        ),
        (
            "anonymous memory, MB",
            max(run["memory_bytes"]["anon_peak"] for run in ours) / 1e6,
            server.anon_bytes / 1e6,
            True,
        ),
    ]
    table = [
        {"what": what, "pinhole": a, "peer": b, "ratio": (b / a if smaller else a / b)}
        for what, a, b, smaller in rows
    ]
    load = median(run["timings_ms"]["load"] for run in ours)
    if arguments.json:
        print(json.dumps({"rows": table, "pinhole_load_ms": load, "agreement": agreement}, indent=2))
        return
    print(f"{'':22}{'pinhole':>12}{'peer':>12}{'ratio':>8}")
    for row in table:
        print(f"{row['what']:22}{row['pinhole']:12.1f}{row['peer']:12.1f}{row['ratio']:8.2f}")
    print(f"pinhole's load time, apart: {load:.0f} ms")
    if agreement:
        print(agreement)


if __name__ == "__main__":
    main()
