// What is measured of the moment: rates of the formats that a token reads, and no others.
#include "plan/moment.h"

#include "kernels/select.h"
#include "support/describe.h"

#include <gtest/gtest.h>

namespace pinhole {
namespace {

KernelChoice kernels() {
  KernelChoice choice;
  choice.table = testing::take(kernels::select());
  choice.num_threads = 2;
  return choice;
}

TEST(Moment, TellsOfTheFormatsThatDecodingReads) {
  const auto described = testing::Described::bundled(); // its text matrices are F16
  ThreadPool threads(2);
  KernelRates rates;
  rates.map_gb_per_s = 7;
  measure_moment(described->model.text, nullptr, kernels(), threads, rates);
  EXPECT_GT(rates.read_gb_per_s, 0);
  EXPECT_GT(rates.of(FormatId::kF16).memory_gb_per_s, 0);
  EXPECT_EQ(rates.of(FormatId::kQ4_K).memory_gb_per_s, 0);
  EXPECT_EQ(rates.map_gb_per_s, 7) << "nothing was mapped";
}

TEST(Moment, ScalesKeptRatesByWhatTheCoresDoNow) {
  const auto described = testing::Described::bundled();
  ThreadPool threads(2);
  KernelRates rates;
  rates.peak_gop_per_s = 1e-3; // far slower than any machine
  rates.attention_gflop_per_s = 1;
  measure_moment(described->model.text, nullptr, kernels(), threads, rates);
  EXPECT_GT(rates.attention_gflop_per_s, 10);
}

// Counted on two cores with two threads, in 3 s: 130 on an idle machine, 880 beside a compiler.
TEST(Disturbance, IsToldByHowOftenThreadsAreMadeToWait) {
  EXPECT_FALSE(Disturbance::are_many(130, 3));
  EXPECT_TRUE(Disturbance::are_many(880, 3));
  EXPECT_FALSE(Disturbance::are_many(0, 0));
  EXPECT_FALSE(Disturbance::are_many(1, 1e-6)) << "one says nothing, however short the time";
}

} // namespace
} // namespace pinhole
