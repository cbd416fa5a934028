// safetensors: an 8-byte header length, a JSON header, tensor bytes; and the index of a sharded
// model.
//
// Source: the format's description (huggingface/safetensors, README "Format"). Invariant: each
// tensor's bytes match shape x dtype, and all tensors together fill the data part without gap or
// overlap. The headers are read as a stream of tokens, never as a tree: memory stays in proportion
// to the tensors.
#pragma once

#include "base/function_ref.h"
#include "file/model_file.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

struct SafetensorsPart {
  std::vector<Tensor> tensors;
  std::vector<OtherTensor> others; // dtypes other than F32, F16, BF16
};

// Parses one file from memory; `name` is the file in errors. `part` goes into the tensors.
Result<SafetensorsPart> parse_safetensors(std::span<const std::byte> bytes, const std::string& name,
                                          uint32_t part = 0);

// Calls `entry` for each pair of weight_map in file order; a shard's name that is not a plain file
// name is an error. An error of `entry` ends the walk and is returned.
Status for_each_index_entry(
    std::string_view text, const std::string& name,
    FunctionRef<Status(const std::string& tensor, const std::string& shard)> entry);

} // namespace pinhole
