// Attention for many queries on AVX2 and AVX-512 with products of 16-bit integers (vpmaddwd,
// vpdpwssd): twice as many in an instruction as f32 has, and finer than bf16. Included by
// attention.inl.
//
// Rows of Q and K get a scale each, so that their codes' dot products fit 31 bits (11 to 13 bits a
// code). Probabilities have 13 bits relative to the largest of the row's block of kWordKeys keys,
// elements of V 12 bits relative to the largest of their column in a span of kWordSpan keys. What
// becomes of a block is scaled to the running maximum in f32 (as in attention.inl).
//
// Lanes are keys for the scores and elements of head_dim for the output; codes of Q and the
// probabilities are broadcast, two neighbours at a time, which is also how K and V are laid out.

namespace pinhole::kernels {
namespace {

constexpr int64_t kWordMinQueries = 32; // fewer do not pay for turning K and V into words
constexpr int64_t kWordKeys = 64;       // keys of a block
constexpr int64_t kWordSpan = 1024;     // keys whose codes are in scratch: 256 KiB for 64 elements
constexpr float kProbabilityTop = 8191.0f; // 8191 * 4095 * kWordKeys < 2^31
constexpr float kValueTop = 4095.0f;
// A tile of kWordRows rows of Q by kWordVecs vectors of sums.
#if defined(PINHOLE_KERNEL_AVX2)
constexpr int kWordRows = 4, kWordVecs = 2; // 8 sums, 2 loads, 1 broadcast, 1 product
#else
constexpr int kWordRows = 6, kWordVecs = 4; // 24 sums, 4 loads, 1 broadcast
#endif
constexpr int64_t kWordTiles = 4; // that use a block of keys while it is in L1
constexpr int64_t kKeyVecs = kWordKeys / kLanes;

// Largest code whose products, added up over head_dim, fit 31 bits.
PINHOLE_INLINE float score_top(int64_t head_dim) {
  float top = floorf(sqrtf(2147483000.0f / static_cast<float>(head_dim)));
  return top < 8191.0f ? top : 8191.0f;
}

struct KeyNumbers { // 0, 1, 2...
  alignas(64) float at[kWordKeys];
  constexpr KeyNumbers() : at() {
    for (int i = 0; i < kWordKeys; ++i)
      at[i] = static_cast<float>(i);
  }
};
constexpr KeyNumbers kKeyNumbers;

// What one head's share works with, in scratch.
struct WordScratch {
  uint32_t* k;    // [kWordSpan / kWordKeys, head_dim / 2, kWordKeys] pairs of codes
  float* k_scale; // [kWordSpan]
  uint32_t* v;    // [kWordSpan / 2, pad_dim] pairs of codes
  float* v_scale; // [pad_dim]
  float* decoded; // [pad_dim]: a row of K or V
  int16_t* codes; // [2, pad_dim]: rows of K or V as words
  int16_t* q;     // [kWordTiles * kWordRows, pad_dim]
  float* out;     // [kWordTiles * kWordRows, pad_dim]: sums over a span, in codes of V
  float* maximum; // [queries], in powers of 2
  float* total;   // [queries]
};

// Places the arrays from `base` on (null: none); returns the bytes that they take.
PINHOLE_INLINE int64_t place_words(void* base, int64_t num_q, int64_t head_dim, WordScratch& s) {
  int64_t at = 0, dim = pad_dim(head_dim);
  auto take = [&]<class T>(T*& array, int64_t count) {
    if (base != nullptr)
      array = reinterpret_cast<T*>(static_cast<char*>(base) + at);
    at += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
  };
  take(s.k, kWordSpan * dim / 2);
  take(s.k_scale, kWordSpan);
  take(s.v, kWordSpan / 2 * dim);
  take(s.v_scale, dim);
  take(s.decoded, dim);
  take(s.codes, 2 * dim);
  take(s.q, kWordTiles * kWordRows * dim);
  take(s.out, kWordTiles * kWordRows * dim);
  take(s.maximum, num_q);
  take(s.total, num_q);
  return at;
}

// A row to codes of at most `top`; returns the scale. x has zeros up to pad_dim.
PINHOLE_INLINE float row_to_words(const float* x, int64_t dim, float top, int16_t* codes) {
  Vec largest = v_zero();
  for (int64_t i = 0; i < dim; i += kLanes)
    largest = v_max(largest, v_abs(v_load(x + i)));
  float scale = v_reduce_max(largest) / top;
  Vec inverse = v_set(scale > 0.0f ? 1.0f / scale : 0.0f), high = v_set(top), low = v_set(-top);
  for (int64_t i = 0; i < dim; i += kLanes) {
    Vec v = v_min(v_max(v_mul(v_load(x + i), inverse), low), high);
    iv_store_words(codes + i, iv_from_float(v));
  }
  return scale;
}

// Keys [first, first + count) of one head to words; blocks are filled up with zeros.
template <KvType kv>
void words_of_span(const AttentionArgs& args, int64_t kv_head, int64_t first, int64_t count,
                   const WordScratch& s) {
  int64_t head_dim = args.head_dim, dim = pad_dim(head_dim);
  int64_t padded = (count + kWordKeys - 1) / kWordKeys * kWordKeys;
  const char* k = static_cast<const char*>(args.k) + kv_head * args.k_head_bytes;
  const char* v = static_cast<const char*>(args.v) + kv_head * args.v_head_bytes;
  float top = score_top(head_dim);
  for (int64_t i = 0; i < dim; ++i)
    s.decoded[i] = s.v_scale[i] = 0.0f;
  for (int64_t j = 0; j < padded; ++j) {
    uint32_t* to = s.k + j / kWordKeys * (head_dim / 2) * kWordKeys + j % kWordKeys;
    if (j >= count) {
      s.k_scale[j] = 0.0f;
      for (int64_t i = 0; i < head_dim / 2; ++i)
        to[i * kWordKeys] = 0;
      continue;
    }
    decode_kv_row<kv>(k + (first + j) * args.k_row_bytes, head_dim, s.decoded);
    s.k_scale[j] = row_to_words(s.decoded, dim, top, s.codes);
    for (int64_t i = 0; i < head_dim / 2; ++i)
      memcpy(to + i * kWordKeys, s.codes + 2 * i, 4);
    decode_kv_row<kv>(v + (first + j) * args.v_row_bytes, head_dim, s.decoded);
    for (int64_t i = 0; i < dim; i += kLanes)
      v_store(s.v_scale + i, v_max(v_load(s.v_scale + i), v_abs(v_load(s.decoded + i))));
  }
  for (int64_t i = 0; i < dim; ++i)
    s.v_scale[i] *= 1.0f / kValueTop;
  for (int64_t j = 0; j < padded; j += 2) {
    for (int64_t side = 0; side < 2; ++side) {
      int16_t* codes = s.codes + side * dim;
      if (j + side >= count) {
        memset(codes, 0, static_cast<size_t>(dim) * 2);
        continue;
      }
      decode_kv_row<kv>(v + (first + j + side) * args.v_row_bytes, head_dim, s.decoded);
      for (int64_t i = 0; i < dim; i += kLanes) {
        Vec scale = v_load(s.v_scale + i);
        Vec x = v_div(v_load(s.decoded + i), v_select(v_lt(v_zero(), scale), scale, v_set(1.0f)));
        x = v_min(v_max(x, v_set(-kValueTop)), v_set(kValueTop));
        iv_store_words(codes + i, iv_from_float(x));
      }
    }
    uint16_t* to = reinterpret_cast<uint16_t*>(s.v + j / 2 * dim);
    for (int64_t i = 0; i < dim; ++i) {
      to[2 * i] = static_cast<uint16_t>(s.codes[i]);
      to[2 * i + 1] = static_cast<uint16_t>(s.codes[dim + i]);
    }
  }
}

// Vectors e, e + 1... (kVecs of them) of the sums over `steps` pairs of words: a[r] (a_stride words
// a row) broadcast, times b (b_stride 32-bit elements a step). finish(r, e, sums) takes a row's.
template <int kVecs, class Finish>
__attribute__((noinline, noclone)) void word_dots(const int16_t* a, int64_t a_stride,
                                                  const uint32_t* b, int64_t b_stride,
                                                  int64_t steps, int64_t e, const Finish& finish) {
  IVec sum[kWordRows][kVecs];
#pragma GCC unroll 8
  for (int r = 0; r < kWordRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i)
      sum[r][i] = iv_zero();
  }
  for (int64_t step = 0; step < steps; ++step, a += 2, b += b_stride) {
    IVec x[kVecs];
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i)
      x[i] = iv_pinned(iv_load(b + (e + i) * kLanes));
#pragma GCC unroll 8
    for (int r = 0; r < kWordRows; ++r) {
      IVec pair = iv_set_from(a + r * a_stride);
#pragma GCC unroll 4
      for (int i = 0; i < kVecs; ++i)
        sum[r][i] = iv_pinned(iv_dot_words(sum[r][i], x[i], pair));
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kWordRows; ++r)
    finish(r, e, sum[r]);
}

// As word_dots, for `vecs` vectors.
template <class Finish>
PINHOLE_INLINE void all_word_dots(int64_t vecs, const int16_t* a, int64_t a_stride,
                                  const uint32_t* b, int64_t b_stride, int64_t steps,
                                  const Finish& finish) {
  int64_t e = 0;
  for (; e + kWordVecs <= vecs; e += kWordVecs)
    word_dots<kWordVecs>(a, a_stride, b, b_stride, steps, e, finish);
  for (; e < vecs; ++e)
    word_dots<1>(a, a_stride, b, b_stride, steps, e, finish);
}

// kProbabilityTop * 2^x for x <= 0, to the nearest integer. A polynomial of 2^r on [-0.5, 0.5]
// (Remez exchange; relative error 2.6e-6), the exponent by adding 1.5 * 2^23, which leaves round(x)
// in the low bits.
PINHOLE_INLINE IVec exp2_code(Vec x) {
  x = v_max(x, v_set(-24.0f));
  Vec magic = v_set(12582912.0f);
  Vec shifted = v_add(x, magic);
  Vec r = v_sub(x, v_sub(shifted, magic));
  Vec p = v_set(kProbabilityTop * 0.009570102f);
  p = v_fma(p, r, v_set(kProbabilityTop * 0.055917860f));
  p = v_fma(p, r, v_set(kProbabilityTop * 0.240247448f));
  p = v_fma(p, r, v_set(kProbabilityTop * 0.693121815f));
  p = v_fma(p, r, v_set(kProbabilityTop * 0.999999261f));
  IVec bits = iv_add(iv_bits(p), iv_shift_left(iv_bits(shifted), 23));
  return iv_from_float(v_from_bits(bits));
}

// 2^x for x <= 0
PINHOLE_INLINE Vec exp2_vec(Vec x) { return v_exp(v_mul(x, v_set(0.693147181f))); }

// kWordRows rows of Q of one head, over one span of keys. Lane r of the vectors is row r; maxima
// are in powers of 2.
struct WordTile {
  alignas(64) float maximum[kLanes]; // of the scores so far
  alignas(64) float before[kLanes];  // the same, when the span began
  alignas(64) float top[kLanes];     // maximum of one block
  alignas(64) float keep[kLanes];    // what sums so far, and those of the block, are multiplied by
  alignas(64) float take[kLanes];
  // Sums of the probabilities in this span so far, and of one block: kLanes parts of a row's.
  alignas(64) float total[kWordRows][kLanes];
  alignas(64) float block[kWordRows][kLanes];
  float q_scale[kWordRows];                 // with the scale of the scores, for powers of 2; >= 0
  int64_t begin[kWordRows], end[kWordRows]; // keys that a row sees
  int64_t key_begin, key_end;               // that any row sees
  int64_t all_begin, all_end;               // that all rows see
};
static_assert(kWordRows <= kLanes);

// Products of Q and K to scores [kWordRows, kWordKeys], still without the scales of Q; a row's
// largest go to [kWordRows, kLanes].
struct ToScores {
  const float* k_scale;
  float* scores;
  float* largest;
  template <int kVecs>
  PINHOLE_INLINE void operator()(int r, int64_t e, const IVec (&sums)[kVecs]) const {
    Vec most = v_load(largest + r * kLanes);
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i) {
      Vec x = v_mul(iv_to_float(sums[i]), v_load(k_scale + (e + i) * kLanes));
      v_store(scores + r * kWordKeys + (e + i) * kLanes, x);
      most = v_max(most, x);
    }
    v_store(largest + r * kLanes, most);
  }
};

