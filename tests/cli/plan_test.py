#!/usr/bin/env python3
"""pinhole plan: what it promises is what a run reserves; what cannot be is refused at once."""

import json
import os
import struct
import time
import unittest
import xml.etree.ElementTree

from support import (BAD_INPUT, BUNDLED, GOLDEN, MODEL, OK, TOO_LARGE, Case, environment, main,
                     picture_of, pinhole, samples)


class Plan(Case):
    def plan(self, *args, code=OK):
        """The plan as JSON, with the measured rates of this test alone."""
        run = pinhole("plan", "--json", *args, env=environment(XDG_CACHE_HOME=self.folder))
        self.assertEqual(run.code, code, run)
        return json.loads(run.out)

    def test_a_run_reserves_what_was_planned(self):
        sample = samples()[0]
        picture = picture_of(sample)
        for options in (["--ctx", "600"], ["--ctx", "2000", "--kv-type", "f32"],
                        ["--ctx", "600", "--chunk", "32", "--threads", "1", "--exact"]):
            run = self.succeed("ask", "--json", "-i", picture, *options, "-n", "4",
                               sample["question"])
            reserved = json.loads(run.out)["memory_bytes"]
            planned = self.plan("--image", picture, *options)["memory_bytes"]
            self.assertEqual(planned["anonymous"], reserved["planned"], options)
            self.assertEqual(planned["weights_mapped"], reserved["mapped"])

    def test_a_picture_is_a_size_or_a_file_of_that_size(self):
        picture = picture_of(samples()[0])
        with open(picture, "rb") as file:
            width, height = struct.unpack(">II", file.read(24)[16:24])  # of a PNG
        by_file = self.plan("--image", picture)
        by_size = self.plan("--image", f"{width}x{height}")
        self.assertEqual(by_file["pictures"], by_size["pictures"])
        # Of a size alone the file is taken to have a byte a pixel.
        self.assertEqual(by_file["memory_bytes"]["picture_decoding"] - os.path.getsize(picture),
                         by_size["memory_bytes"]["picture_decoding"] - width * height)
        self.refused("plan", "--image", self.write("page.pdf", b"%PDF-1.7"), names="page.pdf")

    def test_a_first_question_peaks_below_what_is_needed(self):
        picture = picture_of(samples()[0])
        memory = self.plan("--image", picture, "--ctx", "1024")["memory_bytes"]
        self.assertLessEqual(memory["first_question"], memory["needed"])
        # A prompt that fills the chunks leaves nothing of them untouched, and without pictures
        # there is nothing that is gone before the cache is filled.
        memory = self.plan("--image", "none", "--ctx", "1024", "--prompt", "600")["memory_bytes"]
        self.assertEqual(memory["first_question"], memory["needed"])

    def test_parts_add_up(self):
        out = self.plan("--image", "512x512", "--layers")
        memory = out["memory_bytes"]
        self.assertEqual(memory["anonymous"],
                         sum(memory[name] for name in ("arena", "kv_cache", "picture_embeddings",
                                                       "picture_decoding", "program")))
        self.assertEqual(memory["needed"], memory["anonymous"] + memory["weights_mapped"]
                         + memory["program_mapped"])
        self.assertEqual(memory["weights_mapped"],
                         sum(role["bytes"] for role in out["weights"].values()))
        self.assertEqual(memory["arena"], max(memory["arena_encode"], memory["arena_prefill"]))
        self.assertEqual(memory["kv_cache"], memory["kv_cache_per_token"] * out["context_tokens"])
        self.assertEqual([(p["read_at"], p["tokens"]) for p in out["pictures"]],
                         [([512, 512], 256)])
        speed = out["speed"]
        self.assertAlmostEqual(speed["first_token_seconds"],
                               sum(speed[name + "_seconds"]
                                   for name in ("map", "touch", "picture", "encode", "prefill")))
        self.assertEqual(speed["prompt_tokens"], 256 + 64)
        blocks = [layer["block"] for layer in out["layers"]]
        self.assertEqual(sorted(set(blocks)), sorted(blocks))
        self.assertAlmostEqual(sum(layer["prefill_seconds"] for layer in out["layers"]),
                               speed["prefill_seconds"])

    def test_exit_code_says_whether_it_fits(self):
        self.assertEqual(self.plan("--ram", "1G")["verdict"], "fits")
        needed = self.plan()["memory_bytes"]
        self.assertEqual(self.plan("--ram", str(needed["needed"]))["verdict"], "fits")
        streams = self.plan("--ram", str(needed["needed"] - 1), code=TOO_LARGE)
        self.assertEqual(streams["verdict"], "streams")
        self.assertEqual(streams["limit_source"], "--ram")
        none = self.plan("--ram", str(needed["anonymous"] - 1), code=TOO_LARGE)
        self.assertEqual(none["verdict"], "does not fit")

    def test_room_is_the_most_that_fits(self):
        asked = ["--image", "384x288", "--ctx", "1024"]
        ram = ["--ram", str(self.plan(*asked)["memory_bytes"]["needed"])]
        room = self.plan(*asked, *ram)["room"]
        self.assertEqual(room["longest_context_tokens"], 1024)
        self.plan("--image", "384x288", "--ctx", "1280", *ram, code=TOO_LARGE)
        picture = room["largest_picture"]
        self.assertGreaterEqual(picture["width"] * picture["height"], 384 * 288)
        self.plan("--image", f"{picture['width']}x{picture['height']}", "--ctx", "1024", *ram)
        self.plan("--image", f"{picture['width'] + 64}x{picture['height'] + 64}", "--ctx", "1024",
                  *ram, code=TOO_LARGE)

    def test_table_of_several_models(self):
        run = pinhole("plan", MODEL, BUNDLED, env=environment(XDG_CACHE_HOME=self.folder))
        self.assertEqual(run.code, OK, run)
        self.assertEqual(len(run.out.strip().splitlines()), 4, run)
        self.assertEqual(len(self.plan(MODEL, BUNDLED)), 2)

    def test_a_configuration_is_enough(self):
        self.need_golden()
        config = os.path.join(GOLDEN, "footprint", "Qwen3-VL-2B-Instruct.config.json")
        out = self.plan(config, "--weights", "q4_k_m", "--ram", "64G")
        self.assertTrue(out["from_config_only"])
        self.assertEqual(out["parameters"], 2127532032)
        self.assertEqual(out["transformers_bytes"]["nf4"], 1537155072)
        self.assertEqual(out["memory_bytes"]["kv_cache_per_token"], 114688)
        self.assertEqual(out["pictures"][0]["tokens"], 768)
        # Published: 7.93 GiB in float32, 1.43 GiB in nf4.
        run = pinhole("plan", config, "--explain", "--ram", "64G",
                      env=environment(XDG_CACHE_HOME=self.folder))
        self.assertIn("7.93 GiB", run.out)
        self.assertIn("1.43 GiB", run.out)
        # A folder that has its configuration and no weights.
        with open(config, "rb") as file:
            self.write("config.json", file.read())
        self.assertEqual(self.plan(self.folder)["parameters"], 2127532032)

    def config(self, name="Qwen3-VL-4B-Instruct"):
        self.need_golden()
        return os.path.join(GOLDEN, "footprint", name + ".config.json")

    def test_nf4_is_what_bitsandbytes_holds(self):
        out = self.plan(self.config(), "--weights", "nf4", "--ram", "64G")
        # 2.62 GiB are published, without the constants: an f32 per 64 weights of linear layers.
        self.assertEqual(round(out["transformers_bytes"]["nf4"] / 2**30, 2), 2.62)
        linear = 2 * (2 * out["parameters"] - out["transformers_bytes"]["nf4"]) // 3
        self.assertEqual(out["memory_bytes"]["weights_mapped"],
                         out["transformers_bytes"]["nf4"] + linear // 64 * 4)

    def test_conversations_have_a_cache_each(self):
        one = self.plan("--ctx", "512", "--image", "none")
        four = self.plan("--ctx", "512", "--image", "none", "--parallel", "4", "--batch", "64")
        self.assertEqual(four["memory_bytes"]["kv_cache"], 4 * one["memory_bytes"]["kv_cache"])
        self.assertEqual(four["memory_bytes"]["kv_cache_per_token"],
                         one["memory_bytes"]["kv_cache_per_token"])
        self.assertLess(four["memory_bytes"]["arena"], one["memory_bytes"]["arena"])

    def test_a_known_machine_is_judged_by_its_memory(self):
        out = self.plan(self.config(), "--weights", "f16", "--machine", "t4")
        self.assertEqual((out["machine"], out["limit_source"]), ("t4", "RAM of t4"))
        self.assertEqual(out["gpu"]["limit_bytes"], int(0.9 * 16 * 2**30))
        self.assertEqual(out["gpu"]["layers"], out["gpu"]["total_layers"])
        self.assertTrue(out["gpu"]["vision"] and out["gpu"]["output"])
        # 70 % of unified memory, unless told.
        apple = self.plan(self.config(), "--weights", "q4_k_m", "--machine", "m1-8")
        self.assertEqual(apple["gpu"]["limit_bytes"], int(0.7 * 8 * 2**30))
        raised = self.plan(self.config(), "--weights", "q4_k_m", "--machine", "m1-8",
                           "--gpu-share", "85")
        self.assertEqual(raised["gpu"]["limit_bytes"], int(0.85 * 8 * 2**30))
        self.refused("plan", "--machine", "abacus", names=["abacus", "m1-16"], code=BAD_INPUT)
        self.refused("plan", "--vram", "some", names=["some", "--vram"], code=BAD_INPUT)

    def test_layers_fill_the_gpu_and_no_more(self):
        run = ["--weights", "q4_k_m", "--ram", "64G", "--image", "none", "--layers"]
        last = -1
        for vram in ("500M", "1G", "2G", "8G"):
            out = self.plan(self.config(), *run, "--vram", vram)
            gpu = out["gpu"]
            self.assertLessEqual(gpu["used_bytes"], gpu["limit_bytes"])
            self.assertGreaterEqual(gpu["layers"], last)
            last = gpu["layers"]
            moved = [layer for layer in out["layers"] if layer["on_gpu"]]
            self.assertEqual(len(moved), gpu["layers"] + gpu["output"])
            self.assertTrue(all(layer["link_seconds"] > 0 for layer in moved))
            self.assertEqual(sum(layer["weight_bytes"] for layer in moved), gpu["weight_bytes"])
        self.assertEqual(last, 36)

    def test_options_fit_and_say_what_they_are_best_at(self):
        asked = [self.config(), "--weights", "bf16", "--ctx", "8192"]
        out = self.plan(*asked, "--ram", "8G", code=TOO_LARGE)
        options = {option["what"]: option for option in out["options"]}
        self.assertTrue(options)
        for option in out["options"]:
            self.assertEqual(option["verdict"], "fits", option)
            self.assertLessEqual(option["needed_bytes"], 8 * 2**30)
        best = options["as asked, least quantised"]
        self.assertEqual((best["context_tokens"], best["pictures"][0]["width"]), (8192, 1024))
        # It is the least: the next better one does not fit.
        order = ["f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m"]
        better = order[order.index(best["weights"]) - 1]
        self.plan(self.config(), "--weights", better, "--ctx", "8192", "--ram", "8G",
                  code=TOO_LARGE)
        self.plan(self.config(), "--weights", best["weights"], "--ctx", "8192", "--ram", "8G")
        longest = options["longest context"]
        self.assertGreater(longest["context_tokens"], 8192)
        self.plan(self.config(), "--weights", longest["weights"],
                  "--ctx", str(longest["context_tokens"]), "--ram", "8G")
        self.plan(self.config(), "--weights", longest["weights"],
                  "--ctx", str(longest["context_tokens"] + 256), "--ram", "8G", code=TOO_LARGE)
        # What fits has no need of them, unless they are asked for.
        self.assertEqual(self.plan("--ram", "4G")["options"], [])
        self.assertTrue(self.plan("--ram", "4G", "--options")["options"])

    def test_picture_of_the_plan(self):
        path = os.path.join(self.folder, "plan.svg")
        run = pinhole("plan", "--svg", path, self.config(), MODEL,
                      env=environment(XDG_CACHE_HOME=self.folder))
        self.assertIn(run.code, (OK, TOO_LARGE), run)
        root = xml.etree.ElementTree.parse(path).getroot()
        space = "{http://www.w3.org/2000/svg}"
        self.assertEqual(root.tag, space + "svg")
        texts = [element.text for element in root.iter(space + "text")]
        for wanted in ("KV cache", "text weights", "limit: available now"):
            self.assertIn(wanted, " ".join(texts))
        width = float(root.get("width"))
        for element in root.iter(space + "rect"):
            if "%" not in element.get("width"):
                self.assertLessEqual(float(element.get("x")) + float(element.get("width")), width)

    def test_the_cache_folder_may_be_out_of_reach(self):
        run = pinhole("plan", env=environment(XDG_CACHE_HOME=self.write("a-file", "")))
        self.assertEqual(run.code, OK, run)
        self.assertIn("are not kept", run.err)


class Refusals(Case):
    def refused_fast(self, *args, names, code=BAD_INPUT):
        start = time.monotonic()
        self.refused("plan", *args, names=names, code=code)
        self.assertLess(time.monotonic() - start, 30 if os.environ.get("PINHOLE_SANITIZED") else 2)

    def test_options(self):
        for args, names in ((["--ram", "lots"], ["--ram", "lots"]), (["--ram", "0"], "--ram"),
                            (["--image", "10"], ["--image", "WIDTHxHEIGHT"]),
                            (["--image", "0x5"], "--image"), (["--weights", "q9"], "q4_k_m"),
                            (["no-such-file.gguf"], "no-such-file.gguf")):
            self.refused_fast(*args, names=names)

    def test_pictures_that_are_too_large(self):
        self.refused_fast("--image", "60000x60000", names=["60000 x 60000"], code=TOO_LARGE)
        self.refused_fast("--image", "9223372036854775807x9223372036854775807",
                          names="9223372036854775807", code=TOO_LARGE)

    def test_context_beyond_the_model(self):
        self.refused_fast("--ctx", "60000000", names=["60000000", "--ctx"], code=TOO_LARGE)
        self.refused_fast("--ctx", "100", "--image", "512x512", names=["--ctx"], code=TOO_LARGE)

    def test_a_header_that_claims_2_to_the_60_elements(self):
        name = b"token_embd.weight"
        header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
        header += struct.pack("<Q", len(name)) + name
        header += struct.pack("<IQQIQ", 2, 1 << 30, 1 << 30, 0, 0)
        self.refused_fast(self.write("huge.gguf", header), names="huge.gguf")

    def test_configurations(self):
        self.need_golden()
        with open(os.path.join(GOLDEN, "footprint", "Qwen3-VL-2B-Instruct.config.json"),
                  encoding="utf-8") as file:
            good = json.load(file)
        for key, value in (("num_attention_heads", 0), ("num_hidden_layers", -1),
                           ("hidden_size", 1 << 60), ("vocab_size", "many")):
            config = json.loads(json.dumps(good))
            config["text_config"][key] = value
            self.refused_fast(self.write("x.json", json.dumps(config)), names=key)
        for key, value in (("num_hidden_layers", 4096), ("hidden_size", 1 << 20),
                           ("intermediate_size", 1 << 20), ("vocab_size", 1 << 24)):
            good["text_config"][key] = value
        good["vision_config"]["out_hidden_size"] = 1 << 20
        self.refused_fast(self.write("x.json", json.dumps(good)), names=["x.json", "bytes"],
                          code=TOO_LARGE)
        self.refused_fast(self.write("list.json", "[]"), names="list.json")
        self.refused_fast(self.write("type.json", '{"model_type": "gpt2"}'), names="gpt2")


if __name__ == "__main__":
    main()
