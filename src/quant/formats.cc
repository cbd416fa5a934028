// Look-ups and the scalar decoder over the rows of formats.def; build/generated/quant/blocks.h
// includes the header that each row names (cmake/formats.cmake), so that a new type is a header and
// a row.
#include "quant/formats.h"

#include "quant/blocks.h"

#include <algorithm>

namespace pinhole {
namespace {

char to_upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

template <FormatId id> void decode(const void* src, float* dst, int64_t elements) {
  const auto* blocks = static_cast<const typename BlockOf<id>::Type*>(src);
  int64_t block_elements = format_info(id).block_elements;
  for (int64_t i = 0; i < elements / block_elements; ++i) {
    decode_block(blocks[i], dst + i * block_elements);
  }
}

} // namespace

std::optional<FormatId> format_from_gguf_type(uint32_t gguf_type) {
  for (const FormatInfo& info : kFormats) {
    if (info.gguf_type == gguf_type)
      return info.id;
  }
  return std::nullopt;
}

std::optional<FormatId> format_from_name(std::string_view name) {
  for (const FormatInfo& info : kFormats) {
    if (std::equal(name.begin(), name.end(), info.name.begin(), info.name.end(),
                   [](char a, char b) { return to_upper(a) == to_upper(b); })) {
      return info.id;
    }
  }
  return std::nullopt;
}

void decode_to_f32(FormatId id, const void* src, float* dst, int64_t elements) {
  switch (id) {
#define PINHOLE_FORMAT(id, name, gguf_type, block_elements, block_bytes, header)                   \
  case FormatId::id:                                                                               \
    return decode<FormatId::id>(src, dst, elements);
#include "quant/formats.def"
#undef PINHOLE_FORMAT
  }
}

} // namespace pinhole
