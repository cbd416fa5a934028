#!/usr/bin/env python3
"""A server under mixed load for some minutes: does it lose answers, cross them, or outgrow its plan?

Two models that do not fit together under one ceiling: the bundled model with its vision part ("eyes")
and its text part alone ("words"). Clients at the same time ask about pictures, ask for a text that a
schema fixes (a number of their own, so that an answer that went to the wrong client shows), hang up
in the middle, read slowly, and send bodies that are malformed or too large. Memory of the server is
read every 100 ms, and GET /running beside it.

A reply is right when it is the expected answer, or one of the refusals that clients are told to
handle: 429 and 503 with Retry-After. Exit code 1 when the server ended, an answer was wrong or
missing, a malformed body was not refused with a 4xx, reserved bytes passed the ceiling, RssAnon
passed the plan, or memory had grown by more than --growth at the end.

Examples:
  bench/soak.py --seconds 60
  bench/soak.py --seconds 600 --json
"""

import argparse
import base64
import collections
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL_FOLDER = os.path.join(HERE, "..", "models", "pinhole-mini")
TIMEOUT_S = 120
BODY_LIMIT = 1 << 20  # bytes
# What the bundled model is sure of: its first token's logit leads by this much.
CLEAR_LOGITS = 4.0


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pinhole", default=os.path.join(HERE, "..", "build/release/pinhole"))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--growth", type=float, default=8, help="MiB of RssAnon at the end (default 8)")
    parser.add_argument("--without-memory", action="store_true",
                        help="do not judge memory: sanitizers hold some of their own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def clear_samples():
    """[question, picture as data: URL, answer] of samples that leave no doubt."""
    out = []
    with open(os.path.join(MODEL_FOLDER, "samples.jsonl"), encoding="utf-8") as lines:
        for line in lines:
            sample = json.loads(line)
            top = sorted((logit for _, logit in sample["first_logits_top5"]), reverse=True)
            if not sample["correct"] or len(sample["output_ids"]) > 3 or top[0] - top[1] < CLEAR_LOGITS:
                continue
            with open(os.path.join(MODEL_FOLDER, sample["image"]), "rb") as file:
                url = "data:image/png;base64," + base64.b64encode(file.read()).decode()
            out.append((sample["question"], url, sample["answer"].strip()))
    return out


class Server:
    """`pinhole serve` on a free port, and what it said."""

    def __init__(self, pinhole, folder, ram):
        other = os.path.join(folder, "text")
        os.makedirs(other, exist_ok=True)
        model = os.path.join(MODEL_FOLDER, "pinhole-mini-f16.gguf")
        words = os.path.join(other, "words.gguf")
        if not os.path.exists(words):
            shutil.copy(model, words)  # without its projector: it reads no pictures
        settings = os.path.join(folder, "pinhole.toml")
        with open(settings, "w", encoding="utf-8") as out:
            if ram:
                out.write(f"ram = {ram}\n")
            out.write('min_residency = "200ms"\nmax_wait = "1s"\n')
            out.write(f"[models.eyes]\nmodel = {json.dumps(os.path.abspath(model))}\n")
            out.write(f"[models.words]\nmodel = {json.dumps(words)}\n")
        command = [pinhole, "serve", "--config", settings, "--port", "0", "--ctx", "1024"]
        command += ["--max-body", str(BODY_LIMIT)]
        self.errors = open(os.path.join(folder, "server.log"), "a+", encoding="utf-8")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("listening on http://"):
            self.process.wait()
            self.errors.seek(0)
            sys.exit(f"the server did not start: {line}{self.errors.read()}")
        self.host, port = line.split()[-1].removeprefix("http://").split(":")
        self.port = int(port)

    def running(self):
        url = f"http://{self.host}:{self.port}/running"
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply:
            return json.load(reply)

    def rss_anon(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
        return 0

    def post(self, path, body):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read()
        finally:
            connection.close()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=TIMEOUT_S)


class Soak:
    def __init__(self, server, samples, seed):
        self.server, self.samples = server, samples
        self.counts = collections.Counter()
        self.faults = []
        self.lock = threading.Lock()
        self.ends = threading.Event()
        self.seed = seed
        self.peak_anon = self.peak_reserved = self.swaps = 0

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def fault(self, what):
        with self.lock:
            self.counts["faults"] += 1
            if len(self.faults) < 20:
                self.faults.append(what)

    def refused(self, status, headers):
        if status not in (429, 503):
            return False
        if not headers.get("Retry-After"):
            self.fault(f"{status} without Retry-After")
        self.count("told to come later")
        return True

    # --- clients: each is called again and again by a thread of its own ---

    def picture(self, random_):
        question, url, answer = random_.choice(self.samples)
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
        body = {"model": "eyes", "max_tokens": 8, "messages": [{"role": "user", "content": content}]}
        status, headers, reply = self.server.post("/v1/chat/completions", json.dumps(body))
        if self.refused(status, headers):
            return
        if status != 200:
            return self.fault(f"picture: {status} {reply[:200]!r}")
        got = json.loads(reply)["choices"][0]["message"]["content"].strip()
        if got != answer:
            return self.fault(f"picture: {question!r} was answered {got!r}, not {answer!r}")
        self.count("picture answers")

    def text_body(self, random_, stream):
        own = "".join(random_.choice("abcdefghij") for _ in range(12))
        schema = {"type": "json_schema", "json_schema": {"name": "own", "schema": {"const": own}}}
        body = {"model": random_.choice(["words", "words", "eyes"]), "max_tokens": 64, "stream": stream,
                "messages": [{"role": "user", "content": f"Say {own}"}], "response_format": schema}
        return own, json.dumps(body)

    def text(self, random_):
        own, body = self.text_body(random_, False)
        status, headers, reply = self.server.post("/v1/chat/completions", body)
        if self.refused(status, headers):
            return
        if status != 200:
            return self.fault(f"text: {status} {reply[:200]!r}")
        got = json.loads(reply)["choices"][0]["message"]["content"]
        if json.loads(got) != own:
            return self.fault(f"text: {own!r} was asked for, {got!r} came")
        self.count("text answers")

    def open_stream(self, body):
        connection = socket.create_connection((self.server.host, self.server.port), TIMEOUT_S)
        head = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self.server.host}:{self.server.port}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n")
        connection.sendall(head.encode() + body.encode())
        return connection

    def abort(self, random_):
        _, body = self.text_body(random_, True)
        with self.open_stream(body) as connection:
            wanted = random_.choice([0, 1, 200, 800])
            while wanted > 0:
                got = connection.recv(min(wanted, 256))
                if not got:
                    break
                wanted -= len(got)
            time.sleep(random_.random() * 0.05)
        self.count("hung up")

    def slow_reader(self, random_):
        own, body = self.text_body(random_, True)
        data = b""
        with self.open_stream(body) as connection:
            while True:
                got = connection.recv(64)
                if not got:
                    break
                data += got
                time.sleep(0.002)
        head, _, text = data.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status in (429, 503):
            return self.count("told to come later")
        if status != 200 or b"data: [DONE]" not in text:
            return self.fault(f"stream: {status}, ended with {text[-120:]!r}")
        said = ""
        for line in text.decode().splitlines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    return self.fault(f"stream: {line[:200]}")
                for choice in event["choices"]:
                    said += choice["delta"].get("content") or ""
        if json.loads(said) != own:
            return self.fault(f"stream: {own!r} was asked for, {said!r} came")
        self.count("slow streams")

    def malformed(self, random_):
        junk = random_.randbytes(random_.randrange(1, 300))
        path, body = random_.choice([
            ("/v1/chat/completions", b"{"),
            ("/v1/chat/completions", b'{"messages": 5}'),
            ("/v1/chat/completions", b"[" * 20000),
            ("/v1/chat/completions", b'{"model": "nobody", "messages": [{"role": "user", "content": "a"}]}'),
            ("/v1/chat/completions", junk),
            ("/api/chat", junk),
            ("/api/v1/analyze", junk),
            ("/v1/chat/completions", json.dumps({"model": "eyes", "messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {
                    "url": "data:image/png;base64," + base64.b64encode(junk).decode()}}]}]}).encode()),
        ])
        status, headers, reply = self.server.post(path, body)
        if self.refused(status, headers):
            return
        if not 400 <= status < 500:
            return self.fault(f"malformed: {path} {body[:60]!r} was answered {status} {reply[:120]!r}")
        self.count("malformed refused")

    def oversized(self, random_):
        try:
            status, _, _ = self.server.post("/v1/chat/completions", b" " * (BODY_LIMIT + 1 + random_.randrange(4096)))
        except (BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
            return self.count("oversized refused")
        if status != 413:
            return self.fault(f"oversized: {status}")
        self.count("oversized refused")

    # ---

    def client(self, act, pause, index):
        random_ = random.Random(self.seed * 1000 + index)
        while not self.ends.wait(pause):
            try:
                act(random_)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                if not self.ends.is_set():
                    self.fault(f"{act.__name__}: {type(error).__name__}: {error}")
                    if self.server.process.poll() is not None:
                        return

    def watch(self, limit):
        while not self.ends.wait(0.1):
            try:
                now = self.server.running()
                anon = self.server.rss_anon()
            except (OSError, ValueError) as error:
                self.fault(f"watching: {error}")
                return
            self.peak_anon = max(self.peak_anon, anon)
            self.peak_reserved = max(self.peak_reserved, now["reserved_bytes"])
            self.swaps = now["swaps"]
            if now["reserved_bytes"] > limit:
                self.fault(f"{now['reserved_bytes']} bytes are reserved, the ceiling has {limit}")

    def run(self, seconds, limit):
        acts = [(self.picture, 0), (self.picture, 0.05), (self.text, 0), (self.text, 0), (self.text, 0.05),
                (self.slow_reader, 0), (self.abort, 0.02), (self.malformed, 0.02), (self.oversized, 0.5)]
        threads = [threading.Thread(target=self.client, args=(act, pause, i), daemon=True)
                   for i, (act, pause) in enumerate(acts)]
        threads.append(threading.Thread(target=self.watch, args=(limit,), daemon=True))
        for thread in threads:
            thread.start()
        begin = time.monotonic()
        while time.monotonic() - begin < seconds and self.server.process.poll() is None:
            if sys.stderr.isatty():
                left = seconds - (time.monotonic() - begin)
                print(f"\r{left:5.0f} s left, {sum(self.counts.values())} requests ", end="", file=sys.stderr)
            time.sleep(0.5)
        self.ends.set()
        for thread in threads:
            thread.join(TIMEOUT_S)
            if thread.is_alive():
                self.fault("a client still waits for its answer")
        if sys.stderr.isatty():
            print(file=sys.stderr)


def load_both(server, samples):
    """What each model needs once it is loaded: {name: (reserved, of which anonymous)}, and anonymous
    bytes of the server without models."""
    soak = Soak(server, samples, 0)
    empty = server.rss_anon()
    for act in (soak.picture, soak.text, soak.text, soak.text):
        act(random.Random(1))
    needs = {m["name"]: (m["reserved_bytes"], m["reserved_bytes"] - m["mapped_bytes"])
             for m in server.running()["models"]}
    if soak.faults or not all(reserved for reserved, _ in needs.values()):
        sys.exit(f"before the load: {soak.faults or needs}")
    return needs, empty


def main():
    arguments = parse_arguments()
    samples = clear_samples()
    with tempfile.TemporaryDirectory() as folder:
        alone = Server(arguments.pinhole, folder, None)
        needs, empty = load_both(alone, samples)
        alone.stop()
        reserved = [reserved for reserved, _ in needs.values()]
        limit = max(reserved) + min(reserved) // 2
        planned = empty + max(anonymous for _, anonymous in needs.values())

        server = Server(arguments.pinhole, folder, limit)
        soak = Soak(server, samples, arguments.seed)
        soak.run(min(5, arguments.seconds / 4), limit)  # what is allocated once
        warm = server.rss_anon()
        first, soak.ends = soak.counts, threading.Event()
        soak.run(arguments.seconds, limit)
        alive = server.process.poll() is None
        if not alive:
            soak.fault(f"the server ended with {server.process.returncode}")
        else:
            time.sleep(1)
            end = server.rss_anon()
            now = server.running()
            busy = [m["name"] for m in now["models"] if m["in_flight"] or m["waiting"]]
            if busy:
                soak.fault(f"{busy} still have requests with no client left")
            judged = not arguments.without_memory
            if judged and end > warm + arguments.growth * 2**20:
                soak.fault(f"anonymous memory grew from {warm} to {end} bytes")
            if judged and soak.peak_anon > planned:
                soak.fault(f"RssAnon reached {soak.peak_anon}, the plan has {planned}")
            code = server.stop()
            if code != 0:
                soak.fault(f"the server ended with {code} after SIGTERM")
        result = {
            "seconds": arguments.seconds, "samples": len(samples), "limit_bytes": limit,
            "reserved_bytes": {name: reserved for name, (reserved, _) in needs.items()}, "program_bytes": empty, "planned_anon_bytes": planned,
            "peak_reserved_bytes": soak.peak_reserved,
            "peak_rss_anon_bytes": soak.peak_anon, "rss_anon_warm_bytes": warm,
            "rss_anon_end_bytes": end if alive else None, "swaps": soak.swaps,
            "requests": dict(first), "faults": soak.faults, "fault_count": soak.counts["faults"],
        }
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for key, value in result.items():
            if key == "requests":
                for what, number in value.items():
                    print(f"{what:24} {number}")
            elif key.endswith("_bytes") and isinstance(value, int):
                print(f"{key[:-6].replace('_', ' '):24} {value / 2**20:.1f} MiB")
            elif key not in ("faults", "reserved_bytes"):
                print(f"{key.replace('_', ' '):24} {value}")
        for fault in soak.faults:
            print("FAULT", fault)
    return 1 if soak.faults else 0


if __name__ == "__main__":
    sys.exit(main())
