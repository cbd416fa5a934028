// Attention over the SIMD shim: softmax with a running maximum over blocks of keys (Dao et al.
// 2022, "FlashAttention", algorithm 1; Milakov and Gimelshein 2018), so that no score matrix
// exists.
//
// A tile is up to kTileRows rows of (query, head), all heads of one kv head together, so that a
// block of K and V is read once for all of them. In a tile lanes are rows: Q, the scores and the
// output are held transposed, [head_dim or keys][rows], K and V elements are broadcast, and the
// softmax is arithmetic between vectors without sums across lanes. Few rows (decode) would leave
// lanes empty: they go through attention_narrow.inl. K and V in f32 are used in place; other types
// are decoded block by block.
#include "kernels/table.h"
#include "quant/q8_0.h"

namespace pinhole::kernels {
namespace {

// Register tile: kRowVecs vectors of rows by kKeyStep keys (or head_dim elements). 24 sums with 32
// registers, 12 with 16.
#if defined(PINHOLE_KERNEL_AVX512) || defined(PINHOLE_KERNEL_AMX)
constexpr int kRowVecs = 2, kKeyStep = 12;
#elif defined(PINHOLE_KERNEL_NEON)
constexpr int kRowVecs = 4, kKeyStep = 6;
#elif defined(PINHOLE_KERNEL_AVX2)
constexpr int kRowVecs = 2, kKeyStep = 6;
#else
constexpr int kRowVecs = 4, kKeyStep = 2;
#endif
constexpr int64_t kTileRows = kRowVecs * kLanes;
constexpr int64_t kKeyBlock = 48; // K and V of a block and head_dim 128 in f32: 24 KiB each
constexpr float kMaskedScore = -1e30f;
constexpr float kMaskedBelow = -5e29f;

PINHOLE_INLINE int64_t pad_dim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

// Scratch of one thread, all f32: Q^T and O^T [head_dim, kTileRows], scores [kKeyBlock, kTileRows],
// running maximum, sum, and key range of each row, and a decoded block of K and of V.
struct AttentionScratch {
  float* q;
  float* out;
  float* scores;
  float* maximum;
  float* sum;
  float* range_begin;
  float* range_end;
  float* k;
  float* v;
};

PINHOLE_INLINE int64_t attention_tile_floats(int64_t head_dim) {
  return 2 * pad_dim(head_dim) * (kTileRows + kKeyBlock) + kKeyBlock * kTileRows + 4 * kTileRows;
}

PINHOLE_INLINE AttentionScratch split_scratch(void* scratch, int64_t head_dim) {
  AttentionScratch s;
  float* p = static_cast<float*>(scratch);
  s.q = p;
  s.out = s.q + pad_dim(head_dim) * kTileRows;
  s.k = s.out + pad_dim(head_dim) * kTileRows;
  s.v = s.k + pad_dim(head_dim) * kKeyBlock;
  s.scores = s.v + pad_dim(head_dim) * kKeyBlock;
  s.maximum = s.scores + kKeyBlock * kTileRows;
  s.sum = s.maximum + kTileRows;
  s.range_begin = s.sum + kTileRows;
  s.range_end = s.range_begin + kTileRows;
  return s;
}

// Rows of K or V as f32: in place, or decoded into `buffer`.
struct KvBlock {
  const float* data;
  int64_t stride; // floats
};

template <KvType kv> PINHOLE_INLINE void decode_kv_row(const char* p, int64_t head_dim, float* y) {
  if (kv == KvType::kF16) {
    int64_t i = 0;
    for (; i + kLanes <= head_dim; i += kLanes)
      v_store(y + i, v_load_f16(p + i * 2));
    if (i < head_dim)
      v_store_n(y + i, v_load_f16_n(p + i * 2, head_dim - i), head_dim - i);
    return;
  }
  const BlockQ8_0* blocks = reinterpret_cast<const BlockQ8_0*>(p);
  for (int64_t b = 0; b < head_dim / 32; ++b) {
    Vec d = v_set(f16_to_f32(blocks[b].d));
    for (int i = 0; i < 32; i += kLanes) {
      v_store(y + b * 32 + i, v_mul(v_load_i8(blocks[b].qs + i), d));
    }
  }
}

template <KvType kv>
PINHOLE_INLINE KvBlock load_kv_block(const char* base, int64_t row_bytes, int64_t num_keys,
                                     int64_t head_dim, float* buffer) {
  if (kv == KvType::kF32)
    return {reinterpret_cast<const float*>(base), row_bytes / 4};
  int64_t stride = pad_dim(head_dim);
  for (int64_t j = 0; j < num_keys; ++j) {
    decode_kv_row<kv>(base + j * row_bytes, head_dim, buffer + j * stride);
  }
  return {buffer, stride};
}

// scores[j][rows] = sum over d of k[j][d] * q[d][rows], for kCount keys; `vecs` vectors of rows.
template <int kCount, int kVecs>
PINHOLE_INLINE void score_keys(KvBlock k, int64_t key, const float* q, int64_t head_dim,
                               float* scores) {
  Vec sum[kCount][kVecs];
#pragma GCC unroll 16
  for (int j = 0; j < kCount; ++j) {
#pragma GCC unroll 4
    for (int r = 0; r < kVecs; ++r)
      sum[j][r] = v_zero();
  }
  const float* rows = k.data + key * k.stride;
  for (int64_t d = 0; d < head_dim; ++d) {
    Vec x[kVecs];
#pragma GCC unroll 4
    for (int r = 0; r < kVecs; ++r)
      x[r] = v_load(q + d * kTileRows + r * kLanes);
#pragma GCC unroll 16
    for (int j = 0; j < kCount; ++j) {
      Vec element = v_set(rows[j * k.stride + d]);
#pragma GCC unroll 4
      for (int r = 0; r < kVecs; ++r)
        sum[j][r] = v_fma(element, x[r], sum[j][r]);
    }
  }
#pragma GCC unroll 16
  for (int j = 0; j < kCount; ++j) {
#pragma GCC unroll 4
    for (int r = 0; r < kVecs; ++r) {
      v_store(scores + (key + j) * kTileRows + r * kLanes, sum[j][r]);
    }
  }
}

// out[d][rows] = out * rescale + sum over j of v[j][d] * p[j][rows], for kCount elements d.
template <int kCount, int kVecs>
PINHOLE_INLINE void add_values(KvBlock v, int64_t dim, int64_t num_keys, const float* p,
                               const Vec* rescale, float* out) {
  Vec sum[kCount][kVecs];
#pragma GCC unroll 16
  for (int d = 0; d < kCount; ++d) {
#pragma GCC unroll 4
    for (int r = 0; r < kVecs; ++r) {
      sum[d][r] = v_mul(rescale[r], v_load(out + (dim + d) * kTileRows + r * kLanes));
    }
  }
  const float* row = v.data + dim;
  for (int64_t j = 0; j < num_keys; ++j, row += v.stride) {
    Vec x[kVecs];
#pragma GCC unroll 4
    for (int r = 0; r < kVecs; ++r)
      x[r] = v_load(p + j * kTileRows + r * kLanes);
#pragma GCC unroll 16
    for (int d = 0; d < kCount; ++d) {
      Vec element = v_set(row[d]);
#pragma GCC unroll 4
      for (int r = 0; r < kVecs; ++r)
        sum[d][r] = v_fma(element, x[r], sum[d][r]);
    }
  }
#pragma GCC unroll 16
  for (int d = 0; d < kCount; ++d) {
#pragma GCC unroll 4
    for (int r = 0; r < kVecs; ++r) {
      v_store(out + (dim + d) * kTileRows + r * kLanes, sum[d][r]);
    }
  }
}

// Scores to probabilities against the new running maximum; rescale[r] is what earlier sums and
// outputs are multiplied by. `masked`: some row does not see all of the block.
template <int kVecs>
PINHOLE_INLINE void softmax_block(const AttentionScratch& s, int64_t first_key, int64_t num_keys,
                                  bool masked, Vec* rescale) {
  for (int r = 0; r < kVecs; ++r) {
    float* scores = s.scores + r * kLanes;
    Vec previous = v_load(s.maximum + r * kLanes);
    Vec maximum = previous;
    if (masked) {
      Vec begin = v_load(s.range_begin + r * kLanes), end = v_load(s.range_end + r * kLanes);
      Vec never = v_set(kMaskedScore);
      for (int64_t j = 0; j < num_keys; ++j) {
        Vec key = v_set(static_cast<float>(first_key + j));
        Vec x = v_load(scores + j * kTileRows);
        x = v_select(v_lt(key, begin), never, v_select(v_lt(key, end), x, never));
        v_store(scores + j * kTileRows, x);
        maximum = v_max(maximum, x);
      }
    } else {
      for (int64_t j = 0; j < num_keys; ++j) {
        maximum = v_max(maximum, v_load(scores + j * kTileRows));
      }
    }
    Vec factor = v_exp(v_sub(previous, maximum));
    Vec sum = v_mul(v_load(s.sum + r * kLanes), factor);
    for (int64_t j = 0; j < num_keys; ++j) {
      Vec x = v_load(scores + j * kTileRows);
      Vec p = v_exp(v_sub(x, maximum));
      if (masked)
        p = v_select(v_lt(x, v_set(kMaskedBelow)), v_zero(), p);
      sum = v_add(sum, p);
      v_store(scores + j * kTileRows, p);
    }
    v_store(s.maximum + r * kLanes, maximum);
    v_store(s.sum + r * kLanes, sum);
    rescale[r] = factor;
  }
}

template <int kVecs>
PINHOLE_INLINE void attend_block(const AttentionScratch& s, KvBlock k, KvBlock v, int64_t first_key,
                                 int64_t num_keys, int64_t head_dim, bool masked) {
  int64_t j = 0;
  for (; j + kKeyStep <= num_keys; j += kKeyStep) {
    score_keys<kKeyStep, kVecs>(k, j, s.q, head_dim, s.scores);
  }
  for (; j + 4 <= num_keys; j += 4)
    score_keys<4, kVecs>(k, j, s.q, head_dim, s.scores);
  for (; j < num_keys; ++j)
    score_keys<1, kVecs>(k, j, s.q, head_dim, s.scores);
  Vec rescale[kVecs];
  softmax_block<kVecs>(s, first_key, num_keys, masked, rescale);
  int64_t d = 0;
  for (; d + kKeyStep <= head_dim; d += kKeyStep) {
    add_values<kKeyStep, kVecs>(v, d, num_keys, s.scores, rescale, s.out);
  }
  for (; d + 4 <= head_dim; d += 4)
    add_values<4, kVecs>(v, d, num_keys, s.scores, rescale, s.out);
  for (; d < head_dim; ++d)
    add_values<1, kVecs>(v, d, num_keys, s.scores, rescale, s.out);
}

// Rows [row_begin, row_begin + num_rows) of kv head kv_head; row = query * heads + head among the
// heads [head_begin, head_begin + heads) of this share that belong to it.
struct TileRows {
  int64_t kv_head, head_begin, heads, row_begin, num_rows;
};

PINHOLE_INLINE int64_t query_of(const AttentionArgs& args, const TileRows& tile, int64_t row) {
  return args.q_begin + (tile.row_begin + row) / tile.heads;
}
PINHOLE_INLINE int64_t head_of(const TileRows& tile, int64_t row) {
  return tile.head_begin + (tile.row_begin + row) % tile.heads;
}

// The keys that any row of a tile sees, and those that all of them see.
struct KeyRange {
  int64_t begin, end;         // of any row
  int64_t all_begin, all_end; // of every row
};

PINHOLE_INLINE KeyRange key_range_of(const AttentionArgs& args, const TileRows& tile) {
  KeyRange range = {args.num_kv, 0, 0, args.num_kv};
  for (int64_t row = 0; row < tile.num_rows; ++row) {
    int64_t query = query_of(args, tile, row);
    int64_t begin = args.key_begin[query], end = args.key_end[query];
    if (begin < end) {
      range.begin = begin < range.begin ? begin : range.begin;
      range.end = end > range.end ? end : range.end;
    }
    range.all_begin = begin > range.all_begin ? begin : range.all_begin;
    range.all_end = end < range.all_end ? end : range.all_end;
  }
  return range;
}

template <KvType kv>
void attend_tile(const AttentionArgs& args, const AttentionScratch& s, const TileRows& tile) {
  int64_t head_dim = args.head_dim;
  // Rows beyond num_rows compute on zeros and are not written.
  memset(s.q, 0, static_cast<size_t>(head_dim * kTileRows) * 4);
  memset(s.out, 0, static_cast<size_t>(head_dim * kTileRows) * 4);
  for (int64_t row = 0; row < kTileRows; ++row) {
    s.maximum[row] = kMaskedScore;
    s.sum[row] = 0.0f;
    s.range_begin[row] = s.range_end[row] = 0.0f;
    if (row >= tile.num_rows)
      continue;
    int64_t query = query_of(args, tile, row);
    const float* q = args.q + query * args.q_stride + head_of(tile, row) * head_dim;
    for (int64_t d = 0; d < head_dim; ++d)
      s.q[d * kTileRows + row] = q[d] * args.scale;
    s.range_begin[row] = static_cast<float>(args.key_begin[query]);
    s.range_end[row] = static_cast<float>(args.key_end[query]);
  }
  KeyRange range = key_range_of(args, tile);
  for (int64_t key = range.begin; key < range.end; key += kKeyBlock) {
    int64_t num_keys = range.end - key < kKeyBlock ? range.end - key : kKeyBlock;
    bool masked = key < range.all_begin || key + num_keys > range.all_end;
    KvBlock k = load_kv_block<kv>(static_cast<const char*>(args.k) + key * args.k_row_bytes +
                                      tile.kv_head * args.k_head_bytes,
                                  args.k_row_bytes, num_keys, head_dim, s.k);
    KvBlock v = load_kv_block<kv>(static_cast<const char*>(args.v) + key * args.v_row_bytes +
                                      tile.kv_head * args.v_head_bytes,
                                  args.v_row_bytes, num_keys, head_dim, s.v);
    if (tile.num_rows <= kLanes) {
      attend_block<1>(s, k, v, key, num_keys, head_dim, masked);
    } else {
      attend_block<kRowVecs>(s, k, v, key, num_keys, head_dim, masked);
    }
  }
  for (int64_t row = 0; row < tile.num_rows; ++row) {
    float* out =
        args.out + query_of(args, tile, row) * args.out_stride + head_of(tile, row) * head_dim;
    float scale = s.sum[row] > 0.0f ? 1.0f / s.sum[row] : 0.0f;
    for (int64_t d = 0; d < head_dim; ++d)
      out[d] = s.out[d * kTileRows + row] * scale;
  }
}

} // namespace
} // namespace pinhole::kernels

