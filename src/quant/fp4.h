// E2M1, the 4-bit float of MXFP4 and NVFP4, times two so that it is an integer. Source: OCP
// Microscaling Formats (MX) v1.0, section 5.3.3; ggml's kvalues_fp4.
#pragma once

#include <stdint.h>

namespace pinhole {

static const int8_t kFp4Doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

} // namespace pinhole
