// Attention of every table against softmax(q K^T * scale) V in double: types of K and V, head
// sizes, query groups, key ranges (causal, windows, pictures, empty), shares of heads and queries.
#include "each_isa.h"

#include "quant/half.h"
#include "quant/q8_0.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace pinhole::kernels {
namespace {

struct Shape {
  int64_t num_q, num_kv, num_heads, num_kv_heads, head_dim;
};

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};

// 64-byte aligned memory of exactly `bytes`, so that a sanitizer sees what lies beyond.
std::unique_ptr<void, FreeDeleter> aligned_bytes(int64_t bytes) {
  void* p = nullptr;
  EXPECT_EQ(posix_memalign(&p, 64, static_cast<size_t>(std::max<int64_t>(bytes, 1))), 0);
  std::memset(p, 0xff, static_cast<size_t>(bytes)); // NaN in what nobody wrote
  return std::unique_ptr<void, FreeDeleter>(p);
}

int64_t kv_bytes(KvType type, int64_t n) {
  if (type == KvType::kF32)
    return n * 4;
  return type == KvType::kF16 ? n * 2 : n / 32 * 34;
}

// x as stored, and as the values that the stored bytes mean.
void store(KvType type, const std::vector<float>& x, void* dst, std::vector<double>& meaning) {
  meaning.assign(x.begin(), x.end());
  for (size_t i = 0; i < x.size(); ++i) {
    if (type == KvType::kF32)
      std::memcpy(static_cast<char*>(dst) + i * 4, &x[i], 4);
    if (type == KvType::kF16) {
      uint16_t h = f32_to_f16(x[i]);
      std::memcpy(static_cast<char*>(dst) + i * 2, &h, 2);
      meaning[i] = f16_to_f32(h);
    }
    if (type == KvType::kQ8_0 && i % 32 == 0) {
      BlockQ8_0 block;
      encode_block(&x[i], block);
      std::memcpy(static_cast<char*>(dst) + i / 32 * 34, &block, 34);
      for (size_t j = 0; j < 32; ++j) {
        meaning[i + j] = static_cast<double>(f16_to_f32(block.d)) * block.qs[j];
      }
    }
  }
}

class Case {
 public:
  Case(Shape shape, KvType type, uint32_t seed, float q_scale = 1.0f) : s_(shape), type_(type) {
    q_stride_ = s_.num_heads * s_.head_dim + 16;
    q_ = normal_values(s_.num_q * q_stride_, seed, q_scale);
    int64_t row = s_.num_kv_heads * s_.head_dim;
    k_ = aligned_bytes(kv_bytes(type, s_.num_kv * row));
    v_ = aligned_bytes(kv_bytes(type, s_.num_kv * row));
    store(type, normal_values(s_.num_kv * row, seed + 1), k_.get(), k_values_);
    store(type, normal_values(s_.num_kv * row, seed + 2), v_.get(), v_values_);
    begin_.assign(static_cast<size_t>(s_.num_q), 0);
    end_.assign(static_cast<size_t>(s_.num_q), static_cast<int32_t>(s_.num_kv));
  }

  // What query i sees.
  void see(int64_t i, int64_t begin, int64_t end) {
    begin_[i] = static_cast<int32_t>(begin);
    end_[i] = static_cast<int32_t>(end);
  }
  void causal() {
    for (int64_t i = 0; i < s_.num_q; ++i)
      see(i, 0, s_.num_kv - s_.num_q + i + 1);
  }
  // Adds `gain` to the scores of one key (K in f32); element 0 of q and K is given up for it.
  void raise_key(int64_t key, float gain) {
    auto* k = static_cast<float*>(k_.get());
    for (int64_t i = 0; i < s_.num_q; ++i)
      for (int64_t h = 0; h < s_.num_heads; ++h)
        q_[static_cast<size_t>(i * q_stride_ + h * s_.head_dim)] = 1.0f;
    for (int64_t j = 0; j < s_.num_kv * s_.num_kv_heads; ++j) {
      float value = j / s_.num_kv_heads == key ? gain / scale() : 0.0f;
      k_values_[static_cast<size_t>(j * s_.head_dim)] = k[j * s_.head_dim] = value;
    }
  }

