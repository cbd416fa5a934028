// K-quants by one row of x (decode), on AVX2 and AVX-512: W is read once, straight from the file,
// and little may be done with each of its bytes. (Q4_K and Q5_K: matmul_decode_k4.inl.)
//
// A block of 256 elements has integer scales s per group of 16 or 32, so x gets integer scales too:
// its groups of 32 have the scale f * d, f from 0 to 127, with one d per 256 elements. Then the
// whole block is summed in 32-bit integers, s * f times the groups' dot products, and scaled once.
// A group's scale is at most 1/f too coarse, which only matters where the group itself does not.
// The sums fit 32 bits: a lane has 16 products, of a code of at most 63, one of at most 127 and an
// s * f of at most 128 * 127.

namespace pinhole::kernels {
namespace {

constexpr bool is_k_format(FormatId f) {
  return f == FormatId::kQ2_K || f == FormatId::kQ3_K || f == FormatId::kQ4_K ||
         f == FormatId::kQ5_K || f == FormatId::kQ6_K;
}

struct KX {                              // 256 elements of x
  alignas(64) int8_t q[256];             // in the order in which a format's codes are unpacked
  alignas(32) int16_t f_of_16[16];       // f of each group of 16
  alignas(32) int16_t sum_of_16[16];     // sum of its codes
  alignas(32) int16_t f_of_32_twice[16]; // f of each group of 32, two times
  alignas(16) int16_t sum_of_32[8];
  float d;
  float unused[3];
};
static_assert(sizeof(KX) == 384);

int64_t k_x_bytes(int64_t m, int64_t k) {
  return m * int_blocks(k) * static_cast<int64_t>(sizeof(KX));
}

// The group of 16 at place i of KX::q.
template <Order order> constexpr int group_at(int i) {
#if defined(PINHOLE_KERNEL_AVX2)
  return i;
#else
  return kOrder[order][i / 4][i % 4];
#endif
}

PINHOLE_INLINE float largest_of_32(const float* x) {
  Vec top = v_zero();
  for (int i = 0; i < 32; i += kLanes)
    top = v_max(top, v_abs(v_load(x + i)));
  return v_reduce_max(top);
}

template <Order order>
void k_pack_x(const float* x, int64_t x_stride, int64_t, int64_t k, int64_t row_begin,
              int64_t row_end, void* packed) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    KX* to = static_cast<KX*>(packed) + row * int_blocks(k);
    for (const float* from = x + row * x_stride; from < x + row * x_stride + k; from += 256, ++to) {
      float largest[8], top = 0.0f;
      for (int g = 0; g < 8; ++g) {
        largest[g] = largest_of_32(from + 32 * g);
        top = largest[g] > top ? largest[g] : top;
      }
      to->d = top * (1.0f / (127.0f * 127.0f));
      alignas(64) int8_t q[256];
      for (int g = 0; g < 8; ++g) {
        // The least f whose scale holds the group's largest element.
        float f = top > 0.0f ? ceilf(largest[g] / top * 127.0f) : 0.0f;
        f = f < 127.0f ? f : 127.0f;
        to->f_of_16[2 * g] = to->f_of_16[2 * g + 1] = static_cast<int16_t>(f);
        to->f_of_32_twice[g] = to->f_of_32_twice[g + 8] = static_cast<int16_t>(f);
        float scale = f * to->d;
        quantize_32(from + 32 * g, scale > 0.0f ? 1.0f / scale : 0.0f, q + 32 * g);
        int16_t first = static_cast<int16_t>(sum_16(q + 32 * g));
        int16_t second = static_cast<int16_t>(sum_16(q + 32 * g + 16));
        to->sum_of_16[2 * g] = first;
        to->sum_of_16[2 * g + 1] = second;
        to->sum_of_32[g] = static_cast<int16_t>(first + second);
      }
      for (int i = 0; i < 16; ++i)
        memcpy(to->q + 16 * i, q + 16 * group_at<order>(i), 16);
    }
  }
}

// Scales of the groups times f as 16 words, and lanes that add up to what the codes' offsets are
// multiplied by: sums of x, times those of the minima or the scales.
struct KScales {
  __m256i times_f;
  __m256i offsets;
};

PINHOLE_INLINE __m256i words_of(const int16_t* p) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
}

