// Tokenizers against llama.cpp's and Hugging Face's results (golden/README.md, section 3), and the
// properties that hold for any text.
#include "text/tokenizer.h"

#include "base/mapped_file.h"
#include "file/model_file.h"
#include "file/npy.h"
#include "support/temp_dir.h"

#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <random>

namespace pinhole {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TempDir;

const std::string kGolden = PINHOLE_GOLDEN_DIR;

std::string read(const std::string& path) {
  auto text = read_text_file(path, 1u << 30);
  if (!text)
    throw std::runtime_error(text.error().text());
  return *text;
}

// The unpacked vocabularies, made once per run.
std::string unpacked(const std::string& name) {
  static const TempDir folder;
  const std::string target = folder.file(name);
  if (!std::filesystem::exists(target)) {
    const std::string command =
        fmt::format("xz -dkc '{}/tokenizer/{}.xz' > '{}'", kGolden, name, target);
    if (std::system(command.c_str()) != 0)
      throw std::runtime_error(command);
  }
  return target;
}

// A GGUF's tokenizer metadata as plain values.
Result<Tokenizer> load_gguf(const std::string& path) {
  PINHOLE_TRY(const ModelFile file, ModelFile::open(path));
  const GgufMeta& meta = file.gguf();
  const auto strings = [&](const char* key) {
    return meta.find(key) == nullptr ? std::vector<std::string_view>()
                                     : (*meta.array(key))->strings().value();
  };
  const auto id = [&](const char* key) {
    return meta.find(key) == nullptr ? std::nullopt
                                     : std::optional(static_cast<TokenId>(*meta.integer(key)));
  };
  const auto flag = [&](const char* key) {
    return meta.find(key) == nullptr ? std::nullopt : std::optional(*meta.boolean_or(key, false));
  };
  GgufTokenizerSpec spec;
  spec.model = meta.string("tokenizer.ggml.model").value();
  spec.pre = meta.string("tokenizer.ggml.pre").value();
  spec.tokens = strings("tokenizer.ggml.tokens");
  spec.merges = strings("tokenizer.ggml.merges");
  const std::vector<int64_t> types = (*meta.array("tokenizer.ggml.token_type"))->integers().value();
  spec.token_types.assign(types.begin(), types.end());
  if (meta.find("tokenizer.ggml.scores") != nullptr) {
    const std::vector<double> scores = (*meta.array("tokenizer.ggml.scores"))->numbers().value();
    spec.scores.assign(scores.begin(), scores.end());
  }
  spec.bos = id("tokenizer.ggml.bos_token_id");
  spec.eos = id("tokenizer.ggml.eos_token_id");
  spec.unknown = id("tokenizer.ggml.unknown_token_id");
  spec.add_bos = flag("tokenizer.ggml.add_bos_token");
  spec.add_space_prefix = flag("tokenizer.ggml.add_space_prefix");
  return Tokenizer::from_gguf(spec, path);
}

Result<Tokenizer> load_folder(const std::string& path) {
  Json config;
  if (std::filesystem::exists(path + "/tokenizer_config.json")) {
    PINHOLE_TRY(config, read_json_file(path + "/tokenizer_config.json"));
  }
  return Tokenizer::from_json(read(path + "/tokenizer.json"), config, path + "/tokenizer.json");
}

Tokenizer must(Result<Tokenizer> tokenizer) {
  if (!tokenizer)
    throw std::runtime_error(tokenizer.error().text());
  return std::move(*tokenizer);
}

const Tokenizer& vocabulary(const std::string& name) {
  static std::map<std::string, Tokenizer> loaded;
  auto it = loaded.find(name);
  if (it == loaded.end()) {
    Result<Tokenizer> tokenizer =
        name.ends_with(".json") ? Tokenizer::from_json(read(unpacked(name)), Json(), name)
        : name == "llama-spm"   ? load_gguf(kGolden + "/tokenizer/ggml-vocab-llama-spm.gguf")
                                : load_gguf(unpacked("vocab-" + name + ".gguf"));
    it = loaded.emplace(name, must(std::move(tokenizer))).first;
  }
  return it->second;
}

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

// The fixtures: prompts of real cases, whose images' placeholders the processor repeats.

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

} // namespace
} // namespace pinhole