  std::vector<float> run(const Table& table, int64_t head_share = 0, int64_t q_share = 0,
                         bool exact = true) {
    const AttentionKernel* kernel = table.attention(type_, s_.num_q, exact);
    auto scratch = aligned_bytes(kernel->scratch_bytes(s_.num_q, s_.num_kv, s_.head_dim));
    std::vector<float> out(static_cast<size_t>(s_.num_q * s_.num_heads * s_.head_dim), 1e9f);
    AttentionArgs args = {};
    args.q = q_.data();
    args.q_stride = q_stride_;
    args.k = k_.get();
    args.v = v_.get();
    args.k_head_bytes = args.v_head_bytes = kv_bytes(type_, s_.head_dim);
    args.k_row_bytes = args.v_row_bytes = kv_bytes(type_, s_.head_dim * s_.num_kv_heads);
    args.kv_type = type_;
    args.key_begin = begin_.data();
    args.key_end = end_.data();
    args.out = out.data();
    args.out_stride = s_.num_heads * s_.head_dim;
    args.num_heads = s_.num_heads;
    args.num_kv_heads = s_.num_kv_heads;
    args.head_dim = s_.head_dim;
    args.num_kv = s_.num_kv;
    args.scale = scale();
    args.scratch = scratch.get();
    if (head_share == 0)
      head_share = s_.num_heads;
    q_share = q_share == 0 ? s_.num_q : q_share * kernel->q_step;
    for (int64_t head = 0; head < s_.num_heads; head += head_share) {
      for (int64_t query = 0; query < s_.num_q; query += q_share) {
        args.head_begin = head;
        args.head_end = std::min(head + head_share, s_.num_heads);
        args.q_begin = query;
        args.q_end = std::min(query + q_share, s_.num_q);
        kernel->run(args);
      }
    }
    return out;
  }

  std::vector<double> expected() const {
    std::vector<double> out;
    int64_t group = s_.num_heads / s_.num_kv_heads, row = s_.num_kv_heads * s_.head_dim;
    for (int64_t i = 0; i < s_.num_q; ++i) {
      for (int64_t h = 0; h < s_.num_heads; ++h) {
        const float* q = &q_[i * q_stride_ + h * s_.head_dim];
        std::vector<double> p;
        for (int64_t j = begin_[i]; j < end_[i]; ++j) {
          double dot = 0;
          for (int64_t d = 0; d < s_.head_dim; ++d) {
            dot += q[d] * k_values_[j * row + h / group * s_.head_dim + d];
          }
          p.push_back(dot * static_cast<double>(scale()));
        }
        double largest = p.empty() ? 0 : *std::max_element(p.begin(), p.end()), sum = 0;
        for (double& x : p)
          sum += x = std::exp(x - largest);
        for (int64_t d = 0; d < s_.head_dim; ++d) {
          double y = 0;
          for (size_t j = 0; j < p.size(); ++j) {
            int64_t key = begin_[i] + static_cast<int64_t>(j);
            y += p[j] / sum * v_values_[key * row + h / group * s_.head_dim + d];
          }
          out.push_back(y);
        }
      }
    }
    return out;
  }

 private:
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(s_.head_dim)); }

  Shape s_;
  KvType type_;
  int64_t q_stride_;
  std::vector<float> q_;
  std::unique_ptr<void, FreeDeleter> k_, v_;
  std::vector<double> k_values_, v_values_;
  std::vector<int32_t> begin_, end_;
};

constexpr KvType kTypes[] = {KvType::kF32, KvType::kF16, KvType::kQ8_0};

class Attention : public EachIsa {};
PINHOLE_FOR_EACH_ISA(Attention);

TEST_P(Attention, ShapesAndTypes) {
  const Shape kShapes[] = {
      {1, 1, 1, 1, 32},   {1, 7, 2, 1, 12},    {1, 100, 8, 2, 64},   {1, 257, 3, 3, 128},
      {1, 65, 7, 1, 80},  {2, 49, 6, 3, 72},   {5, 33, 4, 2, 64},    {9, 95, 16, 2, 32},
      {17, 48, 2, 2, 72}, {31, 131, 4, 4, 80}, {40, 40, 12, 2, 128}, {3, 60, 2, 1, 256},
      {70, 70, 1, 1, 12}, {1, 50, 48, 1, 64},  {33, 97, 5, 1, 96},
  };
  uint32_t seed = 100;
  for (const Shape& s : kShapes) {
    for (KvType type : kTypes) {
      if (type == KvType::kQ8_0 && s.head_dim % 32 != 0)
        continue;
      SCOPED_TRACE(testing::Message()
                   << s.num_q << " queries, " << s.num_kv << " keys, heads " << s.num_heads << '/'
                   << s.num_kv_heads << " x " << s.head_dim << ", type " << static_cast<int>(type));
      Case c(s, type, seed += 3);
      if (s.num_q > 1 && s.num_q <= s.num_kv)
        c.causal();
      expect_close(c.run(table()), c.expected(), 1e-6, 2e-6);
    }
  }
}

