// Attention on AMX bf16 tiles, for many queries: K and V of a kv head are packed once to tiles
// (scratch grows with num_kv), then each block of 32 rows of (query, head) walks its keys.
//
// Everything is transposed, S^T = K Q^T and O^T = V^T P^T, so that lanes are rows: the softmax
// needs no sums across lanes, and two rows of S^T make one row of a P^T tile. Exponentials are base
// 2 (log2(e) is in the scale of Q) against a reference that is a row's first maximum: bf16 and f32
// have the exponent range to carry scores up to 2^64 above it, beyond which sums are rescaled.
#include "kernels/amx_tiles.inl"

namespace pinhole::kernels {
namespace {

constexpr int64_t kAmxRows = 32;    // rows of (query, head) in a block: two tiles
constexpr int64_t kScoreKeys = 64;  // keys between looks at the maximum
constexpr int64_t kValueKeys = 512; // keys between additions to O: P of a block is 32 KiB
constexpr float kScoreHeadroom = 64.0f;
constexpr float kNoScore = -1e30f; // a masked score

PINHOLE_INLINE int64_t amx_pad(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// Scratch of one thread. Tiles are 1 KiB.
struct AmxAttention {
  uint8_t* k;                 // [keys / 16][head_dim / 32][16 keys][32 elements] bf16
  uint8_t* v;                 // [keys / 32][head_dim / 16][16 elements][32 keys] bf16
  uint8_t* q;                 // [head_dim / 32][2][16 pairs of elements][16 rows] bf16
  uint8_t* p;                 // [kValueKeys / 32][2][16 pairs of keys][16 rows] bf16
  float* scores;              // 2 of [kScoreKeys / 16][2][16 keys][16 rows]
  float* out;                 // [head_dim / 16][2][16 elements][16 rows]
  float* rows;                // [kAmxRows][head_dim / 32 * 32]: rows of Q or of O
  int64_t q_steps, out_tiles; // head_dim in tiles of 32 and of 16
};

PINHOLE_INLINE int64_t amx_attention_layout(void* scratch, int64_t num_kv, int64_t head_dim,
                                            AmxAttention* to) {
  uint8_t* base = static_cast<uint8_t*>(scratch);
  int64_t keys = amx_pad(num_kv, kScoreKeys), at = 0;
  auto take = [&](int64_t bytes) {
    uint8_t* p = base + at;
    at += bytes;
    return p;
  };
  to->q_steps = amx_pad(head_dim, 32) / 32;
  to->out_tiles = amx_pad(head_dim, 16) / 16;
  to->k = take(keys * to->q_steps * 64);
  to->v = take(keys * to->out_tiles * 32);
  to->q = take(to->q_steps * 2048);
  to->p = take(kValueKeys * kAmxRows * 2);
  to->scores = reinterpret_cast<float*>(take(2 * kScoreKeys * kAmxRows * 4));
  to->out = reinterpret_cast<float*>(take(to->out_tiles * 2048));
  to->rows = reinterpret_cast<float*>(take(kAmxRows * to->q_steps * 128));
  return at;
}

int64_t amx_attention_scratch_bytes(int64_t, int64_t num_kv, int64_t head_dim) {
  AmxAttention unused;
  return amx_attention_layout(nullptr, num_kv, head_dim, &unused);
}

// Elements [i, i + 32) of a row of K or V, zeros beyond head_dim.
template <KvType kv> PINHOLE_INLINE __m512i kv_bf16(const char* row, int64_t i, int64_t head_dim) {
  int64_t left = head_dim - i;
  __m512 low = left > 0 ? load_kv<kv>(row, i, left < 16 ? left : 16) : v_zero();
  __m512 high = left > 16 ? load_kv<kv>(row, i + 16, left < 32 ? left - 16 : 16) : v_zero();
  return to_bf16(low, high);
}

// Two vectors of 32 bf16, as pairs (a[i], b[i]) of elements 0-15 and 16-31.
PINHOLE_INLINE void interleave_bf16(__m512i a, __m512i b, __m512i* first, __m512i* second) {
  alignas(64) static constexpr uint16_t kFirst[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                      37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                      11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  __m512i index = _mm512_load_si512(kFirst);
  *first = _mm512_permutex2var_epi16(a, index, b);
  *second = _mm512_permutex2var_epi16(a, _mm512_add_epi16(index, _mm512_set1_epi16(16)), b);
}

// Keys [begin, end), begin a multiple of kScoreKeys; zeros up to the next multiple.
template <KvType kv>
void amx_pack_kv(const AttentionArgs& args, const AmxAttention& s, int64_t kv_head, int64_t begin,
                 int64_t end) {
  const char* k = static_cast<const char*>(args.k) + kv_head * args.k_head_bytes;
  const char* v = static_cast<const char*>(args.v) + kv_head * args.v_head_bytes;
  int64_t padded = amx_pad(end, kScoreKeys);
  for (int64_t key = begin; key < padded; ++key) {
    uint8_t* to = s.k + key / 16 * s.q_steps * 1024 + key % 16 * 64;
    for (int64_t d = 0; d < s.q_steps; ++d) {
      __m512i x = key < end ? kv_bf16<kv>(k + key * args.k_row_bytes, d * 32, args.head_dim)
                            : _mm512_setzero_si512();
      _mm512_store_si512(to + d * 1024, x);
    }
  }
  for (int64_t key = begin; key < padded; key += 32) {
    for (int64_t d = 0; d < s.out_tiles; d += 2) {
      __m512i low[16], high[16]; // [pair of keys][elements d * 16 ...], each a dword of two keys
      for (int64_t pair = 0; pair < 16; ++pair) {
        __m512i x[2];
        for (int64_t j = 0; j < 2; ++j) {
          int64_t row = key + 2 * pair + j;
          x[j] = row < end ? kv_bf16<kv>(v + row * args.v_row_bytes, d * 16, args.head_dim)
                           : _mm512_setzero_si512();
        }
        interleave_bf16(x[0], x[1], &low[pair], &high[pair]);
      }
      uint8_t* to = s.v + (key / 32 * s.out_tiles + d) * 1024;
      transpose_16(low);
      for (int i = 0; i < 16; ++i)
        _mm512_store_si512(to + i * 64, low[i]);
      if (d + 1 < s.out_tiles) {
        transpose_16(high);
        for (int i = 0; i < 16; ++i)
          _mm512_store_si512(to + 1024 + i * 64, high[i]);
      }
    }
  }
}

// A block of rows: what of it stays between keys. Lanes [2][16] are rows.
struct AmxRowBlock {
  __m512i begin[2], end[2]; // key ranges
  __m512 reference[2];      // subtracted from scores; kNoScore while a row has seen no key
  __m512 sum[2];
};

PINHOLE_INLINE void amx_pack_q(const AttentionArgs& args, const AmxAttention& s,
                               const RowSpan& span) {
  __m512 scale = v_set(args.scale * 1.44269504f);
  for (int64_t d = 0; d < s.q_steps; ++d) {
    for (int64_t half = 0; half < 2; ++half) {
      __m512i r[16];
      for (int64_t i = 0; i < 16; ++i) {
        r[i] = _mm512_setzero_si512();
        int64_t row = half * 16 + i, left = args.head_dim - d * 32;
        if (row >= span.num_rows)
          continue;
        const float* q = args.q + query_of(args, span, row) * args.q_stride +
                         head_of(span, row) * args.head_dim + d * 32;
        __m512 low = v_load_n(q, left < 16 ? left : 16);
        __m512 high = left > 16 ? v_load_n(q + 16, left < 32 ? left - 16 : 16) : v_zero();
        r[i] = to_bf16(_mm512_mul_ps(low, scale), _mm512_mul_ps(high, scale));
      }
      transpose_16(r);
      for (int i = 0; i < 16; ++i)
        _mm512_store_si512(s.q + (d * 2 + half) * 1024 + i * 64, r[i]);
    }
  }
}

// Scores of 16 keys by 32 rows.
PINHOLE_INLINE void amx_score_tile(const AmxAttention& s, int64_t key, float* scores) {
  const uint8_t* k = s.k + key / 16 * s.q_steps * 1024;
  const uint8_t* q = s.q;
  amx_fence();
  _tile_zero(0);
  _tile_zero(1);
  for (int64_t d = 0; d < s.q_steps; ++d, k += 1024, q += 2048) {
    _tile_loadd(4, k, 64);
    _tile_loadd(5, q, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, q + 1024, 64);
    _tile_dpbf16ps(1, 4, 6);
  }
  _tile_stored(0, scores, 64);
  _tile_stored(1, scores + 256, 64);
}

// 2^x for x <= kScoreHeadroom, to 1e-4: what bf16 keeps of it and a little more.
PINHOLE_INLINE __m512 quick_exp2(__m512 x) {
  __m512 f = _mm512_reduce_ps(x, 0x09); // x - floor(x)
  __m512 p = _mm512_fmadd_ps(v_set(0.07802454f), f, v_set(0.22606716f));
  p = _mm512_fmadd_ps(p, f, v_set(0.69583354f));
  p = _mm512_fmadd_ps(p, f, v_set(0.99992522f));
  return _mm512_scalef_ps(p, x); // p * 2^floor(x)
}

// Masks the scores of keys [key, key + kScoreKeys) that a row does not see.
PINHOLE_INLINE void amx_mask_scores(const AmxRowBlock& rows, int64_t key, float* scores) {
  __m512 never = v_set(kNoScore);
  for (int64_t j = 0; j < kScoreKeys; ++j) {
    __m512i position = _mm512_set1_epi32(static_cast<int32_t>(key + j));
    for (int half = 0; half < 2; ++half) {
      float* p = scores + (j / 16 * 2 + half) * 256 + j % 16 * 16;
      __mmask16 seen = _mm512_cmple_epi32_mask(rows.begin[half], position) &
                       _mm512_cmplt_epi32_mask(position, rows.end[half]);
      _mm512_store_ps(p, _mm512_mask_blend_ps(seen, never, _mm512_load_ps(p)));
    }
  }
}

PINHOLE_INLINE __m512 amx_score_maximum(const float* scores, int half) {
  __m512 top[4];
  for (int i = 0; i < 4; ++i)
    top[i] = v_set(kNoScore);
  for (int t = 0; t < kScoreKeys / 16; ++t)
    for (int j = 0; j < 16; ++j)
      top[j % 4] =
          _mm512_max_ps(top[j % 4], _mm512_load_ps(scores + (t * 2 + half) * 256 + j * 16));
  return _mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3]));
}

// Probabilities of 16 keys (half of a step of 32) to P.
PINHOLE_INLINE void amx_probabilities(AmxRowBlock& rows, const __m512* reference,
                                      const float* scores, uint8_t* p) {
  __m512i pairs = _mm512_setr_epi32(0x00100000, 0x00110001, 0x00120002, 0x00130003, 0x00140004,
                                    0x00150005, 0x00160006, 0x00170007, 0x00180008, 0x00190009,
                                    0x001a000a, 0x001b000b, 0x001c000c, 0x001d000d, 0x001e000e,
                                    0x001f000f); // element i of two halves, side by side
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    __m512 sum = rows.sum[half];
#pragma GCC unroll 8
    for (int j = 0; j < 16; j += 2) {
      const float* from = scores + half * 256 + j * 16;
      __m512 a = quick_exp2(_mm512_sub_ps(_mm512_load_ps(from), reference[half]));
      __m512 b = quick_exp2(_mm512_sub_ps(_mm512_load_ps(from + 16), reference[half]));
      sum = _mm512_add_ps(sum, _mm512_add_ps(a, b));
      _mm512_store_si512(p + half * 1024 + j / 2 * 64,
                         _mm512_permutexvar_epi16(pairs, to_bf16(a, b)));
    }
    rows.sum[half] = sum;
  }
}

