// Integer formats on AVX-512 VNNI: x as int8 with a scale per 32, W unpacked to bytes 256 at a
// time.
//
// The 256 codes are held as 4 registers whose 32-bit lane p has 4 codes of one group of 16, so four
// vpdpbusd leave the group's dot product in lane p and one multiply by 16 scales serves all of
// them. Which group lane p holds depends on how a format's nibbles lie (Order); x is packed to
// match. vpdpbusd takes W as unsigned: signed codes are moved up by 128, and the offset term takes
// it back.

namespace pinhole::kernels {
namespace {

// kOrder[order][z][t]: the group of 16 elements in 128-bit lane t of register z, as unpacked.
// Transposed, that group is at 32-bit lane 4 * t + z.
enum Order { kOrderPlain, kOrderPairs, kOrderSplit, kOrderQuarters };
constexpr int kOrder[4][4][4] = {
    {{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}, {12, 13, 14, 15}}, // Q6_K, Q8_0
    {{0, 1, 4, 5}, {2, 3, 6, 7}, {8, 9, 12, 13}, {10, 11, 14, 15}}, // Q4_K, Q5_K
    {{0, 2, 4, 6}, {1, 3, 5, 7}, {8, 10, 12, 14}, {9, 11, 13, 15}}, // blocks of 32 nibbles
    {{0, 1, 8, 9}, {2, 3, 10, 11}, {4, 5, 12, 13}, {6, 7, 14, 15}}, // Q2_K, Q3_K
};

template <FormatId f> constexpr Order vnni_order() {
  if (f == FormatId::kQ6_K || f == FormatId::kQ8_0)
    return kOrderPlain;
  if (f == FormatId::kQ4_K || f == FormatId::kQ5_K)
    return kOrderPairs;
  if (f == FormatId::kQ2_K || f == FormatId::kQ3_K)
    return kOrderQuarters;
  return kOrderSplit;
}

struct VnniX { // 256 elements of a row of x
  int8_t q[4][64];
  float d[16];   // scale of the group in lane p
  float sum[16]; // scale * sum of the group's codes
};

struct VnniW { // 256 elements of a row of W
  __m512i q[4];
  __m512 scale, offset; // per group; element = scale * q + offset
};

template <Order order, bool by_32> struct LaneIndex { // byte shuffle: lane p <- group's index
  alignas(16) int8_t at[16];
  constexpr LaneIndex() : at() {
    for (int z = 0; z < 4; ++z)
      for (int t = 0; t < 4; ++t)
        at[4 * t + z] = static_cast<int8_t>(kOrder[order][z][t] / (by_32 ? 2 : 1));
  }
};

template <Order order, bool by_32> PINHOLE_INLINE __m128i lane_index() {
  static constexpr LaneIndex<order, by_32> kIndex;
  return _mm_load_si128(reinterpret_cast<const __m128i*>(kIndex.at));
}

// Bytes (one per group of 16, or of 32) to floats in lane order.
template <Order order, bool by_32> PINHOLE_INLINE __m512 lanes_from_bytes(__m128i bytes) {
  __m128i placed = _mm_shuffle_epi8(bytes, lane_index<order, by_32>());
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(placed));
}

template <Order order> PINHOLE_INLINE __m512 lanes_from_8(__m256 x) { // one float per group of 32
  __m512i index = _mm512_cvtepi8_epi32(lane_index<order, true>());
  return _mm512_permutexvar_ps(index, _mm512_castps256_ps512(x));
}

PINHOLE_INLINE __m512i low_nibbles(__m512i x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
PINHOLE_INLINE __m512i high_nibbles(__m512i x) {
  return _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi8(15));
}
// low | (high & mask)
PINHOLE_INLINE __m512i or_masked(__m512i low, __m512i high, __m512i mask) {
  return _mm512_ternarylogic_epi32(low, high, mask, 0xf8);
}

template <FormatId f>
PINHOLE_INLINE void vnni_scales_k(const uint8_t* packed, float d, float dmin, VnniW& w) {
  uint32_t words[4];
  unpack_k_scales(packed, words, words + 2);
  uint64_t scales = words[0] | static_cast<uint64_t>(words[1]) << 32;
  uint64_t minima = words[2] | static_cast<uint64_t>(words[3]) << 32;
  __m128i s = _mm_cvtsi64_si128(static_cast<int64_t>(scales));
  __m128i m = _mm_cvtsi64_si128(static_cast<int64_t>(minima));
  w.scale = _mm512_mul_ps(lanes_from_bytes<kOrderPairs, true>(s), _mm512_set1_ps(d));
  w.offset = _mm512_mul_ps(lanes_from_bytes<kOrderPairs, true>(m), _mm512_set1_ps(-dmin));
}

// Codes of a block: 16 elements of one group in each 128 bits, as kOrder says.
PINHOLE_INLINE void k_codes(const BlockQ4K& b, __m512i* q) {
  __m512i x = _mm512_loadu_si512(b.qs), y = _mm512_loadu_si512(b.qs + 64);
  q[0] = low_nibbles(x);
  q[1] = high_nibbles(x);
  q[2] = low_nibbles(y);
  q[3] = high_nibbles(y);
}

PINHOLE_INLINE void vnni_unpack(const BlockQ4K& b, VnniW& w) {
  __m512i q[4];
  k_codes(b, q);
  iv_transpose_4(q[0], q[1], q[2], q[3], w.q);
  vnni_scales_k<FormatId::kQ4_K>(b.scales, quick_f16(b.d), quick_f16(b.dmin), w);
}

PINHOLE_INLINE void k_codes(const BlockQ5K& b, __m512i* q) {
  __m512i x = _mm512_loadu_si512(b.qs), y = _mm512_loadu_si512(b.qs + 64);
  // Bit g of qh[j] belongs to group g; register z has groups {0, 2}, {1, 3}, {4, 6}, {5, 7}.
  __m512i h = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.qh)));
  __m512i two = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
  __m512i bit = _mm512_set1_epi8(16);
  h = _mm512_srlv_epi16(h, two); // bit g and bit g + 2 at the same place
  q[0] = or_masked(low_nibbles(x), _mm512_slli_epi16(h, 4), bit);
  q[1] = or_masked(high_nibbles(x), _mm512_slli_epi16(h, 3), bit);
  q[2] = or_masked(low_nibbles(y), h, bit);
  q[3] = or_masked(high_nibbles(y), _mm512_srli_epi16(h, 1), bit);
}

