// What IQ1_S and IQ1_M share: entries of 8 elements step * (g + delta), g in {-1, 0, 1} from the
// code book, delta = +-0.125. Source: ggml's dequantize_row_iq1_s, IQ1S_DELTA.
#pragma once

#include "quant/iq1s_grid.h"

namespace pinhole {

static inline void decode_iq1_entry(int index, bool negative_delta, float step, float* y) {
  float delta = negative_delta ? -0.125f : 0.125f;
  for (int j = 0; j < 8; ++j) {
    int8_t g = static_cast<int8_t>(kIq1SGrid[index] >> (8 * j) & 255);
    y[j] = step * (static_cast<float>(g) + delta);
  }
}

} // namespace pinhole
