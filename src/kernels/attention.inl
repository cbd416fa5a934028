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
constexpr int64_t kTiles = 4;
// Keys of a block; 72 and 96 are no faster on a Sapphire Rapids (1024 x 1024 x 72, 512 x 512 x
// 128).
constexpr int64_t kKeyBlock = 48;
constexpr float kMaskedScore = -1e30f;
constexpr float kMaskedBelow = -5e29f;

PINHOLE_INLINE int64_t pad_dim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

// A tile: Q^T and O^T [head_dim, kTileRows]; of each row the running maximum, the sum of the
// exponentials and the keys that it sees.
struct Tile {
  float* q;
  float* out;
  float* maximum;
  float* sum;
  float* range_begin;
  float* range_end;
  int64_t num_rows;
  int64_t key_begin, key_end; // seen by some row
  int64_t all_begin, all_end; // seen by every row
};

PINHOLE_INLINE int64_t tile_floats(int64_t head_dim) {
  return (2 * pad_dim(head_dim) + 4) * kTileRows;
}

PINHOLE_INLINE Tile place_tile(float* p, int64_t head_dim) {
  Tile tile = {};
  tile.q = p;
  tile.out = tile.q + pad_dim(head_dim) * kTileRows;
  tile.maximum = tile.out + pad_dim(head_dim) * kTileRows;
  tile.sum = tile.maximum + kTileRows;
  tile.range_begin = tile.sum + kTileRows;
  tile.range_end = tile.range_begin + kTileRows;
  return tile;
}

// A block of K or V as f32 rows of `stride` floats.
struct KvBlock {
  float* data;
  int64_t stride;
};

template <KvType kv> PINHOLE_INLINE void decode_kv_row(const char* p, int64_t head_dim, float* y) {
  if (kv == KvType::kQ8_0) {
    const BlockQ8_0* blocks = reinterpret_cast<const BlockQ8_0*>(p);
    for (int64_t b = 0; b < head_dim / 32; ++b) {
      Vec d = v_set(f16_scalar(blocks[b].d));
      for (int i = 0; i < 32; i += kLanes) {
        v_store(y + b * 32 + i, v_mul(v_load_i8(blocks[b].qs + i), d));
      }
    }
    return;
  }
  const float* f32 = reinterpret_cast<const float*>(p);
  for_lanes(head_dim, [&](int64_t i, int64_t count) {
    if (kv == KvType::kF32) {
      store_lanes(y + i, load_lanes(f32 + i, count), count);
    } else {
      store_lanes(y + i, count == kLanes ? v_load_f16(p + i * 2) : v_load_f16_n(p + i * 2, count),
                  count);
    }
  });
}

template <KvType kv>
PINHOLE_INLINE void decode_kv_block(const void* base, int64_t offset, int64_t row_bytes,
                                    int64_t num_keys, int64_t head_dim, KvBlock block) {
  const char* p = static_cast<const char*>(base) + offset;
  for (int64_t j = 0; j < num_keys; ++j) {
    decode_kv_row<kv>(p + j * row_bytes, head_dim, block.data + j * block.stride);
  }
}