PINHOLE_INLINE void vnni_unpack(const BlockQ5K& b, VnniW& w) {
  __m512i q[4];
  k_codes(b, q);
  iv_transpose_4(q[0], q[1], q[2], q[3], w.q);
  vnni_scales_k<FormatId::kQ5_K>(b.scales, quick_f16(b.d), quick_f16(b.dmin), w);
}

PINHOLE_INLINE void k_codes(const BlockQ6K& b, __m512i* q) {
  __m512i mask = _mm512_set1_epi8(0x30);
  for (int h = 0; h < 2; ++h) {
    __m512i low = _mm512_loadu_si512(b.ql + 64 * h);
    __m512i high =
        _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.qh + 32 * h)));
    // Bits 2e of qh to bits 4 and 5: the lower half of a register has even e, the upper odd e.
    __m512i up = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2), 1);
    __m512i down = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
    q[2 * h] = or_masked(low_nibbles(low), _mm512_sllv_epi16(high, up), mask);
    q[2 * h + 1] = or_masked(high_nibbles(low), _mm512_srlv_epi16(high, down), mask);
  }
}

PINHOLE_INLINE void vnni_unpack(const BlockQ6K& b, VnniW& w) {
  __m512i q[4];
  k_codes(b, q);
  iv_transpose_4(q[0], q[1], q[2], q[3], w.q);
  __m128i scales = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b.scales));
  w.scale =
      _mm512_mul_ps(lanes_from_bytes<kOrderPlain, false>(scales), _mm512_set1_ps(quick_f16(b.d)));
  w.offset = _mm512_mul_ps(w.scale, _mm512_set1_ps(-32.0f));
}

