// IQ2_XS: 256 elements, 32 entries of 8: 16 bits hold a 9-bit code book index and 7 sign bits; a
// nibble of scales for each 16 elements. Source: ggml's block_iq2_xs.
#pragma once

#include "quant/block.h"
#include "quant/half.h"
#include "quant/iq2xs_grid.h"
#include "quant/iq_signs.h"

namespace pinhole {

struct PINHOLE_PACKED BlockIQ2XS {
  uint16_t d; // f16
  uint8_t qs[64];
  uint8_t scales[8];
};
PINHOLE_BLOCK(kIQ2_XS, BlockIQ2XS)

static inline void decode_block(const BlockIQ2XS& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int entry = 0; entry < 32; ++entry) {
    uint32_t bits = load_u16(block.qs + entry * 2);
    int scale = block.scales[entry / 4] >> (entry / 2 % 2 * 4) & 15;
    float step = d * (0.5f + static_cast<float>(scale)) * 0.25f;
    decode_iq_entry(kIq2XsGrid[bits & 511u], expand_iq_signs(bits >> 9), step, y + entry * 8);
  }
}

} // namespace pinhole
