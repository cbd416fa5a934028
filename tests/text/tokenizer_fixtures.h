// Tokenizers of golden/ for the tests: vocabularies of GGUFs and tokenizer.json files.
#pragma once

#include "base/mapped_file.h"
#include "file/model_file.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "text/tokenizer.h"

#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <map>
#include <stdexcept>
#include <string>

namespace pinhole::testing {

inline const std::string kGolden = PINHOLE_GOLDEN_DIR;

inline std::string read(const std::string& path) {
  auto text = read_text_file(path, 1u << 30);
  if (!text)
    throw std::runtime_error(text.error().text());
  return *text;
}

// The unpacked vocabularies, made once per run.
inline std::string unpacked(const std::string& name) {
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
inline Result<Tokenizer> load_gguf(const std::string& path) {
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

inline Result<Tokenizer> load_folder(const std::string& path) {
  Json config;
  if (std::filesystem::exists(path + "/tokenizer_config.json")) {
    PINHOLE_TRY(config, read_json_file(path + "/tokenizer_config.json"));
  }
  return Tokenizer::from_json(read(path + "/tokenizer.json"), config, path + "/tokenizer.json");
}

inline Tokenizer must(Result<Tokenizer> tokenizer) {
  if (!tokenizer)
    throw std::runtime_error(tokenizer.error().text());
  return std::move(*tokenizer);
}

inline const Tokenizer& vocabulary(const std::string& name) {
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

} // namespace pinhole::testing
