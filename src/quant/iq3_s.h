// IQ3_S: 256 elements, 64 entries of 4: the low 8 bits of the code book index in qs, the ninth in
// qh, 4 sign bits each; a nibble of scales for each 32 elements. Source: ggml's block_iq3_s.
#pragma once

#include "quant/block.h"
#include "quant/half.h"
#include "quant/iq3s_grid.h"
#include "quant/iq_signs.h"

namespace pinhole {

struct PINHOLE_PACKED BlockIQ3S {
  uint16_t d; // f16
  uint8_t qs[64];
  uint8_t qh[8];
  uint8_t signs[32];
  uint8_t scales[4];
};
PINHOLE_BLOCK(kIQ3_S, BlockIQ3S)

static inline void decode_block(const BlockIQ3S& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int entry = 0; entry < 64; ++entry) {
    int index = block.qs[entry] | (block.qh[entry / 8] >> (entry % 8) & 1) << 8;
    int scale = block.scales[entry / 16] >> (entry / 8 % 2 * 4) & 15;
    float step = d * static_cast<float>(1 + 2 * scale);
    int signs = block.signs[entry / 2] >> (entry % 2 * 4);
    decode_iq_entry(kIq3SGrid[index], signs, step, y + entry * 4);
  }
}

} // namespace pinhole
