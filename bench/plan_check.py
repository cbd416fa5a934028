#!/usr/bin/env python3
"""What `pinhole plan` predicts beside what `pinhole ask` then measures, for models x contexts x pictures.

Each run asks for a description of one picture with a context of --ctx tokens, of which the answer takes
--tokens. Columns: anonymous memory planned and at its peak (RssAnon) with the difference in percent;
the whole of it (planned: the peak of a first question that fills the context; measured: VmHWM); time to the first token and tokens
a second, predicted and measured. The last lines are the largest differences.

What is reserved need not be touched: a context that is not filled leaves its part of the cache
untouched. --fill goes on generating until the context is full, for memory to be compared exactly.

Example:
  bench/plan_check.py -m 2b-Q4_K_M.gguf --mmproj 2b-mmproj-Q8_0.gguf --ctx 1024 4096 \\
    --image page.png photo.jpg
"""

import argparse
import json
import statistics
import subprocess
import sys

from struct import unpack


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pinhole", default="build/release/pinhole")
    parser.add_argument("-m", "--model", nargs="+", default=[None], help="default: the bundled one")
    parser.add_argument("--mmproj", help="of all models (default: found beside each)")
    parser.add_argument("--ctx", type=int, nargs="+", default=[1024])
    parser.add_argument("--image", nargs="+", required=True, help="PNG files")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--fill", action="store_true", help="generate until the context is full")
    parser.add_argument("--rounds", type=int, default=1, help="plans and runs in turn; the medians count")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def run_json(command):
    run = subprocess.run(command, capture_output=True, text=True)
    if not run.stdout:
        sys.exit(f"plan_check.py: {' '.join(command)}: {run.stderr.strip()}")
    return json.loads(run.stdout)


def size_of(picture):
    with open(picture, "rb") as file:
        head = file.read(24)
    if head[:8] != b"\x89PNG\r\n\x1a\n":
        sys.exit(f"plan_check.py: {picture} is not a PNG")
    return unpack(">II", head[16:24])


def ask(arguments, model, ctx, picture, tokens):
    command = [arguments.pinhole, "ask", "--json", "--ignore-eos", "--ctx", str(ctx), "-i", picture]
    command += ["-m", model] if model else []
    command += ["--mmproj", arguments.mmproj] if arguments.mmproj else []
    return run_json(command + ["-n", str(tokens), "Describe this picture."])


def text_tokens(arguments, model):
    """Tokens of the prompt beside a picture's. Also brings the model into the page cache."""
    tokens = ask(arguments, model, max(arguments.ctx), arguments.image[0], 1)["tokens"]
    return tokens["prompt"] - tokens["picture"]


def compare(arguments, model, ctx, picture, prompt):
    width, height = size_of(picture)
    plan = [arguments.pinhole, "plan", "--json", "--ctx", str(ctx), "--image", picture]
    plan += [model] if model else []
    plan += ["--mmproj", arguments.mmproj] if arguments.mmproj else []
    wanted = ctx if arguments.fill else arguments.tokens
    plans, runs = [], []
    for _ in range(arguments.rounds):
        plans.append(run_json(plan + ["--prompt", str(prompt)]))
        runs.append(ask(arguments, model, ctx, picture, wanted))
    tokens = runs[0]["tokens"]
    planned = lambda get: statistics.median(get(one) for one in plans)
    measured = lambda get: statistics.median(get(run) for run in runs)
    # A token of the answer is decoded at a depth between the prompt's and the last one's.
    share = tokens["generated"] / 2 / max(ctx - tokens["prompt"], 1)

    def rate(plan):
        first = plan["speed"]["tokens_per_second"]
        deepest = plan["speed"]["tokens_per_second_full_context"]
        return 1 / ((1 - share) / first + share / deepest)

    rows = {
        "anonymous": (
            planned(lambda plan: plan["memory_bytes"]["anonymous"]),
            measured(lambda run: run["memory_bytes"]["anon_peak"]),
        ),
        "resident": (
            planned(lambda plan: plan["memory_bytes"]["first_question"]),
            measured(lambda run: run["memory_bytes"]["resident_peak"]),
        ),
        "first token": (
            planned(lambda plan: plan["speed"]["first_token_seconds"]),
            measured(lambda run: run["timings_ms"]["first_token"]) / 1000,
        ),
        "tokens/s": (planned(rate), measured(lambda run: run["tokens_per_second"])),
    }
    return {
        "model": plans[0]["name"],
        "context": ctx,
        "picture": f"{width}x{height}",
        "rows": {
            name: {"planned": a, "measured": b, "difference": b / a - 1} for name, (a, b) in rows.items()
        },
    }


def shown(name, value):
    if name in ("anonymous", "resident"):
        return f"{value / 2**20:.1f}"
    return f"{value:.2f}"


def main():
    arguments = parse_arguments()
    results = []
    if not arguments.json:
        print(
            f"{'model':<22} {'ctx':>6} {'picture':>10}  "
            f"{'anonymous MiB':^24} {'resident MiB':^24} {'first token s':^22} {'tokens/s':^22}"
        )
    for model in arguments.model:
        prompt = text_tokens(arguments, model)
        for ctx in arguments.ctx:
            for picture in arguments.image:
                result = compare(arguments, model, ctx, picture, prompt)
                results.append(result)
                if arguments.json:
                    continue
                line = f"{result['model'][:22]:<22} {ctx:>6} {result['picture']:>10}  "
                for name, row in result["rows"].items():
                    line += (
                        f"{shown(name, row['planned']):>8} {shown(name, row['measured']):>8}"
                        f" {row['difference'] * 100:>+5.1f}%  "
                    )
                print(line.rstrip(), flush=True)
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for name in results[0]["rows"]:
        worst = max((r["rows"][name]["difference"] for r in results), key=abs)
        print(f"largest difference, {name}: {worst * 100:+.1f}%")


if __name__ == "__main__":
    main()
