// QUINARY: 64 elements d * (q - 2), q in 0 to 4, three of them in a byte as digits of base 5, the
// lowest first; the last byte holds one. Made up for tests/extend.
#pragma once

#include "quant/block.h"
#include "quant/half.h"

namespace pinhole {

struct PINHOLE_PACKED BlockQuinary {
  uint16_t d; // f16
  uint8_t digits[22];
};
PINHOLE_BLOCK(kQuinary, BlockQuinary)

static inline void decode_block(const BlockQuinary& block, float* y) {
  float d = f16_to_f32(block.d);
  for (int i = 0; i < 64; ++i) {
    int rest = block.digits[i / 3];
    for (int j = 0; j < i % 3; ++j)
      rest /= 5;
    y[i] = static_cast<float>(rest % 5 - 2) * d;
  }
}

} // namespace pinhole
