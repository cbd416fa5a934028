// Every matmul kernel of every instruction set that this CPU has, against double precision on
// decoded weights. Weights end at an inaccessible page: a read past the last row is a crash.
#include "kernels/select.h"
#include "quant/formats.h"
#include "quant/half.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace pinhole::kernels {
namespace {

// Bytes that end where an inaccessible page begins.
class GuardedBytes {
 public:
  explicit GuardedBytes(size_t size) : size_(size) {
    size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    size_t body = (size + page - 1) / page * page;
    mapped_ = body + page;
    base_ = static_cast<uint8_t*>(
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + body, page, PROT_NONE) != 0)
      abort();
    data_ = base_ + body - size;
  }
  ~GuardedBytes() { munmap(base_, mapped_); }
  GuardedBytes(const GuardedBytes&) = delete;
  GuardedBytes& operator=(const GuardedBytes&) = delete;
  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t* base_;
  uint8_t* data_;
  size_t size_, mapped_;
};

// 64-byte aligned, exactly as long as asked: AddressSanitizer sees an overrun.
struct Free {
  void operator()(void* p) const { free(p); }
};
std::unique_ptr<uint8_t, Free> aligned_bytes(int64_t size) {
  void* p = nullptr;
  if (posix_memalign(&p, 64, size > 0 ? static_cast<size_t>(size) : 1) != 0)
    abort();
  memset(p, 0xff, static_cast<size_t>(size)); // NaN: padding that a kernel forgets to write shows
  return std::unique_ptr<uint8_t, Free>(static_cast<uint8_t*>(p));
}

// Valid blocks of a format whose elements are at most a few units large: random bytes, kept when
// they decode to that.
std::vector<uint8_t> block_pool(const FormatInfo& info, std::mt19937& random, size_t count) {
  std::vector<uint8_t> pool;
  std::vector<uint8_t> block(static_cast<size_t>(info.block_bytes));
  std::vector<float> values(static_cast<size_t>(info.block_elements));
  while (pool.size() < count * block.size()) {
    for (uint8_t& byte : block)
      byte = static_cast<uint8_t>(random());
    decode_to_f32(info.id, block.data(), values.data(), info.block_elements);
    float largest = 0.0f;
    bool finite = true;
    for (float value : values) {
      finite = finite && std::isfinite(value);
      largest = std::max(largest, std::fabs(value));
    }
    if (finite && largest >= 0.5f && largest <= 8.0f)
      pool.insert(pool.end(), block.begin(), block.end());
  }
  return pool;
}

void fill_weights(const FormatInfo& info, std::mt19937& random, uint8_t* to, size_t size) {
  static std::vector<uint8_t> pools[kNumFormats];
  std::vector<uint8_t>& pool = pools[static_cast<int>(info.id)];
  size_t block = static_cast<size_t>(info.block_bytes);
  if (pool.empty())
    pool = block_pool(info, random, info.block_elements == 1 ? 1024 : 48);
  for (size_t at = 0; at < size; at += block)
    memcpy(to + at, pool.data() + random() % (pool.size() / block) * block, block);
}

double apply(Activation activation, double x) {
  switch (activation) {
  case Activation::kNone:
    return x;
  case Activation::kGeluTanh:
    return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
  case Activation::kGeluErf:
    return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
  case Activation::kSilu:
    return x / (1.0 + std::exp(-x));
  }
  return 0.0;
}

struct Case {
  int64_t m, n, k;
  bool bias = false;
  Activation activation = Activation::kNone;
  int residual = 0;   // 1: its own, 2: y itself
  double scale = 1.0; // of x: keeps activations out of saturation
};

std::string describe(const Table& table, const MatmulKernel& kernel, const Case& c) {
  return std::string(table.isa) + " " + kernel.name + " m " + std::to_string(c.m) + " n " +
         std::to_string(c.n) + " k " + std::to_string(c.k) + " bias " + std::to_string(c.bias) +
         " activation " + std::to_string(static_cast<int>(c.activation)) + " residual " +
         std::to_string(c.residual);
}

