#!/usr/bin/env python3
"""The memory of a server while models come and go: text -> vision -> text, drawn against the ceiling.

Starts `pinhole serve --config FILE`, asks a text model, a vision model with a picture, and the text
model again, --rounds times. Every 10 ms the server's anonymous memory and mapped files (RssAnon and
RssFile) are read, and every 50 ms GET /running. Prints, for each request that loaded a model, how
much longer it took than the like of it (another first word, so that no prompt is found in the cache)
with the model loaded, beside the time that `pinhole plan` predicts for the first touch of weights and
memory. Time of the vision part, as the server tells it, is left out on both sides: it keeps pictures.
Exit code 1 when the reserved bytes, or RssAnon, passed the ceiling.

Example:
  bench/swap_trace.py --config pinhole.toml --text words --vision eyes --picture page.png -o swap.svg
"""

import argparse
import base64
import json
import subprocess
import sys
import threading
import time
import urllib.request


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pinhole", default="build/release/pinhole")
    parser.add_argument("--config", required=True)
    parser.add_argument("--text", required=True, help="name of a model for texts")
    parser.add_argument("--vision", required=True, help="name of a model for pictures")
    parser.add_argument("--picture", required=True)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("-o", "--svg", default="swap.svg")
    return parser.parse_args()


class Sampler(threading.Thread):
    """Memory of a process every 10 ms; which models are where every 50 ms."""

    def __init__(self, pid, url):
        super().__init__(daemon=True)
        self.pid, self.url = pid, url
        self.memory, self.running = [], []
        self.begin = time.monotonic()
        self.ends = threading.Event()

    def now(self):
        return time.monotonic() - self.begin

    def read_memory(self):
        fields = {}
        with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key in ("RssAnon", "RssFile"):
                    fields[key] = int(value.split()[0]) * 1024
        return fields["RssAnon"], fields["RssFile"]

    def run(self):
        next_running = 0
        while not self.ends.wait(0.01):
            try:
                self.memory.append((self.now(), *self.read_memory()))
            except (OSError, KeyError):
                return
            if self.now() >= next_running:
                next_running = self.now() + 0.05
                with urllib.request.urlopen(self.url + "/running", timeout=10) as reply:
                    self.running.append((self.now(), json.load(reply)))


