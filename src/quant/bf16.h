// BF16: the upper 16 bits of an f32.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockBF16 {
  uint16_t bits;
};
PINHOLE_BLOCK(kBF16, BlockBF16)

static inline void decode_block(const BlockBF16& block, float* y) {
  y[0] = bf16_to_f32(block.bits);
}

} // namespace pinhole
