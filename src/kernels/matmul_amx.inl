// Matmul on AMX bf16 tiles, for many rows of x and every weight format.
//
// W is the left factor: a weight row decodes in the order that a tile row wants, and only x, packed
// once, is transposed. Tiles hold y^T, 16 rows of W by 16 of x; 2 x 2 of them use each load twice.
// A strip of W, one chunk of k at a time, is decoded into L2 and used for every panel of x; panels
// come from L3, so the strip is as tall as L2 allows: strip rows * 2 operations for each byte of x.

#include "kernels/amx_tiles.inl"
#include "kernels/matmul_amx_unpack.inl"

namespace pinhole::kernels {
namespace {

constexpr int64_t kAmxBlock = 32;           // rows of W, and rows of x, of a block of 2 x 2 tiles
constexpr int64_t kAmxChunk = 2048;         // elements of k
constexpr int64_t kAmxStripBytes = 1 << 20; // half of a 2 MiB L2

PINHOLE_INLINE int64_t amx_steps(int64_t k) { return (k + 31) / 32; }

int64_t amx_x_bytes(int64_t m, int64_t k) {
  return round_up_to(m, kAmxBlock) / kAmxBlock * amx_steps(k) * kAmxStep;
}

// x [panel of 32 rows][step of 32 elements][half of 16 rows][pair of elements][row], bf16.
void amx_pack_x(const float* x, int64_t x_stride, int64_t, int64_t k, int64_t row_begin,
                int64_t row_end, void* packed) {
  int64_t steps = amx_steps(k);
  for (int64_t row = row_begin; row < row_end; row += 16) {
    uint8_t* to =
        static_cast<uint8_t*>(packed) + row / kAmxBlock * steps * kAmxStep + row % kAmxBlock * 64;
    int64_t rows = min_of(16, row_end - row);
    for (int64_t s = 0; s < steps; ++s) {
      __m512i r[16];
      int64_t left = k - s * 32;
      const float* p = x + row * x_stride + s * 32;
      if (rows == 16 && left >= 32) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i)
          r[i] = to_bf16(v_load(p + i * x_stride), v_load(p + i * x_stride + 16));
      } else {
        for (int i = 0; i < 16; ++i) {
          r[i] = _mm512_setzero_si512();
          if (i < rows) {
            const float* q = p + i * x_stride;
            __m512 low = v_load_n(q, min_of(left, 16));
            r[i] = to_bf16(low, left > 16 ? v_load_n(q + 16, min_of(left - 16, 16)) : v_zero());
          }
        }
      }
      transpose_16(r);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        _mm512_store_si512(to + s * kAmxStep + i * 64, r[i]);
    }
  }
  // The second half of a last panel of at most 16 rows is never loaded.
}

int64_t amx_scratch_bytes(int64_t, int64_t k) { // a block with all of k, at least
  return max_of(kAmxStripBytes, amx_steps(k) * kAmxStep);
}

// A block of 32 x 32 sums on its way to y: tiles [half of x rows][half of W rows], each
// [16 W rows][16 x rows]. Written in 16 pieces between the tile products of the next block, which
// leave the vector units idle.
struct AmxPending {
  alignas(64) float tile[4][256];
  int64_t row, col;   // in y
  int64_t rows, cols; // 0 rows: nothing pending
  Stage stage;
};

constexpr int kAmxPieces = 16;