PINHOLE_INLINE KScales k_scales(const BlockQ6K& b, const KX& x) {
  KScales s;
  __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b.scales));
  s.times_f = _mm256_mullo_epi16(_mm256_cvtepi8_epi16(bytes), words_of(x.f_of_16));
  s.offsets = _mm256_madd_epi16(s.times_f, words_of(x.sum_of_16));
  return s;
}
PINHOLE_INLINE KScales k_scales(const BlockQ3K& b, const KX& x) {
  KScales s;
  s.times_f = _mm256_mullo_epi16(_mm256_cvtepi8_epi16(q3_k_scales(b)), words_of(x.f_of_16));
  s.offsets = _mm256_madd_epi16(s.times_f, words_of(x.sum_of_16));
  return s;
}
PINHOLE_INLINE KScales k_scales(const BlockQ2K& b, const KX& x) {
  KScales s;
  __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b.scales));
  __m128i nibble = _mm_set1_epi8(15);
  __m256i scales = _mm256_cvtepu8_epi16(_mm_and_si128(packed, nibble));
  __m256i minima = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(packed, 4), nibble));
  s.times_f = _mm256_mullo_epi16(scales, words_of(x.f_of_16));
  minima = _mm256_mullo_epi16(minima, words_of(x.f_of_16));
  s.offsets = _mm256_madd_epi16(minima, words_of(x.sum_of_16));
  return s;
}

// What a block's codes are relative to: dmin times the groups' minima, or these times d and the
// groups' scales.
PINHOLE_INLINE float k_offset(const BlockQ2K& b, float) { return quick_f16(b.dmin); }
PINHOLE_INLINE float k_offset(const BlockQ3K&, float d) { return 4.0f * d; }
PINHOLE_INLINE float k_offset(const BlockQ6K&, float d) { return 32.0f * d; }

// A row's sum so far: of scaled products, and what the codes' offsets add.
struct RowSum {
  Vec scaled;
  __m256 offsets;
};
PINHOLE_INLINE RowSum row_sum_zero() { return {v_zero(), _mm256_setzero_ps()}; }

PINHOLE_INLINE float total_of(const RowSum& sum) {
  __m128 o = _mm_add_ps(_mm256_castps256_ps128(sum.offsets), _mm256_extractf128_ps(sum.offsets, 1));
  o = _mm_add_ps(o, _mm_movehl_ps(o, o));
  return v_reduce_add(sum.scaled) + _mm_cvtss_f32(_mm_add_ss(o, _mm_movehdup_ps(o)));
}

template <class Block>
PINHOLE_INLINE void k_add_offsets(const Block& b, const KX& x, const KScales& s, float d,
                                  RowSum& sum) {
  __m256 factor = _mm256_set1_ps(k_offset(b, d) * x.d);
  sum.offsets = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(s.offsets), factor, sum.offsets);
}

#if defined(PINHOLE_KERNEL_AVX2)

// Group g of 32: products of bytes in pairs, times the words of its scales (pshufb's index g).
PINHOLE_INLINE IVec k_group(IVec sum, __m256i codes, const KX& x, int g, __m256i scales) {
  __m256i q = _mm256_load_si256(reinterpret_cast<const __m256i*>(x.q + 32 * g));
  __m256i index = _mm256_set1_epi16(static_cast<int16_t>(2 * g | (2 * g + 1) << 8));
  __m256i scale = _mm256_shuffle_epi8(scales, index);
  return iv_add(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, q), scale));
}

// Scales so that word g of both halves are those of group g of 32: the same one twice, or those of
// its halves.
template <bool by_32> PINHOLE_INLINE __m256i k_spread(__m256i scales) {
  if (by_32)
    return _mm256_permute4x64_epi64(scales, 0x44);
  const __m256i even_odd = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0,
                                            1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(scales, even_odd), 0xd8);
}

PINHOLE_INLINE __m256i bits_up(__m256i x, int n) { // within words
  return n >= 0 ? _mm256_slli_epi16(x, n) : _mm256_srli_epi16(x, -n);
}

