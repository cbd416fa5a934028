#include "base/thread_pool.h"

#include <cmath>
#include <cstdio>
#include <sched.h>

namespace pinhole {

namespace {

// About 50 us on a 2-3 GHz core: longer than the gap between two ops of one forward pass, shorter
// than anything a person notices as load.
constexpr int kSpins = 2000;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `value` differs from `old`: spins, then sleeps in the kernel. Who changes a value
// does it in sequentially consistent order: notify looks for sleepers afterwards, and a release
// store could still be on its way to memory then.
inline void wait_change(std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old)
      return;
    relax();
  }
  while (value.load(std::memory_order_acquire) == old)
    value.wait(old, std::memory_order_acquire);
}

} // namespace

ThreadPool::ThreadPool(int num_threads) : num_threads_(num_threads < 1 ? 1 : num_threads) {
  workers_.reserve(static_cast<size_t>(num_threads_ - 1));
  for (int i = 1; i < num_threads_; ++i)
    workers_.emplace_back([this, i] { worker(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  for (std::thread& thread : workers_)
    thread.join();
}

void ThreadPool::run(FunctionRef<void(int)> fn) {
  if (num_threads_ == 1) {
    fn(0);
    return;
  }
  job_ = &fn;
  running_.store(static_cast<uint32_t>(num_threads_ - 1), std::memory_order_relaxed);
  generation_.fetch_add(1);
  generation_.notify_all();
  fn(0);
  for (uint32_t left = running_.load(std::memory_order_acquire); left != 0;
       left = running_.load(std::memory_order_acquire)) {
    wait_change(running_, left);
  }
}

void ThreadPool::run_alone(FunctionRef<void(int)> fn) {
  alone_ = true;
  fn(0);
  alone_ = false;
}

void ThreadPool::worker(int thread_idx) {
  uint32_t seen = 0;
  while (true) {
    wait_change(generation_, seen);
    seen = generation_.load(std::memory_order_acquire);
    if (stop_.load())
      return;
    (*job_)(thread_idx);
    if (running_.fetch_sub(1) == 1)
      running_.notify_one();
  }
}

void ThreadPool::barrier() {
  if (num_threads_ == 1 || alone_)
    return;
  const uint32_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(num_threads_)) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1);
    phase_.notify_all();
    return;
  }
  wait_change(phase_, phase);
}

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = 1;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    cores = CPU_COUNT(&set);
  const auto apply_quota = [&cores](double quota, double period) {
    if (quota > 0 && period > 0) {
      cores = std::min(cores, std::max(1, static_cast<int>(std::ceil(quota / period))));
    }
  };
  long long quota = 0;
  long long period = 0;
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re")) { // cgroup v2
    if (std::fscanf(file, "%lld %lld", &quota, &period) == 2) {
      apply_quota(static_cast<double>(quota), static_cast<double>(period));
    }
    std::fclose(file);
  } else { // cgroup v1
    std::FILE* quota_file = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re");
    std::FILE* period_file = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re");
    if (quota_file && period_file && std::fscanf(quota_file, "%lld", &quota) == 1 &&
        std::fscanf(period_file, "%lld", &period) == 1) {
      apply_quota(static_cast<double>(quota), static_cast<double>(period));
    }
    if (quota_file)
      std::fclose(quota_file);
    if (period_file)
      std::fclose(period_file);
  }
  return cores;
}

} // namespace pinhole
