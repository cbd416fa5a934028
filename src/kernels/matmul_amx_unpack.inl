// Weight rows to bf16 for AMX tiles: 32 elements (64 bytes) of a row at every `kAmxStep` bytes.
// Formats with few codes look their bf16 values up in a register: 16 or 32 products per group
// instead of one per element.

namespace pinhole::kernels {
namespace {

constexpr int64_t kAmxStep = 2048; // bytes of 32 rows by 32 elements of bf16: two tiles

PINHOLE_INLINE __m512 lane_numbers() {
  return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

// bf16 of scale * i + offset for i in 0..15, twice over: vpermw may be given an index whose fifth
// bit means nothing.
PINHOLE_INLINE __m512i table_16(float scale, float offset) {
  __m512 values = _mm512_fmadd_ps(lane_numbers(), _mm512_set1_ps(scale), _mm512_set1_ps(offset));
  return to_bf16(values, values);
}

PINHOLE_INLINE __m512i table_32(float scale, float offset) {
  __m512 s = _mm512_set1_ps(scale);
  __m512 low = _mm512_fmadd_ps(lane_numbers(), s, _mm512_set1_ps(offset));
  return to_bf16(low, _mm512_fmadd_ps(s, _mm512_set1_ps(16.0f), low));
}

PINHOLE_INLINE __m512i words_from(const uint8_t* bytes) { // 32 bytes
  return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)));
}

template <FormatId f> constexpr int code_count() {
  if (f == FormatId::kQ5_0 || f == FormatId::kQ5_1 || f == FormatId::kQ5_K)
    return 32;
  return kIntSigned<f> || f == FormatId::kQ6_K ? 256 : 16;
}

// 32 codes of one group of 32, or of two groups of 16.
template <FormatId f>
PINHOLE_INLINE __m512i codes_to_bf16(const uint8_t* q, const float* scale, const float* offset) {
  if constexpr (kIntGroup<f> == 32 && code_count<f>() == 16) {
    return _mm512_permutexvar_epi16(words_from(q), table_16(*scale, *offset));
  } else if constexpr (kIntGroup<f> == 32 && code_count<f>() == 32) {
    return _mm512_permutexvar_epi16(words_from(q), table_32(*scale, *offset));
  } else {
    __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
    __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + 16));
    constexpr int kSecond = kIntGroup<f> == 32 ? 0 : 1;
    __m512 a, b;
    if constexpr (kIntSigned<f>) {
      a = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(first));
      b = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(second));
      a = _mm512_mul_ps(a, _mm512_set1_ps(scale[0]));
      b = _mm512_mul_ps(b, _mm512_set1_ps(scale[kSecond]));
    } else {
      a = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(first));
      b = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(second));
      a = _mm512_fmadd_ps(a, _mm512_set1_ps(scale[0]), _mm512_set1_ps(offset[0]));
      b = _mm512_fmadd_ps(b, _mm512_set1_ps(scale[kSecond]), _mm512_set1_ps(offset[kSecond]));
    }
    return to_bf16(a, b);
  }
}

PINHOLE_INLINE void store_step(uint8_t* to, int64_t step, __m512i values) {
  _mm512_store_si512(to + step * kAmxStep, values);
}

PINHOLE_INLINE void unpack_q4_k_bf16(const BlockQ4K& b, uint8_t* to) {
  Codes codes; // its scales only
  unpack_scales(b.scales, quick_f16(b.d), quick_f16(b.dmin), codes);
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    __m512i words = words_from(b.qs + 32 * c);
    __m512i low = table_16(codes.scale[2 * c], codes.offset[2 * c]);
    __m512i high = table_16(codes.scale[2 * c + 1], codes.offset[2 * c + 1]);
    store_step(to, 2 * c, _mm512_permutexvar_epi16(words, low));
    store_step(to, 2 * c + 1, _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4), high));
  }
}

// `count` elements of a weight row (whole blocks, or up to the end of the row), zeros up to a
// multiple of 32.
template <FormatId f> void amx_unpack_row(const uint8_t* w, int64_t count, uint8_t* to) {
  if constexpr (is_float_format(f)) {
    constexpr int64_t kBytes = f == FormatId::kF32 ? 4 : 2;
    for (int64_t i = 0; i < count; i += 32, to += kAmxStep) {
      const uint8_t* p = w + i * kBytes;
      int64_t n = count - i;
      __m512i values;
      if constexpr (f == FormatId::kBF16) {
        values = n >= 32 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16((1u << n) - 1, p);
      } else if (n >= 32) {
        values = to_bf16(float_load<f>(p), float_load<f>(p + 16 * kBytes));
      } else {
        __m512 low = float_load_n<f>(p, min_of(n, 16));
        __m512 high = n > 16 ? float_load_n<f>(p + 16 * kBytes, n - 16) : v_zero();
        values = to_bf16(low, high);
      }
      store_step(to, 0, values);
    }
  } else if constexpr (f == FormatId::kQ4_K) {
    for (int64_t i = 0; i < count; i += 256, w += bytes_of(f), to += 8 * kAmxStep) {
      for (int64_t line = 0; line < bytes_of(f); line += 64)
        __builtin_prefetch(w + 4 * kPrefetchBytes + line);
      unpack_q4_k_bf16(*reinterpret_cast<const BlockQ4K*>(w), to);
    }
  } else if constexpr (is_int_format(f)) {
    constexpr int64_t kBytes = 256 / elements_of(f) * bytes_of(f);
    Codes codes;
    for (int64_t i = 0; i < count; i += 256, w += kBytes, to += 8 * kAmxStep) {
      for (int64_t line = 0; line < kBytes; line += 64)
        __builtin_prefetch(w + 4 * kPrefetchBytes + line);
      int64_t steps = min_of(256, count - i) / 32;
      if (steps == 8)
        unpack_codes<f>(w, 256, codes);
      else
        unpack_codes<f>(w, steps * 32, codes);
      for (int64_t s = 0; s < steps; ++s) {
        int64_t g = s * 32 / kIntGroup<f>;
        store_step(to, s, codes_to_bf16<f>(codes.q + 32 * s, codes.scale + g, codes.offset + g));
      }
    }
  } else {
    alignas(64) float values[256];
    for (int64_t i = 0; i < count; i += 256) {
      int64_t n = min_of(256, count - i);
      decode_row<f>(w + bytes_before<f>(i), values, n);
      for (int64_t j = 0; j < n; j += 32, to += kAmxStep)
        store_step(to, 0, to_bf16(v_load(values + j), v_load(values + j + 16)));
    }
  }
}

} // namespace
} // namespace pinhole::kernels