PINHOLE_INLINE __m256i load_32(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

template <FormatId f, class Block>
PINHOLE_INLINE void k_block(const Block& b, const KX& x, RowSum& sum) {
  constexpr bool by_32 = kIntGroup<f> == 32;
  KScales s = k_scales(b, x);
  __m256i scales = k_spread<by_32>(s.times_f);
  IVec even = iv_zero(), odd = iv_zero();
  if constexpr (f == FormatId::kQ6_K) {
    const __m256i nibble = _mm256_set1_epi8(15), two = _mm256_set1_epi8(0x30);
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      __m256i first = load_32(b.ql + 64 * h), second = load_32(b.ql + 64 * h + 32);
      __m256i top = load_32(b.qh + 32 * h);
      __m256i q0 = _mm256_or_si256(_mm256_and_si256(first, nibble),
                                   _mm256_and_si256(_mm256_slli_epi16(top, 4), two));
      __m256i q1 = _mm256_or_si256(_mm256_and_si256(second, nibble),
                                   _mm256_and_si256(_mm256_slli_epi16(top, 2), two));
      __m256i q2 = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(first, 4), nibble),
                                   _mm256_and_si256(top, two));
      __m256i q3 = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(second, 4), nibble),
                                   _mm256_and_si256(_mm256_srli_epi16(top, 2), two));
      even = k_group(even, q0, x, 4 * h, scales);
      odd = k_group(odd, q1, x, 4 * h + 1, scales);
      even = k_group(even, q2, x, 4 * h + 2, scales);
      odd = k_group(odd, q3, x, 4 * h + 3, scales);
    }
  } else {
    const __m256i three = _mm256_set1_epi8(3);
#pragma GCC unroll 8
    for (int e = 0; e < 8; ++e) {
      __m256i packed = load_32(b.qs + e / 4 * 32);
      __m256i codes = _mm256_and_si256(_mm256_srli_epi16(packed, e % 4 * 2), three);
      if constexpr (f == FormatId::kQ3_K) {
        __m256i high = _mm256_and_si256(bits_up(load_32(b.hmask), 2 - e), _mm256_set1_epi8(4));
        codes = _mm256_or_si256(codes, high);
      }
      IVec& part = e % 2 == 0 ? even : odd;
      part = k_group(part, codes, x, e, scales);
    }
  }
  // Apart, as 32 products of Q6_K's codes of up to 63 may not fit a lane.
  float d = quick_f16(b.d);
  Vec factor = v_set(d * x.d);
  sum.scaled = v_fma(iv_to_float(even), factor, sum.scaled);
  sum.scaled = v_fma(iv_to_float(odd), factor, sum.scaled);
  k_add_offsets(b, x, s, d, sum);
}

#else

// For register z: words whose even ones are the scales of the lanes' groups; odd ones are masked.
template <Order order, bool by_32> struct ScaleIndex {
  alignas(64) int16_t at[4][32];
  constexpr ScaleIndex() : at() {
    for (int z = 0; z < 4; ++z)
      for (int p = 0; p < 16; ++p)
        at[z][2 * p] = static_cast<int16_t>(kOrder[order][z][p / 4] / (by_32 ? 2 : 1));
  }
};

template <FormatId f, class Block>
PINHOLE_INLINE void k_block(const Block& b, const KX& x, RowSum& sum) {
  static constexpr ScaleIndex<vnni_order<f>(), kIntGroup<f> == 32> kIndex;
  __m512i q[4];
  k_codes(b, q);
  KScales s = k_scales(b, x);
  __m512i scales = _mm512_castsi256_si512(s.times_f);
  __m512i products = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (int z = 0; z < 4; ++z) {
    __m512i dot =
        _mm512_dpbusd_epi32(_mm512_setzero_si512(), q[z], _mm512_load_si512(x.q + 64 * z));
    __m512i scale =
        _mm512_maskz_permutexvar_epi16(0x55555555u, _mm512_load_si512(kIndex.at[z]), scales);
    products = _mm512_dpwssd_epi32(products, dot, scale); // a dot of four products fits a word
  }
  float d = quick_f16(b.d);
  sum.scaled = v_fma(iv_to_float(products), v_set(d * x.d), sum.scaled);
  k_add_offsets(b, x, s, d, sum);
}

#endif

// One row of x by kIntRows rows of W at w[], straight from the file.
template <FormatId f>
PINHOLE_INLINE void k_dots(const KX* x, const uint8_t* const* w, int64_t k, float* out) {
  using Block = typename BlockOf<f>::Type;
  constexpr int64_t kBytes = static_cast<int64_t>(sizeof(Block));
  RowSum sums[kIntRows];
  for (int r = 0; r < kIntRows; ++r)
    sums[r] = row_sum_zero();
  for (int64_t b = 0; b < k / 256; ++b) {
#pragma GCC unroll 4
    for (int r = 0; r < kIntRows; ++r) {
      const uint8_t* block = w[r] + b * kBytes;
      for (int64_t line = 0; line < kBytes; line += 64)
        __builtin_prefetch(block + kPrefetchBytes + line);
      k_block<f>(*reinterpret_cast<const Block*>(block), x[b], sums[r]);
    }
  }
  for (int r = 0; r < kIntRows; ++r)
    out[r] = total_of(sums[r]);
}

template <FormatId f> void k_run_1(const MatmulArgs& args) {
  run_one_row<KX>(args, [](const KX* x, const uint8_t* const* w, int64_t k, float* out) {
    k_dots<f>(x, w, k, out);
  });
}

} // namespace
} // namespace pinhole::kernels