PINHOLE_INLINE void k_codes(const BlockQ2K& b, __m512i* q) {
  __m512i x = _mm512_loadu_si512(b.qs), three = _mm512_set1_epi8(3);
  q[0] = _mm512_and_si512(x, three);
  q[1] = _mm512_and_si512(_mm512_srli_epi16(x, 2), three);
  q[2] = _mm512_and_si512(_mm512_srli_epi16(x, 4), three);
  q[3] = _mm512_and_si512(_mm512_srli_epi16(x, 6), three);
}

PINHOLE_INLINE void vnni_unpack(const BlockQ2K& b, VnniW& w) {
  __m512i q[4];
  k_codes(b, q);
  iv_transpose_4(q[0], q[1], q[2], q[3], w.q);
  __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b.scales));
  __m128i nibble = _mm_set1_epi8(15);
  __m128i scales = _mm_and_si128(packed, nibble);
  __m128i minima = _mm_and_si128(_mm_srli_epi16(packed, 4), nibble);
  w.scale = _mm512_mul_ps(lanes_from_bytes<kOrderQuarters, false>(scales),
                          _mm512_set1_ps(quick_f16(b.d)));
  w.offset = _mm512_mul_ps(lanes_from_bytes<kOrderQuarters, false>(minima),
                           _mm512_set1_ps(-quick_f16(b.dmin)));
}

PINHOLE_INLINE void k_codes(const BlockQ3K& b, __m512i* q) {
  __m512i x = _mm512_loadu_si512(b.qs), three = _mm512_set1_epi8(3), four = _mm512_set1_epi8(4);
  // Bit e (first half of the elements) or 4 + e (second half) of hmask to bit e.
  __m512i h = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.hmask)));
  h = _mm512_srlv_epi16(h, _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1));
  q[0] = _mm512_and_si512(x, three);
  q[1] = _mm512_and_si512(_mm512_srli_epi16(x, 2), three);
  q[2] = _mm512_and_si512(_mm512_srli_epi16(x, 4), three);
  q[3] = _mm512_and_si512(_mm512_srli_epi16(x, 6), three);
  q[0] = or_masked(q[0], _mm512_slli_epi16(h, 2), four);
  q[1] = or_masked(q[1], _mm512_slli_epi16(h, 1), four);
  q[2] = or_masked(q[2], h, four);
  q[3] = or_masked(q[3], _mm512_srli_epi16(h, 1), four);
}

PINHOLE_INLINE void vnni_unpack(const BlockQ3K& b, VnniW& w) {
  __m512i q[4];
  k_codes(b, q);
  iv_transpose_4(q[0], q[1], q[2], q[3], w.q);
  __m128i scales = q3_k_scales(b);
  w.scale = _mm512_mul_ps(lanes_from_bytes<kOrderQuarters, false>(scales),
                          _mm512_set1_ps(quick_f16(b.d)));
  w.offset = _mm512_mul_ps(w.scale, _mm512_set1_ps(-4.0f));
}

PINHOLE_INLINE __m512i iq4_codes(__m512i nibbles) { // table entries + 128
  __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kIq4Values));
  table = _mm_xor_si128(table, _mm_set1_epi8(static_cast<char>(0x80)));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), nibbles);
}

PINHOLE_INLINE void vnni_unpack(const BlockIQ4XS& b, VnniW& w) {
  __m512i x = _mm512_loadu_si512(b.qs), y = _mm512_loadu_si512(b.qs + 64);
  iv_transpose_4(iq4_codes(low_nibbles(x)), iq4_codes(high_nibbles(x)), iq4_codes(low_nibbles(y)),
                 iq4_codes(high_nibbles(y)), w.q);
  uint64_t scales = _pdep_u64(load_u32(b.scales_l), 0x0f0f0f0f0f0f0f0full) |
                    _pdep_u64(b.scales_h, 0x0303030303030303ull) << 4;
  __m128i bytes = _mm_sub_epi8(_mm_cvtsi64_si128(static_cast<int64_t>(scales)), _mm_set1_epi8(32));
  w.scale =
      _mm512_mul_ps(lanes_from_bytes<kOrderSplit, true>(bytes), _mm512_set1_ps(quick_f16(b.d)));
  w.offset = _mm512_mul_ps(w.scale, _mm512_set1_ps(-128.0f));
}

