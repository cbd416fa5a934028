// Norms, activations, RoPE, softmax, argmax and sums of every table against their definitions in
// double.
#include "each_isa.h"

#include "quant/half.h"
#include "quant/q8_0.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <numbers>

namespace pinhole::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class Rows : public EachIsa {};
PINHOLE_FOR_EACH_ISA(Rows);

TEST_P(Rows, TableIsTheOneAskedFor) { EXPECT_EQ(table().isa, GetParam()); }

TEST_P(Rows, RmsNorm) {
  for (int64_t n : kOddSizes) {
    SCOPED_TRACE(n);
    int64_t rows = 3, x_stride = n + 5, y_stride = n + 2;
    std::vector<float> x = normal_values(rows * x_stride, 1, 3.0f, 0.5f);
    std::vector<float> w = normal_values(n + 1, 2); // weights lie at any address
    std::vector<float> y(static_cast<size_t>(rows * y_stride), -7.0f);
    table().rms_norm(x.data(), x_stride, w.data() + 1, 1e-6f, rows, n, y.data(), y_stride);
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (int64_t i = 0; i < n; ++i)
        sum += std::pow(x[r * x_stride + i], 2.0);
      double scale = 1 / std::sqrt(sum / n + 1e-6);
      for (int64_t i = 0; i < y_stride; ++i) {
        double expected = i < n ? x[r * x_stride + i] * scale * w[i + 1] : -7.0;
        ASSERT_NEAR(y[r * y_stride + i], expected, 4e-7 * std::abs(expected)) << r << ' ' << i;
      }
    }
  }
}

TEST_P(Rows, RmsNormInPlaceAndOfZeros) {
  std::vector<float> x(37, 0.0f), w(37, 2.0f);
  table().rms_norm(x.data(), 37, w.data(), 1e-5f, 1, 37, x.data(), 37);
  for (float v : x)
    EXPECT_EQ(v, 0.0f);
  std::fill(x.begin(), x.end(), 1e18f); // squares pass f32's range
  table().rms_norm(x.data(), 37, w.data(), 1e-5f, 1, 36, x.data(), 37);
  EXPECT_EQ(x[36], 1e18f);
  std::fill(x.begin(), x.end(), 3.0f);
  table().rms_norm(x.data(), 37, w.data(), 0.0f, 1, 37, x.data(), 37);
  for (float v : x)
    EXPECT_NEAR(v, 2.0f, 1e-6f);
}

// A mean far from zero: sums of squares minus the squared mean would lose every digit.
TEST_P(Rows, LayerNorm) {
  for (float shift : {0.0f, 100.0f}) {
    for (int64_t n : kOddSizes) {
      SCOPED_TRACE(n);
      int64_t rows = 2;
      std::vector<float> x = normal_values(rows * n, 3, 1.0f, shift);
      std::vector<float> w = normal_values(n + 1, 4), b = normal_values(n + 3, 5);
      for (bool with_bias : {true, false}) {
        std::vector<float> y(static_cast<size_t>(rows * n));
        const float* bias = with_bias ? b.data() + 3 : nullptr;
        table().layer_norm(x.data(), n, w.data() + 1, bias, 1e-5f, rows, n, y.data(), n);
        std::vector<double> expected;
        for (int64_t r = 0; r < rows; ++r) {
          double mean = 0, variance = 0;
          for (int64_t i = 0; i < n; ++i)
            mean += x[r * n + i] / static_cast<double>(n);
          for (int64_t i = 0; i < n; ++i) {
            variance += std::pow(x[r * n + i] - mean, 2.0) / static_cast<double>(n);
          }
          for (int64_t i = 0; i < n; ++i) {
            double v = (x[r * n + i] - mean) / std::sqrt(variance + 1e-5) * w[i + 1];
            expected.push_back(v + (with_bias ? b[i + 3] : 0.0f));
          }
        }
        expect_close(y, expected, 1e-6, 2e-6);
      }
    }
  }
}

