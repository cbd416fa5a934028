// Tokenizers against llama.cpp's and Hugging Face's results (golden/README.md, sections 1 and 3).
#include "text/tokenizer.h"

#include "file/npy.h"
#include "tokenizer_fixtures.h"

#include <gmock/gmock.h>
#include <sstream>

namespace pinhole {
namespace {

using testing::kGolden;
using testing::load_folder;
using testing::load_gguf;
using testing::must;
using testing::read;
using testing::vocabulary;

std::vector<std::string> records(const std::string& path) {
  constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  const std::string text = read(path);
  std::vector<std::string> out;
  size_t at = 0;
  for (size_t end; (end = text.find(kSeparator, at)) != std::string::npos;
       at = end + kSeparator.size()) {
    out.push_back(text.substr(at, end - at));
  }
  if (at < text.size())
    out.push_back(text.substr(at));
  return out;
}

std::vector<std::vector<TokenId>> id_lines(const std::string& path) {
  std::vector<std::vector<TokenId>> out;
  std::istringstream in(read(path));
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    out.emplace_back();
    for (TokenId id; words >> id;)
      out.back().push_back(id);
  }
  return out;
}

struct Vectors {
  const char *tokenizer, *input, *output;
  bool parse_special;
  size_t records;
};

void PrintTo(const Vectors& vectors, std::ostream* out) {
  *out << vectors.tokenizer << " " << vectors.input;
}

class GoldenVectors : public ::testing::TestWithParam<Vectors> {};

TEST_P(GoldenVectors, EveryRecordAgrees) {
  REQUIRE_GOLDEN();
  const Vectors& param = GetParam();
  const Tokenizer& tokenizer = vocabulary(param.tokenizer);
  const auto inputs = records(kGolden + "/tokenizer/" + param.input);
  const auto outputs = id_lines(kGolden + "/tokenizer/" + param.output);
  ASSERT_EQ(inputs.size(), param.records);
  ASSERT_GE(outputs.size(), param.records);
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(tokenizer.encode(inputs[i], param.parse_special), outputs[i])
        << "record " << i << ": '" << inputs[i] << "'";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Gguf, GoldenVectors,
    ::testing::Values(
        Vectors{"qwen2", "ggml-vocab-qwen2.gguf.inp", "ggml-vocab-qwen2.gguf.out", false, 46},
        Vectors{"qwen2", "extra/plain.inp", "extra/qwen2.plain.out", false, 248},
        Vectors{"qwen2", "extra/qwen2.special.inp", "extra/qwen2.special.out", true, 16},
        Vectors{"llama-bpe", "ggml-vocab-llama-bpe.gguf.inp", "ggml-vocab-llama-bpe.gguf.out",
                false, 46},
        Vectors{"llama-bpe", "extra/plain.inp", "extra/llama-bpe.plain.out", false, 248},
        Vectors{"llama-bpe", "extra/llama-bpe.special.inp", "extra/llama-bpe.special.out", true, 8},
        Vectors{"llama-spm", "ggml-vocab-llama-spm.gguf.inp", "ggml-vocab-llama-spm.gguf.out",
                false, 46},
        Vectors{"llama-spm", "extra/plain.inp", "extra/llama-spm.plain.out", false, 248},
        Vectors{"llama-spm", "extra/llama-spm.special.inp", "extra/llama-spm.special.out", true,
                10}));

INSTANTIATE_TEST_SUITE_P(
    Json, GoldenVectors,
    ::testing::Values(Vectors{"qwen2.tokenizer.json", "ggml-vocab-qwen2.gguf.inp",
                              "ggml-vocab-qwen2.gguf.out", false, 46},
                      Vectors{"qwen2.tokenizer.json", "extra/plain.inp", "extra/qwen2.plain.hf.out",
                              false, 248},
                      Vectors{"qwen2.tokenizer.json", "extra/qwen2.special.inp",
                              "extra/qwen2.special.hf.out", true, 16},
                      Vectors{"llama-bpe.tokenizer.json", "ggml-vocab-llama-bpe.gguf.inp",
                              "ggml-vocab-llama-bpe.gguf.out", false, 46},
                      Vectors{"llama-bpe.tokenizer.json", "extra/plain.inp",
                              "extra/llama-bpe.plain.out", false, 248},
                      Vectors{"llama-bpe.tokenizer.json", "extra/llama-bpe.special.inp",
                              "extra/llama-bpe.special.out", true, 8}));

// The fixtures: prompts of real cases, whose images' image tokens the processor repeats.

struct Fixture {
  std::string name, folder; // below golden/
  std::string gguf;         // empty: tokenizer.json
};

std::vector<Fixture> fixtures() {
  std::vector<Fixture> out;
  for (const char* name :
       {"qwen3_vl/tiny", "qwen3_vl_moe/tiny", "qwen2_5_vl/tiny", "gemma3/tiny", "internvl/qwen2",
        "pixtral/llava", "mistral3/small31", "mistral3/ministral3", "mllama/tiny"}) {
    out.push_back({name, name, ""});
  }
  for (const std::string name :
       {"qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl", "gemma3", "internvl", "mistral3"}) {
    out.push_back({"gguf/" + name + "/json", "gguf/" + name + "/hf", ""});
    out.push_back({"gguf/" + name + "/gguf", "gguf/" + name + "/hf",
                   "gguf/" + name + "/" + name + "-f32.gguf"});
  }
  return out;
}

void PrintTo(const Fixture& fixture, std::ostream* out) { *out << fixture.name; }

class FixturePrompts : public ::testing::TestWithParam<Fixture> {};

// The ids with each run of `repeated` cut to one: what the prompt said.
std::vector<TokenId> without_repeats(const std::vector<TokenId>& ids, TokenId repeated) {
  std::vector<TokenId> out;
  for (const TokenId id : ids) {
    if (id == repeated && !out.empty() && out.back() == repeated)
      continue;
    out.push_back(id);
  }
  return out;
}

TEST_P(FixturePrompts, EncodeToTheReferenceIds) {
  REQUIRE_GOLDEN();
  const Fixture& fixture = GetParam();
  const std::string folder = kGolden + "/" + fixture.folder;
  const Tokenizer tokenizer =
      must(fixture.gguf.empty() ? load_folder(folder) : load_gguf(kGolden + "/" + fixture.gguf));
  size_t checked = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/cases")) {
    const Json description = read_json_file(entry.path() / "case.json").value();
    const std::string prompt = description.at("prompt").get<std::string>();
    const NpyArray array = NpyArray::open(entry.path() / "input_ids.npy").value();
    const std::vector<int64_t> values = array.ints().value();
    const std::vector<TokenId> expected(values.begin(), values.end());
    const std::vector<TokenId> ids = tokenizer.encode(prompt, true, true);
    if (description.at("images").empty()) {
      EXPECT_EQ(ids, expected) << entry.path() << " " << prompt;
    } else if (const auto pad = tokenizer.find("<|image_pad|>")) { // Qwen: it becomes a run
      EXPECT_EQ(ids, without_repeats(expected, *pad)) << entry.path() << " " << prompt;
    }
    // Whatever a processor has put around the images, it was text when it was encoded.
    const size_t bos = tokenizer.adds_bos() ? 1 : 0;
    const std::vector<TokenId> body(expected.begin() + static_cast<std::ptrdiff_t>(bos),
                                    expected.end());
    EXPECT_EQ(tokenizer.encode(tokenizer.decode(body, false), true), body) << entry.path();
    ASSERT_GT(ids.size(), bos);
    EXPECT_EQ(ids[0], expected[0]) << entry.path();
    ++checked;
  }
  EXPECT_GE(checked, 3u);
}

