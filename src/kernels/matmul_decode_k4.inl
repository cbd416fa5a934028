// Q4_K and Q5_K by one row of x (decode; see matmul_decode.inl): what four rows of W have beside
// their codes, two 16-bit factors and sixteen 6-bit scales and minima a block, is unpacked at once,
// a row in each 128-bit lane. Beside the codes' few instructions it would be half the work.

namespace pinhole::kernels {
namespace {

static_assert(kIntRows == 4);

// Four blocks, one of each row.
template <class Block> struct FourBlocks { const Block* of[4]; };

// d and dmin of rows 0 to 3, times `factor`: d0, dmin0, d1, dmin1, ...
template <class Block> PINHOLE_INLINE __m256 k4_factors(const FourBlocks<Block>& b, float factor) {
  int32_t pairs[4];
  for (int r = 0; r < 4; ++r)
    memcpy(&pairs[r], b.of[r], 4);
  __m128i halves = _mm_setr_epi32(pairs[0], pairs[1], pairs[2], pairs[3]);
  return _mm256_mul_ps(_mm256_cvtph_ps(halves), _mm256_set1_ps(factor));
}

#if defined(PINHOLE_KERNEL_AVX2)

// The same of two rows, one in each half: 8 scales, then 8 minima, as bytes.
PINHOLE_INLINE __m256i k4_scale_bytes(const uint8_t* first, const uint8_t* second) {
  __m256i packed =
      _mm256_inserti128_si256(_mm256_castsi128_si256(load_16(first)), load_16(second), 1);
  __m256i low = _mm256_srlv_epi32(_mm256_shuffle_epi32(packed, 0x98),
                                  _mm256_setr_epi32(0, 0, 0, 4, 0, 0, 0, 4));
  __m256i high = _mm256_srli_epi32(_mm256_shuffle_epi32(packed, 0x50), 2);
  low = _mm256_and_si256(low, _mm256_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f,
                                                0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
  high = _mm256_and_si256(
      high, _mm256_setr_epi32(0, 0x30303030, 0, 0x30303030, 0, 0x30303030, 0, 0x30303030));
  return _mm256_or_si256(low, high);
}

// A block's products, with words s * f of its groups of 32 in each half of `scales`. A sum of all
// fits 32 bits: 32 products of at most 31 * 127, times 63 * 127.
template <FormatId f, class Block>
PINHOLE_INLINE IVec k4_products(const Block& b, const KX& x, __m256i scales) {
  const __m256i nibble = _mm256_set1_epi8(15);
  IVec even = iv_zero(), odd = iv_zero();
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    __m256i packed = load_32(b.qs + 32 * c);
    __m256i low = _mm256_and_si256(packed, nibble);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), nibble);
    if constexpr (f == FormatId::kQ5_K) {
      __m256i h = load_32(b.qh), bit = _mm256_set1_epi8(16);
      low = _mm256_or_si256(low, _mm256_and_si256(bits_up(h, 4 - 2 * c), bit));
      high = _mm256_or_si256(high, _mm256_and_si256(bits_up(h, 3 - 2 * c), bit));
    }
    even = k_group(even, low, x, 2 * c, scales);
    odd = k_group(odd, high, x, 2 * c + 1, scales);
  }
  return iv_add(even, odd);
}

// Four rows by one row of x. `sums`: of each row; `offsets`: of rows 0 and 1, and 2 and 3, in the
// registers' halves.
template <FormatId f, class Block>
PINHOLE_INLINE void k4_blocks(const FourBlocks<Block>& b, const KX& x, Vec* sums, Vec* offsets) {
  const __m256i times = words_of(x.f_of_32_twice);
  const __m256 factors = k4_factors(b, x.d);
  const __m256i sums_of_x = _mm256_broadcastsi128_si256(load_16(x.sum_of_32));
#pragma GCC unroll 2
  for (int pair = 0; pair < 2; ++pair) {
    const __m256i bytes = k4_scale_bytes(b.of[2 * pair]->scales, b.of[2 * pair + 1]->scales);
    const __m256i first =
        _mm256_mullo_epi16(_mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes)), times);
    const __m256i second =
        _mm256_mullo_epi16(_mm256_cvtepu8_epi16(_mm256_extracti128_si256(bytes, 1)), times);
    const __m256i minima = _mm256_permute2x128_si256(first, second, 0x31);
    const int at = 4 * pair + 1; // dmin of the first
    const __m256i which = _mm256_setr_epi32(at, at, at, at, at + 2, at + 2, at + 2, at + 2);
    offsets[pair] = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(minima, sums_of_x)),
                                     _mm256_permutevar8x32_ps(factors, which), offsets[pair]);
    for (int r = 2 * pair; r < 2 * pair + 2; ++r) {
      const IVec products =
          k4_products<f>(*b.of[r], x, k_spread<true>(r == 2 * pair ? first : second));
      sums[r] = v_fma(iv_to_float(products),
                      _mm256_permutevar8x32_ps(factors, _mm256_set1_epi32(2 * r)), sums[r]);
    }
  }
}

// Of row r, out of what k4_blocks() has left.
PINHOLE_INLINE float k4_total(const Vec* sums, const Vec* offsets, int r) {
  const __m128 half = r % 2 == 0 ? _mm256_castps256_ps128(offsets[r / 2])
                                 : _mm256_extractf128_ps(offsets[r / 2], 1);
  return v_reduce_add(_mm256_add_ps(sums[r], _mm256_zextps128_ps256(half)));
}

#else

