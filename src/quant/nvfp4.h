// NVFP4: 64 elements in 4 groups of 16, UE4M3 scale * E2M1; the low nibble of byte j of a group is
// its element j, the high nibble element j + 8. Source: ggml's block_nvfp4, ggml_ue4m3_to_fp32.
#pragma once

#include "quant/block.h"
#include "quant/fp4.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockNVFP4 {
  uint8_t d[4]; // UE4M3
  uint8_t qs[32];
};
PINHOLE_BLOCK(kNVFP4, BlockNVFP4)

// Half of an unsigned E4M3 (bias 7, the top bit unused); NaN, 0x7f, reads as 0.
static inline float ue4m3_half(uint8_t x) {
  if (x == 0x7f)
    return 0.0f;
  int exponent = x >> 3 & 15;
  float mantissa = static_cast<float>(x & 7);
  if (exponent == 0)
    return mantissa * 0x1p-10f;
  float power = f32_from_bits(static_cast<uint32_t>(exponent - 7 - 1 - 3 + 127) << 23);
  return (8.0f + mantissa) * power;
}

static inline void decode_block(const BlockNVFP4& block, float* y) {
  for (int group = 0; group < 4; ++group) {
    float d = ue4m3_half(block.d[group]);
    for (int j = 0; j < 8; ++j) {
      int q = block.qs[group * 8 + j];
      y[group * 16 + j] = static_cast<float>(kFp4Doubled[q & 15]) * d;
      y[group * 16 + j + 8] = static_cast<float>(kFp4Doubled[q >> 4]) * d;
    }
  }
}

} // namespace pinhole
