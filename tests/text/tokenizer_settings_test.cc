// Settings that the real vocabularies do not have, and input that is wrong.
#include "text/tokenizer.h"

#include "tokenizer_fixtures.h"

#include <chrono>
#include <cmath>
#include <gmock/gmock.h>
#include <random>

namespace pinhole {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::must;

// A tokenizer.json of three letters, for what the real ones do not have.
Json small_json() {
  return Json::parse(R"({
    "added_tokens": [{"id": 5, "content": "<s>", "special": true, "normalized": false},
                     {"id": 6, "content": "</s>", "special": true, "normalized": false}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null,
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4},
              "merges": ["a b", "ab c"]}})");
}

Result<Tokenizer> from(const Json& json, const Json& config = {}) {
  return Tokenizer::from_json(json.dump(), config, "t.json");
}

TEST(TokenizerJson, ConfigurationDecidesAboutBos) {
  Json json = small_json();
  json["post_processor"] = Json::parse(R"({"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
               {"SpecialToken": {"id": "</s>", "type_id": 0}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [5], "tokens": ["<s>"]},
                       "</s>": {"id": "</s>", "ids": [6], "tokens": ["</s>"]}}})");
  EXPECT_THAT(must(from(json)).encode("abc", true, true), ElementsAre(5, 4, 6));
  const auto with = [&](const char* config) {
    return must(from(json, Json::parse(config))).encode("abc", true, true);
  };
  EXPECT_THAT(with(R"({"bos_token": "<s>", "add_bos_token": true})"), ElementsAre(5, 4));
  EXPECT_THAT(with(R"({"bos_token": {"content": "<s>"}, "add_bos_token": false})"), ElementsAre(4));
  EXPECT_THAT(with(R"({"eos_token": "</s>", "add_eos_token": true})"), ElementsAre(4, 6));
  EXPECT_THAT(with(R"({"bos_token": "<s>"})"), ElementsAre(5, 4, 6));
  const Tokenizer named = must(from(json, Json::parse(R"({"bos_token": null, "eos_token": "c"})")));
  EXPECT_EQ(named.eos(), 2);
  EXPECT_TRUE(named.is_special(2)); // transformers makes it one
}

TEST(TokenizerJson, ConfigurationAddsTokens) {
  const Json config = Json::parse(R"({"added_tokens_decoder": {
    "5": {"content": "<s>", "special": true, "normalized": false},
    "7": {"content": "<img>", "special": true, "normalized": false}}})");
  const Tokenizer tokenizer = must(from(small_json(), config));
  EXPECT_EQ(tokenizer.vocab_size(), 8);
  EXPECT_THAT(tokenizer.encode("a<img>b", true), ElementsAre(0, 7, 1));
}

TEST(TokenizerJson, MergesAsPairsAndAsTextAgree) {
  Json json = small_json();
  json["model"]["merges"] = Json::parse(R"([["a", "b"], ["ab", "c"]])");
  for (const char* text : {"abc", "ababc", "cab", "aabbcc"}) {
    EXPECT_EQ(must(from(json)).encode(text, true), must(from(small_json())).encode(text, true));
  }
}

TEST(TokenizerJson, IdsMayBeSparse) {
  Json json = small_json();
  json["model"]["vocab"]["z"] = 900;
  const Tokenizer tokenizer = must(from(json));
  EXPECT_EQ(tokenizer.vocab_size(), 901);
  EXPECT_EQ(tokenizer.piece(500), "");
  EXPECT_FALSE(tokenizer.is_special(500));
  EXPECT_THAT(tokenizer.encode("zab", true), ElementsAre(900, 3));
}

struct Broken {
  const char *pointer, *value, *expected; // a place in small_json(), what to put there, the message
};
void PrintTo(const Broken& broken, std::ostream* out) {
  *out << broken.pointer << " = " << broken.value;
}

class BrokenJson : public ::testing::TestWithParam<Broken> {};

