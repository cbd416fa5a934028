// Q4_K: 256 elements in 8 groups of 32, d * scale * q - dmin * min with 6-bit scale and min and
// 4-bit q. Each 32 bytes of qs hold two groups: the low nibbles, then the high ones. Source: ggml's
// block_q4_K.
#pragma once

#include "quant/block.h"
#include "quant/half.h"
#include "quant/k_scales.h"

namespace pinhole {

struct PINHOLE_PACKED BlockQ4K {
  uint16_t d;         // f16
  uint16_t dmin;      // f16
  uint8_t scales[12]; // quant/k_scales.h
  uint8_t qs[128];
};
PINHOLE_BLOCK(kQ4_K, BlockQ4K)

static inline void decode_block(const BlockQ4K& block, float* y) {
  float d = f16_to_f32(block.d);
  float dmin = f16_to_f32(block.dmin);
  for (int group = 0; group < 8; ++group) {
    int scale, minimum;
    unpack_k_scale(block.scales, group, &scale, &minimum);
    float step = d * static_cast<float>(scale);
    float offset = dmin * static_cast<float>(minimum);
    const uint8_t* qs = block.qs + group / 2 * 32;
    for (int j = 0; j < 32; ++j) {
      int q = qs[j] >> (group % 2 * 4) & 15;
      y[group * 32 + j] = step * static_cast<float>(q) - offset;
    }
  }
}

} // namespace pinhole
