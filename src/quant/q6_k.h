// Q6_K: 256 elements in 16 groups of 16, d * scale * (q - 32) with an 8-bit signed scale and 6-bit
// q. Of each half of 128 elements, element 32 * e + l has its low 4 bits in a nibble of ql[l + 32 *
// (e % 2)] (low for e < 2) and its high 2 bits at bit 2 * e of qh[l]. Source: ggml's block_q6_K.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockQ6K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d; // f16
};
PINHOLE_BLOCK(kQ6_K, BlockQ6K)

static inline void decode_block(const BlockQ6K& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int i = 0; i < 256; ++i) {
    int half = i / 128, e = i % 128 / 32, l = i % 32;
    int low = block.ql[half * 64 + e % 2 * 32 + l] >> (e / 2 * 4) & 15;
    int high = block.qh[half * 32 + l] >> (e * 2) & 3;
    float step = d * static_cast<float>(block.scales[i / 16]);
    y[i] = step * static_cast<float>((low | high << 4) - 32);
  }
}

} // namespace pinhole
