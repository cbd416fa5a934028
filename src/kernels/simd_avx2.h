// SIMD shim for AVX2 + FMA + F16C: 8 lanes. The names are described in simd_scalar.h.
#pragma once

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "quant/half.h"

#define PINHOLE_INLINE inline __attribute__((always_inline))

namespace pinhole::kernels {
namespace {

typedef __m256 Vec;
typedef __m256 Mask; // all bits of a lane set or none
constexpr int kLanes = 8;

// The first n lanes of kTailMask + 8 - n are set.
alignas(64) const int32_t kTailMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
PINHOLE_INLINE __m256i v_tail(int64_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kTailMask + 8 - n));
}

PINHOLE_INLINE Vec v_zero() { return _mm256_setzero_ps(); }
PINHOLE_INLINE Vec v_set(float x) { return _mm256_set1_ps(x); }
PINHOLE_INLINE Vec v_load(const float* p) { return _mm256_loadu_ps(p); }
PINHOLE_INLINE Vec v_load_n(const float* p, int64_t n) { return _mm256_maskload_ps(p, v_tail(n)); }
PINHOLE_INLINE void v_store(float* p, Vec x) { _mm256_storeu_ps(p, x); }
PINHOLE_INLINE void v_store_n(float* p, Vec x, int64_t n) { _mm256_maskstore_ps(p, v_tail(n), x); }
PINHOLE_INLINE __m128i load16_n(const void* p, int64_t n) { // n 16-bit values, then zeros
  __m128i x = _mm_setzero_si128();
  memcpy(&x, p, static_cast<size_t>(n) * 2);
  return x;
}
PINHOLE_INLINE float f16_scalar(uint16_t h) { return _cvtsh_ss(h); }
PINHOLE_INLINE Vec v_load_f16(const void* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
PINHOLE_INLINE Vec v_load_f16_n(const void* p, int64_t n) {
  return _mm256_cvtph_ps(load16_n(p, n));
}
PINHOLE_INLINE void v_store_f16(void* p, Vec x) {
  _mm_storeu_si128(static_cast<__m128i*>(p),
                   _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
PINHOLE_INLINE void v_store_f16_n(void* p, Vec x, int64_t n) {
  __m128i h = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  memcpy(p, &h, static_cast<size_t>(n) * 2);
}
PINHOLE_INLINE Vec bf16_bits_to_vec(__m128i h) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
PINHOLE_INLINE Vec v_load_bf16(const void* p) {
  return bf16_bits_to_vec(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
PINHOLE_INLINE Vec v_load_bf16_n(const void* p, int64_t n) {
  return bf16_bits_to_vec(load16_n(p, n));
}
PINHOLE_INLINE Vec v_load_i8(const void* p) { // kLanes signed bytes
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
}
PINHOLE_INLINE Vec v_load_u8(const void* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
}

PINHOLE_INLINE Vec v_add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
PINHOLE_INLINE Vec v_sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
PINHOLE_INLINE Vec v_mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
PINHOLE_INLINE Vec v_div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
PINHOLE_INLINE Vec v_fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
PINHOLE_INLINE Vec v_fnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }
PINHOLE_INLINE Vec v_max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
PINHOLE_INLINE Vec v_min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
PINHOLE_INLINE Vec v_abs(Vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
PINHOLE_INLINE Vec v_copysign(Vec a, Vec sign) {
  Vec bit = _mm256_set1_ps(-0.0f);
  return _mm256_or_ps(_mm256_andnot_ps(bit, a), _mm256_and_ps(bit, sign));
}
PINHOLE_INLINE Mask v_lt(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
PINHOLE_INLINE Vec v_select(Mask m, Vec yes, Vec no) { return _mm256_blendv_ps(no, yes, m); }
PINHOLE_INLINE float v_reduce_add(Vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
PINHOLE_INLINE void v_reduce_add_4(Vec a, Vec b, Vec c, Vec d, float* out) {
  Vec s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}
PINHOLE_INLINE float v_reduce_max(Vec a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
PINHOLE_INLINE Vec v_round(Vec a) { // to nearest, ties to even
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// a * 2^n for integral n in [-252, 254]; results below the normal range round as they should.
PINHOLE_INLINE Vec v_ldexp(Vec a, Vec n) {
  __m256i i = _mm256_cvtps_epi32(n);
  __m256i half = _mm256_srai_epi32(i, 1);
  __m256i rest = _mm256_sub_epi32(i, half);
  __m256i bias = _mm256_set1_epi32(127);
  Vec a1 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  Vec a2 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return _mm256_mul_ps(_mm256_mul_ps(a, a1), a2);
}

// Integers in 32-bit lanes.
typedef __m256i IVec;
PINHOLE_INLINE IVec iv_zero() { return _mm256_setzero_si256(); }
PINHOLE_INLINE IVec iv_load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
PINHOLE_INLINE void iv_store(void* p, IVec x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
PINHOLE_INLINE IVec iv_set(int32_t x) { return _mm256_set1_epi32(x); }
PINHOLE_INLINE IVec iv_set_from(const void* p) { // the 4 bytes at p in every lane
  int32_t x;
  memcpy(&x, p, 4);
  return _mm256_set1_epi32(x);
}
// A value that must be in a register here. GCC puts the additions of a chain off (tree-reassoc),
// which spills every product of an unrolled loop, and loads again what an instruction can load.
PINHOLE_INLINE IVec iv_pinned(IVec x) {
  asm("" : "+x"(x));
  return x;
}
PINHOLE_INLINE IVec iv_add(IVec a, IVec b) { return iv_pinned(_mm256_add_epi32(a, b)); }
PINHOLE_INLINE IVec iv_add_words(IVec a, IVec b) { return iv_pinned(_mm256_add_epi16(a, b)); }
PINHOLE_INLINE IVec iv_shift_left(IVec x, int bits) { return _mm256_slli_epi32(x, bits); }
PINHOLE_INLINE IVec iv_bits(Vec x) { return _mm256_castps_si256(x); }
PINHOLE_INLINE Vec v_from_bits(IVec x) { return _mm256_castsi256_ps(x); }
PINHOLE_INLINE Vec iv_to_float(IVec x) { return _mm256_cvtepi32_ps(x); }
PINHOLE_INLINE IVec iv_from_float(Vec x) { return _mm256_cvtps_epi32(x); } // to nearest
// sum + a0 * b0 + a1 * b1 of each lane's two 16-bit integers
PINHOLE_INLINE IVec iv_dot_words(IVec sum, IVec a, IVec b) {
  return iv_add(sum, _mm256_madd_epi16(a, b));
}
// sum + the products of each lane's four bytes, a's unsigned and b's signed; a pair of products
// must fit 16 bits.
PINHOLE_INLINE IVec iv_dot_bytes(IVec sum, IVec a, IVec b) {
  __m256i pairs = _mm256_maddubs_epi16(a, b);
  return iv_add(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
PINHOLE_INLINE IVec iv_flip_bytes(IVec x) { // signed bytes + 128
  return _mm256_xor_si256(x, _mm256_set1_epi8(static_cast<char>(0x80)));
}
// The low 16 bits of each lane (values within 16 bits), as kLanes words.
PINHOLE_INLINE void iv_store_words(void* p, IVec x) {
  __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storeu_si128(static_cast<__m128i*>(p), words);
}
// As iv_store_words, of two vectors.
PINHOLE_INLINE void iv_store_words_2(void* p, IVec a, IVec b) {
  __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
  _mm256_storeu_si256(static_cast<__m256i*>(p), words);
}
// 4 x 4 transpose of the 32-bit lanes of each 128-bit part.
PINHOLE_INLINE void iv_transpose_4(IVec z0, IVec z1, IVec z2, IVec z3, IVec* out) {
  __m256i a = _mm256_unpacklo_epi32(z0, z1), b = _mm256_unpackhi_epi32(z0, z1);
  __m256i c = _mm256_unpacklo_epi32(z2, z3), d = _mm256_unpackhi_epi32(z2, z3);
  out[0] = _mm256_unpacklo_epi64(a, c);
  out[1] = _mm256_unpackhi_epi64(a, c);
  out[2] = _mm256_unpacklo_epi64(b, d);
  out[3] = _mm256_unpackhi_epi64(b, d);
}

} // namespace
} // namespace pinhole::kernels
