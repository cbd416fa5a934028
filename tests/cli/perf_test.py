#!/usr/bin/env python3
"""pinhole perf: its stages, its counts, and how it refuses and stops."""

import json
import os
import signal
import subprocess

from support import BAD_INPUT, BUNDLED, INTERRUPTED, PROGRAM, Case, environment, main

SMALL = ["--image", "128x96", "--prompt", "8,16", "--depth", "0,4", "-n", "2", "--rounds", "1"]


class Perf(Case):
    def test_stages(self):
        out = json.loads(self.succeed("perf", "--json", *SMALL).out)
        stages = out["stages"]
        self.assertEqual([s["name"] for s in stages],
                         ["picture 128x96", "prefill 8", "prefill 16", "decode after 0",
                          "decode after 4"])
        self.assertEqual([s["count"] for s in stages], [48, 8, 16, 2, 2])  # patches, tokens
        self.assertGreater(out["read_gb_per_s"]["all_threads"], 0)
        for stage in stages:
            self.assertGreater(stage["ms"], 0)
            self.assertGreater(stage["flops"], 0)
            self.assertAlmostEqual(sum(op["flops"] for op in stage["ops"]), stage["flops"],
                                   delta=1)
            self.assertEqual(stage["ops"], sorted(stage["ops"], key=lambda op: -op["ms"]))
        # Two decoded tokens read all of the text model's matrices twice.
        text = [name for name in os.listdir(BUNDLED)
                if name.endswith(".gguf") and "mmproj" not in name]
        size = os.path.getsize(os.path.join(BUNDLED, text[0]))
        self.assertLess(stages[3]["weight_bytes"], 2 * size)
        self.assertGreater(stages[3]["weight_bytes"], 0.9 * 2 * size)

    def test_table(self):
        out = self.succeed("perf", *SMALL).out
        self.assertIn("this machine", out)
        self.assertIn("decode after 4", out)
        self.assertNotIn("\x1b", out)

    def test_machine_alone(self):
        out = json.loads(self.succeed("perf", "--machine", "--json").out)
        self.assertEqual(out["stages"], [])
        self.assertIn("f32", [rate["name"] for rate in out["arithmetic_gop_per_s"]])

    def test_bad_size(self):
        for size in ("big", "64", "64x", "64x64x", "-64x64", "0x64", "64x99999999999999999999"):
            self.refused("perf", f"--image={size}", names="--image")
        self.refused("perf", "--image", "1x100000", names="ratio")

    def test_interrupt(self):
        process = subprocess.Popen([PROGRAM, "perf", "--rounds", "100", "--prompt", "4096", "--image",
                                    "64x64"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=environment())
        for line in process.stdout:
            if line.startswith(b"picture"):
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, INTERRUPTED)


if __name__ == "__main__":
    main()
