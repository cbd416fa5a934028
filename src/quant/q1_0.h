// Q1_0: 128 elements, d where bit i % 8 of byte i / 8 is set, else -d. Source: ggml's block_q1_0.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockQ1_0 {
  uint16_t d; // f16
  uint8_t qs[16];
};
PINHOLE_BLOCK(kQ1_0, BlockQ1_0)

static inline void decode_block(const BlockQ1_0& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int i = 0; i < 128; ++i)
    y[i] = block.qs[i / 8] >> (i % 8) & 1 ? d : -d;
}

} // namespace pinhole