// scores[j][rows] = sum over d of k[j][d] * q[d][rows], for kCount keys and kVecs vectors of rows.
template <int kCount, int kVecs>
void score_keys(KvBlock k, int64_t key, const float* q, int64_t head_dim, float* scores) {
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
void add_values(KvBlock v, int64_t dim, int64_t num_keys, const float* p, const Vec* rescale,
                float* out) {
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
void softmax_block(const Tile& tile, float* all_scores, int64_t first_key, int64_t num_keys,
                   bool masked, Vec* rescale) {
  for (int r = 0; r < kVecs; ++r) {
    float* scores = all_scores + r * kLanes;
    Vec previous = v_load(tile.maximum + r * kLanes);
    Vec maximum = previous;
    if (masked) {
      Vec begin = v_load(tile.range_begin + r * kLanes), end = v_load(tile.range_end + r * kLanes);
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
    Vec sum = v_mul(v_load(tile.sum + r * kLanes), factor);
    for (int64_t j = 0; j < num_keys; ++j) {
      Vec x = v_load(scores + j * kTileRows);
      Vec p = v_exp(v_sub(x, maximum));
      if (masked)
        p = v_select(v_lt(x, v_set(kMaskedBelow)), v_zero(), p);
      sum = v_add(sum, p);
      v_store(scores + j * kTileRows, p);
    }
    v_store(tile.maximum + r * kLanes, maximum);
    v_store(tile.sum + r * kLanes, sum);
    rescale[r] = factor;
  }
}

template <int kVecs>
void attend_block(const Tile& tile, KvBlock k, KvBlock v, int64_t first_key, int64_t num_keys,
                  int64_t head_dim, float* scores) {
  int64_t j = 0;
  for (; j + kKeyStep <= num_keys; j += kKeyStep) {
    score_keys<kKeyStep, kVecs>(k, j, tile.q, head_dim, scores);
  }
  for (; j + 4 <= num_keys; j += 4)
    score_keys<4, kVecs>(k, j, tile.q, head_dim, scores);
  for (; j < num_keys; ++j)
    score_keys<1, kVecs>(k, j, tile.q, head_dim, scores);
  bool masked = first_key < tile.all_begin || first_key + num_keys > tile.all_end;
  Vec rescale[kVecs];
  softmax_block<kVecs>(tile, scores, first_key, num_keys, masked, rescale);
  int64_t d = 0;
  for (; d + kKeyStep <= head_dim; d += kKeyStep) {
    add_values<kKeyStep, kVecs>(v, d, num_keys, scores, rescale, tile.out);
  }
  for (; d + 4 <= head_dim; d += 4)
    add_values<4, kVecs>(v, d, num_keys, scores, rescale, tile.out);
  for (; d < head_dim; ++d)
    add_values<1, kVecs>(v, d, num_keys, scores, rescale, tile.out);
}

// Rows [row_begin, row_begin + num_rows) of kv head kv_head; row = query * heads + head among the
// heads [head_begin, head_begin + heads) of this share that belong to it.
struct RowSpan {
  int64_t kv_head, head_begin, heads, row_begin, num_rows;
};

PINHOLE_INLINE int64_t query_of(const AttentionArgs& args, const RowSpan& span, int64_t row) {
  return args.q_begin + (span.row_begin + row) / span.heads;
}
PINHOLE_INLINE int64_t head_of(const RowSpan& span, int64_t row) {
  return span.head_begin + (span.row_begin + row) % span.heads;
}

// Transposes the rows of `span` into the tile. Lanes beyond them compute on zeros and are not
// written.
void begin_tile(const AttentionArgs& args, const RowSpan& span, Tile& tile) {
  int64_t head_dim = args.head_dim;
  const float* rows[kTileRows];
  tile.num_rows = span.num_rows;
  tile.key_begin = args.num_kv;
  tile.key_end = 0;
  tile.all_begin = 0;
  tile.all_end = args.num_kv;
  for (int64_t row = 0; row < kTileRows; ++row) {
    rows[row] = args.q;
    tile.maximum[row] = kMaskedScore;
    tile.sum[row] = tile.range_begin[row] = tile.range_end[row] = 0.0f;
    if (row >= span.num_rows)
      continue;
    int64_t query = query_of(args, span, row);
    rows[row] = args.q + query * args.q_stride + head_of(span, row) * head_dim;
    int64_t begin = args.key_begin[query], end = args.key_end[query];
    tile.range_begin[row] = static_cast<float>(begin);
    tile.range_end[row] = static_cast<float>(end);
    if (begin < end) {
      tile.key_begin = begin < tile.key_begin ? begin : tile.key_begin;
      tile.key_end = end > tile.key_end ? end : tile.key_end;
    }
    tile.all_begin = begin > tile.all_begin ? begin : tile.all_begin;
    tile.all_end = end < tile.all_end ? end : tile.all_end;
  }
  for (int64_t d = 0; d < head_dim; ++d) {
    float* q = tile.q + d * kTileRows;
    for (int64_t row = 0; row < kTileRows; ++row) {
      q[row] = row < span.num_rows ? rows[row][d] * args.scale : 0.0f;
    }
  }
  memset(tile.out, 0, static_cast<size_t>(head_dim * kTileRows) * 4);
}

void end_tile(const AttentionArgs& args, const RowSpan& span, const Tile& tile) {
  for (int64_t row = 0; row < span.num_rows; ++row) {
    float* out =
        args.out + query_of(args, span, row) * args.out_stride + head_of(span, row) * args.head_dim;
    float scale = tile.sum[row] > 0.0f ? 1.0f / tile.sum[row] : 0.0f;
    for (int64_t d = 0; d < args.head_dim; ++d)
      out[d] = tile.out[d * kTileRows + row] * scale;
  }
}

PINHOLE_INLINE int64_t tiles_scratch_floats(int64_t head_dim) {
  return kTiles * tile_floats(head_dim) + 2 * kKeyBlock * pad_dim(head_dim) + kKeyBlock * kTileRows;
}

// Up to kTiles tiles, so that a decoded block of K and V serves all of them.
template <KvType kv> void attend_tiles(const AttentionArgs& args, const RowSpan& span) {
  int64_t head_dim = args.head_dim, stride = pad_dim(head_dim);
  float* p = static_cast<float*>(args.scratch);
  Tile tiles[kTiles];
  RowSpan spans[kTiles];
  int num_tiles = 0;
  int64_t key_begin = args.num_kv, key_end = 0;
  for (int64_t row = 0; row < span.num_rows; row += kTileRows, p += tile_floats(head_dim)) {
    RowSpan& part = spans[num_tiles] = span;
    part.row_begin = span.row_begin + row;
    part.num_rows = span.num_rows - row < kTileRows ? span.num_rows - row : kTileRows;
    Tile& tile = tiles[num_tiles++] = place_tile(p, head_dim);
    begin_tile(args, part, tile);
    key_begin = tile.key_begin < key_begin ? tile.key_begin : key_begin;
    key_end = tile.key_end > key_end ? tile.key_end : key_end;
  }
  KvBlock k = {p, stride};
  KvBlock v = {p + kKeyBlock * stride, stride};
  float* scores = p + 2 * kKeyBlock * stride;
  for (int64_t key = key_begin; key < key_end; key += kKeyBlock) {
    int64_t num_keys = key_end - key < kKeyBlock ? key_end - key : kKeyBlock;
    decode_kv_block<kv>(args.k, key * args.k_row_bytes + span.kv_head * args.k_head_bytes,
                        args.k_row_bytes, num_keys, head_dim, k);
    decode_kv_block<kv>(args.v, key * args.v_row_bytes + span.kv_head * args.v_head_bytes,
                        args.v_row_bytes, num_keys, head_dim, v);
    for (int t = 0; t < num_tiles; ++t) {
      const Tile& tile = tiles[t];
      if (key >= tile.key_end || key + num_keys <= tile.key_begin)
        continue;
      // A causal tile stops before the block's end.
      int64_t tile_keys = tile.key_end - key < num_keys ? tile.key_end - key : num_keys;
      if (tile.num_rows <= kLanes) {
        attend_block<1>(tile, k, v, key, tile_keys, head_dim, scores);
      } else {
        attend_block<kRowVecs>(tile, k, v, key, tile_keys, head_dim, scores);
      }
    }
  }
  for (int t = 0; t < num_tiles; ++t)
    end_tile(args, spans[t], tiles[t]);
}

} // namespace
} // namespace pinhole::kernels

#include "kernels/attention_narrow.inl"

namespace pinhole::kernels {
namespace {

int64_t attention_scratch_bytes(int64_t, int64_t, int64_t head_dim) {
  int64_t tiles = tiles_scratch_floats(head_dim), narrow = narrow_scratch_floats(head_dim);
  return (tiles > narrow ? tiles : narrow) * 4;
}

template <KvType kv> void run_attention(const AttentionArgs& args) {
  int64_t group = args.num_heads / args.num_kv_heads;
  RowSpan span;
  for (int64_t head = args.head_begin; head < args.head_end; head += span.heads) {
    span.kv_head = head / group;
    span.head_begin = head;
    int64_t group_end = (span.kv_head + 1) * group;
    span.heads = (group_end < args.head_end ? group_end : args.head_end) - head;
    int64_t rows = (args.q_end - args.q_begin) * span.heads;
    for (span.row_begin = 0; span.row_begin < rows; span.row_begin += span.num_rows) {
      int64_t left = rows - span.row_begin;
      span.num_rows = left < kTiles * kTileRows ? left : kTiles * kTileRows;
      if (span.num_rows <= kNarrowRows) {
        attend_narrow<kv>(args, span);
      } else {
        attend_tiles<kv>(args, span);
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

// attention_amx.inl provides: static const AttentionKernel* pick_attention_amx(KvType, int64_t
// num_q, bool exact), null where the bodies above are the better choice.
#if defined(PINHOLE_KERNEL_AMX) && __has_include("kernels/attention_amx.inl")
#include "kernels/attention_amx.inl"
#define PINHOLE_ATTENTION_AMX 1
#endif

#if defined(PINHOLE_KERNEL_AVX2) || defined(PINHOLE_KERNEL_AVX512)
#include "kernels/attention_words.inl"
#define PINHOLE_ATTENTION_WORDS 1
#endif

namespace pinhole::kernels {
namespace {

const AttentionKernel* pick_attention(KvType kv_type, int64_t num_q, bool exact) {
#if defined(PINHOLE_ATTENTION_AMX)
  if (const AttentionKernel* kernel = pick_attention_amx(kv_type, num_q, exact)) {
    return kernel;
  }
#endif
#if defined(PINHOLE_ATTENTION_WORDS)
  if (!exact && num_q >= kWordMinQueries)
    return &kWordAttention[static_cast<int>(kv_type)];
#endif
  (void)num_q, (void)exact; // f32 arithmetic
  return &kAttention[static_cast<int>(kv_type)];
}

} // namespace
} // namespace pinhole::kernels
