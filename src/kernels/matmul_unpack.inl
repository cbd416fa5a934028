// Integer formats as 256 codes with a scale and an offset per group: element = scale * q + offset.
// Groups have 16 or 32 elements; formats with blocks of 32 are taken 8 blocks at a time. Plain
// loops over fixed lengths, which the compiler turns into each instruction set's vectors.

namespace pinhole::kernels {
namespace {

struct Codes {
  alignas(64) uint8_t q[256]; // signed for kIntSigned formats
  alignas(64) float scale[16];
  alignas(64) float offset[16];
};

PINHOLE_INLINE float quick_f16(uint16_t bits) {
#if defined(__F16C__)
  return _cvtsh_ss(bits);
#elif defined(PINHOLE_KERNEL_NEON)
  __fp16 half;
  memcpy(&half, &bits, 2);
  return half;
#else
  return f16_to_f32(bits);
#endif
}

constexpr bool is_int_format(FormatId f) {
  switch (f) {
  case FormatId::kQ4_0:
  case FormatId::kQ4_1:
  case FormatId::kQ5_0:
  case FormatId::kQ5_1:
  case FormatId::kQ8_0:
  case FormatId::kQ2_K:
  case FormatId::kQ3_K:
  case FormatId::kQ4_K:
  case FormatId::kQ5_K:
  case FormatId::kQ6_K:
  case FormatId::kIQ4_NL:
  case FormatId::kIQ4_XS:
    return true;
  default:
    return false;
  }
}

constexpr bool is_float_format(FormatId f) {
  return f == FormatId::kF32 || f == FormatId::kF16 || f == FormatId::kBF16;
}

constexpr int64_t elements_of(FormatId f) { return kBlockElements[static_cast<int>(f)]; }
constexpr int64_t bytes_of(FormatId f) { return kBlockBytes[static_cast<int>(f)]; }

// Codes are signed bytes (others: 0 to 63, so that a byte times two x codes fits 16 bits).
template <FormatId f>
constexpr bool kIntSigned =
    f == FormatId::kQ8_0 || f == FormatId::kIQ4_NL || f == FormatId::kIQ4_XS;
// Elements per scale.
template <FormatId f>
constexpr int kIntGroup =
    f == FormatId::kQ2_K || f == FormatId::kQ3_K || f == FormatId::kQ6_K ? 16 : 32;
// Every offset is zero.
template <FormatId f> constexpr bool kIntNoOffset = kIntSigned<f>;

PINHOLE_INLINE void unpack_nibbles_16(const uint8_t* qs, uint8_t* q) { // low 16, then high 16
#if defined(__SSE4_1__)
  __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(qs));
  __m128i nibble = _mm_set1_epi8(15);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm_and_si128(packed, nibble));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16),
                   _mm_and_si128(_mm_srli_epi16(packed, 4), nibble));
#else
  for (int j = 0; j < 16; ++j)
    q[j] = qs[j] & 15;
  for (int j = 0; j < 16; ++j)
    q[j + 16] = qs[j] >> 4;
#endif
}

template <class Block> constexpr bool kHasFifthBits = false;
template <> constexpr bool kHasFifthBits<BlockQ5_0> = true;
template <> constexpr bool kHasFifthBits<BlockQ5_1> = true;

