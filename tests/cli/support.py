"""What the tests of the command line share: the program, its limits, copies of models.

Every run has a time limit and a ceiling on its address space, so that a hang or an unbounded
allocation is a failure. A crash (a negative exit code) fails wherever it happens.
"""

import json
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GOLDEN = os.path.join(SOURCE, "..", "shared", "golden")
BUNDLED = os.path.join(SOURCE, "models", "pinhole-mini")
MODEL = os.path.join(BUNDLED, "pinhole-mini-f16.gguf")
PROGRAM = os.environ.get("PINHOLE_PROGRAM", "pinhole")

TIME_LIMIT_S = 120
ADDRESS_SPACE_BYTES = 4 << 30

OK, FAILED, BAD_INPUT, TOO_LARGE, INTERRUPTED = 0, 1, 2, 3, 130


def samples():
    with open(os.path.join(BUNDLED, "samples.jsonl"), encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def picture_of(sample):
    return os.path.join(BUNDLED, sample["image"])


def environment(**changes):
    """The environment of a run: what could change its outcome is set by the test alone."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith("PINHOLE_") and k not in ("NO_COLOR",)}
    env.update(changes)
    return env


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Run:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __repr__(self):
        return f"exit code {self.code}\n--- out\n{self.out[-2000:]}\n--- err\n{self.err[-2000:]}"


def pinhole(*args, stdin=b"", env=None):
    # Sanitizers reserve terabytes of addresses for their shadow memory.
    limit = None if os.environ.get("PINHOLE_SANITIZED") else limit_memory
    run = subprocess.run([PROGRAM, *map(str, args)], input=stdin, capture_output=True,
                         timeout=TIME_LIMIT_S, env=env or environment(), preexec_fn=limit)
    out = Run(run.returncode, run.stdout.decode("utf-8", "replace"),
              run.stderr.decode("utf-8", "replace"))
    # A sanitizer's report, whatever exit code it chose, and an exception that nobody caught.
    if re.search(r"Sanitizer|runtime error:|terminate called", out.err):
        raise AssertionError(f"{args}: {out}")
    return out


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self._folder = tempfile.TemporaryDirectory(prefix="pinhole-cli-")
        self.folder = self._folder.name

    def tearDown(self):
        self._folder.cleanup()

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as out:
            out.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)

    def succeed(self, *args, **options):
        run = pinhole(*args, **options)
        self.assertEqual(run.code, OK, run)
        return run

    def refused(self, *args, code=BAD_INPUT, names=(), **options):
        """The run ends with `code` and one message that has all of `names` in it."""
        run = pinhole(*args, **options)
        self.assertEqual(run.code, code, run)
        self.assertEqual(run.out, "", run)
        for name in [names] if isinstance(names, str) else names:
            self.assertIn(str(name), run.err, run)
        return run

    def need_golden(self):
        if not os.path.isfile(os.path.join(GOLDEN, "README.md")):
            self.skipTest(f"there is no golden collection at {GOLDEN}")

    def copy_model(self, name, folder="model"):
        """A copy of a golden model's own files that may be changed."""
        self.need_golden()
        target = self.path(folder)
        os.makedirs(target)
        for entry in os.scandir(os.path.join(GOLDEN, name)):
            if entry.is_file():
                shutil.copyfile(entry.path, os.path.join(target, entry.name))
        return target


def read(path):
    with open(path, "rb") as file:
        return file.read()


def edit_safetensors(path, change):
    """Applies `change` to the header of a safetensors file; its data stays."""
    data = read(path)
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + data[8 + length:])


def main():
    """--list prints the names of all tests, one a line; names given are run, else all."""
    module = sys.modules["__main__"]
    if "--list" in sys.argv:
        for suite in unittest.defaultTestLoader.loadTestsFromModule(module):
            for test in suite:
                print(re.sub(r"^__main__\.", "", test.id()))
        return
    # A test that ctest runs alone and that is skipped is told apart from one that passed.
    program = unittest.main(module=module, exit=False, verbosity=2)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if result.skipped and result.testsRun == len(result.skipped) else 0)
