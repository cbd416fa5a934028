"""serve --config with ps, load and stop: a real server, asked by the command line."""

import json
import os
import shutil
import signal
import subprocess
import time

from support import MODEL, PROGRAM, TIME_LIMIT_S, Case, environment, main


class Swap(Case):
    def start(self, settings):
        path = self.write("pinhole.toml", settings)
        self.server = subprocess.Popen(
            [PROGRAM, "serve", "--config", path, "--port", "0", "--ctx", "512"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        line = self.server.stdout.readline()
        if not line.startswith("listening on http://"):
            self.fail(line + self.stop())
        self.url = line.split()[-1]

    def stop(self):
        server, self.server = self.server, None
        if server is None:
            return ""
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=TIME_LIMIT_S)
        self.assertEqual(server.returncode, 0, errors)
        return errors

    def setUp(self):
        super().setUp()
        self.server = None

    def tearDown(self):
        if self.server is not None:
            self.server.kill()
            self.server.communicate()
        super().tearDown()

    def two_models(self):
        folder = os.path.join(self.folder, "other")
        os.mkdir(folder)
        other = shutil.copy(MODEL, folder)  # without its projector: it reads no pictures
        return (f'[models.eyes]\nmodel = "{MODEL}"\naliases = ["gpt-4o"]\n'
                f'[models.words]\nmodel = "{other}"\n')

    def phases(self):
        run = self.succeed("ps", "--url", self.url, "--json")
        return {m["name"]: m["phase"] for m in json.loads(run.out)["models"]}

    def wait_for(self, name, phase):
        end = time.monotonic() + TIME_LIMIT_S
        while self.phases()[name] != phase:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)

    def test_load_ps_stop(self):
        self.start(self.two_models())
        self.assertEqual(self.phases(), {"eyes": "absent", "words": "absent"})
        self.assertIn("gpt-4o", self.succeed("load", "gpt-4o", "--url", self.url).out)
        self.assertEqual(self.phases(), {"eyes": "ready", "words": "absent"})
        lines = self.succeed("ps", "--url", self.url).out.splitlines()
        eyes = next(line for line in lines if line.startswith("eyes"))
        self.assertEqual(eyes.split()[:2], ["eyes", "ready"])
        self.assertTrue(eyes.endswith("stays"), eyes)
        self.assertNotIn("failure", "".join(lines))
        self.succeed("stop", "eyes", "--url", self.url)
        self.wait_for("eyes", "absent")
        self.stop()

    def test_keep_alive(self):
        self.start(self.two_models())
        self.succeed("load", "words", "--keep-alive", "300ms", "--url", self.url)
        self.wait_for("words", "absent")

    def test_unknown_models_are_named(self):
        self.start(self.two_models())
        for command in ("load", "stop"):
            self.refused(command, "nobody", "--url", self.url, names=("nobody", "pinhole ps"))

    def test_nothing_listens(self):
        for command in (["ps"], ["load", "x"], ["stop", "x"]):
            self.refused(*command, "--url", "http://127.0.0.1:9",
                         names=("nothing listens", "pinhole serve"))

    def test_addresses(self):
        self.refused("ps", "--url", "ftp://127.0.0.1", names="http://")

    def test_settings_that_name_no_file(self):
        path = self.write("pinhole.toml", '[models.a]\nmodel = "nowhere.gguf"\n')
        self.refused("serve", "--config", path, "--port", "0",
                     names=("model 'a', line 1", "nowhere.gguf"))


if __name__ == "__main__":
    main()
