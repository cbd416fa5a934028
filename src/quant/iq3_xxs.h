// IQ3_XXS: 256 elements in 8 groups of 32: 8 code book indices (4 elements each), and 32 bits with
// 4 x 7 sign bits and a 4-bit scale on top. Source: ggml's block_iq3_xxs.
#pragma once

#include "quant/block.h"
#include "quant/half.h"
#include "quant/iq3xxs_grid.h"
#include "quant/iq_signs.h"

namespace pinhole {

struct PINHOLE_PACKED BlockIQ3XXS {
  uint16_t d; // f16
  uint8_t qs[64];
  uint8_t scales_and_signs[32];
};
PINHOLE_BLOCK(kIQ3_XXS, BlockIQ3XXS)

static inline void decode_block(const BlockIQ3XXS& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int group = 0; group < 8; ++group) {
    uint32_t bits = load_u32(block.scales_and_signs + group * 4);
    float step = d * (0.5f + static_cast<float>(bits >> 28)) * 0.5f;
    for (int l = 0; l < 8; ++l) {
      int signs = expand_iq_signs(bits >> (7 * (l / 2)) & 127u) >> (l % 2 * 4);
      uint32_t entry = kIq3XxsGrid[block.qs[group * 8 + l]];
      decode_iq_entry(entry, signs, step, y + group * 32 + l * 4);
    }
  }
}

} // namespace pinhole
