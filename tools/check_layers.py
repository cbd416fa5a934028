#!/usr/bin/env python3
"""Includes point left: each layer includes only from the layers that ALLOWED names.

Kernel translation units (kernels/isa_*.cc) are held to more: followed through all their includes they
may reach only intrinsics, C headers, quant block headers and kernels/ itself, because a std template
instantiated in one could be the copy that the linker keeps for every CPU.
"""
import pathlib
import re
import sys

ALLOWED = {
    "base": [],
    "quant": ["base"],
    "kernels": ["base", "quant"],
    "file": ["base", "quant"],
    "text": ["base"],
    "image": ["base"],
    "model": ["base", "quant", "file"],
    "plan": ["base", "quant", "file", "model", "kernels"],
    "engine": ["base", "quant", "file", "model", "kernels", "plan"],
    "answer": ["base", "quant", "file", "model", "kernels", "plan", "engine", "text", "image"],
    "swap": ["base", "quant", "file", "model", "plan", "engine", "answer"],
    "serve": ["base", "quant", "file", "model", "plan", "engine", "text", "image", "answer", "swap"],
    "quantize": ["base", "quant", "file"],
    "bench": ["base", "image", "plan", "engine", "answer"],
    "browse": ["base", "image", "answer"],
    "cli": None,  # everything
}
KERNEL_SYSTEM_HEADERS = re.compile(
    r"immintrin\.h|x86intrin\.h|arm_neon\.h|cpuid\.h|std(int|def|bool)\.h|(string|math|float|limits)\.h"
)
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
SUFFIXES = {".cc", ".h", ".inl", ".def"}


BLOCKS = "quant/blocks.h"  # generated: the header of every row of quant/formats.def


def includes(src, path):
    text = path.read_text(encoding="utf-8")
    for match in INCLUDE.finditer(text):
        local, system = match.groups()
        if local == BLOCKS:
            rows = (src / "quant/formats.def").read_text(encoding="utf-8")
            yield from ((header, None) for header in re.findall(r'"(quant/\w+\.h)"\)', rows))
        elif local is None or f'__has_include("{local}")' not in text or (src / local).exists():
            yield local, system


def check_layers(src):
    for path in sorted(p for p in src.rglob("*") if p.suffix in SUFFIXES):
        layer = path.relative_to(src).parts[0]
        if layer not in ALLOWED:
            yield f"{path}: layer '{layer}' is not in tools/check_layers.py"
            continue
        allowed = ALLOWED[layer]
        for local, _ in includes(src, path):
            if local is None:
                continue
            target = local.split("/")[0]
            if not (src / local).exists():
                yield f'{path}: "{local}" is no file under src/ (paths begin there)'
            elif allowed is not None and not {target, local} & {layer, *allowed}:
                yield f"{path}: {layer} may not include {target} ({local})"


def check_kernels(src):
    for unit in sorted((src / "kernels").glob("isa_*.cc")):
        seen, queue = set(), [unit]
        while queue:
            path = queue.pop()
            if path in seen:
                continue
            seen.add(path)
            for local, system in includes(src, path):
                if system is not None and not KERNEL_SYSTEM_HEADERS.fullmatch(system):
                    yield f"{path}: <{system}> reaches the kernel unit {unit.name}"
                if local is None or not (src / local).exists():
                    continue
                if local.split("/")[0] not in ("kernels", "quant"):
                    yield f"{path}: {local} reaches the kernel unit {unit.name}"
                queue.append(src / local)


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    problems = [*check_layers(root / "src"), *check_kernels(root / "src")]
    print("\n".join(problems) or "layers: all includes point left")
    sys.exit(1 if problems else 0)