// Piece p: 4 rows of y by 16 columns.
PINHOLE_INLINE void amx_write_piece(const MatmulArgs& args, const AmxPending& pending, int64_t p) {
  int64_t x_half = p >> 3, w_half = p >> 2 & 1, part = p & 3;
  int64_t first_row = x_half * 16 + part * 4, first_col = w_half * 16;
  if (first_row >= pending.rows || first_col >= pending.cols)
    return;
  const float* from = pending.tile[x_half * 2 + w_half] + part * 4;
  __m512i v[4]; // v[a]: W rows a, a + 4, a + 8 and a + 12, 4 columns each
#pragma GCC unroll 4
  for (int a = 0; a < 4; ++a) {
    v[a] = _mm512_castsi128_si512(_mm_load_si128(reinterpret_cast<const __m128i*>(from + a * 16)));
    v[a] = _mm512_inserti32x4(
        v[a], _mm_load_si128(reinterpret_cast<const __m128i*>(from + (a + 4) * 16)), 1);
    v[a] = _mm512_inserti32x4(
        v[a], _mm_load_si128(reinterpret_cast<const __m128i*>(from + (a + 8) * 16)), 2);
    v[a] = _mm512_inserti32x4(
        v[a], _mm_load_si128(reinterpret_cast<const __m128i*>(from + (a + 12) * 16)), 3);
  }
  __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
  __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
  __m512 out[4] = {_mm512_castsi512_ps(_mm512_unpacklo_epi64(a, c)),
                   _mm512_castsi512_ps(_mm512_unpackhi_epi64(a, c)),
                   _mm512_castsi512_ps(_mm512_unpacklo_epi64(b, d)),
                   _mm512_castsi512_ps(_mm512_unpackhi_epi64(b, d))};
  Stage stage = pending.stage;
  int64_t col = pending.col + first_col;
  __mmask16 mask = v_tail(min_of(pending.cols - first_col, 16));
  bool biased = stage.finish && args.bias != nullptr;
  __m512 bias = biased ? _mm512_maskz_loadu_ps(mask, args.bias + col) : v_zero();
  int64_t count = min_of(pending.rows - first_row, 4);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    if (i >= count)
      break;
    int64_t row = pending.row + first_row + i;
    float* y = args.y + row * args.y_stride + col;
    __m512 sum = out[i];
    if (stage.add_y)
      sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, y));
    sum = _mm512_add_ps(sum, bias);
    if (stage.finish && args.activation != Activation::kNone)
      sum = v_activate(args.activation, sum);
    if (stage.add_residual)
      sum = _mm512_add_ps(
          sum, _mm512_maskz_loadu_ps(mask, args.residual + row * args.residual_stride + col));
    _mm512_mask_storeu_ps(y, mask, sum);
  }
}

// Where a block reads from: its W and x tiles, and the part of the next panel of x to fetch into L2
// meanwhile.
struct AmxBlock {
  const uint8_t* w;
  const uint8_t* x;
  const uint8_t* ahead;
  const uint8_t* ahead_end;
  int64_t steps;
};

// Computes a block into `to`, and writes `from` to y. `two`: more than 16 rows of x.
template <bool two>
PINHOLE_INLINE void amx_block(const MatmulArgs& args, AmxBlock block, const AmxPending& from,
                              AmxPending& to) {
  amx_fence();
  _tile_zero(0);
  _tile_zero(1);
  if (two) {
    _tile_zero(2);
    _tile_zero(3);
  }
  int64_t pieces = from.rows > 0 ? kAmxPieces : 0, piece = 0;
  const float* y = args.y + to.row * args.y_stride + to.col;
  for (int64_t s = 0; s < block.steps; ++s) {
    _tile_loadd(4, block.w, 64);
    _tile_loadd(5, block.x, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, block.w + 1024, 64);
    _tile_dpbf16ps(1, 6, 5);
    if (two) {
      _tile_loadd(7, block.x + 1024, 64);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 6, 7);
    }
    block.w += kAmxStep;
    block.x += kAmxStep;
    for (int i = 0; i < 4; ++i)
      _mm_prefetch(reinterpret_cast<const char*>(block.ahead + i * 64), _MM_HINT_T1);
    block.ahead = block.ahead + 256 < block.ahead_end ? block.ahead + 256 : block.ahead;
    if (s < to.rows) { // this block's part of y, to be written during the next one
      __builtin_prefetch(y, 1);
      __builtin_prefetch(y + 16, 1);
      y += args.y_stride;
    }
    if (piece < pieces)
      amx_write_piece(args, from, piece++);
  }
  for (; piece < pieces; ++piece)
    amx_write_piece(args, from, piece);
  _tile_stored(0, to.tile[0], 64);
  _tile_stored(1, to.tile[1], 64);
  if (two) {
    _tile_stored(2, to.tile[2], 64);
    _tile_stored(3, to.tile[3], 64);
  }
}

