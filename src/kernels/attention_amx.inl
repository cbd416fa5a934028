// Attention on AMX bf16 tiles, for many queries: K and V of a kv head are packed once to tiles
// (scratch grows with num_kv), then each block of 32 rows of (query, head) walks its keys.
//
// Everything is transposed, S^T = K Q^T and O^T = V^T P^T, so that lanes are rows: the softmax
// needs no sums across lanes, and two rows of S^T make one row of a P^T tile. Exponentials are base
// 2 (log2(e) is in the scale of Q) against a reference that is a row's first maximum: bf16 and f32
// have the exponent range to carry scores up to 2^64 above it, beyond which sums are rescaled.
#include "kernels/attention_amx_pack.inl"

namespace pinhole::kernels {
namespace {

// A block of rows: what of it stays between keys. Lanes [2][16] are rows.
struct AmxRowBlock {
  int64_t q_offset[kAmxRows], out_offset[kAmxRows]; // floats from args.q and args.out
  int64_t num_rows;
  __m512i begin[2], end[2]; // key ranges
  __m512 reference[2];      // subtracted from scores; kNoScore while a row has seen no key
  __m512 sum[2];
};

PINHOLE_INLINE void amx_pack_q(const AttentionArgs& args, const AmxAttention& s,
                               const AmxRowBlock& rows) {
  __m512 scale = v_set(args.scale * 1.44269504f * kScoreUnit);
  for (int64_t d = 0; d < s.q_steps; ++d) {
    for (int64_t half = 0; half < 2; ++half) {
      __m512i r[16];
      for (int64_t i = 0; i < 16; ++i) {
        r[i] = _mm512_setzero_si512();
        int64_t row = half * 16 + i, left = args.head_dim - d * 32;
        if (row >= rows.num_rows)
          continue;
        const float* q = args.q + rows.q_offset[row] + d * 32;
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

// Scores of kScoreKeys keys by 32 rows: a slot multiplies 16 keys by 32 elements. Tiles 4 and 5
// hold them from one slot to the next.
struct AmxScoreJob {
  const uint8_t* k;
  float* scores;
  int64_t tiles_left, d; // 16 keys each; the next step of head_dim
};

PINHOLE_INLINE AmxScoreJob amx_score_job(const AmxAttention& s, int64_t key, float* scores) {
  return {s.k + key / 16 * s.q_steps * 1024, scores, kScoreKeys / 16, 0};
}

PINHOLE_INLINE void amx_score_slot(const AmxAttention& s, AmxScoreJob& job, int64_t q_steps) {
  const uint8_t* q = s.q + job.d * 2048;
  if (job.d == 0) {
    _tile_zero(4);
    _tile_zero(5);
  }
  _tile_loadd(6, job.k, 64);
  _tile_loadd(7, q, 64);
  _tile_dpbf16ps(4, 6, 7);
  _tile_loadd(7, q + 1024, 64);
  _tile_dpbf16ps(5, 6, 7);
  job.k += 1024;
  if (++job.d == q_steps) {
    _tile_stored(4, job.scores, 64);
    _tile_stored(5, job.scores + 256, 64);
    job.scores += 512;
    job.d = 0;
    --job.tiles_left;
  }
}

// 2^x, to 1e-4.
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

// Scores are in 1/128 of a power of two, so that, rounded to integers and moved by the exponent's
// bias, they are nearly the bf16 of 2^x: exponent, and mantissa 1 + f for the fraction f, where it
// should be 2^f. kExcess has the difference, 128 * (1 + f - 2^f), for pairs of f.
// While AMX runs, one of two ports does FMAs and conversions: integer steps on 32 bf16 at a time
// take half as long as a polynomial.
alignas(64) constexpr uint8_t kExcess[64] = {
    0,  1,  1,  2,  2,  3,  4,  4,  5,  5,  5,  6,  6,  7,  7,  8,  8,  8,  9,  9,  9,  9,
    10, 10, 10, 10, 10, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 10, 10, 10,
    10, 10, 9,  9,  9,  8,  8,  8,  7,  7,  6,  6,  5,  5,  4,  3,  3,  2,  1,  1};

// Probabilities of 8 keys by 16 rows to P; returns the sum of them, as rounded, and of `sum`.
PINHOLE_INLINE __m512 amx_probabilities(__m512 sum, __m512 reference, const float* scores,
                                        uint8_t* p) {
  __m512i excess = _mm512_load_si512(kExcess);
  __m512i pairs =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
  __m512i upper = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u));
  __m512 bias = _mm512_sub_ps(v_set(127.0f * kScoreUnit), reference);
#pragma GCC unroll 4
  for (int j = 0; j < 8; j += 2) {
    __m512i a = _mm512_cvtps_epi32(_mm512_add_ps(_mm512_load_ps(scores + j * 16), bias));
    __m512i b = _mm512_cvtps_epi32(_mm512_add_ps(_mm512_load_ps(scores + j * 16 + 16), bias));
    __m512i x = _mm512_max_epi16(_mm512_packs_epi32(a, b), _mm512_setzero_si512());
    __m512i less =
        _mm512_maskz_permutexvar_epi8(0x5555555555555555ull, _mm512_srli_epi16(x, 1), excess);
    // A 0 may get an excess, but at 2^-127 that changes nothing.
    x = _mm512_shuffle_epi8(_mm512_subs_epu16(x, less), pairs);
    __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
    __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(x, upper));
    sum = _mm512_add_ps(sum, _mm512_add_ps(even, odd));
    _mm512_store_si512(p + j / 2 * 64, x);
  }
  return sum;
}

constexpr int kExpSlots = kScoreKeys * kAmxRows / 128; // calls of amx_probabilities

PINHOLE_INLINE void amx_exp_slot(int slot, __m512* sums, const __m512* reference,
                                 const float* scores, uint8_t* p) {
  int tile = slot >> 2, half = slot >> 1 & 1, part = slot & 1; // of 16 keys, of rows, of the tile
  sums[half] =
      amx_probabilities(sums[half], reference[half], scores + tile * 512 + half * 256 + part * 128,
                        p + tile / 2 * 2048 + half * 1024 + tile % 2 * 512 + part * 256);
}

// O += V P: a slot multiplies 32 elements of O by 32 keys. Tiles 0 to 3 are O's, as 4 and 5 are of
// scores: slots of both kinds alternate, and share 6 and 7 alone.
struct AmxValueJob {
  const uint8_t* p;
  const uint8_t* v; // of the first key
  int64_t steps;    // of 32 keys
  int64_t d, i;     // the next slot: tile of O, step; done when d reaches out_tiles
  bool first;       // nothing in O yet
};

PINHOLE_INLINE bool amx_has_slot(const AmxAttention& s, const AmxValueJob& job) {
  return job.d < s.out_tiles;
}

PINHOLE_INLINE void amx_value_slot(const AmxAttention& s, AmxValueJob& job, int64_t out_tiles) {
  bool two = out_tiles % 2 == 0 || job.d + 1 < out_tiles;
  float* out = s.out + job.d * 512;
  const uint8_t* v = job.v + (job.i * out_tiles + job.d) * 1024;
  const uint8_t* p = job.p + job.i * 2048;
  if (job.i == 0) {
    if (job.first) {
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
  }
  _tile_loadd(6, v, 64);
  _tile_loadd(7, p, 64);
  _tile_dpbf16ps(0, 6, 7);
  if (two) {
    _tile_loadd(6, v + 1024, 64);
    _tile_dpbf16ps(2, 6, 7);
    _tile_loadd(7, p + 1024, 64);
    _tile_dpbf16ps(3, 6, 7);
    _tile_loadd(6, v, 64);
  } else {
    _tile_loadd(7, p + 1024, 64);
  }
  _tile_dpbf16ps(1, 6, 7);
  if (++job.i == job.steps) {
    _tile_stored(0, out, 64);
    _tile_stored(1, out + 256, 64);
    if (two) {
      _tile_stored(2, out + 512, 64);
      _tile_stored(3, out + 768, 64);
    }
    job.i = 0;
    job.d += 2;
  }
}

// A row's reference rises to `top`: what was summed up so far shrinks.
PINHOLE_INLINE void amx_raise_reference(const AmxAttention& s, AmxRowBlock& rows, const __m512* top,
                                        bool has_out) {
  for (int half = 0; half < 2; ++half) {
    // A whole number: rounding scores then does not depend on it.
    __m512 next = _mm512_max_ps(rows.reference[half], v_round(top[half]));
    __m512 down = _mm512_sub_ps(rows.reference[half], next);
    __mmask16 moved = _mm512_cmp_ps_mask(down, v_zero(), _CMP_LT_OQ);
    __m512 factor = _mm512_mask_blend_ps(moved, v_set(1.0f),
                                         quick_exp2(_mm512_mul_ps(down, v_set(1.0f / kScoreUnit))));
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
                                   const AmxRowBlock& rows, bool has_out) {
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
      for (int64_t i = 0; i < 16 && half * 16 + i < rows.num_rows; ++i) {
        float* out = args.out + rows.out_offset[half * 16 + i] + d * 16;
        v_store_n(out, _mm512_castsi512_ps(r[i]), left < 16 ? left : 16);
      }
    }
  }
}

// The walk of a block of rows over its keys: P fills up with the keys [values_begin, key) while O
// takes in the P before it.
// kQ, kOut: q_steps and out_tiles where they are known at compile time, else 0.
template <int kQ, int kOut> struct AmxWalk {
  const AmxAttention& s;
  float* scores;  // of the keys at hand
  float* next;    // of the next ones
  uint8_t* p;     // being filled
  uint8_t* taken; // that job reads
  AmxValueJob job;
  int64_t values_begin, value_keys;
  bool has_out = false; // O holds something

  AmxWalk(const AmxAttention& attention, int64_t first_key, int64_t end_key)
      : s(attention), scores(attention.scores), next(attention.scores + kScoreKeys * kAmxRows),
        p(attention.p), taken(attention.p + kValueKeys * kAmxRows * 2), values_begin(first_key) {
    value_keys = amx_pad((end_key - first_key) / 3, kScoreKeys);
    value_keys = value_keys < kMinValueKeys ? kMinValueKeys : value_keys;
    value_keys = value_keys > kValueKeys ? kValueKeys : value_keys;
    job.d = s.out_tiles;
    AmxScoreJob score_job = amx_score_job(s, first_key, scores);
    amx_fence();
    while (score_job.tiles_left > 0)
      amx_score_slot(s, score_job, s.q_steps);
  }

  void finish_job() {
    amx_fence();
    while (amx_has_slot(s, job))
      amx_value_slot(s, job, kOut > 0 ? kOut : s.out_tiles);
  }

  // Hands the keys up to `end` over to O.
  void hand_over(int64_t end) {
    finish_job();
    if (end == values_begin)
      return;
    job = {p,       s.v + values_begin / 32 * s.out_tiles * 1024, (end - values_begin) / 32, 0, 0,
           !has_out};
    has_out = true;
    values_begin = end;
    uint8_t* swap = p;
    p = taken;
    taken = swap;
  }

  // What a row's scores are taken against: 0 while it has seen no key, whose scores are far below.
  static void used_reference(const AmxRowBlock& rows, __m512* reference) {
    for (int half = 0; half < 2; ++half) {
      __mmask16 seen = _mm512_cmp_ps_mask(rows.reference[half], v_set(kNoScore), _CMP_GT_OQ);
      reference[half] = _mm512_maskz_mov_ps(seen, rows.reference[half]);
    }
  }

  // Raises the references to the scores at hand, with everything before them in O.
  void raise(AmxRowBlock& rows, int64_t key) {
    hand_over(key);
    finish_job();
    __m512 top[2] = {amx_score_maximum(scores, 0), amx_score_maximum(scores, 1)};
    amx_raise_reference(s, rows, top, has_out);
  }

  // The exponentials of the scores at hand, between products for the next scores and for O.
  template <bool kScores, bool kValues>
  PINHOLE_INLINE void slots(AmxScoreJob& score_job, __m512* sums, const __m512* reference,
                            uint8_t* to) {
    const int64_t score_slots = (kQ > 0 ? kQ : s.q_steps) * (kScoreKeys / 16);
    const int64_t value_slots = ((kOut > 0 ? kOut : s.out_tiles) + 1) / 2 * (kScoreKeys / 32);
    int64_t score_due = 0, value_due = 0;
#pragma GCC unroll 16
    for (int slot = 0; slot < kExpSlots; ++slot) {
      if (kScores)
        for (score_due += score_slots; score_due >= kExpSlots; score_due -= kExpSlots)
          amx_score_slot(s, score_job, kQ > 0 ? kQ : s.q_steps);
      if (kValues)
        for (value_due += value_slots; value_due >= kExpSlots; value_due -= kExpSlots)
          amx_value_slot(s, job, kOut > 0 ? kOut : s.out_tiles);
      amx_exp_slot(slot, sums, reference, scores, to);
    }
  }

  void advance(AmxRowBlock& rows, int64_t key, bool more, bool masked) {
    if (masked)
      amx_mask_scores(rows, key, scores);
    __mmask16 fresh = 0;
    for (int half = 0; half < 2; ++half)
      fresh |= _mm512_cmp_ps_mask(rows.reference[half], v_set(kNoScore), _CMP_LE_OQ);
    if (fresh != 0)
      raise(rows, key);
    __m512 reference[2];
    used_reference(rows, reference);
    __m512 sums[2] = {rows.sum[0], rows.sum[1]};
    uint8_t* to = p + (key - values_begin) / 32 * 2048;
    AmxScoreJob score_job = amx_score_job(s, key + kScoreKeys, next);
    const bool values = amx_has_slot(s, job); // enough of them for value_keys keys, or none
    amx_fence();
    if (more && values)
      slots<true, true>(score_job, sums, reference, to);
    else if (more)
      slots<true, false>(score_job, sums, reference, to);
    else
      slots<false, false>(score_job, sums, reference, to);
    __mmask16 beyond = _mm512_cmp_ps_mask(sums[0], v_set(kSumLimit), _CMP_NLE_UQ) |
                       _mm512_cmp_ps_mask(sums[1], v_set(kSumLimit), _CMP_NLE_UQ);
    if (__builtin_expect(beyond != 0, 0)) { // take these keys again
      raise(rows, key);
      used_reference(rows, reference);
      sums[0] = rows.sum[0];
      sums[1] = rows.sum[1];
      to = p;
      for (int slot = 0; slot < kExpSlots; ++slot)
        amx_exp_slot(slot, sums, reference, scores, to);
    }
    rows.sum[0] = sums[0];
    rows.sum[1] = sums[1];
    float* swap = scores;
    scores = next;
    next = swap;
    if (key + kScoreKeys - values_begin == value_keys)
      hand_over(key + kScoreKeys);
    last_key = key + kScoreKeys;
  }

  void finish() {
    hand_over(last_key);
    finish_job();
  }

  int64_t last_key = values_begin;
};

// One block of rows over its keys.
template <int kQ, int kOut>
void amx_attend(const AttentionArgs& args, const AmxAttention& s, const RowSpan& span) {
  AmxRowBlock rows;
  rows.num_rows = span.num_rows;
  alignas(64) int32_t begins[32] = {}, ends[32] = {};
  int64_t key_begin = args.num_kv, key_end = 0, all_begin = 0, all_end = args.num_kv;
  int64_t query = query_of(args, span, 0), head = head_of(span, 0);
  for (int64_t row = 0; row < span.num_rows; ++row) {
    rows.q_offset[row] = query * args.q_stride + head * args.head_dim;
    rows.out_offset[row] = query * args.out_stride + head * args.head_dim;
    int64_t begin = args.key_begin[query], end = args.key_end[query];
    begins[row] = static_cast<int32_t>(begin);
    ends[row] = static_cast<int32_t>(end);
    if (begin < end) {
      key_begin = begin < key_begin ? begin : key_begin;
      key_end = end > key_end ? end : key_end;
    }
    all_begin = begin > all_begin ? begin : all_begin;
    all_end = end < all_end ? end : all_end;
    if (++head == span.head_begin + span.heads) {
      head = span.head_begin;
      ++query;
    }
  }
  // The rows of Q after these are as far on as 32 rows are from each other.
  int64_t next_q = kAmxRows / span.heads * args.q_stride;
  for (int half = 0; half < 2; ++half) {
    rows.begin[half] = _mm512_load_si512(begins + 16 * half);
    rows.end[half] = _mm512_load_si512(ends + 16 * half);
    rows.sum[half] = v_zero();
    // Lanes without a row need no maximum.
    int64_t used = span.num_rows - 16 * half;
    rows.reference[half] =
        _mm512_maskz_mov_ps(used >= 16 ? 0xffff : v_tail(used > 0 ? used : 0), v_set(kNoScore));
  }
  if (key_begin >= key_end) {
    amx_write_rows(args, s, rows, false);
    return;
  }
  amx_pack_q(args, s, rows);
  AmxWalk<kQ, kOut> walk(s, key_begin / kScoreKeys * kScoreKeys, key_end);
  int64_t fetched = 0;
  for (int64_t key = walk.values_begin; key < key_end; key += kScoreKeys) {
    if (fetched < span.num_rows) { // rows that this block writes, and the next one reads
      const float* q = args.q + rows.q_offset[fetched] + next_q;
      float* out = args.out + rows.out_offset[fetched];
      for (int64_t i = 0; i < args.head_dim; i += 16) {
        __builtin_prefetch(q + i);
        __builtin_prefetch(out + i, 1);
      }
      ++fetched;
    }
    bool masked = key < all_begin || key + kScoreKeys > all_end;
    walk.advance(rows, key, key + kScoreKeys < key_end, masked);
  }
  walk.finish();
  amx_write_rows(args, s, rows, walk.has_out);
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
      if (s.q_steps == 2 && s.out_tiles == 4)
        amx_attend<2, 4>(args, s, span);
      else if (s.q_steps == 3 && s.out_tiles == 5)
        amx_attend<3, 5>(args, s, span);
      else if (s.q_steps == 4 && s.out_tiles == 8)
        amx_attend<4, 8>(args, s, span);
      else
        amx_attend<0, 0>(args, s, span);
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
