// Q3_K: 256 elements in 16 groups of 16, d * (scale - 32) * (q - 4): q has 2 low bits as in Q2_K
// and its third bit in hmask (bit e of byte i: element 32 * e + i). Scale g has its low 4 bits in
// the nibbles of bytes 0-7 and its high 2 bits in bytes 8-11. Source: ggml's block_q3_K.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockQ3K {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d; // f16
};
PINHOLE_BLOCK(kQ3_K, BlockQ3K)

static inline int unpack_q3_k_scale(const BlockQ3K& block, int group) {
  int low = block.scales[group % 8] >> (group / 8 * 4) & 15;
  int high = block.scales[8 + group % 4] >> (group / 4 * 2) & 3;
  return (low | high << 4) - 32;
}

static inline void decode_block(const BlockQ3K& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int i = 0; i < 256; ++i) {
    int q = block.qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    int high = block.hmask[i % 32] >> (i / 32) & 1;
    float step = d * static_cast<float>(unpack_q3_k_scale(block, i / 16));
    y[i] = step * static_cast<float>(q - (high ? 0 : 4));
  }
}

} // namespace pinhole
