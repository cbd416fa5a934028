// The ten guarantees of swapping, over random schedules with failures (swap/simulation.h).
// PINHOLE_SWAP_SCHEDULES=N runs N of them, PINHOLE_SWAP_SEED=S begins with seed S.

#include "swap/simulation.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <gtest/gtest.h>

namespace pinhole::swap_test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kSchedules = 6'000; // ten to twenty times slower
#else
constexpr uint64_t kSchedules = 120'000;
#endif

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(Simulation, guarantees_hold_in_random_schedules) {
  const uint64_t num_schedules = from_environment("PINHOLE_SWAP_SCHEDULES", kSchedules);
  const uint64_t first = from_environment("PINHOLE_SWAP_SEED", 1);
  const auto start = std::chrono::steady_clock::now();
  Totals totals;
  for (uint64_t seed = first; seed < first + num_schedules; ++seed) {
    Simulation simulation(seed, seed % 4 == 0, totals);
    const std::string wrong = simulation.run();
    ASSERT_EQ(wrong, "") << "PINHOLE_SWAP_SCHEDULES=1 PINHOLE_SWAP_SEED=" << seed;
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%llu schedules, %llu events, %llu grants, %llu loads, %llu evictions in %.1f s\n",
              static_cast<unsigned long long>(num_schedules),
              static_cast<unsigned long long>(totals.events),
              static_cast<unsigned long long>(totals.grants),
              static_cast<unsigned long long>(totals.loads),
              static_cast<unsigned long long>(totals.drains[0]), seconds);
  if (num_schedules < 1000)
    return;
  // Everything that can go wrong did, many times.
  const uint64_t some = num_schedules / 1000;
  EXPECT_GT(totals.grants, num_schedules);
  for (const uint64_t count : totals.drains)
    EXPECT_GT(count, some);
  for (size_t i = 0; i < totals.refusals.size(); ++i) {
    if (i != static_cast<size_t>(RefuseReason::kStopping)) { // all are resolved before the stop
      EXPECT_GT(totals.refusals[i], some) << i;
    }
  }
  EXPECT_GT(totals.failed_loads, some);
  EXPECT_GT(totals.hung_loads, some);
  EXPECT_GT(totals.hung_unloads, some);
  EXPECT_GT(totals.forced_unloads, some);
  EXPECT_GT(totals.crashes, some);
  EXPECT_GT(totals.cancels, some);
  EXPECT_GT(totals.stale_events, some);
  EXPECT_GT(totals.swaps_of_busy, some);
}

TEST(Simulation, same_events_give_same_actions) {
  Totals totals;
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    Simulation first(seed, seed % 4 == 0, totals), second(seed, seed % 4 == 0, totals);
    EXPECT_EQ(first.run(), second.run());
    EXPECT_EQ(first.trace(), second.trace()) << seed;
  }
}

} // namespace
} // namespace pinhole::swap_test
