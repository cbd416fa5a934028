// Attention for at most kNarrowRows rows of one kv head (decode), included by attention.inl: lanes
// are elements of head_dim, K and V are decoded in registers, and each of their bytes is read once.
namespace pinhole::kernels {
namespace {

// More rows than this fill the lanes of a tile well enough. Sums held in registers: kNarrowSums.
#if defined(PINHOLE_KERNEL_AVX512) || defined(PINHOLE_KERNEL_AMX)
constexpr int64_t kNarrowRows = 8;
constexpr int kNarrowSums = 16;
#elif defined(PINHOLE_KERNEL_NEON)
constexpr int64_t kNarrowRows = 4;
constexpr int kNarrowSums = 16;
#else
constexpr int64_t kNarrowRows = 4;
constexpr int kNarrowSums = 8;
#endif
constexpr int64_t kNarrowKeys = 64;

// How many keys, or vectors of head_dim, go together for a number of rows: 1, 2 or 4.
constexpr int narrow_step(int rows) {
  return rows * 4 <= kNarrowSums ? 4 : rows * 2 <= kNarrowSums ? 2 : 1;
}

// Scratch: rows of Q scaled, outputs, scores [kNarrowRows, kNarrowKeys].
PINHOLE_INLINE int64_t narrow_scratch_floats(int64_t head_dim) {
  return kNarrowRows * (2 * pad_dim(head_dim) + kNarrowKeys);
}

// Elements [i, i + count) of one K or V row.
template <KvType kv> PINHOLE_INLINE Vec load_kv(const char* row, int64_t i, int64_t count) {
  if (kv == KvType::kF32) {
    const float* p = reinterpret_cast<const float*>(row) + i;
    return count == kLanes ? v_load(p) : v_load_n(p, count);
  }
  if (kv == KvType::kF16) {
    return count == kLanes ? v_load_f16(row + i * 2) : v_load_f16_n(row + i * 2, count);
  }
  const BlockQ8_0* block = reinterpret_cast<const BlockQ8_0*>(row) + i / 32;
  return v_mul(v_load_i8(block->qs + i % 32), v_set(f16_scalar(block->d)));
}

// Bytes of a K or V row of one head.
template <KvType kv> constexpr int64_t kv_head_row_bytes(int64_t head_dim) {
  return kv == KvType::kF32 ? head_dim * 4 : kv == KvType::kF16 ? head_dim * 2 : head_dim / 32 * 34;
}

// scores[r][0, kKeys) = q[r] . k[j] for the rows of K from `k` on.
template <KvType kv, int kRows, int kKeys>
PINHOLE_INLINE void narrow_scores_of(const char* k, int64_t row_bytes, const float* q,
                                     int64_t head_dim, float* scores) {
  int64_t stride = pad_dim(head_dim);
  Vec sum[kRows][kKeys];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < kKeys; ++j)
      sum[r][j] = v_zero();
  }
  for_lanes(head_dim, [&](int64_t i, int64_t count) {
    Vec x[kKeys];
#pragma GCC unroll 4
    for (int j = 0; j < kKeys; ++j)
      x[j] = load_kv<kv>(k + j * row_bytes, i, count);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      Vec y = v_load(q + r * stride + i); // zeros beyond head_dim
#pragma GCC unroll 4
      for (int j = 0; j < kKeys; ++j)
        sum[r][j] = v_fma(x[j], y, sum[r][j]);
    }
  });
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    float* out = scores + r * kNarrowKeys;
    if constexpr (kKeys == 4) {
      v_reduce_add_4(sum[r][0], sum[r][1], sum[r][2], sum[r][3], out);
    } else {
#pragma GCC unroll 4
      for (int j = 0; j < kKeys; ++j)
        out[j] = v_reduce_add(sum[r][j]);
    }
  }
}

// Rows that are read next, fetched while others are worked on: K's and V's take turns, and between
// them the core would wait for memory anew.
struct RowsAhead {
  const char* at;
  int64_t row_bytes, used_bytes; // from row to row; of a row
};

