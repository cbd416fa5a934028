// Q5_0: 32 elements d * (q - 16), q of 5 bits: nibbles as in Q4_0, bit j of qh is the fifth bit of
// element j. Source: ggml's block_q5_0.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockQ5_0 {
  uint16_t d; // f16
  uint8_t qh[4];
  uint8_t qs[16];
};
PINHOLE_BLOCK(kQ5_0, BlockQ5_0)

static inline void decode_block(const BlockQ5_0& block, float* y) {
  float d = f16_to_f32(block.d);
  uint32_t qh = load_u32(block.qh);
  for (int j = 0; j < 16; ++j) {
    int low = (block.qs[j] & 15) | static_cast<int>((qh >> j & 1u) << 4);
    int high = (block.qs[j] >> 4) | static_cast<int>((qh >> (j + 16) & 1u) << 4);
    y[j] = static_cast<float>(low - 16) * d;
    y[j + 16] = static_cast<float>(high - 16) * d;
  }
}

} // namespace pinhole
