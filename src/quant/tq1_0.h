// TQ1_0: 256 ternary elements d * (t - 1). A byte holds 5 ternary digits as a fraction of 256:
// digit n is the integer part of 3 * (byte * 3^n mod 256) / 256. qs: 32 bytes (5 x 32 elements),
// then 16 bytes (5 x 16); qh: 4 bytes with 4 digits each. Source: ggml's block_tq1_0.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockTQ1_0 {
  uint8_t qs[48];
  uint8_t qh[4];
  uint16_t d; // f16
};
PINHOLE_BLOCK(kTQ1_0, BlockTQ1_0)

static inline int ternary_digit(uint8_t byte, int n) {
  static const uint8_t kPowers[5] = {1, 3, 9, 27, 81};
  return (byte * kPowers[n] & 255) * 3 >> 8;
}

static inline void decode_block(const BlockTQ1_0& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int i = 0; i < 160; ++i) {
    y[i] = static_cast<float>(ternary_digit(block.qs[i % 32], i / 32) - 1) * d;
  }
  for (int i = 0; i < 80; ++i) {
    y[160 + i] = static_cast<float>(ternary_digit(block.qs[32 + i % 16], i / 16) - 1) * d;
  }
  for (int i = 0; i < 16; ++i) {
    y[240 + i] = static_cast<float>(ternary_digit(block.qh[i % 4], i / 4) - 1) * d;
  }
}

} // namespace pinhole
