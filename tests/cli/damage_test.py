#!/usr/bin/env python3
"""Damaged files: exit code 2 and a message that names the file; never a crash, a hang or more memory
than the limit. All randomness has fixed seeds."""

import json
import os
import random
import zlib

from support import (BAD_INPUT, BUNDLED, GOLDEN, MODEL, OK, TOO_LARGE, Case, main,
                     picture_of, pinhole, read, samples)

PICTURE = picture_of(samples()[0])


def lengths(size, seed, count):
    """Lengths to cut at: the first bytes, the last ones, powers of two, and random ones."""
    out = {0, 1, 3, 4, 7, 8, 12, 16, 20, 24, 31, 32, 33, 64, size // 2, size - 33, size - 2,
           size - 1}
    step = 128
    while step < size:
        out.add(step)
        step *= 4
    generator = random.Random(seed)
    out.update(generator.randrange(size) for _ in range(count))
    return sorted(n for n in out if 0 <= n < size)


def header_bytes(gguf):
    """Where a GGUF's data begins: everything before it is metadata and the tensor table."""
    run = json.loads(pinhole("inspect", "--json", "--tensors", gguf).out)
    return min(t["file_offset"] for t in run["files"][0]["tensor_list"])


class Missing(Case):
    def test_files_that_are_not_there(self):
        for args in (["-m", self.path("none.gguf"), "x"], ["-m", self.path("none"), "x"],
                     ["-i", self.path("none.png"), "x"],
                     ["-m", MODEL, "--mmproj", self.path("none.gguf"), "x"]):
            self.refused("ask", *args, names=self.folder)
        self.refused("inspect", self.path("none.gguf"), names="none.gguf")
        self.refused("tokenize", "-m", self.path("none.gguf"), "x", names="none.gguf")

    def test_things_that_are_no_models_or_pictures(self):
        empty = self.path("empty")
        os.makedirs(empty)
        text = self.write("text.txt", "hello")
        for model in (empty, text, PICTURE, "/dev/null"):
            self.refused("ask", "-m", model, "x", names=model)
        for picture in (empty, text, MODEL, "/dev/null"):
            self.refused("ask", "-i", picture, "x", names=picture)