// O += V P over `steps` steps of 32 keys from key; `first`: O is still to be written.
PINHOLE_INLINE void amx_add_values(const AmxAttention& s, int64_t key, int64_t steps, bool first) {
  for (int64_t d = 0; d < s.out_tiles; d += 2) {
    bool two = d + 1 < s.out_tiles;
    float* out = s.out + d * 512;
    const uint8_t* v = s.v + (key / 32 * s.out_tiles + d) * 1024;
    const uint8_t* p = s.p;
    amx_fence();
    if (first) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    } else {
      _tile_loadd(0, out, 64);
      _tile_loadd(1, out + 256, 64);
      if (two) {
        _tile_loadd(2, out + 512, 64);
        _tile_loadd(3, out + 768, 64);
      }
    }
    for (int64_t i = 0; i < steps; ++i, v += s.out_tiles * 1024, p += 2048) {
      _tile_loadd(4, v, 64);
      _tile_loadd(5, p, 64);
      _tile_dpbf16ps(0, 4, 5);
      _tile_loadd(6, p + 1024, 64);
      _tile_dpbf16ps(1, 4, 6);
      if (two) {
        _tile_loadd(7, v + 1024, 64);
        _tile_dpbf16ps(2, 7, 5);
        _tile_dpbf16ps(3, 7, 6);
      }
    }
    _tile_stored(0, out, 64);
    _tile_stored(1, out + 256, 64);
    if (two) {
      _tile_stored(2, out + 512, 64);
      _tile_stored(3, out + 768, 64);
    }
  }
}

