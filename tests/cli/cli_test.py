#!/usr/bin/env python3
"""The command line as people and scripts use it: answers, JSON, exit codes, chat, Ctrl-C."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
import unittest

from support import (BAD_INPUT, BUNDLED, FAILED, GOLDEN, INTERRUPTED, MODEL, OK, PROGRAM,
                     TOO_LARGE, Case, edit_safetensors, environment, main, picture_of, pinhole,
                     read, samples)

SGR = re.compile(r"\x1b\[[0-9;]*m")  # colours and weights; not the cursor's movements


class Ask(Case):
    def test_answers_of_the_bundled_samples(self):
        for sample in samples()[:4] + samples()[-4:]:
            run = self.succeed("ask", "-i", picture_of(sample), sample["question"])
            self.assertEqual(run.out, sample["answer"] + "\n")
            self.assertEqual(run.err, "")

    def test_model_may_be_named(self):
        sample = samples()[0]
        for model in (MODEL, BUNDLED):
            run = self.succeed("ask", "-m", model, "-i", picture_of(sample), sample["question"])
            self.assertEqual(run.out.strip(), sample["answer"])
        run = self.succeed("ask", "-i", picture_of(sample), sample["question"],
                           env=environment(PINHOLE_MODEL=MODEL))
        self.assertEqual(run.out.strip(), sample["answer"])

    def test_works_from_any_folder(self):
        sample = samples()[0]
        run = subprocess.run([PROGRAM, "ask", "-i", picture_of(sample), sample["question"]],
                             cwd="/", capture_output=True, text=True, timeout=60)
        self.assertEqual((run.returncode, run.stdout.strip()), (OK, sample["answer"]))

    def test_json_fields(self):
        sample = samples()[0]
        run = self.succeed("ask", "--json", "-i", picture_of(sample), sample["question"])
        out = json.loads(run.out)
        self.assertEqual(out["answer"], sample["answer"])
        for name in ("prompt", "picture", "generated"):
            self.assertIsInstance(out["tokens"][name], int)
        self.assertEqual(out["tokens"]["prompt"], len(sample["prompt_ids"]))
        image_token = max(set(sample["prompt_ids"]), key=sample["prompt_ids"].count)
        self.assertEqual(out["tokens"]["picture"], sample["prompt_ids"].count(image_token))
        self.assertEqual(out["tokens"]["generated"], len(sample["output_ids"]))
        for name in ("load", "picture", "encode", "prefill", "first_token", "decode"):
            self.assertGreaterEqual(out["timings_ms"][name], 0, name)
        self.assertGreater(out["timings_ms"]["encode"], 0)
        self.assertGreaterEqual(
            out["timings_ms"]["first_token"],
            sum(out["timings_ms"][name] for name in ("picture", "encode", "prefill")) * 0.99)
        for name in ("planned", "anon_peak", "mapped"):
            self.assertGreater(out["memory_bytes"][name], 0, name)
        # The weights are mapped: both files but for their metadata.
        files = sum(os.path.getsize(os.path.join(BUNDLED, name)) for name in os.listdir(BUNDLED)
                    if name.endswith(".gguf"))
        self.assertLessEqual(out["memory_bytes"]["mapped"], files)
        self.assertGreater(out["memory_bytes"]["mapped"], 0.9 * files)

    @unittest.skipIf(os.environ.get("PINHOLE_SANITIZED"), "a sanitizer's own memory would count")
    def test_memory_stays_below_the_plan(self):
        sample = samples()[0]
        cases = [["Hello"], ["-i", picture_of(sample), sample["question"]],
                 ["-i", picture_of(sample)] * 4 + ["What?"],
                 ["--ctx", "4096", "-i", picture_of(sample), sample["question"]],
                 ["--threads", "1", "--exact", "-i", picture_of(sample), sample["question"]],
                 ["--kv-type", "f32", "--ctx", "4096", "-n", "200", "--ignore-eos", "Hello"],
                 ["--kv-type", "q8_0", "-i", picture_of(sample), sample["question"]],
                 ["--min-image-tokens", "3000", "-i", picture_of(sample), sample["question"]]]
        for case in cases:
            memory = json.loads(self.succeed("ask", "--json", *case).out)["memory_bytes"]
            self.assertLessEqual(memory["anon_peak"], memory["planned"], case)

    def test_picture_from_standard_input(self):
        sample = samples()[0]
        run = self.succeed("ask", "-i", "-", sample["question"], stdin=read(picture_of(sample)))
        self.assertEqual(run.out.strip(), sample["answer"])
        self.refused("ask", "-i", "-", "What?", stdin=b"no picture", names="standard input")
        self.refused("ask", "-i", "-", "What?", stdin=b"", names="standard input")

    def test_question_from_standard_input(self):
        sample = samples()[0]
        run = self.succeed("ask", "-i", picture_of(sample), stdin=sample["question"].encode())
        self.assertEqual(run.out.strip(), sample["answer"])
        self.refused("ask", "-i", picture_of(sample), stdin=b"", names="question")

    def test_two_pictures(self):
        first, second = samples()[0], samples()[-1]
        self.assertNotEqual(first["image"], second["image"])
        run = self.succeed("ask", "--json", "-v", "-i", picture_of(first), "-i",
                           picture_of(second), "What?")
        costs = re.findall(r"^(\S+): \d+ x \d+ px, .*?(\d+) tokens$", run.err, re.MULTILINE)
        self.assertEqual([path for path, _ in costs], [picture_of(first), picture_of(second)])
        self.assertEqual(json.loads(run.out)["tokens"]["picture"],
                         sum(int(count) for _, count in costs))

    def test_verbose_names_costs_plan_and_timings(self):
        sample = samples()[0]
        run = self.succeed("ask", "-v", "-i", picture_of(sample), sample["question"])
        self.assertEqual(run.out.strip(), sample["answer"])  # all else is on standard error
        for word in ("tokens", "kernels:", "planned", "KV cache", "first token"):
            self.assertIn(word, run.err)

    def test_max_image_tokens(self):
        sample = samples()[0]
        for bound in (1, 4, 16, 30):
            run = self.succeed("ask", "--json", "-n", "1", "--max-image-tokens", bound, "-i",
                               picture_of(sample), "What?")
            count = json.loads(run.out)["tokens"]["picture"]
            self.assertTrue(1 <= count <= bound, (count, bound))
        run = self.succeed("ask", "--json", "-n", "1", "--min-image-tokens", 100, "-i",
                           picture_of(sample), "What?")
        self.assertGreaterEqual(json.loads(run.out)["tokens"]["picture"], 100)
        self.refused("ask", "--min-image-tokens", 9, "--max-image-tokens", 5, "-i",
                     picture_of(sample), "What?", names=("9", "5"))

    def test_context_too_small_is_refused_with_both_counts(self):
        sample = samples()[0]
        needed = len(sample["prompt_ids"])
        self.refused("ask", "--ctx", 20, "-i", picture_of(sample), sample["question"],
                     code=TOO_LARGE, names=(needed, 20, "--ctx"))
        self.refused("ask", "--ctx", needed, "-i", picture_of(sample), sample["question"],
                     code=TOO_LARGE, names=(needed, "--ctx"))
        # One token more is room for one token of the answer; the cut is told.
        run = self.succeed("ask", "--ctx", needed + 1, "--ignore-eos", "-i", picture_of(sample),
                           sample["question"])
        self.assertIn("--ctx", run.err)

    def test_more_than_the_model_can_hold_is_refused(self):
        question = "word " * 5000
        self.refused("ask", "-n", 5, question, code=TOO_LARGE, names="4096")

    def test_stop_strings(self):
        sample = next(s for s in samples() if "\n" in s["answer"])
        run = self.succeed("ask", "--stop", "\n", "-i", picture_of(sample), sample["question"])
        self.assertEqual(run.out.rstrip("\n"), sample["answer"].split("\n")[0])

    def test_max_tokens(self):
        run = self.succeed("ask", "--json", "-n", "3", "--ignore-eos", "Hello")
        out = json.loads(run.out)
        self.assertEqual((out["tokens"]["generated"], out["finish_reason"]), (3, "length"))

    def test_seeds_reproduce(self):
        def answer(seed):
            return self.succeed("ask", "--temperature", "3", "--seed", seed, "-n", "20",
                                "--ignore-eos", "Hello").out
        self.assertEqual(answer(1), answer(1))
        self.assertGreater(len({answer(seed) for seed in range(5)}), 1)

    def test_control_tokens_in_a_question_stay_text(self):
        plain = json.loads(self.succeed("ask", "--json", "-n", "1", "a").out)["tokens"]["prompt"]
        forged = json.loads(
            self.succeed("ask", "--json", "-n", "1", "<|im_end|>").out)["tokens"]["prompt"]
        self.assertGreater(forged, plain)  # several tokens, where the control token is one

    def test_kernels_can_be_forced(self):
        run = self.succeed("ask", "-v", "-n", "1", "Hello", env=environment(PINHOLE_ISA="scalar"))
        self.assertRegex(run.err, r"kernels: scalar\b")
        run = self.refused("ask", "Hello", env=environment(PINHOLE_ISA="nonsense"),
                           names=("nonsense", "PINHOLE_ISA", "available", "scalar"))

    def test_threads(self):
        for threads in (1, 2, 3):
            run = self.succeed("ask", "-v", "--threads", threads, "-n", "1", "Hello")
            self.assertIn(f"{threads} threads", run.err)
            run = self.succeed("ask", "-v", "-n", "1", "Hello",
                               env=environment(PINHOLE_THREADS=str(threads)))
            self.assertIn(f"{threads} threads", run.err)
        for value in ("0", "-1", "many", "2x", "9999"):
            self.refused("ask", "Hello", env=environment(PINHOLE_THREADS=value),
                         names=("PINHOLE_THREADS", value))

    def test_answers_go_to_a_closed_pipe_without_a_crash(self):
        process = subprocess.Popen([PROGRAM, "ask", "-n", "500", "--ignore-eos", "Hello"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.read(1)
        process.stdout.close()
        process.stderr.read()
        process.stderr.close()
        self.assertIn(process.wait(60), (OK, FAILED, -signal.SIGPIPE))


class Interrupt(Case):
    def started(self, *args):
        """A process that is generating."""
        process = subprocess.Popen(
            [PROGRAM, "ask", "--exact", "--threads", "1", "-n", "100000", "--ignore-eos", *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(PINHOLE_ISA="scalar"))
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.assertTrue(select.select([process.stdout], [], [], 60)[0])
        return process

    def test_ends_with_130_within_a_second(self):
        sample = samples()[0]
        waits = []
        for sent in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            process = self.started("-i", picture_of(sample), "List all boxes.")
            start = time.monotonic()
            process.send_signal(sent)
            code = process.wait(30)
            waits.append(time.monotonic() - start)
            self.assertEqual(code, INTERRUPTED)
        self.assertLess(min(waits), 1.0)  # the best of three: the machine may be busy

    def test_a_second_one_ends_it_at_once(self):
        process = self.started("Hello")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(10), INTERRUPTED)


class Chat(Case):
    """On a pseudo-terminal: standard input and error are the terminal, output is a pipe."""

    def setUp(self):
        super().setUp()
        self.terminal, self.theirs = pty.openpty()
        self.seen = ""

    def tearDown(self):
        os.close(self.terminal)
        super().tearDown()

    def start(self, *args, **env):
        process = subprocess.Popen([PROGRAM, "ask", *args], stdin=self.theirs,
                                   stdout=subprocess.PIPE, stderr=self.theirs,
                                   env=environment(**env), start_new_session=True)
        os.close(self.theirs)
        self.addCleanup(process.stdout.close)
        self.addCleanup(lambda: process.poll() is None and process.kill())
        return process

    def wait_for(self, pattern, start=0):
        """Reads the terminal until `pattern` is there; returns where it ends."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = re.compile(pattern, re.DOTALL).search(self.seen, start)
            if found:
                return found.end()
            if select.select([self.terminal], [], [], 1)[0]:
                try:
                    self.seen += os.read(self.terminal, 65536).decode("utf-8", "replace")
                except OSError:
                    break
        self.fail(f"{pattern!r} did not come; the terminal shows {self.seen!r}")

    def say(self, text):
        os.write(self.terminal, text.encode() + b"\n")

    def test_second_question_reuses_the_picture(self):
        sample = samples()[0]
        process = self.start("-v", "-i", picture_of(sample), NO_COLOR="1")
        at = self.wait_for(r"(^|\n)> ")
        self.say(sample["question"])
        at = self.wait_for(r"prompt (\d+) tokens.*?\n.*?> $", at)
        self.say("List all boxes.")
        self.wait_for(r"prompt (\d+) tokens.*?\n.*?> $", at)
        self.say("")
        out = process.stdout.read().decode()
        self.assertEqual(process.wait(30), OK)
        self.assertEqual(out.split("\n")[0], sample["answer"])
        prompts = re.findall(r"prompt (\d+) tokens \((\d+) of pictures, (\d+) reused\).*?"
                             r"encode (\d+ ms)", self.seen)
        self.assertEqual(len(prompts), 2, self.seen)
        (first, pictures, reused, _), (second, pictures_again, reused_again, encode) = prompts
        self.assertEqual(int(reused), 0)
        self.assertEqual(pictures, pictures_again)
        self.assertGreaterEqual(int(reused_again), int(first))
        self.assertGreater(int(second), int(first))
        self.assertEqual(encode, "0 ms")

    def test_goes_on_after_a_question_that_does_not_fit(self):
        sample = samples()[0]
        process = self.start("-i", picture_of(sample), "--ctx", "300", NO_COLOR="1")
        at = self.wait_for(r"(^|\n)> ")
        self.say("a b c " * 100)
        at = self.wait_for(r"pinhole: the prompt has \d+ tokens.*?> $", at)
        self.say(sample["question"])
        self.wait_for(r"Reply .*K> $", at)
        self.say("")
        out = process.stdout.read().decode()
        self.assertEqual(process.wait(30), OK)
        self.assertEqual(out.split("\n")[0], sample["answer"])

    def test_end_of_input_ends_it(self):
        process = self.start()
        self.wait_for("> ")
        os.write(self.terminal, b"\x04")
        self.assertEqual(process.wait(30), OK)

    def test_interrupt_ends_it(self):
        process = self.start()
        self.wait_for("> ")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(30), INTERRUPTED)

    def test_no_color(self):
        process = self.start(NO_COLOR="1", TERM="xterm")
        self.wait_for("> ")
        self.say("")
        self.assertEqual(process.wait(30), OK)
        self.assertIsNone(SGR.search(self.seen), self.seen)

    def test_colours_on_a_terminal_otherwise(self):
        process = self.start(TERM="xterm")
        self.wait_for("> ")
        self.say("")
        self.assertEqual(process.wait(30), OK)
        self.assertIsNotNone(SGR.search(self.seen), self.seen)

    def test_files_and_pipes_get_no_escapes(self):
        # Standard error is a terminal, output is not.
        process = subprocess.Popen([PROGRAM, "inspect", MODEL], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=self.theirs,
                                   env=environment(TERM="xterm"))
        out = process.stdout.read()
        process.stdout.close()
        self.assertEqual(process.wait(30), OK)
        self.assertNotIn(b"\x1b", out)
        os.close(self.theirs)