class Gguf(Case):
    def test_cut_at_many_lengths(self):
        data = read(MODEL)
        header = header_bytes(MODEL)
        for length in lengths(len(data), 1, 12) + lengths(header, 2, 12):
            path = self.write("cut.gguf", data[:length])
            self.refused("ask", "-m", path, "-n", 1, "Hello", names=path)

    def test_cut_projector(self):
        projector = os.path.join(BUNDLED, "mmproj-pinhole-mini-f16.gguf")
        data = read(projector)
        for length in lengths(header_bytes(projector), 3, 4) + [len(data) // 2, len(data) - 1]:
            path = self.write("mmproj-cut.gguf", data[:length])
            self.refused("ask", "-m", MODEL, "--mmproj", path, "-i", PICTURE, "-n", 1, "What?",
                         names=path)

    def flip(self, source, seed, runs, begin, end, command):
        data = read(source)
        generator = random.Random(seed)
        outcomes = set()
        for trial in range(runs):
            changed = bytearray(data)
            for _ in range(generator.choice((1, 1, 2, 8, 64))):
                at = generator.randrange(begin, end)
                changed[at] = generator.choice(
                    (0, 0xFF, 0x7F, 0x80, changed[at] ^ 1 << generator.randrange(8)))
            path = self.write("flipped.gguf", bytes(changed))
            run = pinhole(*command(path))
            self.assertIn(run.code, (OK, BAD_INPUT, TOO_LARGE), f"trial {trial}: {run}")
            if run.code == BAD_INPUT:
                self.assertRegex(run.err, r"^pinhole: ", f"trial {trial}")
                self.assertIn("flipped.gguf", run.err, f"trial {trial}: {run}")
            outcomes.add(run.code)
        self.assertIn(BAD_INPUT, outcomes)

    def test_flipped_bytes_in_the_header(self):
        self.flip(MODEL, 10, 60, 0, header_bytes(MODEL),
                  lambda path: ("ask", "-m", path, "-n", 2, "Hello"))

    def test_flipped_bytes_in_the_first_kilobytes(self):
        self.flip(MODEL, 11, 60, 0, 2000, lambda path: ("ask", "-m", path, "-n", 2, "Hello"))

    def test_flipped_bytes_of_the_tensor_table(self):
        header = header_bytes(MODEL)
        self.flip(MODEL, 12, 60, header - 3000, header,
                  lambda path: ("ask", "-m", path, "-n", 2, "Hello"))

    def test_flipped_bytes_of_a_projector(self):
        projector = os.path.join(BUNDLED, "mmproj-pinhole-mini-f16.gguf")
        self.flip(projector, 13, 60, 0, header_bytes(projector),
                  lambda path: ("ask", "-m", MODEL, "--mmproj", path, "-i", PICTURE, "-n", 1, "x"))

    def test_flipped_bytes_of_quantised_files(self):
        self.need_golden()
        for seed, name in enumerate(("q4_k_m", "q6_k", "q4_0")):
            path = os.path.join(GOLDEN, "gguf", "qwen3_vl", f"qwen3_vl-{name}.gguf")
            self.flip(path, 20 + seed, 20, 0, header_bytes(path),
                      lambda path: ("ask", "-m", path, "-n", 2, "Hello"))

    def test_random_weights_are_no_crash(self):
        # Damage of the data cannot be seen, only survived: infinities and NaNs go through all ops.
        data = read(MODEL)
        begin = header_bytes(MODEL)
        generator = random.Random(14)
        for _ in range(4):
            path = self.write("noise.gguf",
                              data[:begin] + generator.randbytes(len(data) - begin))
            run = pinhole("ask", "-m", path, "-n", 3, "--temperature", 1, "Hello")
            self.assertEqual(run.code, OK, run)

    def test_bytes_of_no_meaning(self):
        generator = random.Random(15)
        for size in (1, 100, 5000, 1 << 20):
            for start in (b"", b"GGUF", b"GGUF\x03\0\0\0"):
                path = self.write("noise.gguf", start + generator.randbytes(size))
                self.refused("ask", "-m", path, "x", names=path)


class Folder(Case):
    """A Hugging Face folder of which one file is damaged."""

    def setUp(self):
        super().setUp()
        self.model = self.copy_model("qwen3_vl/tiny")

    def file(self, name):
        return os.path.join(self.model, name)

    def put(self, name, data):
        with open(self.file(name), "wb") as out:
            out.write(data)

    def test_unchanged_it_works(self):
        self.succeed("ask", "-m", self.model, "-n", 1, "Hello")

    def test_cut_safetensors(self):
        data = read(self.file("model.safetensors"))
        header = 8 + int.from_bytes(data[:8], "little")
        for length in lengths(len(data), 30, 8) + lengths(header, 31, 8):
            self.put("model.safetensors", data[:length])
            self.refused("ask", "-m", self.model, "-n", 1, "x", names=self.model)
        os.remove(self.file("model.safetensors"))
        self.refused("ask", "-m", self.model, "-n", 1, "x", names=self.model)

    def test_flipped_safetensors_header(self):
        data = read(self.file("model.safetensors"))
        header = 8 + int.from_bytes(data[:8], "little")
        generator = random.Random(32)
        for trial in range(60):
            changed = bytearray(data)
            for _ in range(generator.choice((1, 2, 8))):
                changed[generator.randrange(header)] = generator.choice(
                    (0, 0xFF, ord("9"), ord("}"), ord("["), ord('"'), generator.randrange(256)))
            self.put("model.safetensors", bytes(changed))
            run = pinhole("ask", "-m", self.model, "-n", 1, "x")
            self.assertIn(run.code, (OK, BAD_INPUT), f"trial {trial}: {run}")
            if run.code == BAD_INPUT:
                self.assertIn(self.model, run.err, f"trial {trial}: {run}")

    def damage_text(self, name, seed, runs, must_name):
        """Cuts and changes a JSON file: an error names it, or it did not matter."""
        data = read(self.file(name))
        generator = random.Random(seed)
        variants = [data[:n] for n in lengths(len(data), seed, 6) if n < len(data) - 3]
        for _ in range(runs):
            changed = bytearray(data)
            for _ in range(generator.choice((1, 1, 3))):
                changed[generator.randrange(len(data))] = generator.choice(
                    (0, 0xFF, ord("9"), ord("-"), ord("}"), ord("["), ord('"'),
                     generator.randrange(256)))
            variants.append(bytes(changed))
        variants += [b"", b"null", b"[]", b"{}", b"0", b'"x"', b"[" * 100000, b'{"a":' * 100000]
        refusals = 0
        for number, variant in enumerate(variants):
            self.put(name, variant)
            run = pinhole("ask", "-m", self.model, "-n", 1, "x")
            self.assertIn(run.code, (OK, BAD_INPUT, TOO_LARGE), f"variant {number}: {run}")
            if run.code == BAD_INPUT:
                refusals += 1
                self.assertIn(self.model, run.err, f"variant {number}: {run}")
        self.assertGreaterEqual(refusals, must_name)
        self.put(name, data)

    def test_broken_config(self):
        self.damage_text("config.json", 40, 40, 20)

    def test_broken_tokenizer(self):
        self.damage_text("tokenizer.json", 41, 40, 20)

    def test_broken_tokenizer_config(self):
        self.damage_text("tokenizer_config.json", 42, 20, 5)

    def test_broken_preprocessor_config(self):
        self.damage_text("preprocessor_config.json", 43, 20, 5)

    def test_broken_generation_config(self):
        self.damage_text("generation_config.json", 44, 10, 3)

    def test_broken_json_names_the_file(self):
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json",
                     "preprocessor_config.json", "generation_config.json"):
            data = read(self.file(name))
            self.put(name, data[:len(data) // 2])
            self.refused("ask", "-m", self.model, "-n", 1, "x", names=name)
            self.put(name, data)

    def test_broken_chat_template(self):
        for template in ("{% if %}", "{{ ", "{% for m in messages %}", "{{ messages | nonsense }}",
                         "{{ raise_exception('no pictures, please') }}", "{{ " + "(" * 5000,
                         "{% for a in range(100000000) %}{% for b in range(100000000) %}x"
                         "{% endfor %}{% endfor %}", "{{ 'x' * 10000000000 }}",
                         "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "\xff\xfe{{ 1 }}{%"):
            self.put("chat_template.jinja", template.encode("latin-1"))
            run = pinhole("ask", "-m", self.model, "-n", 1, "x")
            self.assertIn(run.code, (BAD_INPUT, TOO_LARGE), run)
            self.assertTrue(self.model in run.err or "no pictures, please" in run.err, run)

    def test_shards(self):
        model = self.copy_model("qwen3_vl_moe/tiny", "sharded")
        self.succeed("ask", "-m", model, "-n", 1, "x")
        shard = next(name for name in sorted(os.listdir(model)) if name.endswith(".safetensors"))
        data = read(os.path.join(model, shard))
        os.remove(os.path.join(model, shard))
        self.refused("ask", "-m", model, "-n", 1, "x", names=shard)
        with open(os.path.join(model, shard), "wb") as out:
            out.write(data[:len(data) // 2])
        self.refused("ask", "-m", model, "-n", 1, "x", names=shard)


class Pictures(Case):
    def check(self, name, data):
        path = self.write(name, data)
        run = pinhole("ask", "-i", path, "-n", 1, "What?")
        self.assertIn(run.code, (OK, BAD_INPUT, TOO_LARGE), run)
        if run.code != OK:
            self.assertIn(path, run.err, run)
        return run.code

    def test_cut_pictures(self):
        folder = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "image",
                              "data")
        for source in (PICTURE, os.path.join(folder, "jpeg_420_progressive.jpg"),
                       os.path.join(folder, "jpeg_444.jpg")):
            data = read(source)
            for length in lengths(len(data) - 40, 50, 5):
                self.assertEqual(self.check("cut" + os.path.splitext(source)[1], data[:length]),
                                 BAD_INPUT, (source, length))

    def test_flipped_pictures(self):
        data = read(PICTURE)
        generator = random.Random(51)
        for _ in range(40):
            changed = bytearray(data)
            for _ in range(generator.choice((1, 4))):
                changed[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            self.check("flipped.png", bytes(changed))

    def test_a_small_file_of_many_pixels(self):
        # 20000 x 20000: refused from its header.
        header = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + (20000).to_bytes(4, "big") * 2
        header += b"\x08\x02\0\0\0"
        header += zlib.crc32(header[12:]).to_bytes(4, "big")
        self.assertEqual(self.check("bomb.png", header), TOO_LARGE)

    def test_other_formats_are_named(self):
        for name, data in (("GIF", b"GIF89a" + bytes(50)), ("BMP", b"BM" + bytes(60)),
                           ("PDF", b"%PDF-1.7\n" + bytes(60))):
            path = self.write("picture", data)
            self.refused("ask", "-i", path, "What?", names=(path, name))


if __name__ == "__main__":
    main()
