// Q4_0: 32 elements d * (q - 8), q of 4 bits; the low nibble of byte j is element j, the high
// nibble element j + 16. Source: ggml's block_q4_0.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockQ4_0 {
  uint16_t d; // f16
  uint8_t qs[16];
};
PINHOLE_BLOCK(kQ4_0, BlockQ4_0)

static inline void decode_block(const BlockQ4_0& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>((block.qs[j] & 15) - 8) * d;
    y[j + 16] = static_cast<float>((block.qs[j] >> 4) - 8) * d;
  }
}

} // namespace pinhole
