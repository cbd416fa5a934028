// A model as it lies on disk: metadata and a table of tensors that point into read-only mappings.
//
// One ModelFile is one GGUF (with its split parts) or one Hugging Face folder (config.json and its
// safetensors). Everything in it is untrusted: sizes, offsets and names are checked when it is
// opened, so that afterwards every tensor's bytes lie inside a mapping and match its shape and
// format.
#pragma once

#include "base/json.h"
#include "base/mapped_file.h"
#include "base/result.h"
#include "file/gguf_value.h"
#include "quant/formats.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

struct Tensor {
  std::string name;
  FormatId format = FormatId::kF32;
  std::vector<int64_t> shape;      // row-major, outermost first (a GGUF's dimensions reversed)
  const std::byte* data = nullptr; // null in a header-only file
  uint64_t bytes = 0;
  uint32_t part = 0;        // which file of the model
  uint64_t file_offset = 0; // of data in that file

  int64_t elements() const {
    int64_t count = 1;
    for (const int64_t dim : shape)
      count *= dim;
    return count;
  }
  // Length of a row (the innermost dimension), and number of rows.
  int64_t cols() const { return shape.empty() ? 1 : shape.back(); }
  int64_t rows() const { return cols() == 0 ? 0 : elements() / cols(); }
};

// A tensor whose element type has no row in formats.def (I64, U8, F8_E4M3 ...): listed with its raw
// bytes, never in tensors().
struct OtherTensor {
  std::string name;
  std::string type; // as the file spells it
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  uint64_t bytes = 0;
  uint32_t part = 0;
  uint64_t file_offset = 0;
};

enum class Container { kGguf, kHuggingFace };

class ModelFile {
 public:
  // `path` is a .gguf (any part of a split one), a folder with config.json and weights, a folder
  // with one .gguf (and its projector), or a .safetensors alone (then config() is null).
  static Result<ModelFile> open(const std::string& path);

  // A configuration without weights, to plan a model from before it is fetched: a config.json (by
  // any name), or a folder that holds one. tensors() is empty; a family declares what it would
  // read.
  static Result<ModelFile> open_config(const std::string& path);

  Container container() const { return container_; }
  bool config_only() const { return config_only_; }
  // What errors about config() name.
  std::string config_path() const;
  const std::string& path() const { return path_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const Tensor* find(std::string_view name) const; // null when absent
  const std::vector<OtherTensor>& other_tensors() const { return others_; }
  const OtherTensor* find_other(std::string_view name) const; // null when absent
  uint64_t mapped_bytes() const;
  const std::vector<MappedFile>& parts() const { return parts_; }

  // GGUF: all key-values in file order. Empty for a folder.
  const GgufMeta& gguf() const { return gguf_; }

  // Folder: config.json, and what lies beside it (null / nullopt when absent).
  const Json& config() const { return config_; }
  const Json& preprocessor_config() const { return preprocessor_config_; }
  const Json& processor_config() const { return processor_config_; }
  const Json& generation_config() const { return generation_config_; }
  const Json& tokenizer_config() const { return tokenizer_config_; }
  const std::optional<std::string>& tokenizer_json() const { return tokenizer_json_; } // text
  const std::optional<std::string>& chat_template() const { return chat_template_; }

 private:
  friend class GgufReader;
  friend class HfReader;

  Container container_ = Container::kGguf;
  bool config_only_ = false;
  std::string path_;
  std::vector<MappedFile> parts_;
  // Sorts by_name_; a name that occurs twice is an error.
  Status index_tensors();

  std::vector<Tensor> tensors_;
  std::vector<OtherTensor> others_;
  std::vector<uint32_t> by_name_; // indices of tensors_, then of others_, each sorted by name
  GgufMeta gguf_;
  Json config_, preprocessor_config_, processor_config_, generation_config_, tokenizer_config_;
  std::optional<std::string> tokenizer_json_, chat_template_;
};

// The picture projector that belongs to a text GGUF: an mmproj-*.gguf (or *mmproj*.gguf) in the
// same folder. One candidate, or one whose name shares the model's, is taken; several without a
// match are an error that lists them; none is nullopt. Of candidates that differ only in precision,
// the model's own is taken, else F16, BF16, Q8_0, F32 in this order.
Result<std::optional<std::string>> find_mmproj(const std::string& gguf_path);

} // namespace pinhole