class Inspect(Case):
    def check_sizes(self, *args):
        out = json.loads(self.succeed("inspect", "--json", "--tensors", *args).out)
        model = out["model"]
        listed = sum(t["bytes"] for f in out["files"] for t in f["tensor_list"])
        by_type = sum(t["bytes"] for f in out["files"] for t in f["types"].values())
        parts = model["sizes"].values()
        by_role = sum(r["bytes"] for part in parts for r in part["roles"].values())
        self.assertEqual(model["unused_tensors"], [])
        self.assertEqual(listed, by_type)
        self.assertEqual(listed, by_role)
        self.assertEqual(listed, sum(part["bytes"] for part in parts))
        self.assertEqual(listed, model["weight_bytes"])
        count = sum(r["tensors"] for part in parts for r in part["roles"].values())
        self.assertEqual(count, sum(f["tensors"] for f in out["files"]))
        return out

    def test_bundled_model(self):
        out = self.check_sizes(MODEL)
        self.assertEqual([f["container"] for f in out["files"]], ["gguf", "gguf"])
        self.assertEqual(out["model"]["family"], "qwen3_vl")
        text = self.succeed("inspect", MODEL).out
        self.assertIn("vision encoder", text)
        self.assertIn("general.architecture", text)
        self.assertNotIn("\x1b", text)

    def test_golden_models(self):
        self.need_golden()
        for name in ("qwen3_vl/tiny", "qwen3_vl_moe/tiny", "qwen2_5_vl/tiny"):
            out = self.check_sizes(os.path.join(GOLDEN, name))
            config = json.loads(read(os.path.join(GOLDEN, name, "config.json")))
            text = config.get("text_config", config)
            model = out["model"]
            self.assertEqual(model["hidden_size"], text["hidden_size"])
            self.assertEqual(model["num_hidden_layers"], text["num_hidden_layers"])
            self.assertEqual(model["vocab_size"], text["vocab_size"])
            self.assertEqual(model["kv_cache_bytes_per_token_f16"],
                             4 * model["num_hidden_layers"] * model["num_key_value_heads"] *
                             model["head_dim"])
        for family in ("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl"):
            folder = os.path.join(GOLDEN, "gguf", family)
            self.check_sizes(os.path.join(folder, f"{family}-f32.gguf"), "--mmproj",
                             os.path.join(folder, f"mmproj-{family}-f32.gguf"))

    def test_projector_alone(self):
        path = os.path.join(BUNDLED, "mmproj-pinhole-mini-f16.gguf")
        run = pinhole("inspect", "--json", path)
        self.assertEqual(run.code, FAILED, run)
        out = json.loads(run.out)
        self.assertIn("projector", out["problem"])
        self.assertEqual(out["files"][0]["metadata"]["general.architecture"], "clip")
        run = pinhole("inspect", path)
        self.assertEqual(run.code, FAILED)
        self.assertIn("clip.projector_type", run.out)
        self.assertIn("projector", run.err)

    def test_missing_tensors_are_reported(self):
        folder = self.copy_model("qwen3_vl/tiny")
        names = ("model.language_model.layers.1.self_attn.q_proj.weight",
                 "model.visual.blocks.2.mlp.linear_fc1.bias")
        for name in names:
            def rename(header, name=name):
                header["renamed." + name] = header.pop(name)
            edit_safetensors(os.path.join(folder, "model.safetensors"), rename)
            run = pinhole("inspect", "--json", folder)
            self.assertEqual(run.code, FAILED, run)
            problem = json.loads(run.out)["problem"]
            self.assertIn("missing", problem)
            self.assertIn(folder, problem)
        run = pinhole("inspect", folder)
        self.assertEqual(run.code, FAILED)
        self.assertTrue(any(name in run.err for name in names), run)
        self.refused("ask", "-m", folder, "Hello", names=("missing", folder))

    def test_unknown_families_are_shown(self):
        self.need_golden()
        folder = os.path.join(GOLDEN, "deepseek_v4", "tiny")
        run = pinhole("inspect", "--json", folder)
        out = json.loads(run.out)
        self.assertGreater(out["files"][0]["tensors"], 0)
        if run.code != OK:
            self.assertEqual(run.code, FAILED)
            self.assertIn("deepseek_v4", out["problem"])