#include "kernels/attention_narrow.inl"

namespace pinhole::kernels {
namespace {

int64_t attention_scratch_bytes(int64_t, int64_t, int64_t head_dim) {
  int64_t tile = attention_tile_floats(head_dim), narrow = narrow_scratch_floats(head_dim);
  return (tile > narrow ? tile : narrow) * 4;
}

template <KvType kv> void run_attention(const AttentionArgs& args) {
  AttentionScratch s = split_scratch(args.scratch, args.head_dim);
  int64_t group = args.num_heads / args.num_kv_heads;
  TileRows tile;
  for (int64_t head = args.head_begin; head < args.head_end; head += tile.heads) {
    tile.kv_head = head / group;
    tile.head_begin = head;
    int64_t group_end = (tile.kv_head + 1) * group;
    tile.heads = (group_end < args.head_end ? group_end : args.head_end) - head;
    int64_t rows = (args.q_end - args.q_begin) * tile.heads;
    for (tile.row_begin = 0; tile.row_begin < rows; tile.row_begin += tile.num_rows) {
      int64_t left = rows - tile.row_begin;
      tile.num_rows = left < kTileRows ? left : kTileRows;
      if (tile.num_rows <= kNarrowRows) {
        attend_narrow<kv>(args, tile);
      } else {
        attend_tile<kv>(args, s, tile);
      }
    }
  }
}

constexpr AttentionKernel kAttention[] = {
    {"attention.f32." PINHOLE_KERNEL_NAME, kTileRows, attention_scratch_bytes,
     run_attention<KvType::kF32>},
    {"attention.f16." PINHOLE_KERNEL_NAME, kTileRows, attention_scratch_bytes,
     run_attention<KvType::kF16>},
    {"attention.q8_0." PINHOLE_KERNEL_NAME, kTileRows, attention_scratch_bytes,
     run_attention<KvType::kQ8_0>},
};

} // namespace
} // namespace pinhole::kernels

// attention_amx.inl provides: static const AttentionKernel* pick_attention_amx(KvType, int64_t num_q,
// bool exact), null where the bodies above are the better choice.
#if defined(PINHOLE_KERNEL_AMX) && __has_include("kernels/attention_amx.inl")
#include "kernels/attention_amx.inl"
#define PINHOLE_ATTENTION_AMX 1
#endif

namespace pinhole::kernels {
namespace {

const AttentionKernel* pick_attention(KvType kv_type, int64_t num_q, bool exact) {
#if defined(PINHOLE_ATTENTION_AMX)
  if (const AttentionKernel* kernel = pick_attention_amx(kv_type, num_q, exact)) {
    return kernel;
  }
#endif
  (void)num_q, (void)exact; // f32 arithmetic in every case
  return &kAttention[static_cast<int>(kv_type)];
}

} // namespace
} // namespace pinhole::kernels
