// IQ2_S: 256 elements, 32 entries of 8: the low 8 bits of the code book index in qs, the high 2
// bits in qh, a byte of signs each; a nibble of scales for each 16 elements. Source: ggml's
// block_iq2_s.
#pragma once

#include "quant/block.h"
#include "quant/half.h"
#include "quant/iq2s_grid.h"
#include "quant/iq_signs.h"

namespace pinhole {

struct PINHOLE_PACKED BlockIQ2S {
  uint16_t d; // f16
  uint8_t qs[32];
  uint8_t signs[32];
  uint8_t qh[8];
  uint8_t scales[8];
};
PINHOLE_BLOCK(kIQ2_S, BlockIQ2S)

static inline void decode_block(const BlockIQ2S& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int entry = 0; entry < 32; ++entry) {
    int index = block.qs[entry] | (block.qh[entry / 4] >> (entry % 4 * 2) & 3) << 8;
    int scale = block.scales[entry / 4] >> (entry / 2 % 2 * 4) & 15;
    float step = d * (0.5f + static_cast<float>(scale)) * 0.25f;
    decode_iq_entry(kIq2SGrid[index], block.signs[entry], step, y + entry * 8);
  }
}

} // namespace pinhole