void check(const Table& table, FormatId format, bool exact, const Case& c) {
  const FormatInfo& info = format_info(format);
  const MatmulKernel* kernel = table.matmul(format, c.m, exact);
  ASSERT_NE(kernel, nullptr);
  SCOPED_TRACE(describe(table, *kernel, c));
  std::mt19937 random(static_cast<unsigned>(c.m * 7919 + c.n * 31 + c.k));
  std::normal_distribution<float> normal;
  auto normals = [&](int64_t count, double scale) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values)
      value = normal(random) * static_cast<float>(scale);
    return values;
  };
  int64_t w_row_bytes = row_bytes(format, c.k);
  GuardedBytes w(static_cast<size_t>(w_row_bytes * c.n));
  fill_weights(info, random, w.data(), w.size());
  int64_t x_stride = c.k + 3, y_stride = c.n + 5, residual_stride = c.n + 2;
  std::vector<float> x = normals(c.m * x_stride, c.scale);
  std::vector<float> bias = normals(c.n, 1.0);
  std::vector<float> y = normals(c.m * y_stride, 1.0), before = y;
  std::vector<float> residual = normals(c.m * residual_stride, 1.0);

  auto packed = aligned_bytes(kernel->x_bytes(c.m, c.k));
  // Like the weights: a byte beyond what the kernel asked for is a crash.
  int64_t scratch_bytes = kernel->scratch_bytes(c.m, c.k);
  GuardedBytes scratch(static_cast<size_t>((scratch_bytes + 63) / 64 * 64));
  memset(scratch.data(), 0xff, scratch.size());
  int64_t middle = c.m / 2 / kernel->x_row_step * kernel->x_row_step;
  kernel->pack_x(x.data(), x_stride, c.m, c.k, middle, c.m, packed.get());
  if (middle > 0)
    kernel->pack_x(x.data(), x_stride, c.m, c.k, 0, middle, packed.get());
  int64_t split = c.n / 2 / kernel->n_step * kernel->n_step; // two shares, as two threads have
  for (int share = 0; share < 2; ++share) {
    int64_t begin = share == 0 ? 0 : split;
    MatmulArgs args = {};
    args.x = packed.get();
    args.w = w.data() + begin * w_row_bytes;
    args.w_row_bytes = w_row_bytes;
    args.bias = c.bias ? bias.data() + begin : nullptr;
    args.y = y.data() + begin;
    args.y_stride = y_stride;
    args.residual = c.residual == 0 ? nullptr : c.residual == 1 ? residual.data() + begin : args.y;
    args.residual_stride = c.residual == 1 ? residual_stride : y_stride;
    args.m = c.m;
    args.n = share == 0 ? split : c.n - split;
    args.k = c.k;
    args.activation = c.activation;
    args.scratch = scratch.data();
    if (args.n > 0)
      kernel->run(args);
  }

  std::string name = kernel->name;
  bool is_int8 = name.find(".int8") != std::string::npos;
  bool is_int16 = name.find(".int16") != std::string::npos;
  bool is_bf16 = name.find(".bf16.") != std::string::npos;
  EXPECT_FALSE(exact && (is_int8 || is_int16 || is_bf16));
  double error = 0.0, energy = 0.0;
  int reported = 0;
  std::vector<float> row(static_cast<size_t>(c.k));
  for (int64_t j = 0; j < c.n; ++j) {
    decode_to_f32(format, w.data() + j * w_row_bytes, row.data(), c.k);
    for (int64_t i = 0; i < c.m; ++i) {
      double sum = 0.0, magnitude = 0.0, squares = 0.0;
      for (int64_t p = 0; p < c.k; ++p) {
        double product = static_cast<double>(x[i * x_stride + p]) * row[p];
        sum += product;
        magnitude += std::fabs(product);
        squares += product * product;
      }
      energy += std::max(sum * sum, squares); // never small because a sum happens to cancel
      double expected = apply(c.activation, sum + (c.bias ? bias[j] : 0.0));
      if (c.residual == 1)
        expected += residual[i * residual_stride + j];
      if (c.residual == 2)
        expected += before[i * y_stride + j];
      double difference = y[i * y_stride + j] - expected;
      error += difference * difference;
      ASSERT_TRUE(std::isfinite(y[i * y_stride + j])) << "row " << i << " column " << j;
      if (!is_int8 && !is_int16 && !is_bf16 && reported < 3 &&
          !(std::fabs(difference) <= 1e-6 * (magnitude + std::fabs(expected) + 1.0))) {
        ADD_FAILURE() << "row " << i << " column " << j << ": " << y[i * y_stride + j]
                      << ", expected " << expected;
        ++reported;
      }
    }
  }
  // Activations have slopes up to 1.13, so that they add little to the error of the sums.
  double nmse = error / energy;
  if (is_int8) {
    EXPECT_LE(nmse, 2e-4);
  }
  if (is_int16) {
    EXPECT_LE(nmse, 1e-8);
  }
  if (is_bf16) {
    EXPECT_LE(nmse, 2e-5);
  }
  for (int64_t i = 0; i < c.m; ++i) // between rows of y nothing is written
    for (int64_t j = c.n; j < y_stride; ++j)
      ASSERT_EQ(y[i * y_stride + j], before[i * y_stride + j]) << "row " << i << " column " << j;
}

