#!/usr/bin/env python3
"""Runs a conformance test with the published clients: run.py NAME BUILD_FOLDER.

The clients come from npm into BUILD_FOLDER/conformance. Exit code 77, with the reason: node, npm or
the network is not there."""
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def install(folder):
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "node_modules/openai").is_dir() and (folder / "node_modules/ollama").is_dir():
        return
    if shutil.which("npm") is None:
        skip("npm is not here, the clients cannot be installed")
    (folder / "package.json").write_text('{"private": true, "type": "module"}\n', encoding="utf-8")
    try:
        run = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "openai", "ollama"],
                             cwd=folder, capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        skip("npm install did not end within 180 s")
    if run.returncode != 0:
        skip("npm install failed: " + (run.stderr.strip().splitlines() or ["no message"])[-1])


def main():
    name, build = sys.argv[1], pathlib.Path(sys.argv[2])
    if shutil.which("node") is None:
        skip("node is not here")
    if name == "curl" and shutil.which("curl") is None:
        skip("curl is not here")
    folder = build / "conformance"
    if name != "curl":
        install(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for script in HERE.glob("*.mjs"):  # beside node_modules, where imports are looked for
        target = folder / script.name
        if not target.exists() or target.read_bytes() != script.read_bytes():
            target.write_bytes(script.read_bytes())
    os.environ["PINHOLE_SOURCE"] = str(HERE.parent.parent)
    sys.exit(subprocess.run(["node", str(folder / f"{name}.mjs")], check=False).returncode)


if __name__ == "__main__":
    main()
