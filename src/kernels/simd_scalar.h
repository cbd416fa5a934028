// SIMD shim, one lane in plain C: the reference that every other instruction set is tested against.
//
// A shim defines the same names for each instruction set: Vec (kLanes floats), Mask, and the
// functions v_*. `_n` variants touch only the first n lanes (0 <= n <= kLanes; the others load as
// 0). Pointers may have any alignment. Everything is in an anonymous namespace: the linker must
// never see a symbol that was compiled for one CPU only.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "quant/half.h"

#define PINHOLE_INLINE inline __attribute__((always_inline))

namespace pinhole::kernels {
namespace {

typedef float Vec;
typedef bool Mask;
constexpr int kLanes = 1;

PINHOLE_INLINE Vec v_zero() { return 0.0f; }
PINHOLE_INLINE Vec v_set(float x) { return x; }
PINHOLE_INLINE Vec v_load(const float* p) {
  float x;
  memcpy(&x, p, 4);
  return x;
}
PINHOLE_INLINE Vec v_load_n(const float* p, int64_t n) { return n > 0 ? v_load(p) : 0.0f; }
PINHOLE_INLINE void v_store(float* p, Vec x) { memcpy(p, &x, 4); }
PINHOLE_INLINE void v_store_n(float* p, Vec x, int64_t n) {
  if (n > 0)
    v_store(p, x);
}
// One f16, by the CPU's instruction where it has one.
PINHOLE_INLINE float f16_scalar(uint16_t h) { return f16_to_f32(h); }
PINHOLE_INLINE Vec v_load_f16(const void* p) {
  uint16_t h;
  memcpy(&h, p, 2);
  return f16_to_f32(h);
}
PINHOLE_INLINE Vec v_load_f16_n(const void* p, int64_t n) { return n > 0 ? v_load_f16(p) : 0.0f; }
PINHOLE_INLINE void v_store_f16(void* p, Vec x) {
  uint16_t h = f32_to_f16(x);
  memcpy(p, &h, 2);
}
PINHOLE_INLINE void v_store_f16_n(void* p, Vec x, int64_t n) {
  if (n > 0)
    v_store_f16(p, x);
}
PINHOLE_INLINE Vec v_load_bf16(const void* p) {
  uint16_t h;
  memcpy(&h, p, 2);
  return bf16_to_f32(h);
}
PINHOLE_INLINE Vec v_load_bf16_n(const void* p, int64_t n) { return n > 0 ? v_load_bf16(p) : 0.0f; }
PINHOLE_INLINE Vec v_load_i8(const void* p) { return *static_cast<const int8_t*>(p); }
PINHOLE_INLINE Vec v_load_u8(const void* p) { return *static_cast<const uint8_t*>(p); }

PINHOLE_INLINE Vec v_add(Vec a, Vec b) { return a + b; }
PINHOLE_INLINE Vec v_sub(Vec a, Vec b) { return a - b; }
PINHOLE_INLINE Vec v_mul(Vec a, Vec b) { return a * b; }
PINHOLE_INLINE Vec v_div(Vec a, Vec b) { return a / b; }
PINHOLE_INLINE Vec v_fma(Vec a, Vec b, Vec c) { return a * b + c; }  // a * b + c
PINHOLE_INLINE Vec v_fnma(Vec a, Vec b, Vec c) { return c - a * b; } // c - a * b
PINHOLE_INLINE Vec v_max(Vec a, Vec b) { return a > b ? a : b; }     // b when one is NaN
PINHOLE_INLINE Vec v_min(Vec a, Vec b) { return a < b ? a : b; }     // b when one is NaN
PINHOLE_INLINE Vec v_abs(Vec a) { return fabsf(a); }
PINHOLE_INLINE Vec v_copysign(Vec a, Vec sign) { return copysignf(a, sign); }
PINHOLE_INLINE Mask v_lt(Vec a, Vec b) { return a < b; }
PINHOLE_INLINE Vec v_select(Mask m, Vec yes, Vec no) { return m ? yes : no; }
PINHOLE_INLINE float v_reduce_add(Vec a) { return a; }
// out[0, 4) = the sums over the lanes of a, b, c and d.
PINHOLE_INLINE void v_reduce_add_4(Vec a, Vec b, Vec c, Vec d, float* out) {
  out[0] = a;
  out[1] = b;
  out[2] = c;
  out[3] = d;
}
PINHOLE_INLINE float v_reduce_max(Vec a) { return a; }

PINHOLE_INLINE Vec v_exp(Vec a) { return expf(a); }
PINHOLE_INLINE Vec v_erf(Vec a) { return erff(a); }

} // namespace
} // namespace pinhole::kernels