#if defined(__AVX2__)
// 16 in every byte whose bit of the 32 is set.
PINHOLE_INLINE __m256i fifth_bits(const uint8_t* qh) {
  int32_t bits;
  memcpy(&bits, qh, 4);
  __m256i spread = _mm256_shuffle_epi8( // byte j: the byte of the bits that has bit j
      _mm256_set1_epi32(bits),
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
  __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
  __m256i is_set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
  return _mm256_and_si256(is_set, _mm256_set1_epi8(16));
}
#endif

PINHOLE_INLINE void unpack_fifth_bits(const uint8_t* qh, uint8_t* q) {
#if defined(__AVX2__)
  __m256i* to = reinterpret_cast<__m256i*>(q);
  _mm256_storeu_si256(to, _mm256_or_si256(_mm256_loadu_si256(to), fifth_bits(qh)));
#else
  uint32_t bits;
  memcpy(&bits, qh, 4);
  for (int j = 0; j < 32; ++j)
    q[j] |= static_cast<uint8_t>((bits >> j & 1) << 4);
#endif
}

PINHOLE_INLINE void unpack_32(const BlockQ4_0& b, uint8_t* q, float* scale, float* offset) {
  unpack_nibbles_16(b.qs, q);
  *scale = quick_f16(b.d);
  *offset = -8.0f * *scale;
}
PINHOLE_INLINE void unpack_32(const BlockQ4_1& b, uint8_t* q, float* scale, float* offset) {
  unpack_nibbles_16(b.qs, q);
  *scale = quick_f16(b.d);
  *offset = quick_f16(b.m);
}
PINHOLE_INLINE void unpack_32(const BlockQ5_0& b, uint8_t* q, float* scale, float* offset) {
  unpack_nibbles_16(b.qs, q);
  unpack_fifth_bits(b.qh, q);
  *scale = quick_f16(b.d);
  *offset = -16.0f * *scale;
}
PINHOLE_INLINE void unpack_32(const BlockQ5_1& b, uint8_t* q, float* scale, float* offset) {
  unpack_nibbles_16(b.qs, q);
  unpack_fifth_bits(b.qh, q);
  *scale = quick_f16(b.d);
  *offset = quick_f16(b.m);
}
PINHOLE_INLINE void unpack_32(const BlockQ8_0& b, uint8_t* q, float* scale, float* offset) {
  memcpy(q, b.qs, 32);
  *scale = quick_f16(b.d);
  *offset = 0.0f;
}
PINHOLE_INLINE void unpack_iq4(const uint8_t* qs, uint8_t* q) { // table entries, as nibbles lie
#if defined(__SSSE3__)
  __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kIq4Values));
  __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(qs));
  __m128i nibble = _mm_set1_epi8(15);
  __m128i low = _mm_shuffle_epi8(table, _mm_and_si128(packed, nibble));
  __m128i high = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(packed, 4), nibble));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q), low);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16), high);
#elif defined(PINHOLE_KERNEL_NEON)
  int8x16_t table = vld1q_s8(kIq4Values);
  uint8x16_t packed = vld1q_u8(qs);
  vst1q_u8(q, vreinterpretq_u8_s8(vqtbl1q_s8(table, vandq_u8(packed, vdupq_n_u8(15)))));
  vst1q_u8(q + 16, vreinterpretq_u8_s8(vqtbl1q_s8(table, vshrq_n_u8(packed, 4))));
#else
  for (int j = 0; j < 16; ++j) {
    q[j] = static_cast<uint8_t>(kIq4Values[qs[j] & 15]);
    q[j + 16] = static_cast<uint8_t>(kIq4Values[qs[j] >> 4]);
  }
#endif
}

PINHOLE_INLINE void unpack_32(const BlockIQ4NL& b, uint8_t* q, float* scale, float* offset) {
  unpack_iq4(b.qs, q);
  *scale = quick_f16(b.d);
  *offset = 0.0f;
}

// The 8 scales and 8 minima of Q4_K and Q5_K as bytes: see quant/k_scales.h.
PINHOLE_INLINE void unpack_k_scales(const uint8_t* packed, uint32_t* scales, uint32_t* minima) {
  uint32_t a, b, c;
  memcpy(&a, packed, 4);
  memcpy(&b, packed + 4, 4);
  memcpy(&c, packed + 8, 4);
  scales[0] = a & 0x3f3f3f3fu;
  minima[0] = b & 0x3f3f3f3fu;
  scales[1] = (c & 0x0f0f0f0fu) | (a >> 2 & 0x30303030u);
  minima[1] = (c >> 4 & 0x0f0f0f0fu) | (b >> 2 & 0x30303030u);
}

PINHOLE_INLINE void unpack_scales(const uint8_t* packed, float d, float dmin, Codes& out) {
  uint32_t words[4];
  unpack_k_scales(packed, words, words + 2);
  uint8_t bytes[16];
  memcpy(bytes, words, 16);
  for (int g = 0; g < 8; ++g)
    out.scale[g] = d * static_cast<float>(bytes[g]);
  for (int g = 0; g < 8; ++g)
    out.offset[g] = -dmin * static_cast<float>(bytes[g + 8]);
}

