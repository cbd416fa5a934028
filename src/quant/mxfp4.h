// MXFP4: 32 elements 2^(e - 127) * E2M1, nibbles as in Q4_0. e = 255 (NaN in the MX specification)
// is read as 2^128, as ggml does. Source: OCP MX v1.0; ggml's block_mxfp4.
#pragma once

#include "quant/block.h"
#include "quant/fp4.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockMXFP4 {
  uint8_t e; // E8M0
  uint8_t qs[16];
};
PINHOLE_BLOCK(kMXFP4, BlockMXFP4)

// 2^(e - 128): half of the block's scale, as the table holds doubled values.
static inline float mxfp4_half_scale(uint8_t e) {
  return f32_from_bits(e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23);
}

static inline void decode_block(const BlockMXFP4& block, float* y) {
  float d = mxfp4_half_scale(block.e);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>(kFp4Doubled[block.qs[j] & 15]) * d;
    y[j + 16] = static_cast<float>(kFp4Doubled[block.qs[j] >> 4]) * d;
  }
}

} // namespace pinhole
