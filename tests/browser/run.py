#!/usr/bin/env python3
"""Runs the test of the page in a real Chromium: run.py BUILD_FOLDER.

playwright-core comes from npm into BUILD_FOLDER/browser; Chromium is the system's. Exit code 77, with the
reason: node, npm, Chromium or the network is not there. PINHOLE_SCREENSHOTS=FOLDER keeps pictures."""
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
SCRIPTS = [HERE / "page.mjs", HERE / "support.mjs", HERE.parent / "conformance/support.mjs"]


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def install(folder):
    if (folder / "node_modules/playwright-core").is_dir():
        return
    if shutil.which("npm") is None:
        skip("npm is not here, playwright-core cannot be installed")
    (folder / "package.json").write_text('{"private": true, "type": "module"}\n', encoding="utf-8")
    try:
        run = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "playwright-core"],
                             cwd=folder, capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        skip("npm install did not end within 180 s")
    if run.returncode != 0:
        skip("npm install failed: " + (run.stderr.strip().splitlines() or ["no message"])[-1])


def main():
    folder = pathlib.Path(sys.argv[1]) / "browser"
    if shutil.which("node") is None:
        skip("node is not here")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        skip("chromium is not here (tools/setup.sh --with browser installs it)")
    folder.mkdir(parents=True, exist_ok=True)
    install(folder)
    for script in SCRIPTS:  # beside node_modules, where imports are looked for
        name = "server.mjs" if script.parent != HERE else script.name
        target = folder / name
        if not target.exists() or target.read_bytes() != script.read_bytes():
            target.write_bytes(script.read_bytes())
    os.environ["PINHOLE_SOURCE"] = str(HERE.parent.parent)
    os.environ["PINHOLE_CHROMIUM"] = chromium
    sys.exit(subprocess.run(["node", str(folder / "page.mjs")], check=False).returncode)


if __name__ == "__main__":
    main()