// A row's reference rises to `top`: what was summed up so far shrinks.
PINHOLE_INLINE void amx_raise_reference(const AmxAttention& s, AmxRowBlock& rows, const __m512* top,
                                        bool has_out) {
  for (int half = 0; half < 2; ++half) {
    __m512 next = _mm512_max_ps(rows.reference[half], top[half]);
    __m512 factor = quick_exp2(_mm512_sub_ps(rows.reference[half], next));
    rows.sum[half] = _mm512_mul_ps(rows.sum[half], factor);
    rows.reference[half] = next;
    for (int64_t d = 0; has_out && d < s.out_tiles; ++d) {
      float* out = s.out + (d * 2 + half) * 256;
      for (int i = 0; i < 16; ++i)
        _mm512_store_ps(out + i * 16, _mm512_mul_ps(_mm512_load_ps(out + i * 16), factor));
    }
  }
}

PINHOLE_INLINE void amx_write_rows(const AttentionArgs& args, const AmxAttention& s,
                                   const RowSpan& span, const AmxRowBlock& rows, bool has_out) {
  for (int half = 0; half < 2; ++half) {
    __mmask16 some = _mm512_cmp_ps_mask(rows.sum[half], v_zero(), _CMP_GT_OQ);
    __m512 inverse = _mm512_maskz_div_ps(some, v_set(1.0f), rows.sum[half]);
    for (int64_t d = 0; d < s.out_tiles; ++d) {
      __m512i r[16];
      for (int i = 0; i < 16; ++i) {
        __m512 x = has_out ? _mm512_load_ps(s.out + (d * 2 + half) * 256 + i * 16) : v_zero();
        r[i] = _mm512_castps_si512(_mm512_mul_ps(x, inverse));
      }
      transpose_16(r);
      int64_t left = args.head_dim - d * 16;
      for (int64_t i = 0; i < 16 && half * 16 + i < span.num_rows; ++i) {
        int64_t row = half * 16 + i;
        float* out = args.out + query_of(args, span, row) * args.out_stride +
                     head_of(span, row) * args.head_dim + d * 16;
        v_store_n(out, _mm512_castsi512_ps(r[i]), left < 16 ? left : 16);
      }
    }
  }
}