TEST_P(Rows, AddAndMulAdd) {
  for (int64_t n : kOddSizes) {
    SCOPED_TRACE(n);
    std::vector<float> a = normal_values(n + 1, 6), b = normal_values(n + 1, 7);
    std::vector<float> y(b);
    table().add(a.data(), y.data(), y.data(), n); // in place
    for (int64_t i = 0; i < n; ++i)
      ASSERT_EQ(y[i], a[i] + b[i]);
    EXPECT_EQ(y[n], b[n]);
    y = b;
    table().mul_add(a.data(), 0.37f, y.data(), n);
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_NEAR(y[i], b[i] + 0.37f * static_cast<double>(a[i]), 3e-7) << i;
    }
    EXPECT_EQ(y[n], b[n]);
  }
}

double gelu_tanh(double x) {
  double inner = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1 + std::tanh(inner));
}
double gelu_erf(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }
double silu(double x) { return x / (1 + std::exp(-x)); }
double identity(double x) { return x; }

constexpr struct {
  Activation activation;
  double (*function)(double);
} kActivations[] = {{Activation::kNone, identity},
                    {Activation::kGeluTanh, gelu_tanh},
                    {Activation::kGeluErf, gelu_erf},
                    {Activation::kSilu, silu}};

TEST_P(Rows, ActivationsOverTheWholeRange) {
  std::vector<float> x;
  for (int i = -120000; i <= 120000; ++i)
    x.push_back(static_cast<float>(i) * 1e-4f);
  for (float extreme : {0.0f, -0.0f, 1e-40f, -1e-40f, 30.0f, -30.0f, 88.0f, -88.0f, 104.0f, -104.0f,
                        1e4f, -1e4f, 1e12f, 3e38f, -1e12f}) {
    x.push_back(extreme);
  }
  for (const auto& row : kActivations) {
    SCOPED_TRACE(static_cast<int>(row.activation));
    std::vector<float> y(x.size());
    table().activate(row.activation, x.data(), y.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      double expected = row.function(x[i]);
      if (!std::isfinite(expected))
        continue; // x^3 of 3e38 in the definition
      ASSERT_NEAR(y[i], expected,
                  6e-7 * std::abs(expected) + 1.5e-7 * std::min(5.0f, std::abs(x[i])))
          << x[i];
    }
  }
}

// tanh and erf GELU differ by at most 5e-4; what a golden tells apart must not be the kernel's
// error.
TEST_P(Rows, ActivationsAtOddSizesAndInPlace) {
  for (int64_t n : kOddSizes) {
    for (const auto& row : kActivations) {
      std::vector<float> x = normal_values(n + 1, 8, 2.0f), up = normal_values(n, 9);
      std::vector<float> y(x), z(x);
      table().activate(row.activation, y.data(), y.data(), n);
      table().gated(row.activation, z.data(), up.data(), z.data(), n);
      for (int64_t i = 0; i < n; ++i) {
        double expected = row.function(x[i]);
        ASSERT_NEAR(y[i], expected, 1e-6) << i;
        ASSERT_NEAR(z[i], expected * up[i], 4e-6) << i;
      }
      ASSERT_EQ(y[n], x[n]);
      ASSERT_EQ(z[n], x[n]);
    }
  }
}

TEST_P(Rows, ActivationsKeepNan) {
  std::vector<float> x(21, kNan), y(21);
  for (const auto& row : kActivations) {
    table().activate(row.activation, x.data(), y.data(), 21);
    for (float v : y)
      EXPECT_TRUE(std::isnan(v)) << static_cast<int>(row.activation);
  }
}

TEST_P(Rows, Rope) {
  for (bool interleaved : {false, true}) {
    for (int64_t head_dim : {2, 12, 32, 64, 72, 80, 128}) {
      for (int64_t rot_dim : {head_dim, head_dim / 2 / 2 * 2}) {
        if (rot_dim == 0)
          continue;
        SCOPED_TRACE(testing::Message() << head_dim << ' ' << rot_dim << ' ' << interleaved);
        int64_t rows = 3, heads = 2, half = rot_dim / 2, stride = heads * head_dim + 3;
        std::vector<float> x = normal_values(rows * stride, 10);
        std::vector<float> cos, sin;
        for (int64_t i = 0; i < rows * half; ++i) {
          cos.push_back(std::cos(0.7f * static_cast<float>(i)));
          sin.push_back(std::sin(0.7f * static_cast<float>(i)));
        }
        std::vector<double> expected(x.begin(), x.end());
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t h = 0; h < heads; ++h) {
            for (int64_t i = 0; i < half; ++i) {
              int64_t a = r * stride + h * head_dim + (interleaved ? 2 * i : i);
              int64_t b = interleaved ? a + 1 : a + half;
              double c = cos[r * half + i], s = sin[r * half + i];
              expected[a] = x[a] * c - x[b] * s;
              expected[b] = x[b] * c + x[a] * s;
            }
          }
        }
        table().rope(x.data(), stride, rows, heads, head_dim, rot_dim, cos.data(), sin.data(),
                     interleaved);
        expect_close(x, expected, 1e-7, 5e-7);
      }
    }
  }
}

