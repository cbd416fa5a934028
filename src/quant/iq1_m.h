// IQ1_M: 256 elements, 32 entries: the low 8 bits of each code book index in qs; a nibble of qh
// holds its 3 high bits and the sign of delta. Each 16 bits of scales hold 4 x 3-bit scales (of 16
// elements each) and 4 bits of the f16 scale of the block. Source: ggml's block_iq1_m.
#pragma once

#include "quant/block.h"
#include "quant/half.h"
#include "quant/iq1_entry.h"

namespace pinhole {

struct PINHOLE_PACKED BlockIQ1M {
  uint8_t qs[32];
  uint8_t qh[16];
  uint8_t scales[8];
};
PINHOLE_BLOCK(kIQ1_M, BlockIQ1M)

static inline void decode_block(const BlockIQ1M& block, float* y) {
  uint32_t d_bits = 0;
  for (int i = 0; i < 4; ++i) {
    d_bits |= static_cast<uint32_t>(load_u16(block.scales + i * 2) >> 12) << (4 * i);
  }
  float d = f16_to_f32(static_cast<uint16_t>(d_bits));
  for (int entry = 0; entry < 32; ++entry) {
    int qh = block.qh[entry / 2] >> (entry % 2 * 4) & 15;
    int scale = load_u16(block.scales + entry / 8 * 2) >> (entry / 2 % 4 * 3) & 7;
    float step = d * static_cast<float>(2 * scale + 1);
    decode_iq1_entry(block.qs[entry] | (qh & 7) << 8, (qh & 8) != 0, step, y + entry * 8);
  }
}

} // namespace pinhole
