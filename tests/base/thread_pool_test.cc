// The team of threads: every thread runs every job, barriers line all of them up, any number of
// times.
#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <gtest/gtest.h>
#include <sched.h>
#include <thread>
#include <vector>

namespace pinhole {
namespace {

class ThreadPoolTest : public ::testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, EveryThreadRunsEveryJobOnce) {
  ThreadPool pool(GetParam());
  ASSERT_EQ(pool.num_threads(), GetParam());
  std::vector<int> calls(static_cast<size_t>(GetParam()), 0);
  for (int job = 1; job <= 3000; ++job) {
    // Plain ints: run() itself must order a job's writes before its return.
    pool.run([&](int thread_idx) { ++calls[static_cast<size_t>(thread_idx)]; });
    for (const int count : calls)
      ASSERT_EQ(count, job);
  }
}

TEST_P(ThreadPoolTest, BarrierSeparatesSteps) {
  const auto n = static_cast<size_t>(GetParam());
  ThreadPool pool(GetParam());
  constexpr int kSteps = 400;
  std::vector<int> step_of(n, 0); // written by its own thread only, read by all after a barrier
  std::atomic<int> wrong{0};
  for (int run = 0; run < 5; ++run) {
    std::fill(step_of.begin(), step_of.end(), 0);
    pool.run([&](int thread_idx) {
      for (int step = 1; step <= kSteps; ++step) {
        step_of[static_cast<size_t>(thread_idx)] = step;
        pool.barrier();
        for (const int other : step_of)
          wrong += other != step;
        pool.barrier();
      }
    });
    ASSERT_EQ(wrong.load(), 0) << "run " << run;
  }
}

TEST_P(ThreadPoolTest, WakesAfterItSlept) {
  ThreadPool pool(GetParam());
  std::atomic<int> calls{0};
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(15)); // far beyond the time it spins
    pool.run([&](int) { ++calls; });
  }
  EXPECT_EQ(calls.load(), 5 * GetParam());
}

TEST_P(ThreadPoolTest, BarrierWaitsForTheSlowest) {
  ThreadPool pool(GetParam());
  std::atomic<bool> slow_done{false};
  std::atomic<int> early{0};
  pool.run([&](int thread_idx) {
    if (thread_idx == pool.num_threads() - 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      slow_done = true;
    }
    pool.barrier();
    early += !slow_done.load();
  });
  EXPECT_EQ(early.load(), 0);
}

TEST_P(ThreadPoolTest, AloneItWaitsForNobodyAndTheOthersAreThereAfterwards) {
  ThreadPool pool(GetParam());
  for (int job = 0; job < 100; ++job) {
    int steps = 0;
    pool.run_alone([&](int thread_idx) {
      EXPECT_EQ(thread_idx, 0);
      for (int i = 0; i < 10; ++i) {
        pool.barrier();
        ++steps;
      }
    });
    EXPECT_EQ(steps, 10);
    std::atomic<int> calls{0};
    pool.run([&](int) {
      pool.barrier();
      ++calls;
    });
    EXPECT_EQ(calls, GetParam());
  }
}

TEST_P(ThreadPoolTest, MayBeDestroyedUnused) {
  for (int i = 0; i < 20; ++i)
    ThreadPool pool(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, ::testing::Values(1, 2, 3, 4));

TEST(ThreadPoolSize, AtLeastTheCaller) {
  for (const int asked : {0, -3}) {
    ThreadPool pool(asked);
    EXPECT_EQ(pool.num_threads(), 1);
    int calls = 0;
    pool.run([&](int thread_idx) { calls += thread_idx == 0; });
    EXPECT_EQ(calls, 1);
  }
}

TEST(UsableCores, FollowsTheAffinityMask) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  const int all = usable_cores();
  EXPECT_GE(all, 1);
  EXPECT_LE(all, CPU_COUNT(&before));
  int cpu = 0;
  while (!CPU_ISSET(cpu, &before))
    ++cpu;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(usable_cores(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
  EXPECT_EQ(usable_cores(), all);
}

} // namespace
} // namespace pinhole
