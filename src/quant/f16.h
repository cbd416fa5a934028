// F16: IEEE 754 binary16.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockF16 {
  uint16_t bits;
};
PINHOLE_BLOCK(kF16, BlockF16)

static inline void decode_block(const BlockF16& block, float* y) { y[0] = f16_to_f32(block.bits); }

} // namespace pinhole