template <class Block> PINHOLE_INLINE __m512i four_nibble_blocks(const Block* b) {
  __m512i x = _mm512_castsi128_si512(load_16(b[0].qs));
  x = _mm512_inserti32x4(x, load_16(b[1].qs), 1);
  x = _mm512_inserti32x4(x, load_16(b[2].qs), 2);
  return _mm512_inserti32x4(x, load_16(b[3].qs), 3);
}

// Adds 16 where the fifth bit is set: `shift` 0 for elements 0-15 of each block, 16 for the others.
template <class Block> PINHOLE_INLINE __m512i add_fifth_bits(__m512i q, const Block* b, int shift) {
  uint64_t mask = 0;
  for (int i = 0; i < 4; ++i)
    mask |= static_cast<uint64_t>(load_u32(b[i].qh) >> shift & 0xffffu) << (16 * i);
  return _mm512_mask_add_epi8(q, mask, q, _mm512_set1_epi8(16));
}

// Codes of 8 blocks of 32: 16 elements of one block in each 128 bits, as kOrder says. Signed ones
// are moved up by 128.
template <class Block> PINHOLE_INLINE void block_codes(const Block* b, __m512i* q) {
  __m512i x = four_nibble_blocks(b), y = four_nibble_blocks(b + 4);
  q[0] = low_nibbles(x);
  q[1] = high_nibbles(x);
  q[2] = low_nibbles(y);
  q[3] = high_nibbles(y);
  if constexpr (kHasFifthBits<Block>) {
    q[0] = add_fifth_bits(q[0], b, 0);
    q[1] = add_fifth_bits(q[1], b, 16);
    q[2] = add_fifth_bits(q[2], b + 4, 0);
    q[3] = add_fifth_bits(q[3], b + 4, 16);
  }
}
PINHOLE_INLINE void block_codes(const BlockIQ4NL* b, __m512i* q) {
  __m512i x = four_nibble_blocks(b), y = four_nibble_blocks(b + 4);
  q[0] = iq4_codes(low_nibbles(x));
  q[1] = iq4_codes(high_nibbles(x));
  q[2] = iq4_codes(low_nibbles(y));
  q[3] = iq4_codes(high_nibbles(y));
}
PINHOLE_INLINE void block_codes(const BlockQ8_0* b, __m512i* q) {
  for (int z = 0; z < 4; ++z) {
    __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b[2 * z].qs));
    __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b[2 * z + 1].qs));
    q[z] = iv_flip_bytes(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
  }
}

template <FormatId f, class Block> PINHOLE_INLINE void vnni_unpack_8(const Block* b, VnniW& w) {
  __m512i q[4];
  block_codes(b, q);
  iv_transpose_4(q[0], q[1], q[2], q[3], w.q);
  __m256 scales = eight_scales(b);
  w.scale = lanes_from_8<vnni_order<f>()>(scales);
  w.offset = lanes_from_8<vnni_order<f>()>(eight_offsets(b, scales));
}

// Up to 256 elements (a multiple of 32) of a weight row; missing blocks count as zeros.
template <FormatId f> PINHOLE_INLINE void vnni_load(const uint8_t* w, VnniW& to) {
  using Block = typename BlockOf<f>::Type;
  const Block* blocks = reinterpret_cast<const Block*>(w);
  if constexpr (elements_of(f) == 256)
    vnni_unpack(*blocks, to);
  else
    vnni_unpack_8<f>(blocks, to);
}

template <FormatId f>
__attribute__((noinline)) void vnni_load_part(const uint8_t* w, int64_t elements, VnniW& to) {
  using Block = typename BlockOf<f>::Type;
  if constexpr (elements_of(f) == 32) {
    Block blocks[8];
    memset(static_cast<void*>(blocks), 0, sizeof(blocks));
    memcpy(static_cast<void*>(blocks), w, static_cast<size_t>(elements / 32 * bytes_of(f)));
    vnni_unpack_8<f>(blocks, to);
  } else {
    vnni_load<f>(w, to);
  }
}

} // namespace
} // namespace pinhole::kernels
