// SIMD shim for AVX-512 (F, BW, DQ, VL): 16 lanes. The names are described in simd_scalar.h.
#pragma once

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "quant/half.h"

#define PINHOLE_INLINE inline __attribute__((always_inline))

namespace pinhole::kernels {
namespace {

typedef __m512 Vec;
typedef __mmask16 Mask;
constexpr int kLanes = 16;

PINHOLE_INLINE __mmask16 v_tail(int64_t n) { // the first n lanes
  return static_cast<__mmask16>((1u << n) - 1);
}

PINHOLE_INLINE Vec v_zero() { return _mm512_setzero_ps(); }
PINHOLE_INLINE Vec v_set(float x) { return _mm512_set1_ps(x); }
PINHOLE_INLINE Vec v_load(const float* p) { return _mm512_loadu_ps(p); }
PINHOLE_INLINE Vec v_load_n(const float* p, int64_t n) {
  return _mm512_maskz_loadu_ps(v_tail(n), p);
}
PINHOLE_INLINE void v_store(float* p, Vec x) { _mm512_storeu_ps(p, x); }
PINHOLE_INLINE void v_store_n(float* p, Vec x, int64_t n) {
  _mm512_mask_storeu_ps(p, v_tail(n), x);
}
PINHOLE_INLINE float f16_scalar(uint16_t h) { return _cvtsh_ss(h); }
PINHOLE_INLINE Vec v_load_f16(const void* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
PINHOLE_INLINE Vec v_load_f16_n(const void* p, int64_t n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(v_tail(n), p));
}
PINHOLE_INLINE void v_store_f16(void* p, Vec x) {
  _mm256_storeu_si256(static_cast<__m256i*>(p),
                      _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
PINHOLE_INLINE void v_store_f16_n(void* p, Vec x, int64_t n) {
  _mm256_mask_storeu_epi16(p, v_tail(n),
                           _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
PINHOLE_INLINE Vec bf16_bits_to_vec(__m256i h) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
PINHOLE_INLINE Vec v_load_bf16(const void* p) {
  return bf16_bits_to_vec(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
PINHOLE_INLINE Vec v_load_bf16_n(const void* p, int64_t n) {
  return bf16_bits_to_vec(_mm256_maskz_loadu_epi16(v_tail(n), p));
}
PINHOLE_INLINE Vec v_load_i8(const void* p) { // kLanes signed bytes
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
}
PINHOLE_INLINE Vec v_load_u8(const void* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
}

PINHOLE_INLINE Vec v_add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
PINHOLE_INLINE Vec v_sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
PINHOLE_INLINE Vec v_mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
PINHOLE_INLINE Vec v_div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
PINHOLE_INLINE Vec v_fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
PINHOLE_INLINE Vec v_fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }
PINHOLE_INLINE Vec v_max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
PINHOLE_INLINE Vec v_min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
PINHOLE_INLINE Vec v_abs(Vec a) { return _mm512_abs_ps(a); }
PINHOLE_INLINE Vec v_copysign(Vec a, Vec sign) {
  Vec bit = _mm512_set1_ps(-0.0f);
  return _mm512_or_ps(_mm512_andnot_ps(bit, a), _mm512_and_ps(bit, sign));
}
PINHOLE_INLINE Mask v_lt(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
PINHOLE_INLINE Vec v_select(Mask m, Vec yes, Vec no) { return _mm512_mask_blend_ps(m, no, yes); }
PINHOLE_INLINE float v_reduce_add(Vec a) { return _mm512_reduce_add_ps(a); }
PINHOLE_INLINE void v_reduce_add_4(Vec a, Vec b, Vec c, Vec d, float* out) {
  // Of each 128-bit part: a0+a2, b0+b2, a1+a3, b1+b3; then the sums of a, b, c, d.
  __m512d ab = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
  __m512d cd = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
  Vec parts = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
                            _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
  __m256 half = _mm256_add_ps(_mm512_castps512_ps256(parts), _mm512_extractf32x8_ps(parts, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
PINHOLE_INLINE float v_reduce_max(Vec a) { return _mm512_reduce_max_ps(a); }
PINHOLE_INLINE Vec v_round(Vec a) { // to nearest, ties to even
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
PINHOLE_INLINE Vec v_ldexp(Vec a, Vec n) { return _mm512_scalef_ps(a, n); } // a * 2^n, n integral

// Integers in 32-bit lanes.
typedef __m512i IVec;
PINHOLE_INLINE IVec iv_zero() { return _mm512_setzero_si512(); }
PINHOLE_INLINE IVec iv_load(const void* p) { return _mm512_loadu_si512(p); }
PINHOLE_INLINE void iv_store(void* p, IVec x) { _mm512_storeu_si512(p, x); }
PINHOLE_INLINE IVec iv_set(int32_t x) { return _mm512_set1_epi32(x); }
PINHOLE_INLINE IVec iv_set_from(const void* p) { // the 4 bytes at p in every lane
  int32_t x;
  memcpy(&x, p, 4);
  return _mm512_set1_epi32(x);
}
PINHOLE_INLINE IVec iv_pinned(IVec x) { // a value that must be in a register here
  asm("" : "+v"(x));
  return x;
}
PINHOLE_INLINE IVec iv_add(IVec a, IVec b) { return _mm512_add_epi32(a, b); }
PINHOLE_INLINE IVec iv_shift_left(IVec x, int bits) { return _mm512_slli_epi32(x, bits); }
PINHOLE_INLINE IVec iv_bits(Vec x) { return _mm512_castps_si512(x); }
PINHOLE_INLINE Vec v_from_bits(IVec x) { return _mm512_castsi512_ps(x); }
PINHOLE_INLINE Vec iv_to_float(IVec x) { return _mm512_cvtepi32_ps(x); }
PINHOLE_INLINE IVec iv_from_float(Vec x) { return _mm512_cvtps_epi32(x); } // to nearest
// sum + a0 * b0 + a1 * b1 of each lane's two 16-bit integers
PINHOLE_INLINE IVec iv_dot_words(IVec sum, IVec a, IVec b) {
  return _mm512_dpwssd_epi32(sum, a, b);
}
// sum + the products of each lane's four bytes, a's unsigned and b's signed
PINHOLE_INLINE IVec iv_dot_bytes(IVec sum, IVec a, IVec b) {
  return _mm512_dpbusd_epi32(sum, a, b);
}
PINHOLE_INLINE IVec iv_flip_bytes(IVec x) { // signed bytes + 128
  return _mm512_xor_si512(x, _mm512_set1_epi8(static_cast<char>(0x80)));
}
// The low 16 bits of each lane, as kLanes words.
PINHOLE_INLINE void iv_store_words(void* p, IVec x) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(x));
}
// As iv_store_words, of two vectors.
PINHOLE_INLINE void iv_store_words_2(void* p, IVec a, IVec b) {
  __m512i every_second =
      _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26,
                       24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  _mm512_storeu_si512(p, _mm512_permutex2var_epi16(a, every_second, b));
}
// 4 x 4 transpose of the 32-bit lanes of each 128-bit part.
PINHOLE_INLINE void iv_transpose_4(IVec z0, IVec z1, IVec z2, IVec z3, IVec* out) {
  __m512i a = _mm512_unpacklo_epi32(z0, z1), b = _mm512_unpackhi_epi32(z0, z1);
  __m512i c = _mm512_unpacklo_epi32(z2, z3), d = _mm512_unpackhi_epi32(z2, z3);
  out[0] = _mm512_unpacklo_epi64(a, c);
  out[1] = _mm512_unpackhi_epi64(a, c);
  out[2] = _mm512_unpacklo_epi64(b, d);
  out[3] = _mm512_unpackhi_epi64(b, d);
}

} // namespace
} // namespace pinhole::kernels
