// Q8_0: 32 elements d * q, q a signed byte. encode_block is the rounding of ggml's reference
// quantiser (d = max|x| / 127, q = x / d to nearest, halves away from zero): files and the KV cache
// hold the same numbers here and there. Source: ggml's block_q8_0.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockQ8_0 {
  uint16_t d; // f16
  int8_t qs[32];
};
PINHOLE_BLOCK(kQ8_0, BlockQ8_0)

static inline void decode_block(const BlockQ8_0& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int j = 0; j < 32; ++j)
    y[j] = static_cast<float>(block.qs[j]) * d;
}

// Infinities and NaN have no code: a block that holds one stores an infinite scale or zeros there.
static inline void encode_block(const float* x, BlockQ8_0& block) {
  float largest = 0.0f;
  for (int j = 0; j < 32; ++j) {
    float magnitude = x[j] < 0.0f ? -x[j] : x[j];
    largest = magnitude > largest ? magnitude : largest;
  }
  float d = largest / 127.0f;
  float inverse = d != 0.0f ? 1.0f / d : 0.0f;
  block.d = f32_to_f16(d);
  for (int j = 0; j < 32; ++j) {
    float v = x[j] * inverse;
    v = v == v ? v : 0.0f;
    v = v > 127.0f ? 127.0f : v;
    v = v < -127.0f ? -127.0f : v;
    int q = static_cast<int>(v); // towards zero; the difference below is exact
    float rest = v - static_cast<float>(q);
    q += (rest >= 0.5f ? 1 : 0) - (rest <= -0.5f ? 1 : 0);
    block.qs[j] = static_cast<int8_t>(q);
  }
}

} // namespace pinhole
