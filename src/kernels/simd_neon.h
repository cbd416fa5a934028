// SIMD shim for arm64 Advanced SIMD with half-precision conversion: 4 lanes. The names are
// described in simd_scalar.h.
#pragma once

#include <arm_neon.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "quant/half.h"

#define PINHOLE_INLINE inline __attribute__((always_inline))

namespace pinhole::kernels {
namespace {

typedef float32x4_t Vec;
typedef uint32x4_t Mask; // all bits of a lane set or none
constexpr int kLanes = 4;

PINHOLE_INLINE Vec v_zero() { return vdupq_n_f32(0.0f); }
PINHOLE_INLINE Vec v_set(float x) { return vdupq_n_f32(x); }
PINHOLE_INLINE Vec v_load(const float* p) {
  return vreinterpretq_f32_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(p)));
}
PINHOLE_INLINE Vec v_load_n(const float* p, int64_t n) {
  Vec x = v_zero();
  memcpy(&x, p, static_cast<size_t>(n) * 4);
  return x;
}
PINHOLE_INLINE void v_store(float* p, Vec x) {
  vst1q_u8(reinterpret_cast<uint8_t*>(p), vreinterpretq_u8_f32(x));
}
PINHOLE_INLINE void v_store_n(float* p, Vec x, int64_t n) {
  memcpy(p, &x, static_cast<size_t>(n) * 4);
}
PINHOLE_INLINE uint8x8_t load16_n(const void* p, int64_t n) { // n 16-bit values, then zeros
  uint8x8_t x = vdup_n_u8(0);
  memcpy(&x, p, static_cast<size_t>(n) * 2);
  return x;
}
PINHOLE_INLINE float f16_scalar(uint16_t h) {
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
}
PINHOLE_INLINE Vec v_load_f16(const void* p) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(static_cast<const uint8_t*>(p))));
}
PINHOLE_INLINE Vec v_load_f16_n(const void* p, int64_t n) {
  return vcvt_f32_f16(vreinterpret_f16_u8(load16_n(p, n)));
}
PINHOLE_INLINE void v_store_f16(void* p, Vec x) {
  vst1_u8(static_cast<uint8_t*>(p), vreinterpret_u8_f16(vcvt_f16_f32(x)));
}
PINHOLE_INLINE void v_store_f16_n(void* p, Vec x, int64_t n) {
  uint8x8_t h = vreinterpret_u8_f16(vcvt_f16_f32(x));
  memcpy(p, &h, static_cast<size_t>(n) * 2);
}
PINHOLE_INLINE Vec bf16_bits_to_vec(uint8x8_t h) {
  return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(h), 16));
}
PINHOLE_INLINE Vec v_load_bf16(const void* p) {
  return bf16_bits_to_vec(vld1_u8(static_cast<const uint8_t*>(p)));
}
PINHOLE_INLINE Vec v_load_bf16_n(const void* p, int64_t n) {
  return bf16_bits_to_vec(load16_n(p, n));
}
PINHOLE_INLINE Vec v_load_i8(const void* p) { // kLanes signed bytes
  uint32_t bits;
  memcpy(&bits, p, 4);
  int16x8_t w = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(bits)));
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(w)));
}
PINHOLE_INLINE Vec v_load_u8(const void* p) {
  uint32_t bits;
  memcpy(&bits, p, 4);
  uint16x8_t w = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(bits)));
  return vcvtq_f32_u32(vmovl_u16(vget_low_u16(w)));
}

PINHOLE_INLINE Vec v_add(Vec a, Vec b) { return vaddq_f32(a, b); }
PINHOLE_INLINE Vec v_sub(Vec a, Vec b) { return vsubq_f32(a, b); }
PINHOLE_INLINE Vec v_mul(Vec a, Vec b) { return vmulq_f32(a, b); }
PINHOLE_INLINE Vec v_div(Vec a, Vec b) { return vdivq_f32(a, b); }
PINHOLE_INLINE Vec v_fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
PINHOLE_INLINE Vec v_fnma(Vec a, Vec b, Vec c) { return vfmsq_f32(c, a, b); }
PINHOLE_INLINE Vec v_max(Vec a, Vec b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
PINHOLE_INLINE Vec v_min(Vec a, Vec b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
PINHOLE_INLINE Vec v_abs(Vec a) { return vabsq_f32(a); }
PINHOLE_INLINE Vec v_copysign(Vec a, Vec sign) {
  return vbslq_f32(vdupq_n_u32(0x80000000u), sign, a);
}
PINHOLE_INLINE Mask v_lt(Vec a, Vec b) { return vcltq_f32(a, b); }
PINHOLE_INLINE Vec v_select(Mask m, Vec yes, Vec no) { return vbslq_f32(m, yes, no); }
PINHOLE_INLINE float v_reduce_add(Vec a) { return vaddvq_f32(a); }
PINHOLE_INLINE void v_reduce_add_4(Vec a, Vec b, Vec c, Vec d, float* out) {
  v_store(out, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
}
PINHOLE_INLINE float v_reduce_max(Vec a) { return vmaxvq_f32(a); }
PINHOLE_INLINE Vec v_round(Vec a) { return vrndnq_f32(a); } // to nearest, ties to even
// a * 2^n for integral n in [-252, 254]; results below the normal range round as they should.
PINHOLE_INLINE Vec v_ldexp(Vec a, Vec n) {
  int32x4_t i = vcvtnq_s32_f32(n);
  int32x4_t half = vshrq_n_s32(i, 1);
  int32x4_t rest = vsubq_s32(i, half);
  int32x4_t bias = vdupq_n_s32(127);
  Vec a1 = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
  Vec a2 = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23));
  return vmulq_f32(vmulq_f32(a, a1), a2);
}

} // namespace
} // namespace pinhole::kernels
