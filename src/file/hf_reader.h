// A Hugging Face model folder: config.json and what lies beside it, with safetensors weights.
//
// Weights: model.safetensors, else the shards of model.safetensors.index.json, else the only
// *.safetensors. Chat template: chat_template.jinja, else chat_template.json, else the one in
// tokenizer_config.json (transformers' PreTrainedTokenizerBase and ProcessorMixin).
#pragma once

#include "file/model_file.h"

#include <string>
#include <string_view>

namespace pinhole {

inline constexpr uint64_t kMaxConfigBytes = 16u << 20;

class HfReader {
 public:
  static Result<ModelFile> open(const std::string& folder);
  // One .safetensors without its folder's other files.
  static Result<ModelFile> open_weights(const std::string& path);
  // No weights; `path` is a config.json or the folder of one.
  static Result<ModelFile> open_config(const std::string& path);
  // The same from the text of a config.json; `name` is the file's.
  static Result<ModelFile> read_config_text(std::string_view text, const std::string& name);

 private:
  static Status read_configs(ModelFile& model);
  static Status add_part(ModelFile& model, const std::string& path);
  static Status add_shards(ModelFile& model, const std::string& index_path);
};

// parse_json for a configuration: an object of at most a few hundred thousand values, so that the
// tree's memory stays bounded.
Result<Json> parse_config(std::string_view text, const std::string& where);

} // namespace pinhole