template <FormatId f>
void amx_unpack_strip(const MatmulArgs& args, int64_t n0, int64_t rows, int64_t k0, int64_t k1,
                      uint8_t* to) {
  int64_t block_bytes = amx_steps(k1 - k0) * kAmxStep;
  for (int64_t r = 0; r < rows; ++r)
    amx_unpack_row<f>(static_cast<const uint8_t*>(args.w) + (n0 + r) * args.w_row_bytes +
                          bytes_before<f>(k0),
                      k1 - k0, to + r / kAmxBlock * block_bytes + r % kAmxBlock * 64);
}

void amx_multiply_strip(const MatmulArgs& args, const uint8_t* w, int64_t n0, int64_t rows,
                        int64_t k0, int64_t k1) {
  AmxPending pending[2];
  pending[0].rows = pending[1].rows = 0;
  int current = 0;
  int64_t steps = amx_steps(k1 - k0), panel_bytes = amx_steps(args.k) * kAmxStep;
  const uint8_t* x = static_cast<const uint8_t*>(args.x) + k0 / 32 * kAmxStep;
  int64_t blocks = (rows + kAmxBlock - 1) / kAmxBlock;
  for (int64_t m0 = 0; m0 < args.m; m0 += kAmxBlock, x += panel_bytes) {
    const uint8_t* next = m0 + kAmxBlock < args.m ? x + panel_bytes : x;
    for (int64_t b = 0; b < blocks; ++b, current ^= 1) {
      AmxPending& to = pending[current];
      to.row = m0;
      to.col = n0 + b * kAmxBlock;
      to.rows = min_of(kAmxBlock, args.m - m0);
      to.cols = min_of(kAmxBlock, rows - b * kAmxBlock);
      to.stage = stage_of(args, k0, k1);
      AmxBlock block;
      block.w = w + b * steps * kAmxStep;
      block.x = x;
      block.steps = steps;
      block.ahead = next + min_of(b * steps * 256, (steps - 1) * kAmxStep);
      block.ahead_end = next + steps * kAmxStep;
      if (to.rows > 16)
        amx_block<true>(args, block, pending[current ^ 1], to);
      else
        amx_block<false>(args, block, pending[current ^ 1], to);
    }
  }
  for (int64_t p = 0; p < kAmxPieces; ++p)
    amx_write_piece(args, pending[current ^ 1], p);
}

template <FormatId f> void amx_run(const MatmulArgs& args) {
  amx_configure();
  uint8_t* strip = static_cast<uint8_t*>(args.scratch);
  int64_t chunk = chunk_of(args, kAmxChunk);
  int64_t fit = max_of(kAmxStripBytes / (amx_steps(chunk) * kAmxStep), 1) * kAmxBlock;
  int64_t strips = (args.n + fit - 1) / fit;
  int64_t strip_rows = round_up_to((args.n + strips - 1) / strips, kAmxBlock);
  for (int64_t n0 = 0; n0 < args.n; n0 += strip_rows) {
    int64_t rows = min_of(strip_rows, args.n - n0);
    for (int64_t k0 = 0; k0 < args.k; k0 += chunk) {
      int64_t k1 = min_of(k0 + chunk, args.k);
      amx_unpack_strip<f>(args, n0, rows, k0, k1, strip);
      amx_multiply_strip(args, strip, n0, rows, k0, k1);
    }
  }
  amx_release();
}

} // namespace
} // namespace pinhole::kernels
