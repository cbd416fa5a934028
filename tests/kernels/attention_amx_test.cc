// Attention where rounding to bf16 is allowed (exact = false), on every instruction set, against
// softmax(q K^T * scale) V in double over the values that K and V hold.
#include "each_isa.h"

#include "quant/half.h"
#include "quant/q8_0.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>

namespace pinhole::kernels {
namespace {

struct FreeBytes {
  void operator()(void* p) const { std::free(p); }
};

struct Problem {
  int64_t num_q, num_kv, num_heads, num_kv_heads, head_dim;
  KvType type = KvType::kF32;
  float q_scale = 1.0f;
  int64_t head_share = 0; // 0: one share has all
  int64_t q_shares = 1;
};

class AttentionRounded : public EachIsa {
 protected:
  // What query i sees of num_kv keys.
  using See = std::pair<int64_t, int64_t> (*)(int64_t i, const Problem& p);

  static std::pair<int64_t, int64_t> everything(int64_t, const Problem& p) { return {0, p.num_kv}; }
  static std::pair<int64_t, int64_t> causal(int64_t i, const Problem& p) {
    return {0, p.num_kv - p.num_q + i + 1};
  }
  static std::pair<int64_t, int64_t> window(int64_t i, const Problem& p) {
    int64_t end = p.num_kv - p.num_q + i + 1;
    return {std::max<int64_t>(0, end - 37), end};
  }
  static std::pair<int64_t, int64_t> segments(int64_t i, const Problem& p) { // pictures of 50
    return {i / 50 * 50, std::min(i / 50 * 50 + 50, p.num_kv)};
  }
  static std::pair<int64_t, int64_t> odd(int64_t i, const Problem& p) {
    if (i % 7 == 3)
      return {5, 5}; // nothing
    if (i % 7 == 4)
      return {p.num_kv - 1, p.num_kv}; // the last key alone
    return {i % 5 * 20, std::min(p.num_kv, i % 5 * 20 + 1 + i * 3)};
  }

  // Error over energy of the output.
  void check(const Problem& p, See see, double limit = 3e-5) {
    SCOPED_TRACE(testing::Message()
                 << p.num_q << " queries, " << p.num_kv << " keys, heads " << p.num_heads << '/'
                 << p.num_kv_heads << " x " << p.head_dim << ", type " << static_cast<int>(p.type));
    std::mt19937 random(static_cast<uint32_t>(p.num_q * 31 + p.num_kv * 7 + p.head_dim));
    std::normal_distribution<float> normal;
    auto normals = [&](int64_t n, float scale) {
      std::vector<float> x(static_cast<size_t>(n));
      for (float& v : x)
        v = normal(random) * scale;
      return x;
    };
    int64_t q_stride = p.num_heads * p.head_dim + 16, kv_row = p.num_kv_heads * p.head_dim;
    std::vector<float> q = normals(p.num_q * q_stride, p.q_scale);
    std::vector<float> k = normals(p.num_kv * kv_row, 1.0f), v = normals(p.num_kv * kv_row, 1.0f);
    std::vector<uint8_t> k_bytes = stored(p.type, k), v_bytes = stored(p.type, v);
    std::vector<int32_t> begin, end;
    for (int64_t i = 0; i < p.num_q; ++i) {
      begin.push_back(static_cast<int32_t>(see(i, p).first));
      end.push_back(static_cast<int32_t>(see(i, p).second));
    }
    const AttentionKernel* kernel = table().attention(p.type, p.num_q, false);
    int64_t scratch_bytes = kernel->scratch_bytes(p.num_q, p.num_kv, p.head_dim);
    void* memory = nullptr;
    ASSERT_EQ(posix_memalign(&memory, 64, static_cast<size_t>(scratch_bytes) + 1), 0);
    std::unique_ptr<void, FreeBytes> scratch(memory);
    std::memset(memory, 0xff, static_cast<size_t>(scratch_bytes)); // NaN in what nobody wrote
    int64_t out_stride = p.num_heads * p.head_dim + 3;
    std::vector<float> out(static_cast<size_t>(p.num_q * out_stride), 1e9f);
    int64_t element = p.type == KvType::kF32 ? 4 : 2;
    auto bytes = [&](int64_t n) { return p.type == KvType::kQ8_0 ? n / 32 * 34 : n * element; };
    AttentionArgs args = {};
    args.q = q.data();
    args.q_stride = q_stride;
    args.k = k_bytes.data();
    args.v = v_bytes.data();
    args.k_row_bytes = args.v_row_bytes = bytes(kv_row);
    args.k_head_bytes = args.v_head_bytes = bytes(p.head_dim);
    args.kv_type = p.type;
    args.key_begin = begin.data();
    args.key_end = end.data();
    args.out = out.data();
    args.out_stride = out_stride;
    args.num_heads = p.num_heads;
    args.num_kv_heads = p.num_kv_heads;
    args.head_dim = p.head_dim;
    args.num_kv = p.num_kv;
    args.scale = 1.0f / std::sqrt(static_cast<float>(p.head_dim));
    args.scratch = memory;
    int64_t head_share = p.head_share > 0 ? p.head_share : p.num_heads;
    int64_t q_share = (p.num_q / p.q_shares + kernel->q_step - 1) / kernel->q_step * kernel->q_step;
    for (int64_t head = 0; head < p.num_heads; head += head_share) {
      for (int64_t query = 0; query < p.num_q; query += q_share) {
        args.head_begin = head;
        args.head_end = std::min(head + head_share, p.num_heads);
        args.q_begin = query;
        args.q_end = std::min(query + q_share, p.num_q);
        kernel->run(args);
      }
    }

    double error = 0.0, energy = 0.0;
    int64_t group = p.num_heads / p.num_kv_heads;
    std::vector<double> scores(static_cast<size_t>(p.num_kv));
    std::vector<double> sums(static_cast<size_t>(p.head_dim));
    for (int64_t i = 0; i < p.num_q; ++i) {
      for (int64_t h = 0; h < p.num_heads; ++h) {
        const float* query = &q[static_cast<size_t>(i * q_stride + h * p.head_dim)];
        double top = -1e300, total = 0.0;
        for (int64_t j = begin[i]; j < end[i]; ++j) {
          const float* key = &k[static_cast<size_t>(j * kv_row + h / group * p.head_dim)];
          double dot = 0.0;
          for (int64_t d = 0; d < p.head_dim; ++d)
            dot += static_cast<double>(query[d]) * key[d];
          scores[j] = dot * args.scale;
          top = std::max(top, scores[j]);
        }
        std::fill(sums.begin(), sums.end(), 0.0);
        for (int64_t j = begin[i]; j < end[i]; ++j) {
          double weight = std::exp(scores[j] - top);
          total += weight;
          const float* value = &v[static_cast<size_t>(j * kv_row + h / group * p.head_dim)];
          for (int64_t d = 0; d < p.head_dim; ++d)
            sums[d] += weight * value[d];
        }
        for (int64_t d = 0; d < p.head_dim; ++d) {
          double expected = begin[i] < end[i] ? sums[d] / total : 0.0;
          double got = out[static_cast<size_t>(i * out_stride + h * p.head_dim + d)];
          ASSERT_TRUE(std::isfinite(got)) << "query " << i << " head " << h << " element " << d;
          if (begin[i] >= end[i]) {
            ASSERT_EQ(got, 0.0) << "query " << i << " sees nothing";
          }
          error += (got - expected) * (got - expected);
          energy += expected * expected;
        }
      }
      for (int64_t d = p.num_heads * p.head_dim; d < out_stride; ++d)
        ASSERT_EQ(out[static_cast<size_t>(i * out_stride + d)], 1e9f) << "written beyond a row";
    }
    EXPECT_LE(error, limit * energy) << error / energy;
  }

