// The 12 bytes of 6-bit scales and minima that Q4_K and Q5_K share: 8 pairs. Pairs 0 to 3 are the
// low 6 bits of bytes 0-3 (scales) and 4-7 (minima); pairs 4 to 7 have their low 4 bits in bytes
// 8-11 and their high 2 bits in the top bits of bytes 0-7. Source: ggml's get_scale_min_k4.
#pragma once

#include <stdint.h>

namespace pinhole {

static inline void unpack_k_scale(const uint8_t* scales, int pair, int* scale, int* minimum) {
  if (pair < 4) {
    *scale = scales[pair] & 63;
    *minimum = scales[pair + 4] & 63;
  } else {
    *scale = (scales[pair + 4] & 15) | (scales[pair - 4] >> 6) << 4;
    *minimum = (scales[pair + 4] >> 4) | (scales[pair] >> 6) << 4;
  }
}

} // namespace pinhole
