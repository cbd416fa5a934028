// IQ4_NL: 32 elements d * table[q], q of 4 bits, nibbles as in Q4_0. Source: ggml's block_iq4_nl
// and kvalues_iq4nl.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

static const int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

struct PINHOLE_PACKED BlockIQ4NL {
  uint16_t d; // f16
  uint8_t qs[16];
};
PINHOLE_BLOCK(kIQ4_NL, BlockIQ4NL)

static inline void decode_block(const BlockIQ4NL& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * static_cast<float>(kIq4Values[block.qs[j] & 15]);
    y[j + 16] = d * static_cast<float>(kIq4Values[block.qs[j] >> 4]);
  }
}

} // namespace pinhole
