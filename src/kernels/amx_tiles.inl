// What every user of AMX needs: 8 tiles of 16 rows of 64 bytes, bf16 conversion and transposition.
#pragma once

namespace pinhole::kernels {
namespace {

PINHOLE_INLINE __m512i to_bf16(__m512 low, __m512 high) { // to nearest even
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

struct alignas(64) TileConfig {
  uint8_t palette, start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

PINHOLE_INLINE void amx_configure() { // 8 tiles of 16 rows of 64 bytes
  TileConfig config = {};
  config.palette = 1;
  for (int i = 0; i < 8; ++i) {
    config.row_bytes[i] = 64;
    config.rows[i] = 16;
  }
  // The whole struct is an operand: its stores must not be dropped.
  asm volatile("ldtilecfg %0" ::"m"(config));
}

// GCC 12's _tile_loadd does not say that it reads memory: what tiles are loaded from must be
// written before this.
PINHOLE_INLINE void amx_fence() { asm volatile("" ::: "memory"); }

PINHOLE_INLINE void amx_release() { asm volatile("tilerelease" ::); }

// Rows r[0..16) of 16 32-bit elements, transposed in place.
PINHOLE_INLINE void transpose_16(__m512i* r) {
  __m512i t[16];
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    __m512i a = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    __m512i b = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    __m512i c = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]);
    __m512i d = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
    t[i] = _mm512_unpacklo_epi64(a, c);
    t[i + 1] = _mm512_unpackhi_epi64(a, c);
    t[i + 2] = _mm512_unpacklo_epi64(b, d);
    t[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) { // column 4 * lane + j of four rows, in 128-bit lane `lane`
    __m512i a = _mm512_shuffle_i32x4(t[j], t[4 + j], 0x88);
    __m512i b = _mm512_shuffle_i32x4(t[j], t[4 + j], 0xdd);
    __m512i c = _mm512_shuffle_i32x4(t[8 + j], t[12 + j], 0x88);
    __m512i d = _mm512_shuffle_i32x4(t[8 + j], t[12 + j], 0xdd);
    r[j] = _mm512_shuffle_i32x4(a, c, 0x88);
    r[8 + j] = _mm512_shuffle_i32x4(a, c, 0xdd);
    r[4 + j] = _mm512_shuffle_i32x4(b, d, 0x88);
    r[12 + j] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

} // namespace
} // namespace pinhole::kernels