TEST_P(BrokenJson, IsAnErrorThatSaysWhy) {
  const Broken& broken = GetParam();
  Json json = small_json();
  json[Json::json_pointer(broken.pointer)] = Json::parse(broken.value);
  const auto tokenizer = from(json);
  ASSERT_FALSE(tokenizer);
  EXPECT_THAT(tokenizer.error().text(), HasSubstr(broken.expected));
  EXPECT_THAT(tokenizer.error().text(), HasSubstr("t.json"));
}

INSTANTIATE_TEST_SUITE_P(
    All, BrokenJson,
    ::testing::Values(
        Broken{"/model/type", R"("WordPiece")", "'WordPiece', expected BPE"},
        Broken{"/model/type", R"("Unigram")", "'Unigram', expected BPE"},
        Broken{"/model/type", "7", "'type' is 7"}, Broken{"/model", "[]", "'model' is missing"},
        Broken{"/model/vocab", "{}", "'model.vocab' is missing or empty"},
        Broken{"/model/vocab/z", "2147483647", "'z' has id 2147483647"},
        Broken{"/model/vocab/z", "99999999999", "'z' has id 99999999999"},
        Broken{"/model/vocab/z", "-1", "the id of token 'z' is -1"},
        Broken{"/model/vocab/z", "1.5", "the id of token 'z' is 1.5"},
        Broken{"/model/vocab/z", "{}", "the id of token 'z'"},
        Broken{"/model/vocab/z", "2", "id 2 is given to 'c' and to 'z'"},
        Broken{"/model/merges/0", R"("a")", "merge 0 is 'a'"},
        Broken{"/model/merges/0", R"("a q")", "merge 0 names 'q'"},
        Broken{"/model/merges/1", R"("b a")", "merge 1 makes 'ba'"},
        Broken{"/model/merges/0", R"(["a", "b", "c"])", "more than two tokens"},
        Broken{"/model/merges/0", R"(["a"])", "merge 0 has 1 tokens"},
        Broken{"/model/merges/0", "3", "neither a token nor a merge"},
        Broken{"/model/unk_token", R"("<unk>")", "'unk_token' is \"<unk>\""},
        Broken{"/model/end_of_word_suffix", R"("</w>")", "'end_of_word_suffix'"},
        Broken{"/added_tokens/0/id", "4", "id 4 is given to 'abc' and to '<s>'"},
        Broken{"/added_tokens/0/id", "1000000", "'<s>' has id 1000000"},
        Broken{"/added_tokens/0/content", "1", "'content' is 1"},
        Broken{"/normalizer", R"({"type": "Lowercase"})", "normalizer 'Lowercase'"},
        Broken{"/normalizer", R"({"kind": "NFC"})", "key 'type' is missing"},
        Broken{"/pre_tokenizer", R"({"type": "UnicodeScripts"})", "pre_tokenizer 'UnicodeScripts'"},
        Broken{"/pre_tokenizer",
               R"({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"})",
               "regular expression '('"},
        Broken{"/pre_tokenizer",
               R"({"type": "Split", "pattern": {"Regex": "(?:a+)+$"}, "behavior": "Isolated"})",
               "backtracks too much"},
        Broken{"/pre_tokenizer",
               R"({"type": "Split", "pattern": {"Regex": "(x|xx)+y"}, "behavior": "Isolated"})",
               "backtracks too much"},
        Broken{"/pre_tokenizer",
               R"({"type": "Split", "pattern": {"Regex": "[a-z&&[^b]]"}, "behavior": "Isolated"})",
               "is not supported"},
        Broken{"/pre_tokenizer",
               R"({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Sideways"})",
               "'behavior' is 'Sideways'"},
        Broken{"/decoder", R"({"type": "WordPiece"})", "decoder 'WordPiece'"},
        Broken{"/post_processor", R"({"type": "Other"})", "post_processor 'Other'"},
        Broken{"/post_processor", R"({"type": "BertProcessing", "cls": ["a", 7], "sep": ["b", 0]})",
               "token id 7, expected less than 7"}));