class Matmul : public testing::TestWithParam<std::tuple<std::string_view, int>> {
 protected:
  void SetUp() override {
    auto found = find(std::get<0>(GetParam()));
    ASSERT_TRUE(found.has_value()) << std::get<0>(GetParam());
    table_ = *found;
  }
  FormatId format() const { return static_cast<FormatId>(std::get<1>(GetParam())); }
  void check_both(const Case& c) {
    check(*table_, format(), true, c);
    check(*table_, format(), false, c);
  }
  const Table* table_ = nullptr;
};

TEST_P(Matmul, RowCounts) {
  int64_t block = format_info(format()).block_elements;
  int64_t k = block == 1 ? 300 : 512 + block % 256;
  for (int64_t m : {1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 100})
    check_both({m, m < 10 ? 37 : 21, k});
}

TEST_P(Matmul, OneBlockAndOddLengths) {
  int64_t block = format_info(format()).block_elements;
  for (int64_t k : {block, 3 * block, 7 * block, 12 * block, 36 * block, 100 * block}) {
    if (k > 1200)
      break;
    check_both({1, 1, k});
    check_both({3, 2, k});
    check_both({11, 5, k});
  }
  if (block == 1) {
    for (int64_t k : {2, 12, 31, 33, 47, 65, 1023}) {
      check_both({1, 9, k});
      check_both({6, 9, k});
      check_both({19, 35, k});
    }
  }
}

TEST_P(Matmul, LongRowsAndEpilogues) {
  // Longer than any chunk of k, with every way to end a row.
  int64_t block = format_info(format()).block_elements;
  int64_t k = block == 1 ? 4133 : 4096 + block;
  Activation gelu = Activation::kGeluTanh, erf = Activation::kGeluErf, silu = Activation::kSilu;
  double small = 1.0 / 64;
  for (int64_t m : {1, 3, 18}) {
    check_both({m, 34, k, true});
    check_both({m, 34, k, true, Activation::kNone, 1});
    check_both({m, 34, k, true, Activation::kNone, 2});
    check_both({m, 34, k, false, gelu, 0, small});
    check_both({m, 34, k, true, erf, 1, small});
    check_both({m, 34, k, true, silu, 2, small});
  }
}

TEST_P(Matmul, LateResidualOfManyColumns) {
  // A residual that is y itself, after an activation: rows of W are kept whole, not in chunks of k.
  // (Few columns for the scalar kernels, which keep nothing of W.)
  int64_t block = format_info(format()).block_elements;
  int64_t n = std::get<0>(GetParam()) == "scalar" ? 12 : 420;
  for (int64_t k : {2560, 2912}) {
    if (k % block == 0)
      check(*table_, format(), false, {18, n, k, true, Activation::kSilu, 2, 1.0 / 64});
  }
}

TEST_P(Matmul, ManyColumns) {
  int64_t block = format_info(format()).block_elements;
  if (std::get<0>(GetParam()) == "scalar")
    check_both({2, 300, block == 1 ? 64 : 256});
  else
    check_both({70, 700, block == 1 ? 90 : 256});
}

std::vector<int> all_formats() {
  std::vector<int> formats;
  for (int i = 0; i < kNumFormats; ++i)
    formats.push_back(i);
  return formats;
}

INSTANTIATE_TEST_SUITE_P(
    All, Matmul, testing::Combine(testing::ValuesIn(available()), testing::ValuesIn(all_formats())),
    [](const testing::TestParamInfo<Matmul::ParamType>& info) {
      return std::string(std::get<0>(info.param)) + "_" +
             std::string(format_info(static_cast<FormatId>(std::get<1>(info.param))).name);
    });

} // namespace
} // namespace pinhole::kernels