def ask(url, model, content, tokens):
    body = {"model": model, "max_tokens": tokens, "messages": [{"role": "user", "content": content}]}
    request = urllib.request.Request(
        url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    begin = time.monotonic()
    with urllib.request.urlopen(request, timeout=3600) as reply:
        timings = json.load(reply).get("timings") or {}
    seconds = time.monotonic() - begin
    return seconds - (timings.get("encode_ms", 0) + timings.get("picture_ms", 0)) / 1000


def predicted_load(pinhole, path, context):
    """Seconds until the weights and the reserved memory have been touched, by the plan."""
    command = [pinhole, "plan", path, "--json", "--ctx", str(context)]
    for extra in ([], ["--image", "none"]):  # the latter: it has no vision part
        run = subprocess.run(command + extra, capture_output=True, text=True, check=False)
        if run.returncode == 0:
            break
    else:
        return None
    speed = json.loads(run.stdout).get("speed") or {}
    return speed.get("map_seconds", 0) + speed.get("touch_seconds", 0)


def source_of(config, name):
    """The path of a model in the settings; None for one with a command."""
    import tomllib

    with open(config, "rb") as file:
        return tomllib.load(file)["models"][name].get("model")


COLOURS = {"loading": "#f0b429", "ready": "#3f8f4f", "draining": "#b3b3b3", "unloading": "#8c6bb1"}


def draw(path, sampler, limit, marks):
    width, height, row, left, top = 1000, 300, 24, 90, 30
    names = [m["name"] for m in sampler.running[-1][1]["models"]]
    end = max(sampler.memory[-1][0], 0.001)
    most = 1.1 * max(limit, max(a + f for _, a, f in sampler.memory))
    x = lambda t: left + width * t / end
    y = lambda b: top + height * (1 - b / most)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12" '
        f'viewBox="0 0 {left + width + 20} {top + height + 60 + row * len(names)}">'
    ]
    step = max(1, len(sampler.memory) // 4000)
    for index, colour, label in ((1, "#2b6cb0", "RssAnon"), (2, "#9ecae1", "RssFile")):
        points = " ".join(f"{x(s[0]):.1f},{y(s[index]):.1f}" for s in sampler.memory[::step])
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out.append(f'<text x="{left + 10 + 90 * index}" y="18" fill="{colour}">{label}</text>')
    points = " ".join(f"{x(t):.1f},{y(r['reserved_bytes']):.1f}" for t, r in sampler.running)
    out.append(f'<polyline points="{points}" fill="none" stroke="#555" stroke-dasharray="4 3"/>')
    out.append(f'<text x="{left + 280}" y="18" fill="#555">reserved</text>')
    out.append(
        f'<line x1="{left}" x2="{left + width}" y1="{y(limit):.1f}" y2="{y(limit):.1f}" stroke="#c53030"/>'
        f'<text x="{left + 360}" y="18" fill="#c53030">ceiling {limit / 2**20:.0f} MiB</text>'
    )
    for fraction in (0, 0.25, 0.5, 0.75, 1):
        bytes_ = most * fraction
        out.append(f'<text x="{left - 6}" y="{y(bytes_) + 4:.1f}" text-anchor="end">{bytes_ / 2**20:.0f} MiB</text>')
        out.append(f'<text x="{x(end * fraction):.1f}" y="{top + height + 18}" text-anchor="middle">{end * fraction:.1f} s</text>')
    for t, label in marks:
        out.append(
            f'<line x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{top}" y2="{top + height}" stroke="#ddd"/>'
            f'<text x="{x(t) + 3:.1f}" y="{top + 12}" fill="#777">{label}</text>'
        )
    for i, name in enumerate(names):
        base = top + height + 34 + i * row
        out.append(f'<text x="{left - 6}" y="{base + 13}" text-anchor="end">{name}</text>')
        for (t, reply), (until, _) in zip(sampler.running, sampler.running[1:]):
            phase = next(m["phase"] for m in reply["models"] if m["name"] == name)
            if phase in COLOURS:
                out.append(
                    f'<rect x="{x(t):.1f}" y="{base}" width="{max(x(until) - x(t), 0.5):.2f}" height="16" fill="{COLOURS[phase]}"/>'
                )
    for i, (phase, colour) in enumerate(COLOURS.items()):
        out.append(
            f'<rect x="{left + 520 + 100 * i}" y="8" width="12" height="12" fill="{colour}"/>'
            f'<text x="{left + 536 + 100 * i}" y="18">{phase}</text>'
        )
    out.append("</svg>")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n")


def main():
    options = parse_arguments()
    with open(options.picture, "rb") as file:
        url = "data:image/png;base64," + base64.b64encode(file.read()).decode()
    contents = {
        options.text: lambda word: f"{word}: say something about pinholes.",
        options.vision: lambda word: [
            {"type": "text", "text": word},
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": "What is in this picture?"},
        ],
    }
    server = subprocess.Popen(
        [options.pinhole, "serve", "--config", options.config, "--port", "0"],
        stdout=subprocess.PIPE, text=True,
    )
    try:
        line = server.stdout.readline()
        if not line.startswith("listening on "):
            sys.exit("the server did not start")
        address = line.split()[-1]
        sampler = Sampler(server.pid, address)
        sampler.start()
        marks, rows = [], []
        for name in [options.text, options.vision, options.text] * options.rounds:
            marks.append((sampler.now(), name))
            first = ask(address, name, contents[name]("One"), options.tokens)
            again = ask(address, name, contents[name]("Two"), options.tokens)
            rows.append((name, first, again))
        sampler.ends.set()
        sampler.join()
    finally:
        server.terminate()
        server.wait()
    limit = sampler.running[-1][1]["limit_bytes"]
    draw(options.svg, sampler, limit, marks)
    print("model                first    loaded     added  predicted    beyond")
    for name, first, again in rows:
        path = source_of(options.config, name)
        predicted = predicted_load(options.pinhole, path, 4096) if path else None
        shown = "-" if predicted is None else f"{predicted:8.2f} s"
        beyond = "-" if predicted is None else f"{first - again - predicted:7.2f} s"
        print(f"{name:<16} {first:8.2f} s {again:7.2f} s {first - again:7.2f} s {shown:>10} {beyond:>9}")
    anonymous = max(s[1] for s in sampler.memory)
    reserved = max(r["reserved_bytes"] for _, r in sampler.running)
    print(
        f"ceiling {limit / 2**20:.0f} MiB, reserved at most {reserved / 2**20:.0f} MiB, RssAnon at most "
        f"{anonymous / 2**20:.0f} MiB in {len(sampler.memory)} samples; {options.svg}"
    )
    sys.exit(1 if max(anonymous, reserved) > limit else 0)


if __name__ == "__main__":
    main()