// Probabilities times V, scaled to the running maximum, to out [kWordRows, dim].
struct ToOutput {
  const WordTile& tile;
  float* out;
  int64_t dim;
  template <int kVecs>
  PINHOLE_INLINE void operator()(int r, int64_t e, const IVec (&sums)[kVecs]) const {
    Vec keep = v_set(tile.keep[r]), take = v_set(tile.take[r]);
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i) {
      float* at = out + r * dim + (e + i) * kLanes;
      v_store(at, v_fma(iv_to_float(sums[i]), take, v_mul(keep, v_load(at))));
    }
  }
};

// Scores of keys that a row does not see become kMaskedScore. The block starts at key `first`.
void mask_scores(const WordTile& tile, int64_t first, float* scores, float* largest) {
  Vec never = v_set(kMaskedScore);
  for (int r = 0; r < kWordRows; ++r) {
    Vec begin = v_set(static_cast<float>(tile.begin[r] - first));
    Vec end = v_set(static_cast<float>(tile.end[r] - first));
    Vec most = never;
    for (int64_t i = 0; i < kWordKeys; i += kLanes) {
      Vec x = v_load(scores + r * kWordKeys + i), key = v_load(kKeyNumbers.at + i);
      x = v_select(v_lt(key, begin), never, v_select(v_lt(key, end), x, never));
      v_store(scores + r * kWordKeys + i, x);
      most = v_max(most, x);
    }
    v_store(largest + r * kLanes, most);
  }
}