// One block of rows over its keys.
void amx_attend(const AttentionArgs& args, const AmxAttention& s, const RowSpan& span) {
  AmxRowBlock rows;
  alignas(64) int32_t begins[32] = {}, ends[32] = {};
  int64_t key_begin = args.num_kv, key_end = 0, all_begin = 0, all_end = args.num_kv;
  for (int64_t row = 0; row < span.num_rows; ++row) {
    int64_t query = query_of(args, span, row);
    int64_t begin = args.key_begin[query], end = args.key_end[query];
    begins[row] = static_cast<int32_t>(begin);
    ends[row] = static_cast<int32_t>(end);
    if (begin < end) {
      key_begin = begin < key_begin ? begin : key_begin;
      key_end = end > key_end ? end : key_end;
    }
    all_begin = begin > all_begin ? begin : all_begin;
    all_end = end < all_end ? end : all_end;
  }
  for (int half = 0; half < 2; ++half) {
    rows.begin[half] = _mm512_load_si512(begins + 16 * half);
    rows.end[half] = _mm512_load_si512(ends + 16 * half);
    rows.reference[half] = v_set(kNoScore);
    rows.sum[half] = v_zero();
  }
  amx_pack_q(args, s, span);
  bool has_out = false;
  int64_t first = key_begin / kScoreKeys * kScoreKeys;
  int64_t values_begin = first; // keys [values_begin, key) are in P, not yet in O
  constexpr int64_t kScoreTiles = kScoreKeys / 16, kTileFloats = 512;
  float* scores = s.scores;
  float* next = s.scores + kScoreTiles * kTileFloats;
  if (first < key_end)
    for (int64_t t = 0; t < kScoreTiles; ++t)
      amx_score_tile(s, first + t * 16, scores + t * kTileFloats);
  for (int64_t key = first; key < key_end; key += kScoreKeys) {
    if (key < all_begin || key + kScoreKeys > all_end)
      amx_mask_scores(rows, key, scores);
    __m512 top[2] = {amx_score_maximum(scores, 0), amx_score_maximum(scores, 1)};
    __mmask16 beyond = 0;
    for (int half = 0; half < 2; ++half) {
      __m512 limit = _mm512_add_ps(rows.reference[half], v_set(kScoreHeadroom));
      beyond |= _mm512_cmp_ps_mask(top[half], limit, _CMP_GT_OQ);
    }
    if (__builtin_expect(beyond != 0, 0)) {
      if (key > values_begin) {
        amx_add_values(s, values_begin, (key - values_begin) / 32, !has_out);
        has_out = true;
        values_begin = key;
      }
      amx_raise_reference(s, rows, top, has_out);
    }
    // A row that has seen no key yet has masked scores only: far below a reference of 0.
    __m512 reference[2];
    for (int half = 0; half < 2; ++half)
      reference[half] = _mm512_mask_blend_ps(
          _mm512_cmp_ps_mask(rows.reference[half], v_set(kNoScore), _CMP_LE_OQ),
          rows.reference[half], v_zero());
    uint8_t* p = s.p + (key - values_begin) / 32 * 2048;
    bool more = key + kScoreKeys < key_end;
#pragma GCC unroll 4
    for (int64_t t = 0; t < kScoreTiles;
         ++t) { // tiles of the next scores while the vectors are busy
      if (more)
        amx_score_tile(s, key + kScoreKeys + t * 16, next + t * kTileFloats);
      amx_probabilities(rows, reference, scores + t * kTileFloats, p + t / 2 * 2048 + t % 2 * 512);
    }
    float* swap = scores;
    scores = next;
    next = swap;
    int64_t done = key + kScoreKeys;
    if (done - values_begin == kValueKeys || !more) {
      amx_add_values(s, values_begin, (done - values_begin) / 32, !has_out);
      has_out = true;
      values_begin = done;
    }
  }
  amx_write_rows(args, s, span, rows, has_out);
}