// Of four rows, one in each lane: 8 scales, then 8 minima, as bytes.
template <class Block> PINHOLE_INLINE __m512i k4_scale_bytes(const FourBlocks<Block>& b) {
  __m512i packed = _mm512_castsi128_si512(load_16(b.of[0]->scales)); // 12 bytes are the scales'
  packed = _mm512_inserti32x4(packed, load_16(b.of[1]->scales), 1);
  packed = _mm512_inserti32x4(packed, load_16(b.of[2]->scales), 2);
  packed = _mm512_inserti32x4(packed, load_16(b.of[3]->scales), 3);
  const __m512i down = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0, 0, 4));
  const __m512i low_bits =
      _mm512_broadcast_i32x4(_mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
  const __m512i high_bits = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x30303030, 0, 0x30303030));
  __m512i low = _mm512_srlv_epi32(_mm512_shuffle_epi32(packed, _MM_PERM_ENUM(0x98)), down);
  __m512i high = _mm512_srli_epi32(_mm512_shuffle_epi32(packed, _MM_PERM_ENUM(0x50)), 2);
  return _mm512_ternarylogic_epi32(_mm512_and_si512(low, low_bits), high, high_bits, 0xf8);
}

// For row r of a pair: as ScaleIndex, of the words of its half of a register.
template <Order order, int r> struct PairScaleIndex {
  alignas(64) int16_t at[4][32];
  constexpr PairScaleIndex() : at() {
    for (int z = 0; z < 4; ++z)
      for (int p = 0; p < 16; ++p)
        at[z][2 * p] = static_cast<int16_t>(16 * r + kOrder[order][z][p / 4] / 2);
  }
};

// Four rows by one row of x. `sums`: of each row; `offsets`: of rows 0 and 1, and 2 and 3, in the
// registers' halves.
template <FormatId f, class Block>
PINHOLE_INLINE void k4_blocks(const FourBlocks<Block>& b, const KX& x, Vec* sums, Vec* offsets) {
  static constexpr PairScaleIndex<vnni_order<f>(), 0> kFirst;
  static constexpr PairScaleIndex<vnni_order<f>(), 1> kSecond;
  const __m512i bytes = k4_scale_bytes(b);
  const __m512i times = _mm512_broadcast_i64x4(words_of(x.f_of_32_twice));
  __m512i scales[2] = {
      _mm512_mullo_epi16(_mm512_cvtepu8_epi16(_mm512_castsi512_si256(bytes)), times),
      _mm512_mullo_epi16(_mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(bytes, 1)), times)};
  const __m512 factors = _mm512_castps256_ps512(k4_factors(b, x.d));
  const __m512i sums_of_x = _mm512_maskz_broadcast_i32x4(0xf0f0, load_16(x.sum_of_32));
#pragma GCC unroll 2
  for (int pair = 0; pair < 2; ++pair) {
    const __m512i which = _mm512_setr_epi32(4 * pair + 1, 4 * pair + 1, 4 * pair + 1, 4 * pair + 1,
                                            4 * pair + 1, 4 * pair + 1, 4 * pair + 1, 4 * pair + 1,
                                            4 * pair + 3, 4 * pair + 3, 4 * pair + 3, 4 * pair + 3,
                                            4 * pair + 3, 4 * pair + 3, 4 * pair + 3, 4 * pair + 3);
    offsets[pair] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(_mm512_madd_epi16(scales[pair], sums_of_x)),
                                     _mm512_permutexvar_ps(which, factors), offsets[pair]);
  }
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    __m512i q[4];
    k_codes(*b.of[r], q);
    __m512i products = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int z = 0; z < 4; ++z) {
      __m512i dot =
          _mm512_dpbusd_epi32(_mm512_setzero_si512(), q[z], _mm512_load_si512(x.q + 64 * z));
      __m512i scale = _mm512_maskz_permutexvar_epi16(
          0x55555555u, _mm512_load_si512(r % 2 == 0 ? kFirst.at[z] : kSecond.at[z]), scales[r / 2]);
      products = _mm512_dpwssd_epi32(products, dot, scale); // a dot of four products fits a word
    }
    sums[r] = v_fma(iv_to_float(products), _mm512_permutexvar_ps(_mm512_set1_epi32(2 * r), factors),
                    sums[r]);
  }
}

// Of row r, out of what k4_blocks() has left.
PINHOLE_INLINE float k4_total(const Vec* sums, const Vec* offsets, int r) {
  const __mmask16 half = r % 2 == 0 ? 0x00ff : 0xff00;
  return v_reduce_add(_mm512_mask_add_ps(sums[r], half, sums[r], offsets[r / 2]));
}

#endif

// One row of x by 4 rows of W at w[], straight from the file.
template <FormatId f>
PINHOLE_INLINE void k4_dots(const KX* x, const uint8_t* const* w, int64_t k, float* out) {
  using Block = typename BlockOf<f>::Type;
  constexpr int64_t kBytes = static_cast<int64_t>(sizeof(Block));
  Vec sums[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
  Vec offsets[2] = {v_zero(), v_zero()};
  for (int64_t b = 0; b < k / 256; ++b) {
    FourBlocks<Block> blocks;
    for (int r = 0; r < 4; ++r) {
      const uint8_t* block = w[r] + b * kBytes;
      for (int64_t line = 0; line < kBytes; line += 64)
        __builtin_prefetch(block + kPrefetchBytes + line);
      blocks.of[r] = reinterpret_cast<const Block*>(block);
    }
    k4_blocks<f>(blocks, x[b], sums, offsets);
  }
  for (int r = 0; r < 4; ++r)
    out[r] = k4_total(sums, offsets, r);
}

template <FormatId f> void k4_run_1(const MatmulArgs& args) {
  run_one_row<KX>(args, [](const KX* x, const uint8_t* const* w, int64_t k, float* out) {
    k4_dots<f>(x, w, k, out);
  });
}

} // namespace
} // namespace pinhole::kernels
