#!/usr/bin/env python3
"""Sizes and characters of the sources.

Files of at most 600 lines, family files of at most 350, CONTRIBUTING.md of at most 150; generated
tables are exempt by name. C++ outside strings and comments is ASCII.
"""
import pathlib
import re
import sys

MAX_LINES = 600
MAX_FAMILY_LINES = 350
GENERATED = set()  # paths of generated tables that pass the limit
SUFFIXES = {".cc", ".h", ".inl", ".def", ".py", ".sh", ".html", ".css", ".js", ".mjs"}
TEXTS = {".py", ".sh", ".md", ".html", ".css", ".js", ".mjs"}  # may have any character
# Strings, characters and comments, in the order in which they can begin.
QUIET = re.compile(
    r'R"([^()\\\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|//[^\n]*|/\*.*?\*/', re.DOTALL
)


def limit_of(name):
    if name == "CONTRIBUTING.md":
        return 150
    if re.fullmatch(r"src/model/families/[^/]+\.cc", name):
        return MAX_FAMILY_LINES
    return MAX_LINES


def check(root):
    paths = [root / "CONTRIBUTING.md"]
    for folder in ("src", "tests", "fuzz", "bench", "tools"):
        paths += (p for p in (root / folder).rglob("*") if p.suffix in SUFFIXES)
    for path in sorted(paths):
        name = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > limit_of(name) and name not in GENERATED:
            yield f"{name}: {lines} lines, at most {limit_of(name)}"
        if path.suffix in TEXTS:
            continue
        code = QUIET.sub(lambda match: "\n" * match.group(0).count("\n"), text)
        for number, line in enumerate(code.split("\n"), 1):
            if not line.isascii():
                yield f"{name}:{number}: a character that is not ASCII outside strings and comments"


if __name__ == "__main__":
    problems = list(check(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)))
    print("\n".join(problems) or "sizes: all files within their limits")
    sys.exit(1 if problems else 0)
