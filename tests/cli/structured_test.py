"""ask --choices, --regex, --json-schema: what the bundled model prints is valid, whatever it means."""

import json
import re

from support import BAD_INPUT, Case, main, picture_of, pinhole, samples

RECEIPT = {
    "type": "object",
    "properties": {
        "shop": {"type": "string", "maxLength": 12},
        "day": {"type": "string", "format": "date"},
        "sum": {"type": "number", "minimum": 0, "maximum": 999.99},
        "items": {"type": "array", "maxItems": 3, "items": {
            "type": "object",
            "properties": {"name": {"type": "string", "pattern": "^[a-zé漢😀]{1,6}$"},
                           "count": {"type": "integer", "minimum": 1, "maximum": 42}},
            "required": ["name", "count"], "additionalProperties": False}},
    },
    "required": ["shop", "day", "sum", "items"],
    "additionalProperties": False,
}


def hot(seed):
    """Nearly uniform over what is allowed."""
    return ("--temperature", "50", "--seed", seed)


class Structured(Case):
    def test_choices(self):
        sample = samples()[0]
        for seed in range(6):
            run = self.succeed("ask", "--choices", "yes,no", "--choices", "漢字", *hot(seed), "-i",
                               picture_of(sample), sample["question"])
            self.assertIn(run.out, ("yes\n", "no\n", "漢字\n"))
        run = self.succeed("ask", "--choices", f"x,{sample['answer']}", "-i", picture_of(sample),
                           sample["question"])
        self.assertEqual(run.out, sample["answer"] + "\n")

    def test_it_ends_where_nothing_can_follow(self):
        out = json.loads(self.succeed("ask", "--json", "--choices", "unlikely", "--ignore-eos",
                                      "Hello").out)
        self.assertEqual((out["answer"], out["finish_reason"]), ("unlikely", "stop"))
        self.assertEqual(out["tokens"]["generated"], len(out["token_ids"]))

    def test_regex(self):
        for seed in range(6):
            run = self.succeed("ask", "--regex", r"[A-Z]{3}-\d{2,4}(é|漢|😀)", *hot(seed), "Hello")
            self.assertRegex(run.out, r"^[A-Z]{3}-\d{2,4}(é|漢|😀)\n$")

    def test_a_leading_space_is_kept(self):
        self.assertEqual(self.succeed("ask", "--regex", "  a", "Hello").out, "  a\n")

    def test_json_schema(self):
        path = self.write("receipt.json", json.dumps(RECEIPT))
        sample = samples()[0]
        for seed in range(6):
            run = self.succeed("ask", "--json-schema", path, "-n", "400", *hot(seed), "-i",
                               picture_of(sample), sample["question"])
            value = json.loads(run.out)
            self.assertEqual(list(value), list(RECEIPT["properties"]))
            self.assertLessEqual(len(value["shop"]), 12)
            self.assertRegex(value["day"], r"^\d{4}-\d\d-\d\d$")
            self.assertTrue(0 <= value["sum"] <= 999.99, value)
            self.assertLessEqual(len(value["items"]), 3)
            for item in value["items"]:
                self.assertEqual(list(item), ["name", "count"])
                self.assertTrue(re.fullmatch("[a-zé漢😀]{1,6}", item["name"]), item)
                self.assertTrue(1 <= item["count"] <= 42, item)
        # The most likely answer too.
        json.loads(self.succeed("ask", "--json-schema", path, "-n", "400", "Hello").out)

    def test_a_cut_answer_is_told(self):
        out = json.loads(self.succeed("ask", "--json", "--regex", "a{40}", "-n", "3", "Hello").out)
        self.assertEqual(out["finish_reason"], "length")
        self.assertTrue("a" * 40 != out["answer"] and ("a" * 40).startswith(out["answer"]))

    def test_what_cannot_be_is_refused(self):
        self.refused("ask", "--regex", "a(?=b)", "Hello", names=("--regex", "byte 1", "lookaround"))
        path = self.write("schema.json", '{"items": {"not": {}}}')
        self.refused("ask", "--json-schema", path, "Hello", names=(path, "'not'", "#/items"))
        path = self.write("broken.json", '{"type": ')
        self.refused("ask", "--json-schema", path, "Hello", names=path)
        self.refused("ask", "--json-schema", self.path("missing"), "Hello", names="missing")
        for options in (("--regex", "a", "--choices", "b"), ("--regex", "a", "--json-schema", path),
                        ("--choices", "a", "--json-schema", path)):
            self.assertEqual(pinhole("ask", *options, "Hello").code, BAD_INPUT)


if __name__ == "__main__":
    main()