TEST_P(Attention, KeyRanges) {
  Shape s = {40, 150, 4, 2, 64};
  for (KvType type : kTypes) {
    Case c(s, type, 7);
    for (int64_t i = 0; i < s.num_q; ++i)
      c.see(i, std::max<int64_t>(0, i * 3 - 11), i * 3 + 1);
    c.see(3, 0, 0);     // sees nothing
    c.see(4, 149, 150); // the last key alone
    c.see(5, 0, 150);   // everything
    c.see(6, 80, 60);   // reversed is empty as well
    for (int64_t i = 20; i < 30; ++i)
      c.see(i, 40, 99); // a picture: both directions
    expect_close(c.run(table()), c.expected(), 1e-6, 2e-6);
  }
}

// Decode with a sliding window: the range begins far from the first key.
TEST_P(Attention, DecodeWindow) {
  for (int64_t heads : {1, 2, 3, 4, 8}) {
    Case c({1, 500, heads, 1, 32}, KvType::kF16, 8);
    c.see(0, 413, 477);
    expect_close(c.run(table()), c.expected(), 1e-6, 2e-6);
    c.see(0, 200, 200);
    for (float v : c.run(table()))
      ASSERT_EQ(v, 0.0f);
  }
}

// Scores in the hundreds: the running maximum moves by much more than exp's range. Their f32
// rounding, 1000 * 2^-24 * a few, is what the result can lose.
TEST_P(Attention, LargeScores) {
  for (int64_t num_q : {1, 20}) {
    Case c({num_q, 300, 2, 1, 64}, KvType::kF32, 9, 300.0f);
    expect_close(c.run(table()), c.expected(), 1e-3, 1e-3);
  }
}

TEST_P(Attention, SharesGiveTheSame) {
  Shape s = {130, 130, 6, 2, 32};
  Case c(s, KvType::kF32, 10);
  c.causal();
  std::vector<double> expected = c.expected();
  for (int64_t head_share : {1, 2, 3, 4}) { // also shares that split a kv head's group
    for (int64_t q_share : {0, 1, 2}) {
      expect_close(c.run(table(), head_share, q_share), expected, 1e-6, 2e-6);
    }
  }
}

// Without `exact`: long key ranges, every head_dim that a model here has, windows, queries that see
// nothing, shares. 16-bit integers are held to more than bf16 could give: 12 bits of q and k
// (head_dim 128) move a score by 6e-4 (rms), and by 8e-4 of v what a query of two keys gets.
TEST_P(Attention, InexactRangesAndShares) {
  for (int64_t head_dim : {64, 72, 80, 128, 36}) {
    Shape s = {70, 2300, 4, 2, head_dim};
    Case c(s, KvType::kF32, 12, 2.0f);
    for (int64_t i = 0; i < s.num_q; ++i) {
      int64_t begin = i * 31 % 1500;
      c.see(i, begin, i % 9 == 4 ? begin : begin + 1 + i * 97 % 800);
    }
    c.see(3, 0, s.num_kv);
    const bool words =
        std::string(table().attention(KvType::kF32, s.num_q, false)->name).find("int16") !=
        std::string::npos;
    const double tolerance = words ? 4e-3 : 0.03;
    expect_close(c.run(table(), 0, 0, false), c.expected(), tolerance, tolerance);
    expect_close(c.run(table(), 1, 2, false), c.expected(), tolerance, tolerance);
  }
}

// One key far above thousands of others, together as heavy as it: none may be rounded away.
TEST_P(Attention, InexactKeepsSmallProbabilities) {
  Shape s = {40, 3000, 1, 1, 64};
  Case c(s, KvType::kF32, 13, 0.05f);
  c.raise_key(1234, 8.0f);
  expect_close(c.run(table(), 0, 0, false), c.expected(), 0.01, 0.01);
}

// Without `exact`, an instruction set may round to bf16: 2^-8 of what is averaged.
TEST_P(Attention, InexactStaysClose) {
  for (int64_t num_q : {1, 64}) {
    for (KvType type : kTypes) {
      Case c({num_q, 200, 4, 2, 64}, type, 11);
      if (num_q > 1)
        c.causal();
      expect_close(c.run(table(), 0, 0, false), c.expected(), 0.01, 0.03);
    }
  }
}

} // namespace
} // namespace pinhole::kernels
