// Q4_1: 32 elements d * q + m, q of 4 bits, nibbles as in Q4_0. Source: ggml's block_q4_1.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockQ4_1 {
  uint16_t d; // f16
  uint16_t m; // f16
  uint8_t qs[16];
};
PINHOLE_BLOCK(kQ4_1, BlockQ4_1)

static inline void decode_block(const BlockQ4_1& block, float* y) {
  float d = f16_to_f32(block.d);
  float m = f16_to_f32(block.m);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>(block.qs[j] & 15) * d + m;
    y[j + 16] = static_cast<float>(block.qs[j] >> 4) * d + m;
  }
}

} // namespace pinhole
