// Q2_0: 64 elements d * (q - 1), q the 2 bits at 2 * (i % 4) of byte i / 4. Source: ggml's
// block_q2_0.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockQ2_0 {
  uint16_t d; // f16
  uint8_t qs[16];
};
PINHOLE_BLOCK(kQ2_0, BlockQ2_0)

static inline void decode_block(const BlockQ2_0& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int i = 0; i < 64; ++i) {
    y[i] = static_cast<float>((block.qs[i / 4] >> (i % 4 * 2) & 3) - 1) * d;
  }
}

} // namespace pinhole
