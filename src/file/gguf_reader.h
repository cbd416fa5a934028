// GGUF versions 2 and 3, little endian.
//
// Source: the GGUF specification (ggml, docs/gguf.md) and, for split files, the keys split.no,
// split.count and split.tensors.count with part names NAME-00001-of-0000N.gguf. Invariant: counts
// are held against the bytes that are left before anything is allocated, and every tensor of a
// parsed part lies inside it, on its alignment, without overlap.
#pragma once

#include "base/function_ref.h"
#include "file/model_file.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

// Real files hold up to a few thousand tensors; the limit keeps the tables of a hostile one small.
inline constexpr uint64_t kMaxGgufTensors = 1u << 16;

// One file of a model. Views and pointers go into the parsed bytes.
struct GgufPart {
  GgufMeta meta;
  std::vector<Tensor> tensors;
  std::vector<OtherTensor> others;
  uint64_t alignment = 0;
  uint64_t data_offset = 0; // of the tensor data in the file
};

// How far header, key-values and tensor table reach.
struct GgufExtent {
  bool complete = false; // false: `bytes` is the least that must be known to read on
  uint64_t bytes = 0;
};

// NAME-00002-of-00003.gguf: stem NAME, no 2, count 3.
struct SplitName {
  std::string_view stem;
  uint32_t no = 0; // from 1
  uint32_t count = 0;
};
std::optional<SplitName> parse_split_name(std::string_view path);
inline constexpr uint32_t kMaxGgufParts = 4096; // a model of 200 TB in parts of the usual 48 GB
std::string split_part_path(std::string_view stem, uint32_t no, uint32_t count);

class GgufReader {
 public:
  static Result<ModelFile> open(const std::string& path);
  // A model of the parts `names`, the whole file or all of a split one in order, each as
  // `open_part` maps it. `path` is the model's in errors.
  static Result<ModelFile> open_parts(const std::string& path,
                                      const std::vector<std::string>& names,
                                      FunctionRef<Result<MappedFile>(size_t idx)> open_part);

  // Parses one part from memory; `name` is the file in errors. `part` goes into the tensors.
  static Result<GgufPart> parse(std::span<const std::byte> bytes, const std::string& name,
                                uint32_t part = 0);
  // What parse() will read of a file before its tensor data, from the file's first bytes. An error
  // that parse() would find in them is found here.
  static Result<GgufExtent> header_extent(std::span<const std::byte> first, uint64_t file_bytes,
                                          const std::string& name);
};

} // namespace pinhole
