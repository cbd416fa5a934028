// IQ1_S: 256 elements in 8 groups of 4 entries: the low 8 bits of each code book index in qs; 16
// bits of qh hold 4 x 3 high bits, a 3-bit scale and the sign of delta. Source: ggml's block_iq1_s.
#pragma once

#include "quant/block.h"
#include "quant/half.h"
#include "quant/iq1_entry.h"

namespace pinhole {

struct PINHOLE_PACKED BlockIQ1S {
  uint16_t d; // f16
  uint8_t qs[32];
  uint8_t qh[16];
};
PINHOLE_BLOCK(kIQ1_S, BlockIQ1S)

static inline void decode_block(const BlockIQ1S& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int entry = 0; entry < 32; ++entry) {
    int qh = load_u16(block.qh + entry / 4 * 2);
    int index = block.qs[entry] | (qh >> (entry % 4 * 3) & 7) << 8;
    float step = d * static_cast<float>(2 * (qh >> 12 & 7) + 1);
    decode_iq1_entry(index, (qh & 0x8000) != 0, step, y + entry * 8);
  }
}

} // namespace pinhole