TEST(TokenizerJson, DamagedFilesAreErrors) {
  const std::string text = small_json().dump();
  for (size_t length = 0; length < text.size(); ++length) {
    EXPECT_FALSE(Tokenizer::from_json(text.substr(0, length), Json(), "t.json")) << length;
  }
  EXPECT_FALSE(Tokenizer::from_json("[1, 2]", Json(), "t.json"));
  EXPECT_FALSE(Tokenizer::from_json("\"BPE\"", Json(), "t.json"));
  const std::string deep = R"({"model": )" + std::string(100000, '[');
  EXPECT_THAT(Tokenizer::from_json(deep, Json(), "t.json").error().text(), HasSubstr("nested"));
  // Whatever a byte becomes: an answer, not a crash.
  std::mt19937 random(3);
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = text;
    damaged[random() % damaged.size()] = static_cast<char>(random());
    (void)Tokenizer::from_json(damaged, Json(), "t.json");
  }
}

TEST(TokenizerJson, DuplicateTokenIsAnError) {
  std::string text = small_json().dump();
  text.replace(text.find(R"("c":2)"), 5, R"("c":2,"b":7)");
  const auto tokenizer = Tokenizer::from_json(text, Json(), "t.json");
  ASSERT_FALSE(tokenizer);
  EXPECT_THAT(tokenizer.error().text(), HasSubstr("token 'b' has two ids, 1 and 7"));
}

GgufTokenizerSpec small_gguf() {
  GgufTokenizerSpec spec;
  spec.model = "gpt2";
  spec.pre = "qwen2";
  spec.tokens = {"a", "b", "c", "ab", "abc", "<s>"};
  spec.token_types = {1, 1, 1, 1, 1, 3};
  spec.merges = {"a b", "ab c"};
  return spec;
}

GgufTokenizerSpec small_spm() {
  GgufTokenizerSpec spec;
  spec.model = "llama";
  spec.tokens = {"<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "b", "▁a", "ab"};
  spec.token_types = {2, 3, 3, 6, 1, 1, 1, 1, 1};
  spec.scores = {0, 0, 0, 0, -1, -2, -3, -4, -5};
  return spec;
}

TEST(TokenizerGguf, DefaultsOfLlamaCpp) {
  GgufTokenizerSpec spec = small_gguf();
  spec.bos = 5;
  EXPECT_FALSE(must(Tokenizer::from_gguf(spec, "g")).adds_bos());
  spec.pre = "llama-bpe";
  EXPECT_TRUE(must(Tokenizer::from_gguf(spec, "g")).adds_bos());
  spec.add_bos = false;
  EXPECT_FALSE(must(Tokenizer::from_gguf(spec, "g")).adds_bos());
  GgufTokenizerSpec spm = small_spm();
  const Tokenizer tokenizer = must(Tokenizer::from_gguf(spm, "g"));
  EXPECT_THAT(tokenizer.encode("ab\nc", false, true), ElementsAre(1, 7, 6, 3, 0));
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{1, 7, 6, 3}, true), "ab\n");
  spm.add_space_prefix = false; // as Gemma
  spm.add_eos = true;
  const Tokenizer bare = must(Tokenizer::from_gguf(spm, "g"));
  EXPECT_THAT(bare.encode("ab a", false, true), ElementsAre(1, 8, 7, 2));
  EXPECT_EQ(bare.decode(std::vector<TokenId>{7, 6}, true), " ab");
}

TEST(TokenizerGguf, IgnoredMergesTakeWholeWords) {
  GgufTokenizerSpec spec = small_gguf();
  spec.merges = {"b c"};
  spec.tokens.push_back("bc");
  spec.token_types.push_back(1);
  EXPECT_THAT(must(Tokenizer::from_gguf(spec, "g")).encode("abc", false), ElementsAre(0, 6));
  spec.pre = "llama-bpe";
  EXPECT_THAT(must(Tokenizer::from_gguf(spec, "g")).encode("abc", false), ElementsAre(4));
}