// Scores to probabilities, relative to the block's own maximum.
PINHOLE_INLINE void word_probabilities(WordTile& tile, const float* scores, const float* largest,
                                       bool masked, int16_t* p) {
#pragma GCC unroll 8
  for (int r = 0; r < kWordRows; ++r) {
    float top = v_reduce_max(v_load(largest + r * kLanes)) * tile.q_scale[r];
    tile.top[r] = top;
    Vec shift = v_set(top), scale = v_set(tile.q_scale[r]);
    IVec total = iv_zero();
#pragma GCC unroll 8
    for (int e = 0; e < kKeyVecs; e += 2) {
      IVec codes[2];
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        Vec score = v_load(scores + r * kWordKeys + (e + i) * kLanes);
        codes[i] = exp2_code(v_sub(v_mul(score, scale), shift));
        if (masked)
          codes[i] =
              iv_bits(v_select(v_lt(score, v_set(kMaskedBelow)), v_zero(), v_from_bits(codes[i])));
        total = iv_add(total, codes[i]);
      }
      iv_store_words_2(p + r * kWordKeys + e * kLanes, codes[0], codes[1]);
    }
    v_store(tile.block[r], iv_to_float(total));
  }
}

// Puts a block's maxima and totals to those so far.
PINHOLE_INLINE void word_advance(WordTile& tile) {
  Vec before = v_load(tile.maximum), top = v_load(tile.top), now = v_max(before, top);
  v_store(tile.keep, exp2_vec(v_sub(before, now)));
  v_store(tile.take, exp2_vec(v_sub(top, now)));
  v_store(tile.maximum, now);
  for (int r = 0; r < kWordRows; ++r) {
    Vec total = v_mul(v_set(tile.keep[r]), v_load(tile.total[r]));
    v_store(tile.total[r], v_fma(v_set(tile.take[r]), v_load(tile.block[r]), total));
  }
}

