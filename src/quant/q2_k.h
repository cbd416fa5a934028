// Q2_K: 256 elements in 16 groups of 16, d * scale * q - dmin * min with 4-bit scale and min and
// 2-bit q. Each 32 bytes of qs hold 4 x 32 elements, two bits each. Source: ggml's block_q2_K.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockQ2K {
  uint8_t scales[16]; // low nibble scale, high nibble min
  uint8_t qs[64];
  uint16_t d;    // f16
  uint16_t dmin; // f16
};
PINHOLE_BLOCK(kQ2_K, BlockQ2K)

static inline void decode_block(const BlockQ2K& block, float* y) {
  float d = f16_to_f32(block.d);
  float dmin = f16_to_f32(block.dmin);
  for (int i = 0; i < 256; ++i) {
    int scale = block.scales[i / 16];
    int q = (block.qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
    float step = d * static_cast<float>(scale & 15);
    float offset = dmin * static_cast<float>(scale >> 4);
    y[i] = step * static_cast<float>(q) - offset;
  }
}

} // namespace pinhole