// llama.cpp merges by text; what is not a token in the end is spelled by the tokens of its bytes.
TEST(TokenizerGguf, MergesMayMakeTextsThatNoTokenHas) {
  GgufTokenizerSpec spec = small_gguf();
  spec.tokens[3] = "unrelated"; // no token "ab"
  const Tokenizer tokenizer = must(Tokenizer::from_gguf(spec, "g"));
  EXPECT_THAT(tokenizer.encode("abc", false), ElementsAre(4));
  EXPECT_THAT(tokenizer.encode("abab", false), ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(tokenizer.encode("cab", false), ElementsAre(2, 0, 1));
  spec.merges.push_back("abc q"); // "q" is no token either
  EXPECT_THAT(must(Tokenizer::from_gguf(spec, "g")).encode("abc", false), ElementsAre(4));
}

TEST(TokenizerGguf, UserDefinedTokensAreAlwaysParsedAndControlTokensNot) {
  GgufTokenizerSpec spec = small_gguf();
  for (const char* text : {"<x>", "<|im_start|>"}) {
    spec.tokens.push_back(text);
    spec.token_types.push_back(4);
  }
  const Tokenizer tokenizer = must(Tokenizer::from_gguf(spec, "g"));
  EXPECT_THAT(tokenizer.encode("a<x>b<s>", false), ElementsAre(0, 6, 1));
  EXPECT_THAT(tokenizer.encode("a<x>b<s>", true), ElementsAre(0, 6, 1, 5));
  // Old conversions mark turns as user-defined; what a user types must not begin one.
  EXPECT_THAT(tokenizer.encode("c<|im_start|>b", false), ElementsAre(2, 0, 1)); // the a of "start"
  EXPECT_THAT(tokenizer.encode("c<|im_start|>b", true), ElementsAre(2, 7, 1));
}

TEST(TokenizerGguf, BadMetadataIsAnErrorThatSaysWhy) {
  using Spec = GgufTokenizerSpec;
  const auto expect = [](Spec spec, void (*damage)(Spec&), const char* expected) {
    damage(spec);
    const auto tokenizer = Tokenizer::from_gguf(spec, "m.gguf");
    ASSERT_FALSE(tokenizer) << expected;
    EXPECT_THAT(tokenizer.error().text(), HasSubstr(expected));
    EXPECT_THAT(tokenizer.error().text(), HasSubstr("m.gguf"));
  };
  const Spec bpe = small_gguf(), spm = small_spm();
  expect(
      bpe, [](Spec& s) { s.model = "bert"; }, "'bert', expected gpt2 or llama");
  expect(
      bpe, [](Spec& s) { s.pre = "kimi-k2"; }, "'kimi-k2'");
  expect(
      bpe, [](Spec& s) { s.tokens.clear(); }, "tokens is empty");
  expect(
      bpe, [](Spec& s) { s.token_types.pop_back(); }, "token_type has 5 entries, expected 6");
  expect(
      bpe, [](Spec& s) { s.tokens[1] = "a"; }, "token 'a' has two ids, 0 and 1");
  expect(
      bpe, [](Spec& s) { s.merges[0] = "a"; }, "merge 0 is 'a'");
  expect(
      bpe, [](Spec& s) { s.merges[0] = ""; }, "merge 0 is ''");
  expect(
      bpe, [](Spec& s) { s.bos = 6; }, "bos_token_id is 6, but there are 6 tokens");
  expect(
      bpe, [](Spec& s) { s.eos = -5; }, "eos_token_id is -5");
  expect(
      spm, [](Spec& s) { s.scores.pop_back(); }, "scores has 8 entries, expected 9");
  expect(
      spm, [](Spec& s) { s.scores[4] = NAN; }, "score of token 4 is NaN");
  expect(
      spm, [](Spec& s) { s.tokens[3] = "<0xZZ>"; }, "byte token 3 is '<0xZZ>'");
}

TEST(TokenizerRegex, HostileExpressionsEndInTime) {
  Json json = small_json();
  json["pre_tokenizer"] = Json::parse(R"({"type": "Split", "behavior": "Isolated",
    "pattern": {"Regex": "(?:(?:a[b-d])+)+c$"}})"); // exponential, but not for one letter
  const Tokenizer tokenizer = must(from(json));
  for (const char* end : {"", "ca"}) {
    std::string text;
    while (text.size() < 100'000)
      text += "ab";
    text += end;
    const auto start = std::chrono::steady_clock::now();
    const std::vector<TokenId> ids = tokenizer.encode(text, true);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_LT(seconds.count(), 30);
    EXPECT_EQ(tokenizer.decode(ids, false), text);
  }
}

} // namespace
} // namespace pinhole
