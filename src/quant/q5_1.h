// Q5_1: 32 elements d * q + m, q of 5 bits laid out as in Q5_0. Source: ggml's block_q5_1.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockQ5_1 {
  uint16_t d; // f16
  uint16_t m; // f16
  uint8_t qh[4];
  uint8_t qs[16];
};
PINHOLE_BLOCK(kQ5_1, BlockQ5_1)

static inline void decode_block(const BlockQ5_1& block, float* y) {
  float d = f16_to_f32(block.d);
  float m = f16_to_f32(block.m);
  uint32_t qh = load_u32(block.qh);
  for (int j = 0; j < 16; ++j) {
    int low = (block.qs[j] & 15) | static_cast<int>((qh >> j & 1u) << 4);
    int high = (block.qs[j] >> 4) | static_cast<int>((qh >> (j + 16) & 1u) << 4);
    y[j] = static_cast<float>(low) * d + m;
    y[j + 16] = static_cast<float>(high) * d + m;
  }
}

} // namespace pinhole
