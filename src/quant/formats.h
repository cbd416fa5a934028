// The element types that tensors have in files, from formats.def.
#pragma once

#include "quant/format_id.h"

#include <cstdint>
#include <optional>
#include <string_view>

namespace pinhole {

struct FormatInfo {
  FormatId id;
  std::string_view name;  // as GGUF tools print it: "Q4_K"
  uint32_t gguf_type;     // the number in a GGUF tensor table
  int64_t block_elements; // elements that share scales; a row is a whole number of blocks
  int64_t block_bytes;
};

inline constexpr FormatInfo kFormats[] = {
#define PINHOLE_FORMAT(id, name, gguf_type, block_elements, block_bytes, header)                   \
  {FormatId::id, name, gguf_type, block_elements, block_bytes},
#include "quant/formats.def"
#undef PINHOLE_FORMAT
};

constexpr const FormatInfo& format_info(FormatId id) { return kFormats[static_cast<int>(id)]; }

// Bytes of a row of `elements` (a multiple of block_elements).
constexpr int64_t row_bytes(FormatId id, int64_t elements) {
  const FormatInfo& info = format_info(id);
  return elements / info.block_elements * info.block_bytes;
}

std::optional<FormatId> format_from_gguf_type(uint32_t gguf_type);
std::optional<FormatId> format_from_name(std::string_view name); // case-insensitive

// Decodes `elements` (whole blocks) from `src` (any alignment) to f32: the scalar reference.
void decode_to_f32(FormatId id, const void* src, float* dst, int64_t elements);

} // namespace pinhole
