// Matmul on AMX bf16 tiles, for many rows of x and every weight format.
//
// W is the left factor: a weight row decodes in the order that a tile row wants, and only x, packed
// once, is transposed. Tiles hold y^T, 16 rows of W by 16 of x; 2 x 2 of them use each load twice.
// A strip of W is decoded into L2 and used for every panel of 32 rows of x. Two operands from L2
// are too many (75 % of the arithmetic, one is 99 %), so k goes in slices of which x's part stays
// in L1, while W's passes by it (loads with the T1 hint do not displace it); sums wait in L2.
#include "kernels/amx_tiles.inl"
#include "kernels/matmul_amx_unpack.inl"

namespace pinhole::kernels {
namespace {

constexpr int64_t kAmxBlock = 32;           // rows of W, and rows of x, of a block of 2 x 2 tiles
constexpr int64_t kAmxChunk = 2048;         // elements of k of a strip
constexpr int64_t kAmxSlice = 16;           // steps of a slice: 32 KiB of x in a 48 KiB L1
constexpr int64_t kAmxStripBytes = 5 << 18; // most of a 2 MiB L2
constexpr int64_t kAmxSumBytes = 4096;      // f32 sums of a block
constexpr int64_t kAmxPieces = 16;          // of a block's sums, written to y one by one

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

// Blocks of a strip, of which `steps` steps fit into a strip's bytes; one at least.
PINHOLE_INLINE int64_t amx_strip_blocks(int64_t steps) {
  return max_of(kAmxStripBytes / (steps * kAmxStep), 1);
}

int64_t amx_scratch_bytes(int64_t, int64_t k) { // a strip, with all of k at most; its sums
  int64_t all = amx_steps(k), some = min_of(all, kAmxChunk / 32);
  int64_t strip = max_of(amx_strip_blocks(some) * some, all) * kAmxStep;
  return strip + amx_strip_blocks(some) * kAmxSumBytes;
}

// The finished sums of a block on their way to y: tiles [half of x rows][half of W rows], each
// [16 W rows][16 x rows]. Written in 16 pieces between the tile products of the next block, which
// leave the vector units idle.
struct AmxPending {
  alignas(64) float tile[kAmxSumBytes / 4];
  int64_t row, col; // in y
  int64_t rows, cols;
  int64_t piece = kAmxPieces; // the next one; kAmxPieces: nothing pending
  Stage stage;
};

// The next piece: 4 rows of y by 16 columns.
PINHOLE_INLINE void amx_write_piece(const MatmulArgs& args, AmxPending& pending) {
  int64_t p = pending.piece++;
  int64_t x_half = p >> 3, w_half = p >> 2 & 1, part = p & 3;
  int64_t first_row = x_half * 16 + part * 4, first_col = w_half * 16;
  if (first_row >= pending.rows || first_col >= pending.cols)
    return;
  const float* from = pending.tile + (x_half * 2 + w_half) * 256 + part * 4;
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

// One slice of a block: adds W by x to `sums`, or starts them, and stores them at `to`.
// `two`: more than 16 rows of x. `work()` fills the time of the tile products of a step.
template <bool two, class Work>
PINHOLE_INLINE void amx_slice(const uint8_t* w, const uint8_t* x, const float* sums, float* to,
                              int64_t steps, bool first, Work work) {
  if (first) {
    _tile_zero(0);
    _tile_zero(1);
    if (two) {
      _tile_zero(2);
      _tile_zero(3);
    }
  } else {
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, sums + 256, 64);
    if (two) {
      _tile_loadd(2, sums + 512, 64);
      _tile_loadd(3, sums + 768, 64);
    }
  }
  for (int64_t s = 0; s < steps; ++s, w += kAmxStep, x += kAmxStep) {
    _tile_stream_loadd(4, w, 64);
    _tile_loadd(5, x, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_stream_loadd(6, w + 1024, 64);
    _tile_dpbf16ps(1, 6, 5);
    if (two) {
      _tile_loadd(7, x + 1024, 64);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 6, 7);
    }
    work();
  }
  _tile_stored(0, to, 64);
  _tile_stored(1, to + 256, 64);
  if (two) {
    _tile_stored(2, to + 512, 64);
    _tile_stored(3, to + 768, 64);
  }
}

// A decoded strip: [slice of k][block][step][32 rows] of bf16.
struct AmxStrip {
  uint8_t* w;
  float* sums; // of a panel's blocks, between slices
  int64_t blocks, steps;
  int64_t n0, rows, k0, k1; // of W
};

template <FormatId f> void amx_unpack_strip(const MatmulArgs& args, const AmxStrip& strip) {
  for (int64_t r = 0; r < strip.rows; ++r) {
    const uint8_t* row = static_cast<const uint8_t*>(args.w) + (strip.n0 + r) * args.w_row_bytes;
    for (int64_t s = 0; s < strip.steps; s += kAmxSlice) {
      int64_t steps = min_of(kAmxSlice, strip.steps - s), k = strip.k0 + s * 32;
      amx_unpack_row<f>(row + bytes_before<f>(k), min_of(steps * 32, strip.k1 - k),
                        strip.w + (s * strip.blocks + r / kAmxBlock * steps) * kAmxStep +
                            r % kAmxBlock * 64);
    }
  }
}

// One panel of x, whose first row is m0. Meanwhile `next`, the next panel, comes into L2.
template <bool two>
void amx_multiply_panel(const MatmulArgs& args, const AmxStrip& strip, const uint8_t* x, int64_t m0,
                        const uint8_t* next, AmxPending* pending, int& current) {
  amx_fence();
  const int64_t total = strip.blocks * strip.steps;
  const int64_t lines = next != nullptr ? strip.steps * (kAmxStep / 64) : 0;
  int64_t due = 0; // lines of `next`, in 1/total
  for (int64_t s0 = 0; s0 < strip.steps; s0 += kAmxSlice) {
    int64_t steps = min_of(kAmxSlice, strip.steps - s0);
    bool last = s0 + steps == strip.steps;
    for (int64_t b = 0; b < strip.blocks; ++b) {
      AmxPending& before = pending[current];
      AmxPending& after = pending[current ^ 1];
      float* sums = strip.sums + b * (kAmxSumBytes / 4);
      amx_slice<two>(strip.w + (s0 * strip.blocks + b * steps) * kAmxStep, x + s0 * kAmxStep, sums,
                     last ? after.tile : sums, steps, s0 == 0, [&] {
                       for (due += lines; due >= total; due -= total, next += 64)
                         _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
                       if (before.piece < kAmxPieces)
                         amx_write_piece(args, before);
                     });
      if (!last)
        continue;
      while (before.piece < kAmxPieces)
        amx_write_piece(args, before);
      after.row = m0;
      after.col = strip.n0 + b * kAmxBlock;
      after.rows = min_of(kAmxBlock, args.m - m0);
      after.cols = min_of(kAmxBlock, strip.rows - b * kAmxBlock);
      after.piece = 0;
      after.stage = stage_of(args, strip.k0, strip.k1);
      current ^= 1;
    }
  }
}

void amx_multiply_strip(const MatmulArgs& args, const AmxStrip& strip) {
  AmxPending pending[2];
  int current = 0;
  int64_t panel_bytes = amx_steps(args.k) * kAmxStep;
  const uint8_t* x = static_cast<const uint8_t*>(args.x) + strip.k0 / 32 * kAmxStep;
  for (int64_t m0 = 0; m0 < args.m; m0 += kAmxBlock, x += panel_bytes) {
    const uint8_t* next = m0 + kAmxBlock < args.m ? x + panel_bytes : nullptr;
    if (args.m - m0 > 16)
      amx_multiply_panel<true>(args, strip, x, m0, next, pending, current);
    else
      amx_multiply_panel<false>(args, strip, x, m0, next, pending, current);
  }
  while (pending[current].piece < kAmxPieces)
    amx_write_piece(args, pending[current]);
}

template <FormatId f> void amx_run(const MatmulArgs& args) {
  amx_configure();
  int64_t chunk = chunk_of(args, kAmxChunk);
  int64_t fit = amx_strip_blocks(amx_steps(chunk)) * kAmxBlock;
  int64_t strips = (args.n + fit - 1) / fit;
  int64_t strip_rows = round_up_to((args.n + strips - 1) / strips, kAmxBlock);
  AmxStrip strip;
  strip.w = static_cast<uint8_t*>(args.scratch);
  strip.sums =
      reinterpret_cast<float*>(strip.w + strip_rows / kAmxBlock * amx_steps(chunk) * kAmxStep);
  for (strip.n0 = 0; strip.n0 < args.n; strip.n0 += strip_rows) {
    strip.rows = min_of(strip_rows, args.n - strip.n0);
    strip.blocks = (strip.rows + kAmxBlock - 1) / kAmxBlock;
    for (strip.k0 = 0; strip.k0 < args.k; strip.k0 += chunk) {
      strip.k1 = min_of(strip.k0 + chunk, args.k);
      strip.steps = amx_steps(strip.k1 - strip.k0);
      amx_unpack_strip<f>(args, strip);
      amx_multiply_strip(args, strip);
    }
  }
  amx_release();
}

} // namespace
} // namespace pinhole::kernels