PINHOLE_INLINE void fetch_rows(const RowsAhead& rows, int64_t row, int64_t count) {
  const char* p = rows.at + row * rows.row_bytes;
  for (int64_t j = 0; j < count; ++j, p += rows.row_bytes)
    for (int64_t i = 0; i < rows.used_bytes; i += 64)
      __builtin_prefetch(p + i);
}

template <KvType kv, int kRows>
void narrow_scores(const char* k, int64_t row_bytes, int64_t num_keys, const float* q,
                   int64_t head_dim, float* scores, const RowsAhead& ahead) {
  constexpr int kStep = narrow_step(kRows);
  int64_t j = 0;
  for (; j + kStep <= num_keys; j += kStep) {
    fetch_rows(ahead, j, kStep);
    narrow_scores_of<kv, kRows, kStep>(k + j * row_bytes, row_bytes, q, head_dim, scores + j);
  }
  for (; j < num_keys; ++j) {
    narrow_scores_of<kv, kRows, 1>(k + j * row_bytes, row_bytes, q, head_dim, scores + j);
  }
}

// out[r][i..] = out * rescale[r] + sum over j of p[r][j] * v[j][i..], for kVecs vectors from
// element i; `count` is the lanes of the last one. `ahead` may be null.
template <KvType kv, int kRows, int kVecs>
void narrow_values(const char* v, int64_t row_bytes, int64_t num_keys, const float* p,
                   const float* rescale, int64_t i, int64_t count, int64_t stride, float* out,
                   const RowsAhead* ahead) {
  Vec sum[kRows][kVecs];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    Vec factor = v_set(rescale[r]);
#pragma GCC unroll 4
    for (int e = 0; e < kVecs; ++e) {
      sum[r][e] = v_mul(factor, v_load(out + r * stride + i + e * kLanes));
    }
  }
  for (int64_t j = 0; j < num_keys; ++j, v += row_bytes) {
    if (ahead != nullptr)
      fetch_rows(*ahead, j, 1);
    Vec x[kVecs];
#pragma GCC unroll 4
    for (int e = 0; e < kVecs; ++e) {
      x[e] = load_kv<kv>(v, i + e * kLanes, e + 1 == kVecs ? count : kLanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      Vec weight = v_set(p[r * kNarrowKeys + j]);
#pragma GCC unroll 4
      for (int e = 0; e < kVecs; ++e)
        sum[r][e] = v_fma(weight, x[e], sum[r][e]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int e = 0; e < kVecs; ++e)
      v_store(out + r * stride + i + e * kLanes, sum[r][e]);
  }
}

// Rows beyond span.num_rows compute on zeros and are not written.
template <KvType kv, int kRows>
void attend_narrow_rows(const AttentionArgs& args, const RowSpan& span) {
  constexpr int kVecs = narrow_step(kRows);
  int64_t head_dim = args.head_dim, stride = pad_dim(head_dim);
  float* q = static_cast<float*>(args.scratch);
  float* out = q + kNarrowRows * stride;
  float* scores = out + kNarrowRows * stride;
  memset(q, 0, static_cast<size_t>(2 * kNarrowRows * stride) * 4);
  int64_t begin[kRows], end[kRows], key_begin = args.num_kv, key_end = 0;
  float maximum[kRows], sum[kRows];
  for (int64_t r = 0; r < kRows; ++r) {
    begin[r] = end[r] = 0;
    maximum[r] = kMaskedScore;
    sum[r] = 0.0f;
    if (r >= span.num_rows)
      continue;
    int64_t query = query_of(args, span, r);
    const float* x = args.q + query * args.q_stride + head_of(span, r) * head_dim;
    for (int64_t d = 0; d < head_dim; ++d)
      q[r * stride + d] = x[d] * args.scale;
    begin[r] = args.key_begin[query];
    end[r] = args.key_end[query];
    if (begin[r] < end[r]) {
      key_begin = begin[r] < key_begin ? begin[r] : key_begin;
      key_end = end[r] > key_end ? end[r] : key_end;
    }
  }
  int64_t used_bytes = kv_head_row_bytes<kv>(head_dim);
  for (int64_t key = key_begin; key < key_end; key += kNarrowKeys) {
    int64_t num_keys = key_end - key < kNarrowKeys ? key_end - key : kNarrowKeys;
    const char* k = static_cast<const char*>(args.k) + key * args.k_row_bytes +
                    span.kv_head * args.k_head_bytes;
    const char* v = static_cast<const char*>(args.v) + key * args.v_row_bytes +
                    span.kv_head * args.v_head_bytes;
    narrow_scores<kv, kRows>(k, args.k_row_bytes, num_keys, q, head_dim, scores,
                             {v, args.v_row_bytes, used_bytes});
    float rescale[kRows];
    for (int r = 0; r < kRows; ++r) {
      float* p = scores + r * kNarrowKeys;
      for (int64_t j = 0; j < num_keys; ++j) {
        bool seen = key + j >= begin[r] && key + j < end[r];
        p[j] = seen ? p[j] : kMaskedScore;
      }
      for (int64_t j = num_keys; j < kNarrowKeys; ++j)
        p[j] = kMaskedScore;
      Vec largest = v_set(maximum[r]);
      for (int64_t j = 0; j < kNarrowKeys; j += kLanes)
        largest = v_max(largest, v_load(p + j));
      float now = v_reduce_max(largest);
      Vec shift = v_set(now), total = v_zero();
      for (int64_t j = 0; j < kNarrowKeys; j += kLanes) {
        Vec x = v_load(p + j);
        Vec e = v_select(v_lt(x, v_set(kMaskedBelow)), v_zero(), v_exp(v_sub(x, shift)));
        total = v_add(total, e);
        v_store(p + j, e);
      }
      alignas(64) float factor[kLanes];
      v_store(factor, v_exp(v_sub(v_set(maximum[r]), shift)));
      rescale[r] = factor[0];
      sum[r] = sum[r] * rescale[r] + v_reduce_add(total);
      maximum[r] = now;
    }
    // The next keys come during the first pass over V.
    bool more = key_end - key >= 2 * kNarrowKeys;
    RowsAhead next{k + kNarrowKeys * args.k_row_bytes, args.k_row_bytes, used_bytes};
    int64_t i = 0;
    for (; i + kVecs * kLanes <= head_dim; i += kVecs * kLanes) {
      narrow_values<kv, kRows, kVecs>(v, args.v_row_bytes, num_keys, scores, rescale, i, kLanes,
                                      stride, out, more && i == 0 ? &next : nullptr);
    }
    for (; i < head_dim; i += kLanes) {
      int64_t count = head_dim - i < kLanes ? head_dim - i : kLanes;
      narrow_values<kv, kRows, 1>(v, args.v_row_bytes, num_keys, scores, rescale, i, count, stride,
                                  out, nullptr);
    }
  }
  for (int64_t r = 0; r < span.num_rows; ++r) {
    float* y = args.out + query_of(args, span, r) * args.out_stride + head_of(span, r) * head_dim;
    float scale = sum[r] > 0.0f ? 1.0f / sum[r] : 0.0f;
    for (int64_t d = 0; d < head_dim; ++d)
      y[d] = out[r * stride + d] * scale;
  }
}

template <KvType kv> void attend_narrow(const AttentionArgs& args, const RowSpan& span) {
  if (span.num_rows <= 1) {
    attend_narrow_rows<kv, 1>(args, span);
  } else if (span.num_rows <= 2) {
    attend_narrow_rows<kv, 2>(args, span);
  } else if (span.num_rows <= 4) {
    attend_narrow_rows<kv, 4>(args, span);
  } else {
    attend_narrow_rows<kv, kNarrowRows>(args, span);
  }
}

} // namespace
} // namespace pinhole::kernels