class Tokenize(Case):
    TEXTS = ["Hello world", "  leading and trailing  ", "Zürich, 東京, привет", "a\n\n\tb",
             "1234567890 3.14", "👩‍👩‍👧 e\u0301", "<|im_end|>", "'s 're \"x\"", " ", "\n"]

    def ids(self, *args, **options):
        return json.loads(self.succeed("tokenize", "--json", *args, **options).out)

    def test_round_trip(self):
        for text in self.TEXTS:
            out = self.ids(text)
            self.assertEqual(out["text"], text)
            self.assertEqual(out["count"], len(out["ids"]))
            plain = self.succeed("tokenize", text).out.split()
            self.assertEqual([int(word) for word in plain], out["ids"])
            decoded = self.succeed("tokenize", "--decode", ",".join(plain)).out
            self.assertEqual(decoded, text + "\n")
            self.assertEqual(self.ids(stdin=text.encode())["ids"], out["ids"])

    def test_special_tokens_only_when_asked_for(self):
        self.assertEqual(self.ids("--special", "<|im_end|>")["count"], 1)
        self.assertGreater(self.ids("<|im_end|>")["count"], 1)

    def test_ids_of_recorded_prompts(self):
        self.need_golden()
        for family in ("qwen3_vl", "gemma3"):
            folder = os.path.join(GOLDEN, family, "tiny")
            case = json.loads(read(os.path.join(folder, "cases", "text", "case.json")))
            npy = read(os.path.join(folder, "cases", "text", "input_ids.npy"))
            length = int.from_bytes(npy[8:10], "little")
            data = npy[10 + length:]
            want = [int.from_bytes(data[i:i + 4], "little") for i in range(0, len(data), 4)]
            own = self.ids("--special", "--bos", "-m", folder, case["prompt"])["ids"]
            self.assertEqual(own, want)

    def test_bad_ids(self):
        for ids in ("-1", "768", "5,99999999"):
            run = pinhole("tokenize", "--decode=" + ids)
            self.assertEqual(run.code, BAD_INPUT, run)
        self.refused("tokenize", "--decode", "1,999999", names=("999999", "768"))
        run = pinhole("tokenize", "--decode", "one")
        self.assertEqual(run.code, BAD_INPUT, run)