INSTANTIATE_TEST_SUITE_P(Golden, FixturePrompts, ::testing::ValuesIn(fixtures()),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           for (char& c : name) {
                             if (!std::isalnum(static_cast<unsigned char>(c)))
                               c = '_';
                           }
                           return name;
                         });

// Variants of the fixtures' tokenizer.json; results of Hugging Face tokenizers 0.23.2
// (make_hf_cases.js).

struct HfCase {
  std::string name;
  Json description;
};
void PrintTo(const HfCase& hf, std::ostream* out) { *out << hf.name; }

std::vector<HfCase> hf_cases() {
  std::vector<HfCase> out;
  const Json cases = read_json_file(PINHOLE_SOURCE_DIR "/tests/text/data/hf_cases.json").value();
  for (const Json& json : cases) {
    out.push_back({json.at("name").get<std::string>(), json});
  }
  return out;
}

class HfVariants : public ::testing::TestWithParam<HfCase> {};

TEST_P(HfVariants, AgreeWithTheReference) {
  REQUIRE_GOLDEN();
  const Json& description = GetParam().description;
  Json json = read_json_file(kGolden + "/" + description.at("base").get<std::string>()).value();
  json.update(description.at("patch"));
  json.at("model").update(description.at("model"));
  for (const Json& token : description.at("added"))
    json.at("added_tokens").push_back(token);
  const Tokenizer tokenizer = must(Tokenizer::from_json(json.dump(), Json(), GetParam().name));
  for (const Json& result : description.at("results")) {
    const std::string text = result.at("text").get<std::string>();
    const auto ids = result.at("ids").get<std::vector<TokenId>>();
    EXPECT_EQ(tokenizer.encode(text, true), ids) << "'" << text << "'";
    StreamDecoder decoder(tokenizer);
    std::string decoded;
    for (const TokenId id : ids)
      decoded += decoder.push(id);
    decoded += decoder.finish();
    EXPECT_EQ(decoded, result.at("decoded").get<std::string>()) << "'" << text << "'";
  }
}

INSTANTIATE_TEST_SUITE_P(Reference, HfVariants, ::testing::ValuesIn(hf_cases()),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           for (char& c : name) {
                             if (!std::isalnum(static_cast<unsigned char>(c)))
                               c = '_';
                           }
                           return name;
                         });

} // namespace
} // namespace pinhole
