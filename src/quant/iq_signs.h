// Sign patterns of IQ2_XXS, IQ2_XS and IQ3_XXS: 7 stored bits, the eighth makes the number of minus
// signs even. Source: ggml's ksigns_iq2xs.
#pragma once

#include <stdint.h>

namespace pinhole {

static inline int expand_iq_signs(uint32_t stored) {
  uint32_t parity = stored ^ stored >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return static_cast<int>(stored | (parity & 1u) << 7);
}

// y[j] = step * (byte j of the code book entry), negated where bit j of signs is set.
template <class Entry>
static inline void decode_iq_entry(Entry entry, int signs, float step, float* y) {
  for (int j = 0; j < static_cast<int>(sizeof(Entry)); ++j) {
    float magnitude = step * static_cast<float>(entry >> (8 * j) & 255);
    y[j] = signs >> j & 1 ? -magnitude : magnitude;
  }
}

} // namespace pinhole