TEST_P(Rows, Softmax) {
  for (int64_t n : kOddSizes) {
    for (float scale : {0.1f, 5.0f, 60.0f}) {
      SCOPED_TRACE(n);
      std::vector<float> x = normal_values(n + 1, 11, scale, 300.0f);
      double largest = *std::max_element(x.begin(), x.end() - 1), sum = 0;
      for (int64_t i = 0; i < n; ++i)
        sum += std::exp(x[i] - largest);
      std::vector<double> expected;
      for (int64_t i = 0; i < n; ++i)
        expected.push_back(std::exp(x[i] - largest) / sum);
      std::vector<float> y(static_cast<size_t>(n));
      table().softmax(x.data(), y.data(), n);
      expect_close(y, expected, 1e-6, 1e-38);
      float after = x[n];
      table().softmax(x.data(), x.data(), n); // in place
      EXPECT_EQ(std::memcmp(x.data(), y.data(), y.size() * 4), 0);
      EXPECT_EQ(x[n], after);
    }
  }
}

// Banned tokens come as -infinity.
TEST_P(Rows, SoftmaxWithMinusInfinity) {
  std::vector<float> x(40, -kInfinity), y(40);
  x[7] = 1.0f;
  x[35] = 1.0f;
  table().softmax(x.data(), y.data(), 40);
  for (int i = 0; i < 40; ++i)
    EXPECT_EQ(y[i], i == 7 || i == 35 ? 0.5f : 0.0f) << i;
}

TEST_P(Rows, ArgmaxTakesTheFirstOfEquals) {
  for (int64_t n : kOddSizes) {
    std::vector<float> x = normal_values(n, 12);
    int64_t expected = std::max_element(x.begin(), x.end()) - x.begin();
    EXPECT_EQ(table().argmax(x.data(), n), expected) << n;
    x[n - 1] = x[n / 2] = x[n / 3] = 50.0f;
    EXPECT_EQ(table().argmax(x.data(), n), n / 3) << n;
    std::fill(x.begin(), x.end(), -kInfinity);
    EXPECT_EQ(table().argmax(x.data(), n), 0) << n;
    x[n - 1] = -1e30f;
    EXPECT_EQ(table().argmax(x.data(), n), n - 1) << n;
  }
}

TEST_P(Rows, StoresKv) {
  for (int64_t n : kOddSizes) {
    std::vector<float> x = normal_values(n, 13, 10.0f);
    x[n / 2] = 1e-7f; // an f16 subnormal
    std::vector<float> f32(static_cast<size_t>(n) + 1, 9.0f);
    table().store_kv(KvType::kF32, x.data(), f32.data(), n);
    EXPECT_EQ(std::memcmp(f32.data(), x.data(), x.size() * 4), 0);
    EXPECT_EQ(f32[n], 9.0f);
    std::vector<uint16_t> f16(static_cast<size_t>(n) + 1, 9);
    table().store_kv(KvType::kF16, x.data(), f16.data(), n);
    for (int64_t i = 0; i < n; ++i)
      ASSERT_EQ(f16[i], f32_to_f16(x[i])) << x[i];
    EXPECT_EQ(f16[n], 9);
  }
  std::vector<float> x = normal_values(96, 14);
  std::vector<BlockQ8_0> q8(3);
  table().store_kv(KvType::kQ8_0, x.data(), q8.data(), 96);
  for (int i = 0; i < 96; ++i) {
    float d = f16_to_f32(q8[i / 32].d);
    ASSERT_NEAR(q8[i / 32].qs[i % 32] * d, x[i], d * 0.57f) << i;
  }
}

} // namespace
} // namespace pinhole::kernels
