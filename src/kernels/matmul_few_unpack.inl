// AVX2: 256 elements of a row of W as IntW wants them, transposed so that the lanes of four
// registers have the same groups: their byte products add up as 16-bit words before anything is
// scaled.

namespace pinhole::kernels {
namespace {

// Codes of 256 elements in their order, 32 in each register.
template <FormatId f, class Block> PINHOLE_INLINE void few_codes(const Block* b, __m256i* q) {
  const __m256i nibble = _mm256_set1_epi8(15);
  if constexpr (elements_of(f) == 32) {
    for (int i = 0; i < 8; ++i)
      q[i] = codes_of_32(b[i]);
  } else if constexpr (f == FormatId::kQ5_K) {
    const __m256i high = load_32(b->qh), bit = _mm256_set1_epi8(16);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      __m256i packed = load_32(b->qs + 32 * c);
      q[2 * c] = _mm256_or_si256(_mm256_and_si256(packed, nibble),
                                 _mm256_and_si256(bits_up(high, 4 - 2 * c), bit));
      q[2 * c + 1] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(packed, 4), nibble),
                                     _mm256_and_si256(bits_up(high, 3 - 2 * c), bit));
    }
  } else {
    static_assert(f == FormatId::kQ6_K);
    const __m256i two = _mm256_set1_epi8(0x30);
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      __m256i first = load_32(b->ql + 64 * h), second = load_32(b->ql + 64 * h + 32);
      __m256i top = load_32(b->qh + 32 * h);
      const auto with = [&](__m256i low, __m256i high) {
        return _mm256_or_si256(_mm256_and_si256(low, nibble), _mm256_and_si256(high, two));
      };
      q[4 * h] = with(first, _mm256_slli_epi16(top, 4));
      q[4 * h + 1] = with(second, _mm256_slli_epi16(top, 2));
      q[4 * h + 2] = with(_mm256_srli_epi16(first, 4), top);
      q[4 * h + 3] = with(_mm256_srli_epi16(second, 4), _mm256_srli_epi16(top, 2));
    }
  }
}

PINHOLE_INLINE void few_transpose(const __m256i* q, IntW& to) {
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    __m256i half[4];
    iv_transpose_4(q[h], q[2 + h], q[4 + h], q[6 + h], half);
    for (int j = 0; j < 4; ++j)
      to.q[2 * j + h] = half[j];
  }
}
PINHOLE_INLINE void few_transpose(const BlockQ4K& b, IntW& to) { // before nibbles are parted
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i packed[4];
  iv_transpose_4(load_32(b.qs), load_32(b.qs + 32), load_32(b.qs + 64), load_32(b.qs + 96), packed);
  for (int j = 0; j < 4; ++j) {
    to.q[2 * j] = _mm256_and_si256(packed[j], nibble);
    to.q[2 * j + 1] = _mm256_and_si256(_mm256_srli_epi16(packed[j], 4), nibble);
  }
}

// A value of each group of 32 to the lanes: 0, 2, 4, 6 twice, and 1, 3, 5, 7 twice.
PINHOLE_INLINE void few_lanes(__m256 of_groups, __m256* lanes) {
  __m256 parted = _mm256_permutevar8x32_ps(of_groups, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
  lanes[0] = _mm256_permute2f128_ps(parted, parted, 0x00);
  lanes[1] = _mm256_permute2f128_ps(parted, parted, 0x11);
}
// A byte of each group of 16 to the lanes: group 4 * (p % 4) + p / 4 to lane p.
PINHOLE_INLINE void few_lanes(__m128i bytes, __m256* lanes) {
  bytes =
      _mm_shuffle_epi8(bytes, _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  lanes[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
  lanes[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)));
}
PINHOLE_INLINE void few_times(const __m256* from, float factor, __m256* to) {
  for (int h = 0; h < 2; ++h)
    to[h] = _mm256_mul_ps(from[h], _mm256_set1_ps(factor));
}

template <class Block> PINHOLE_INLINE void few_scales_k4(const Block& b, IntW& to) {
  __m256i bytes = k4_scale_bytes(b.scales, b.scales);
  __m128i scales = _mm256_castsi256_si128(bytes), minima = _mm_srli_si128(scales, 8);
  __m256 s = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(scales));
  __m256 m = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(minima));
  few_lanes(_mm256_mul_ps(s, _mm256_set1_ps(quick_f16(b.d))), to.scale);
  few_lanes(_mm256_mul_ps(m, _mm256_set1_ps(-quick_f16(b.dmin))), to.offset);
}

// 256 elements.
template <FormatId f> PINHOLE_INLINE void load_w(const uint8_t* w, IntW& to) {
  using Block = typename BlockOf<f>::Type;
  const Block* b = reinterpret_cast<const Block*>(w);
  if constexpr (f == FormatId::kQ4_K) {
    few_transpose(*b, to);
    few_scales_k4(*b, to);
  } else if constexpr (f == FormatId::kQ5_K) {
    __m256i q[8];
    few_codes<f>(b, q);
    few_transpose(q, to);
    few_scales_k4(*b, to);
  } else if constexpr (f == FormatId::kQ6_K) {
    __m256i q[8];
    few_codes<f>(b, q);
    few_transpose(q, to);
    __m256 scales[2];
    few_lanes(load_16(b->scales), scales);
    few_times(scales, quick_f16(b->d), to.scale);
    few_times(to.scale, -32.0f, to.offset);
  } else if constexpr (elements_of(f) == 32) {
    __m256i q[8];
    few_codes<f>(b, q);
    few_transpose(q, to);
    __m256 scales = eight_scales(b);
    few_lanes(scales, to.scale);
    if constexpr (!kIntNoOffset<f>)
      few_lanes(eight_offsets(b, scales), to.offset);
  } else {
    Codes codes;
    unpack_codes<f>(w, 256, codes);
    few_transpose(reinterpret_cast<const __m256i*>(codes.q), to);
    if constexpr (kIntGroup<f> == 32) {
      few_lanes(_mm256_load_ps(codes.scale), to.scale);
    } else { // 4 x 4 transposed
      for (int p = 0; p < 16; ++p)
        reinterpret_cast<float*>(to.scale)[p] = codes.scale[lane_group<kOrderPlain>(p)];
      for (int p = 0; p < 16; ++p)
        reinterpret_cast<float*>(to.offset)[p] = codes.offset[lane_group<kOrderPlain>(p)];
    }
  }
}

// Up to 256 elements (a multiple of 32); missing blocks count as zeros.
template <FormatId f> PINHOLE_INLINE void load_w(const uint8_t* w, int64_t elements, IntW& to) {
  if constexpr (elements_of(f) == 32) {
    if (elements < 256) {
      typename BlockOf<f>::Type blocks[8];
      memset(static_cast<void*>(blocks), 0, sizeof(blocks));
      memcpy(static_cast<void*>(blocks), w, static_cast<size_t>(elements / 32 * bytes_of(f)));
      return load_w<f>(reinterpret_cast<const uint8_t*>(blocks), to);
    }
  }
  load_w<f>(w, to);
}

} // namespace
} // namespace pinhole::kernels
