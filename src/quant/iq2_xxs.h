// IQ2_XXS: 256 elements in 8 groups of 32, each 8 bytes: 4 code book indices, then 32 bits with 4 x
// 7 sign bits and a 4-bit scale on top. Source: ggml's block_iq2_xxs.
#pragma once

#include "quant/block.h"
#include "quant/half.h"
#include "quant/iq2xxs_grid.h"
#include "quant/iq_signs.h"

namespace pinhole {

struct PINHOLE_PACKED BlockIQ2XXS {
  uint16_t d; // f16
  uint8_t qs[64];
};
PINHOLE_BLOCK(kIQ2_XXS, BlockIQ2XXS)

static inline void decode_block(const BlockIQ2XXS& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int group = 0; group < 8; ++group) {
    const uint8_t* qs = block.qs + group * 8;
    uint32_t bits = load_u32(qs + 4);
    float step = d * (0.5f + static_cast<float>(bits >> 28)) * 0.25f;
    for (int l = 0; l < 4; ++l) {
      int signs = expand_iq_signs(bits >> (7 * l) & 127u);
      decode_iq_entry(kIq2XxsGrid[qs[l]], signs, step, y + group * 32 + l * 8);
    }
  }
}

} // namespace pinhole
