// IQ4_XS: 256 elements in 8 groups of 32, d * (scale - 32) * table[q] with a 6-bit scale (4 bits in
// scales_l, 2 in scales_h) and IQ4_NL's table. Source: ggml's block_iq4_xs.
#pragma once

#include "quant/block.h"
#include "quant/half.h"
#include "quant/iq4_nl.h"

namespace pinhole {

struct PINHOLE_PACKED BlockIQ4XS {
  uint16_t d; // f16
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};
PINHOLE_BLOCK(kIQ4_XS, BlockIQ4XS)

static inline int unpack_iq4_xs_scale(const BlockIQ4XS& block, int group) {
  int low = block.scales_l[group / 2] >> (group % 2 * 4) & 15;
  int high = block.scales_h >> (group * 2) & 3;
  return (low | high << 4) - 32;
}

static inline void decode_block(const BlockIQ4XS& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int group = 0; group < 8; ++group) {
    float step = d * static_cast<float>(unpack_iq4_xs_scale(block, group));
    for (int j = 0; j < 16; ++j) {
      int q = block.qs[group * 16 + j];
      y[group * 32 + j] = step * static_cast<float>(kIq4Values[q & 15]);
      y[group * 32 + j + 16] = step * static_cast<float>(kIq4Values[q >> 4]);
    }
  }
}

} // namespace pinhole
