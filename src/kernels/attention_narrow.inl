// Attention for at most kNarrowRows rows of one kv head (decode), included by attention.inl: lanes
// are elements of head_dim, K and V are decoded in registers, and each of their bytes is read once.
namespace pinhole::kernels {
namespace {

constexpr int64_t kNarrowRows = 4;
constexpr int64_t kNarrowKeys = 64;
constexpr int kNarrowVecs = 4; // vectors of head_dim whose outputs stay in registers

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
  return v_mul(v_load_i8(block->qs + i % 32), v_set(f16_to_f32(block->d)));
}

template <KvType kv, int kRows>
PINHOLE_INLINE void narrow_scores(const char* k, int64_t row_bytes, int64_t num_keys,
                                  const float* q, int64_t head_dim, float* scores) {
  int64_t stride = pad_dim(head_dim), whole = head_dim / kLanes * kLanes;
  for (int64_t j = 0; j < num_keys; ++j, k += row_bytes) {
    Vec sum[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
      sum[r] = v_zero();
    for (int64_t i = 0; i < whole; i += kLanes) {
      Vec x = load_kv<kv>(k, i, kLanes);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r)
        sum[r] = v_fma(x, v_load(q + r * stride + i), sum[r]);
    }
    if (whole < head_dim) {
      Vec x = load_kv<kv>(k, whole, head_dim - whole);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        sum[r] = v_fma(x, v_load_n(q + r * stride + whole, head_dim - whole), sum[r]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
      scores[r * kNarrowKeys + j] = v_reduce_add(sum[r]);
  }
}

// out[r][i..] = out * rescale[r] + sum over j of p[r][j] * v[j][i..], for kVecs vectors from
// element i; `count` is the lanes of the last one.
template <KvType kv, int kRows, int kVecs>
PINHOLE_INLINE void narrow_values(const char* v, int64_t row_bytes, int64_t num_keys,
                                  const float* p, const float* rescale, int64_t i, int64_t count,
                                  int64_t stride, float* out) {
  Vec sum[kRows][kVecs];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    Vec factor = v_set(rescale[r]);
#pragma GCC unroll 4
    for (int e = 0; e < kVecs; ++e) {
      sum[r][e] = v_mul(factor, v_load(out + r * stride + i + e * kLanes));
    }
  }
  for (int64_t j = 0; j < num_keys; ++j, v += row_bytes) {
    Vec x[kVecs];
#pragma GCC unroll 4
    for (int e = 0; e < kVecs; ++e) {
      x[e] = load_kv<kv>(v, i + e * kLanes, e + 1 == kVecs ? count : kLanes);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      Vec weight = v_set(p[r * kNarrowKeys + j]);
#pragma GCC unroll 4
      for (int e = 0; e < kVecs; ++e)
        sum[r][e] = v_fma(weight, x[e], sum[r][e]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int e = 0; e < kVecs; ++e)
      v_store(out + r * stride + i + e * kLanes, sum[r][e]);
  }
}

template <KvType kv, int kRows>
void attend_narrow_rows(const AttentionArgs& args, const RowSpan& span) {
  int64_t head_dim = args.head_dim, stride = pad_dim(head_dim);
  float* q = static_cast<float*>(args.scratch);
  float* out = q + kNarrowRows * stride;
  float* scores = out + kNarrowRows * stride;
  memset(q, 0, static_cast<size_t>(2 * kNarrowRows * stride) * 4);
  int64_t begin[kRows], end[kRows], key_begin = args.num_kv, key_end = 0;
  float maximum[kRows], sum[kRows];
  for (int64_t r = 0; r < kRows; ++r) {
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
    maximum[r] = kMaskedScore;
    sum[r] = 0.0f;
  }
  for (int64_t key = key_begin; key < key_end; key += kNarrowKeys) {
    int64_t num_keys = key_end - key < kNarrowKeys ? key_end - key : kNarrowKeys;
    const char* k = static_cast<const char*>(args.k) + key * args.k_row_bytes +
                    span.kv_head * args.k_head_bytes;
    const char* v = static_cast<const char*>(args.v) + key * args.v_row_bytes +
                    span.kv_head * args.v_head_bytes;
    narrow_scores<kv, kRows>(k, args.k_row_bytes, num_keys, q, head_dim, scores);
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
    int64_t i = 0;
    for (; i + kNarrowVecs * kLanes <= head_dim; i += kNarrowVecs * kLanes) {
      narrow_values<kv, kRows, kNarrowVecs>(v, args.v_row_bytes, num_keys, scores, rescale, i,
                                            kLanes, stride, out);
    }
    for (; i < head_dim; i += kLanes) {
      int64_t count = head_dim - i < kLanes ? head_dim - i : kLanes;
      narrow_values<kv, kRows, 1>(v, args.v_row_bytes, num_keys, scores, rescale, i, count, stride,
                                  out);
    }
  }
  for (int64_t r = 0; r < kRows; ++r) {
    float* y = args.out + query_of(args, span, r) * args.out_stride + head_of(span, r) * head_dim;
    float scale = sum[r] > 0.0f ? 1.0f / sum[r] : 0.0f;
    for (int64_t d = 0; d < head_dim; ++d)
      y[d] = out[r * stride + d] * scale;
  }
}

template <KvType kv> void attend_narrow(const AttentionArgs& args, const RowSpan& span) {
  switch (span.num_rows) {
  case 1:
    return attend_narrow_rows<kv, 1>(args, span);
  case 2:
    return attend_narrow_rows<kv, 2>(args, span);
  case 3:
    return attend_narrow_rows<kv, 3>(args, span);
  default:
    return attend_narrow_rows<kv, 4>(args, span);
  }
}

} // namespace
} // namespace pinhole::kernels