// Starts a tile of rows [q0, q0 + kWordRows) of Q (those that do not exist repeat the last), whose
// codes go to `codes`.
void begin_tile(const AttentionArgs& args, int64_t head, int64_t q0, const WordScratch& s,
                int16_t* codes, WordTile& tile) {
  int64_t head_dim = args.head_dim, dim = pad_dim(head_dim);
  float top = score_top(head_dim);
  tile = {};
  tile.all_end = tile.key_begin = args.num_kv;
  for (int r = 0; r < kWordRows; ++r) {
    int64_t row = min_of(q0 + r, args.q_end - 1);
    const float* q = args.q + row * args.q_stride + head * head_dim;
    memcpy(s.decoded, q, static_cast<size_t>(head_dim) * 4);
    for (int64_t i = head_dim; i < dim; ++i)
      s.decoded[i] = 0.0f;
    tile.q_scale[r] = row_to_words(s.decoded, dim, top, codes + r * dim) * args.scale * 1.44269504f;
    tile.maximum[r] = tile.before[r] = s.maximum[row - args.q_begin];
    int64_t begin = tile.begin[r] = args.key_begin[row], end = tile.end[r] = args.key_end[row];
    if (begin < end) {
      tile.key_begin = min_of(tile.key_begin, begin);
      tile.key_end = max_of(tile.key_end, end);
    }
    tile.all_begin = max_of(tile.all_begin, begin);
    tile.all_end = min_of(tile.all_end, end);
  }
}

