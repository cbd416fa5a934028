// Formats with blocks of 32 by one row of x (decode), on AVX2 and AVX-512: eight blocks at a time,
// whose scales are multiplied with those of x in one vector and handed out to the sums.

namespace pinhole::kernels {
namespace {

// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL
constexpr bool is_format_of_32(FormatId f) { return is_int_format(f) && elements_of(f) == 32; }

struct EightX {              // 256 elements of x
  alignas(64) int8_t q[256]; // in the order in which a format's codes are unpacked
  alignas(32) float d[8];    // of each 32
  float sum[8];              // d times the sum of the codes
};
static_assert(sizeof(EightX) == 320);

int64_t eight_x_bytes(int64_t m, int64_t k) {
  return m * int_blocks(k) * static_cast<int64_t>(sizeof(EightX));
}

template <Order order>
void eight_pack_x(const float* x, int64_t x_stride, int64_t, int64_t k, int64_t row_begin,
                  int64_t row_end, void* packed) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    EightX* to = static_cast<EightX*>(packed) + row * int_blocks(k);
    for (int64_t k0 = 0; k0 < k; k0 += 256, ++to) {
      alignas(64) int8_t q[256];
      for (int g = 0; g < 8; ++g) {
        int64_t left = max_of(k - k0 - 32 * g, 0);
        const float* from = x + row * x_stride + (left > 0 ? k0 + 32 * g : 0);
        to->d[g] = round_32(from, left, q + 32 * g);
        to->sum[g] = to->d[g] * static_cast<float>(sum_16(q + 32 * g) + sum_16(q + 32 * g + 16));
      }
      for (int i = 0; i < 16; ++i)
        memcpy(to->q + 16 * i, q + 16 * group_at<order>(i), 16);
    }
  }
}

#if defined(PINHOLE_KERNEL_AVX2)

// Codes of one block.
template <class Block> PINHOLE_INLINE __m256i codes_of_32(const Block& b) {
  __m128i packed = load_16(b.qs);
  __m256i both =
      _mm256_inserti128_si256(_mm256_castsi128_si256(packed), _mm_srli_epi16(packed, 4), 1);
  __m256i q = _mm256_and_si256(both, _mm256_set1_epi8(15));
  if constexpr (kHasFifthBits<Block>)
    q = _mm256_or_si256(q, fifth_bits(b.qh));
  return q;
}
PINHOLE_INLINE __m256i codes_of_32(const BlockIQ4NL& b) {
  __m128i packed = load_16(b.qs), nibble = _mm_set1_epi8(15);
  __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kIq4Values));
  __m128i low = _mm_shuffle_epi8(table, _mm_and_si128(packed, nibble));
  __m128i high = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(packed, 4), nibble));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}
PINHOLE_INLINE __m256i codes_of_32(const BlockQ8_0& b) {
  return load_32(reinterpret_cast<const uint8_t*>(b.qs));
}

template <FormatId f, class Block>
PINHOLE_INLINE Vec eight_dots(const Block* b, const EightX& x, __m256 scales, Vec sum) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    __m256i codes = codes_of_32(b[i]);
    __m256i q = _mm256_load_si256(reinterpret_cast<const __m256i*>(x.q + 32 * i));
    if constexpr (kIntSigned<f>) { // |w| times x with the sign of w: the first factor is unsigned
      q = _mm256_sign_epi8(q, codes);
      codes = _mm256_abs_epi8(codes);
    }
    Vec dot = iv_to_float(iv_dot_bytes(iv_zero(), codes, q));
    sum = v_fma(dot, _mm256_permutevar8x32_ps(scales, _mm256_set1_epi32(i)), sum);
  }
  return sum;
}

#else

template <FormatId f, class Block>
PINHOLE_INLINE Vec eight_dots(const Block* b, const EightX& x, __m256 scales, Vec sum) {
  __m512i q[4];
  block_codes(b, q);
  __m512 all = _mm512_castps256_ps512(scales);
  auto dot = [&](__m512i before, int z) {
    return _mm512_dpbusd_epi32(before, q[z], _mm512_load_si512(x.q + 64 * z));
  };
  if constexpr (vnni_order<f>() == kOrderSplit) { // lanes of registers 0 and 1 have the same blocks
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      __m512i index = _mm512_add_epi32(
          _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), iv_set(4 * h));
      __m512i products = dot(dot(iv_zero(), 2 * h), 2 * h + 1);
      sum = v_fma(iv_to_float(products), _mm512_permutexvar_ps(index, all), sum);
    }
  } else {
#pragma GCC unroll 4
    for (int z = 0; z < 4; ++z) {
      __m512i index = _mm512_add_epi32(
          _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), iv_set(2 * z));
      sum = v_fma(iv_to_float(dot(iv_zero(), z)), _mm512_permutexvar_ps(index, all), sum);
    }
  }
  return sum;
}

#endif

template <FormatId f, class Block>
PINHOLE_INLINE void eight_blocks(const Block* b, const EightX& x, RowSum& sum) {
  __m256 scales = eight_scales(b);
  sum.scaled = eight_dots<f>(b, x, _mm256_mul_ps(scales, _mm256_load_ps(x.d)), sum.scaled);
  if constexpr (!kIntSigned<f> || is_vnni())
    sum.offsets = _mm256_fmadd_ps(eight_offsets(b, scales), _mm256_load_ps(x.sum), sum.offsets);
}

// The last `count` blocks of a row: copied, so that nothing beyond them is read.
template <FormatId f, class Block>
__attribute__((noinline)) void last_blocks(const Block* b, int64_t count, const EightX& x,
                                           RowSum& sum) {
  Block blocks[8];
  memset(static_cast<void*>(blocks), 0, sizeof(blocks));
  memcpy(static_cast<void*>(blocks), b, static_cast<size_t>(count) * sizeof(Block));
  eight_blocks<f>(blocks, x, sum);
}

template <FormatId f>
PINHOLE_INLINE void dots_of_32(const EightX* x, const uint8_t* const* w, int64_t k, float* out) {
  using Block = typename BlockOf<f>::Type;
  constexpr int64_t kBytes = 8 * static_cast<int64_t>(sizeof(Block));
  RowSum sums[kIntRows];
  for (int r = 0; r < kIntRows; ++r)
    sums[r] = row_sum_zero();
  int64_t full = k / 256;
  for (int64_t e = 0; e < full; ++e) {
#pragma GCC unroll 4
    for (int r = 0; r < kIntRows; ++r) {
      const uint8_t* blocks = w[r] + e * kBytes;
      for (int64_t line = 0; line < kBytes; line += 64)
        __builtin_prefetch(blocks + kPrefetchBytes + line);
      eight_blocks<f>(reinterpret_cast<const Block*>(blocks), x[e], sums[r]);
    }
  }
  for (int r = 0; r < kIntRows; ++r) {
    if (k % 256 != 0)
      last_blocks<f>(reinterpret_cast<const Block*>(w[r] + full * kBytes), k % 256 / 32, x[full],
                     sums[r]);
    out[r] = total_of(sums[r]);
  }
}

template <FormatId f> void run_1_of_32(const MatmulArgs& args) {
  run_one_row<EightX>(args, [](const EightX* x, const uint8_t* const* w, int64_t k, float* out) {
    dots_of_32<f>(x, w, k, out);
  });
}

} // namespace
} // namespace pinhole::kernels