PINHOLE_INLINE void unpack_256(const BlockQ4K& b, Codes& out) {
  for (int c = 0; c < 4; ++c) {
    for (int j = 0; j < 32; ++j)
      out.q[c * 64 + j] = b.qs[c * 32 + j] & 15;
    for (int j = 0; j < 32; ++j)
      out.q[c * 64 + 32 + j] = b.qs[c * 32 + j] >> 4;
  }
  unpack_scales(b.scales, quick_f16(b.d), quick_f16(b.dmin), out);
}
PINHOLE_INLINE void unpack_256(const BlockQ5K& b, Codes& out) {
  for (int c = 0; c < 4; ++c) {
    for (int j = 0; j < 32; ++j)
      out.q[c * 64 + j] =
          static_cast<uint8_t>((b.qs[c * 32 + j] & 15) | (b.qh[j] >> (2 * c) & 1) << 4);
    for (int j = 0; j < 32; ++j)
      out.q[c * 64 + 32 + j] =
          static_cast<uint8_t>(b.qs[c * 32 + j] >> 4 | (b.qh[j] >> (2 * c + 1) & 1) << 4);
  }
  unpack_scales(b.scales, quick_f16(b.d), quick_f16(b.dmin), out);
}
PINHOLE_INLINE void unpack_256(const BlockQ6K& b, Codes& out) {
  for (int h = 0; h < 2; ++h) {
    const uint8_t* ql = b.ql + 64 * h;
    const uint8_t* qh = b.qh + 32 * h;
    uint8_t* q = out.q + 128 * h;
    for (int j = 0; j < 32; ++j)
      q[j] = static_cast<uint8_t>((ql[j] & 15) | (qh[j] & 3) << 4);
    for (int j = 0; j < 32; ++j)
      q[j + 32] = static_cast<uint8_t>((ql[j + 32] & 15) | (qh[j] >> 2 & 3) << 4);
    for (int j = 0; j < 32; ++j)
      q[j + 64] = static_cast<uint8_t>(ql[j] >> 4 | (qh[j] >> 4 & 3) << 4);
    for (int j = 0; j < 32; ++j)
      q[j + 96] = static_cast<uint8_t>(ql[j + 32] >> 4 | (qh[j] >> 6) << 4);
  }
  float d = quick_f16(b.d);
  for (int g = 0; g < 16; ++g) {
    out.scale[g] = d * static_cast<float>(b.scales[g]);
    out.offset[g] = -32.0f * out.scale[g];
  }
}
PINHOLE_INLINE void unpack_256(const BlockQ2K& b, Codes& out) {
  for (int e = 0; e < 8; ++e)
    for (int j = 0; j < 32; ++j)
      out.q[e * 32 + j] = b.qs[e / 4 * 32 + j] >> (e % 4 * 2) & 3;
  float d = quick_f16(b.d), dmin = quick_f16(b.dmin);
  for (int g = 0; g < 16; ++g) {
    out.scale[g] = d * static_cast<float>(b.scales[g] & 15);
    out.offset[g] = -dmin * static_cast<float>(b.scales[g] >> 4);
  }
}
PINHOLE_INLINE void unpack_256(const BlockQ3K& b, Codes& out) {
  for (int e = 0; e < 8; ++e)
    for (int j = 0; j < 32; ++j)
      out.q[e * 32 + j] = static_cast<uint8_t>((b.qs[e / 4 * 32 + j] >> (e % 4 * 2) & 3) |
                                               (b.hmask[j] >> e & 1) << 2);
  float d = quick_f16(b.d);
  for (int g = 0; g < 16; ++g) {
    out.scale[g] = d * static_cast<float>(unpack_q3_k_scale(b, g));
    out.offset[g] = -4.0f * out.scale[g];
  }
}
PINHOLE_INLINE void unpack_256(const BlockIQ4XS& b, Codes& out) {
  float d = quick_f16(b.d);
  for (int g = 0; g < 8; ++g) {
    unpack_iq4(b.qs + g * 16, out.q + g * 32);
    out.scale[g] = d * static_cast<float>(unpack_iq4_xs_scale(b, g));
    out.offset[g] = 0.0f;
  }
}

#if defined(__AVX2__)
PINHOLE_INLINE __m128i load_16(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}

// 8 blocks of 32.
template <class Block> PINHOLE_INLINE __m256 eight_scales(const Block* b) {
  __m128i d = _mm_setr_epi16(static_cast<int16_t>(b[0].d), static_cast<int16_t>(b[1].d),
                             static_cast<int16_t>(b[2].d), static_cast<int16_t>(b[3].d),
                             static_cast<int16_t>(b[4].d), static_cast<int16_t>(b[5].d),
                             static_cast<int16_t>(b[6].d), static_cast<int16_t>(b[7].d));
  return _mm256_cvtph_ps(d);
}

template <class Block> PINHOLE_INLINE __m256 eight_minima(const Block* b) {
  __m128i m = _mm_setr_epi16(static_cast<int16_t>(b[0].m), static_cast<int16_t>(b[1].m),
                             static_cast<int16_t>(b[2].m), static_cast<int16_t>(b[3].m),
                             static_cast<int16_t>(b[4].m), static_cast<int16_t>(b[5].m),
                             static_cast<int16_t>(b[6].m), static_cast<int16_t>(b[7].m));
  return _mm256_cvtph_ps(m);
}

