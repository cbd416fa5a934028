// 64-bit arithmetic on untrusted sizes: exact, or no answer.
#include "base/checked.h"

#include "base/function_ref.h"
#include "base/result.h"

#include <gtest/gtest.h>
#include <random>

namespace pinhole {
namespace {

TEST(Checked, AgreesWith128Bits) {
  std::mt19937_64 random(1);
  const auto number = [&] { return random() >> (random() % 64); };
  int overflows = 0;
  for (int i = 0; i < 20000; ++i) {
    const uint64_t a = number();
    const uint64_t b = number();
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    const unsigned __int128 sum = static_cast<unsigned __int128>(a) + b;
    const bool product_fits = product <= UINT64_MAX;
    overflows += !product_fits;
    ASSERT_EQ(checked_mul(a, b).has_value(), product_fits);
    ASSERT_EQ(checked_add(a, b).has_value(), sum <= UINT64_MAX);
    if (product_fits) {
      ASSERT_EQ(*checked_mul(a, b), static_cast<uint64_t>(product));
    }
    if (sum <= UINT64_MAX) {
      ASSERT_EQ(*checked_add(a, b), static_cast<uint64_t>(sum));
    }
  }
  EXPECT_GT(overflows, 1000);
}

TEST(Checked, Edges) {
  EXPECT_EQ(checked_mul(UINT64_MAX, 1), UINT64_MAX);
  EXPECT_EQ(checked_mul(UINT64_MAX, 0), 0u);
  EXPECT_EQ(checked_mul(uint64_t{1} << 32, uint64_t{1} << 32), std::nullopt);
  EXPECT_EQ(checked_add(UINT64_MAX, 0), UINT64_MAX);
  EXPECT_EQ(checked_add(UINT64_MAX, 1), std::nullopt);
}

TEST(Checked, Rounding) {
  EXPECT_EQ(round_up(0, 64), 0);
  EXPECT_EQ(round_up(1, 64), 64);
  EXPECT_EQ(round_up(64, 64), 64);
  EXPECT_EQ(round_up(65, 64), 128);
  EXPECT_EQ(ceil_div(0, 3), 0);
  EXPECT_EQ(ceil_div(7, 3), 3);
  EXPECT_EQ(ceil_div(9, 3), 3);
}

Result<int> half(int value) {
  if (value % 2 != 0)
    return fail(ErrorCode::kInvalidInput, "odd", "number", "take an even one");
  return value / 2;
}

Result<int> quarter(int value) {
  PINHOLE_TRY(const int once, half(value));
  PINHOLE_TRY(const int twice, half(once));
  return twice;
}

TEST(Result, TryPassesTheErrorOn) {
  EXPECT_EQ(quarter(12).value(), 3);
  const auto failed = quarter(6);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().text(), "number: odd; take an even one");
  const Status outer = fail_in("file.gguf", failed.error());
  EXPECT_EQ(outer.error().text(), "file.gguf, number: odd; take an even one");
}

TEST(FunctionRef, CallsTheCallableItself) {
  int calls = 0;
  auto counter = [&calls, own = 0](int by) mutable { return calls += by + own++; };
  const FunctionRef<int(int)> ref(counter);
  EXPECT_EQ(ref(1), 1);
  EXPECT_EQ(ref(1), 3); // own grew: no copy was made
  EXPECT_EQ(calls, 3);
}

} // namespace
} // namespace pinhole