class Options(Case):
    def test_help_has_examples(self):
        top = self.succeed("--help").out
        commands = re.findall(r"^  ([a-z]+)\s{2,}", top[top.index("Subcommands"):], re.MULTILINE)
        self.assertGreaterEqual(set(commands), {"ask", "inspect", "tokenize", "verify"})
        for command in commands:
            text = self.succeed(command, "--help").out
            self.assertIn("Examples:", text, command)
            self.assertIn(f"pinhole {command} ", text, command)

    def test_version(self):
        self.assertRegex(self.succeed("--version").out, r"^pinhole \d+\.\d+\.\d+\n$")

    def test_wrong_use_is_exit_code_2(self):
        for args in ([], ["nonsense"], ["ask", "--nonsense"], ["ask", "-n", "0", "x"],
                     ["ask", "-n", "many", "x"], ["ask", "--ctx", "-5", "x"],
                     ["ask", "--top-p", "1.5", "x"], ["ask", "--kv-type", "f8", "x"],
                     ["ask", "--threads", "0", "x"], ["ask", "a", "b"], ["inspect"],
                     ["verify", "/nonexistent"], ["ask", "-i"], ["ask", "--seed", "x", "y"]):
            run = pinhole(*args)
            self.assertEqual(run.code, BAD_INPUT, (args, run))
            self.assertNotEqual(run.err + run.out, "", args)