// What is added to scale times code, of 8 blocks of 32.
PINHOLE_INLINE __m256 eight_offsets(const BlockQ4_0*, __m256 scales) {
  return _mm256_mul_ps(scales, _mm256_set1_ps(-8.0f));
}
PINHOLE_INLINE __m256 eight_offsets(const BlockQ4_1* b, __m256) { return eight_minima(b); }
PINHOLE_INLINE __m256 eight_offsets(const BlockQ5_0*, __m256 scales) {
  return _mm256_mul_ps(scales, _mm256_set1_ps(-16.0f));
}
PINHOLE_INLINE __m256 eight_offsets(const BlockQ5_1* b, __m256) { return eight_minima(b); }
template <class Block> PINHOLE_INLINE __m256 eight_offsets(const Block*, __m256 scales) {
  // Signed codes: vpdpbusd wants them moved up by 128.
  return _mm256_mul_ps(scales, _mm256_set1_ps(is_vnni() ? -128.0f : 0.0f));
}

// The 16 scales of Q3_K as bytes: see quant/q3_k.h.
PINHOLE_INLINE __m128i q3_k_scales(const BlockQ3K& b) {
  uint64_t low = 0;
  uint32_t high = 0;
  memcpy(&low, b.scales, 8);
  memcpy(&high, b.scales + 8, 4);
  constexpr uint64_t kNibbles = 0x0f0f0f0f0f0f0f0full;
  auto pair = [&](int shift) { // the high bits of 8 groups, at bits 4 and 5
    uint64_t first = high >> shift & 0x03030303u, second = high >> (shift + 2) & 0x03030303u;
    return (first | second << 32) << 4;
  };
  uint64_t s0 = (low & kNibbles) | pair(0), s1 = (low >> 4 & kNibbles) | pair(4);
  return _mm_sub_epi8(_mm_set_epi64x(static_cast<int64_t>(s1), static_cast<int64_t>(s0)),
                      _mm_set1_epi8(32));
}
#endif

// `elements` (a multiple of 32, at most 256) from a row; the rest become zeros.
template <FormatId f>
PINHOLE_INLINE void unpack_codes(const uint8_t* w, int64_t elements, Codes& out) {
  using Block = typename BlockOf<f>::Type;
  const Block* blocks = reinterpret_cast<const Block*>(w);
  if constexpr (elements_of(f) == 256) {
    unpack_256(*blocks, out);
  } else {
    int count = static_cast<int>(elements / 32);
    for (int i = 0; i < count; ++i)
      unpack_32(blocks[i], out.q + i * 32, out.scale + i, out.offset + i);
    for (int i = count; i < 8; ++i) {
      memset(out.q + i * 32, 0, 32);
      out.scale[i] = 0.0f;
      out.offset[i] = 0.0f;
    }
  }
}

// Byte offset of element k (a whole number of blocks) in a weight row.
template <FormatId f> PINHOLE_INLINE int64_t bytes_before(int64_t k) {
  return k / elements_of(f) * bytes_of(f);
}

// `count` elements (whole blocks) to f32.
template <FormatId f> PINHOLE_INLINE void decode_row(const uint8_t* w, float* to, int64_t count) {
  if constexpr (f == FormatId::kF32) {
    memcpy(to, w, static_cast<size_t>(count) * 4);
  } else if constexpr (is_float_format(f)) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
      v_store(to + i, f == FormatId::kF16 ? v_load_f16(w + i * 2) : v_load_bf16(w + i * 2));
    if (i < count)
      v_store_n(to + i,
                f == FormatId::kF16 ? v_load_f16_n(w + i * 2, count - i)
                                    : v_load_bf16_n(w + i * 2, count - i),
                count - i);
  } else if constexpr (is_int_format(f)) {
    Codes codes;
    for (int64_t i = 0; i < count; i += 256) {
      int64_t n = min_of(256, count - i);
      unpack_codes<f>(w + bytes_before<f>(i), n, codes);
      for (int64_t j = 0; j < n; ++j) {
        int q = kIntSigned<f> ? static_cast<int>(static_cast<int8_t>(codes.q[j])) : codes.q[j];
        int64_t g = j / kIntGroup<f>;
        to[i + j] = codes.scale[g] * static_cast<float>(q) + codes.offset[g];
      }
    }
  } else {
    Decoder<f>::run(w, to, count);
  }
}

} // namespace
} // namespace pinhole::kernels
