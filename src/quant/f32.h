// F32: plain IEEE 754 binary32.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockF32 {
  float value;
};
PINHOLE_BLOCK(kF32, BlockF32)

static inline void decode_block(const BlockF32& block, float* y) { y[0] = block.value; }

} // namespace pinhole