// Adds what a tile has summed up to y, the maxima and the totals.
void end_tile(const AttentionArgs& args, int64_t head, int64_t q0, const WordScratch& s,
              const float* out, WordTile& tile) {
  int64_t head_dim = args.head_dim, dim = pad_dim(head_dim);
  v_store(tile.keep, exp2_vec(v_sub(v_load(tile.before), v_load(tile.maximum))));
  for (int64_t r = 0; r < min_of(kWordRows, args.q_end - q0); ++r) {
    float* y = args.out + (q0 + r) * args.out_stride + head * head_dim;
    Vec keep = v_set(tile.keep[r]);
    for_lanes(head_dim, [&](int64_t i, int64_t count) {
      Vec sum = v_mul(v_load(out + r * dim + i), v_load(s.v_scale + i));
      store_lanes(y + i, v_fma(keep, load_lanes(y + i, count), sum), count);
    });
    s.maximum[q0 + r - args.q_begin] = tile.maximum[r];
    float& total = s.total[q0 + r - args.q_begin];
    total = total * tile.keep[r] + v_reduce_add(v_load(tile.total[r]));
  }
}

// Queries [q0, q0 + kWordTiles * kWordRows) of one head against keys [span_begin, span_end). A
// block of keys, which L1 holds, is used for all tiles, step by step: the steps' chains of
// dependent instructions overlap from tile to tile.
void add_span(const AttentionArgs& args, int64_t head, int64_t q0, int64_t span_begin,
              int64_t span_end, const WordScratch& s) {
  int64_t head_dim = args.head_dim, dim = pad_dim(head_dim), tile_size = kWordRows * dim;
  int64_t tiles = min_of(kWordTiles, (args.q_end - q0 + kWordRows - 1) / kWordRows);
  WordTile tile[kWordTiles];
  alignas(64) float scores[kWordTiles][kWordRows * kWordKeys];
  alignas(64) float largest[kWordTiles][kWordRows * kLanes];
  alignas(64) int16_t p[kWordTiles][kWordRows * kWordKeys];
  int64_t key_begin = span_end, key_end = span_begin;
  for (int64_t t = 0; t < tiles; ++t) {
    begin_tile(args, head, q0 + t * kWordRows, s, s.q + t * tile_size, tile[t]);
    key_begin = min_of(key_begin, max_of(tile[t].key_begin, span_begin));
    key_end = max_of(key_end, min_of(tile[t].key_end, span_end));
  }
  if (key_begin >= key_end)
    return;
  memset(s.out, 0, static_cast<size_t>(tiles * tile_size) * 4);
  for (int64_t b = (key_begin - span_begin) / kWordKeys; span_begin + b * kWordKeys < key_end;
       ++b) {
    int64_t first = span_begin + b * kWordKeys;
    bool seen[kWordTiles];
    for (int64_t t = 0; t < tiles; ++t) {
      seen[t] = first < tile[t].key_end && first + kWordKeys > tile[t].key_begin;
      if (!seen[t])
        continue;
      for (int r = 0; r < kWordRows; ++r)
        v_store(largest[t] + r * kLanes, v_set(kMaskedScore));
      all_word_dots(kKeyVecs, s.q + t * tile_size, dim, s.k + b * (head_dim / 2) * kWordKeys,
                    kWordKeys, head_dim / 2,
                    ToScores{s.k_scale + b * kWordKeys, scores[t], largest[t]});
    }
    for (int64_t t = 0; t < tiles; ++t) {
      if (!seen[t])
        continue;
      bool masked = first < tile[t].all_begin || first + kWordKeys > tile[t].all_end;
      if (masked)
        mask_scores(tile[t], first, scores[t], largest[t]);
      word_probabilities(tile[t], scores[t], largest[t], masked, p[t]);
      word_advance(tile[t]);
    }
    for (int64_t t = 0; t < tiles; ++t) {
      if (seen[t])
        all_word_dots(dim / kLanes, p[t], kWordKeys, s.v + b * kWordKeys / 2 * dim, dim,
                      kWordKeys / 2, ToOutput{tile[t], s.out + t * tile_size, dim});
    }
  }
  for (int64_t t = 0; t < tiles; ++t)
    end_tile(args, head, q0 + t * kWordRows, s, s.out + t * tile_size, tile[t]);
}