template <KvType kv> void amx_run_attention(const AttentionArgs& args) {
  amx_configure();
  AmxAttention s;
  amx_attention_layout(args.scratch, args.num_kv, args.head_dim, &s);
  int64_t key_begin = args.num_kv, key_end = 0; // of any query of this share
  for (int64_t query = args.q_begin; query < args.q_end; ++query) {
    int64_t begin = args.key_begin[query], end = args.key_end[query];
    if (begin < end) {
      key_begin = begin < key_begin ? begin : key_begin;
      key_end = end > key_end ? end : key_end;
    }
  }
  int64_t group = args.num_heads / args.num_kv_heads;
  RowSpan span;
  for (int64_t head = args.head_begin; head < args.head_end; head += span.heads) {
    span.kv_head = head / group;
    span.head_begin = head;
    int64_t group_end = (span.kv_head + 1) * group;
    span.heads = (group_end < args.head_end ? group_end : args.head_end) - head;
    if (key_begin < key_end)
      amx_pack_kv<kv>(args, s, span.kv_head, key_begin / kScoreKeys * kScoreKeys, key_end);
    int64_t rows = (args.q_end - args.q_begin) * span.heads;
    for (span.row_begin = 0; span.row_begin < rows; span.row_begin += span.num_rows) {
      int64_t left = rows - span.row_begin;
      span.num_rows = left < kAmxRows ? left : kAmxRows;
      amx_attend(args, s, span);
    }
  }
  amx_release();
}

constexpr AttentionKernel kAmxAttention[] = {
    {"attention.f32.bf16.amx", kAmxRows, amx_attention_scratch_bytes,
     amx_run_attention<KvType::kF32>},
    {"attention.f16.bf16.amx", kAmxRows, amx_attention_scratch_bytes,
     amx_run_attention<KvType::kF16>},
    {"attention.q8_0.bf16.amx", kAmxRows, amx_attention_scratch_bytes,
     amx_run_attention<KvType::kQ8_0>},
};

// Queries from which packing K and V pays.
constexpr int64_t kAmxMinQueries = 16;

const AttentionKernel* pick_attention_amx(KvType kv_type, int64_t num_q, bool exact) {
  if (exact || num_q < kAmxMinQueries)
    return nullptr;
  return &kAmxAttention[static_cast<int>(kv_type)];
}

} // namespace
} // namespace pinhole::kernels
