#!/usr/bin/env python3
"""Every path that a page of the documentation names in `backticks` exists."""
import pathlib
import re
import sys

PATH = re.compile(r"`((?:src|tests|fuzz|bench|tools|docs|cmake|models|\.ci)/[\w./-]+)`")


def check(root):
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md"), *(root / "models").rglob("*.md")]
    for page in sorted(pages):
        for number, line in enumerate(page.read_text(encoding="utf-8").split("\n"), 1):
            for path in PATH.findall(line):
                if not (root / path).exists():
                    yield f"{page.relative_to(root)}:{number}: `{path}` does not exist"


if __name__ == "__main__":
    problems = list(check(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)))
    print("\n".join(problems) or "docs: all paths exist")
    sys.exit(1 if problems else 0)