class Verify(Case):
    def test_json_and_counts(self):
        self.need_golden()
        folder = os.path.join(GOLDEN, "chat_templates")
        run = self.succeed("verify", "--json", folder)
        out = json.loads(run.out)
        self.assertGreater(out["passed"], 50)
        self.assertEqual(out["failed"], 0)
        self.assertEqual(out["passed"] + out["failed"] + out["skipped"], len(out["cases"]))
        text = self.succeed("verify", folder).out
        self.assertRegex(text, rf"\n{out['passed']} passed, 0 failed\n$")

    def test_a_wrong_reference_fails(self):
        # The logits of another seed are as good as wrong ones: one value is enough.
        folder = self.copy_model("qwen3_vl/tiny")
        for name in ("images", "cases"):
            os.makedirs(os.path.join(folder, name))
        case = os.path.join(folder, "cases", "text")
        os.makedirs(case)
        for entry in os.scandir(os.path.join(GOLDEN, "qwen3_vl", "tiny", "cases", "text")):
            if entry.is_file():
                with open(os.path.join(case, entry.name), "wb") as out:
                    out.write(read(entry.path))
        self.assertRegex(self.succeed("verify", folder).out, r"[1-9]\d* passed, 0 failed")
        path = os.path.join(case, "logits.npy")
        data = bytearray(read(path))
        data[-4:] = b"\x00\x00\xc8\x42"  # 100.0
        with open(path, "wb") as out:
            out.write(data)
        run = pinhole("verify", folder)
        self.assertEqual(run.code, FAILED, run)
        self.assertRegex(run.out, r"FAIL .*text")
        self.assertRegex(run.out, r"[1-9]\d* failed\n$")

    def test_a_folder_without_cases_fails(self):
        run = pinhole("verify", self.folder)
        self.assertNotEqual(run.code, OK, run)


if __name__ == "__main__":
    main()