 private:
  // x as stored; x becomes what that means.
  static std::vector<uint8_t> stored(KvType type, std::vector<float>& x) {
    std::vector<uint8_t> to;
    auto append = [&](const void* p, size_t n) {
      const uint8_t* bytes = static_cast<const uint8_t*>(p);
      to.insert(to.end(), bytes, bytes + n);
    };
    for (size_t i = 0; i < x.size(); ++i) {
      if (type == KvType::kF32)
        append(&x[i], 4);
      if (type == KvType::kF16) {
        uint16_t half = f32_to_f16(x[i]);
        append(&half, 2);
        x[i] = f16_to_f32(half);
      }
      if (type == KvType::kQ8_0 && i % 32 == 0) {
        BlockQ8_0 block;
        encode_block(&x[i], block);
        append(&block, sizeof(block));
        decode_block(block, &x[i]);
      }
    }
    return to;
  }
};
PINHOLE_FOR_EACH_ISA(AttentionRounded);

TEST_P(AttentionRounded, VisionHeads) {
  for (int64_t head_dim : {64, 72, 80, 16, 12, 33, 96, 128, 256})
    check({70, 70, 3, 3, head_dim}, everything);
  check({40, 700, 1, 1, 64}, everything); // more keys than are added up at once
  check({33, 1030, 2, 2, 72}, everything);
  for (int64_t head_dim : {32, 40, 80, 96, 112, 128, 160, 256})
    check({35, 833, 1, 1, head_dim}, everything);
}

TEST_P(AttentionRounded, CausalGroups) {
  for (KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8_0}) {
    check({130, 130, 4, 2, 128, type}, causal);
    check({17, 600, 8, 2, 64, type}, causal);
    check({65, 200, 6, 1, 32, type}, causal);
  }
}

TEST_P(AttentionRounded, KeyRanges) {
  check({120, 120, 2, 1, 64}, segments);
  check({90, 300, 2, 2, 64}, window);
  check({64, 150, 3, 1, 64}, odd);
  check({40, 1, 2, 2, 64}, everything);
}

TEST_P(AttentionRounded, Shares) {
  check({150, 150, 6, 2, 64, KvType::kF16, 1.0f, 2, 3}, causal); // a share has part of a group
  check({100, 100, 4, 4, 64, KvType::kF32, 1.0f, 1, 2}, everything);
}

// Scores that differ by hundreds: the largest comes late, and by more than any headroom. Rounding a
// score of s to bf16 inputs moves it by up to s * 2^-8, so that only what dominates is certain.
TEST_P(AttentionRounded, GrowingScores) {
  check({40, 900, 2, 2, 64, KvType::kF32, 4.0f}, everything, 2e-3);
  check({40, 900, 2, 2, 64, KvType::kF32, 60.0f}, everything, 0.5);
}

} // namespace
} // namespace pinhole::kernels
