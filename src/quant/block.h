// What a block header of formats.def provides: a packed struct of the block's bytes, the function
//   static inline void decode_block(const BlockX& block, float* y)
// that writes its elements, and the line PINHOLE_BLOCK(kX, BlockX). Plain code: kernel translation
// units include it, so functions are static, nothing comes from std, and structs may lie at any
// address.
#pragma once

#include <stdint.h>
#include <string.h>

#include "quant/format_id.h"

#define PINHOLE_PACKED __attribute__((packed))

namespace pinhole {

constexpr int64_t kBlockElements[] = {
#define PINHOLE_FORMAT(id, name, gguf_type, block_elements, block_bytes, header) block_elements,
#include "quant/formats.def"
#undef PINHOLE_FORMAT
};
constexpr int64_t kBlockBytes[] = {
#define PINHOLE_FORMAT(id, name, gguf_type, block_elements, block_bytes, header) block_bytes,
#include "quant/formats.def"
#undef PINHOLE_FORMAT
};

// Kernels walk a row in steps of 32 elements and pieces of 256: a block fits whole into those.
constexpr bool fits_kernels(int64_t block_elements) {
  return block_elements == 1 || (block_elements % 32 == 0 && 256 % block_elements == 0);
}

// BlockOf<FormatId::kX>::Type is the struct of format X.
template <FormatId id> struct BlockOf;

} // namespace pinhole

#define PINHOLE_BLOCK(format, struct_type)                                                         \
  static_assert(sizeof(struct_type) == kBlockBytes[static_cast<int>(FormatId::format)]);           \
  static_assert(alignof(struct_type) == 1);                                                        \
  static_assert(fits_kernels(kBlockElements[static_cast<int>(FormatId::format)]));                 \
  template <> struct BlockOf<FormatId::format> { using Type = struct_type; };
