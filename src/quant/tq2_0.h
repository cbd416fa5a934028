// TQ2_0: 256 elements d * (q - 1), q of 2 bits; each 32 bytes hold 4 x 32 elements. Source: ggml's
// block_tq2_0.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockTQ2_0 {
  uint8_t qs[64];
  uint16_t d; // f16
};
PINHOLE_BLOCK(kTQ2_0, BlockTQ2_0)

static inline void decode_block(const BlockTQ2_0& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int i = 0; i < 256; ++i) {
    int q = block.qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    y[i] = static_cast<float>(q - 1) * d;
  }
}

} // namespace pinhole