template <KvType kv> void run_word_attention(const AttentionArgs& args) {
  if (args.head_dim % 2 != 0)
    return run_attention<kv>(args);
  WordScratch s;
  int64_t num_q = args.q_end - args.q_begin, group = args.num_heads / args.num_kv_heads;
  place_words(args.scratch, num_q, args.head_dim, s);
  int64_t key_begin = args.num_kv, key_end = 0;
  for (int64_t i = args.q_begin; i < args.q_end; ++i) {
    if (args.key_begin[i] >= args.key_end[i])
      continue;
    key_begin = min_of(key_begin, args.key_begin[i]);
    key_end = max_of(key_end, args.key_end[i]);
  }
  for (int64_t head = args.head_begin; head < args.head_end; ++head) {
    for (int64_t i = 0; i < num_q; ++i) {
      s.maximum[i] = kMaskedScore;
      s.total[i] = 0.0f;
      memset(args.out + (args.q_begin + i) * args.out_stride + head * args.head_dim, 0,
             static_cast<size_t>(args.head_dim) * 4);
    }
    for (int64_t first = key_begin; first < key_end; first += kWordSpan) {
      int64_t count = min_of(kWordSpan, key_end - first);
      words_of_span<kv>(args, head / group, first, count, s);
      for (int64_t q = args.q_begin; q < args.q_end; q += kWordTiles * kWordRows)
        add_span(args, head, q, first, first + count, s);
    }
    for (int64_t i = 0; i < num_q; ++i) {
      float* y = args.out + (args.q_begin + i) * args.out_stride + head * args.head_dim;
      float scale = s.total[i] > 0.0f ? 1.0f / s.total[i] : 0.0f;
      for (int64_t d = 0; d < args.head_dim; ++d)
        y[d] *= scale;
    }
  }
}

int64_t word_scratch_bytes(int64_t num_q, int64_t num_kv, int64_t head_dim) {
  if (head_dim % 2 != 0)
    return attention_scratch_bytes(num_q, num_kv, head_dim);
  WordScratch s;
  return place_words(nullptr, num_q, head_dim, s);
}

constexpr AttentionKernel kWordAttention[] = {
    {"attention.int16.f32." PINHOLE_KERNEL_NAME, kWordRows, word_scratch_bytes,
     run_word_attention<KvType::kF32>},
    {"attention.int16.f16." PINHOLE_KERNEL_NAME, kWordRows, word_scratch_bytes,
     run_word_attention<KvType::kF16>},
    {"attention.int16.q8_0." PINHOLE_KERNEL_NAME, kWordRows, word_scratch_bytes,
     run_word_attention<KvType::kQ8_0>},
};

} // namespace
} // namespace pinhole::kernels
