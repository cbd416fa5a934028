// A fixed team of threads for the kernels: the caller is thread 0.
//
// run() hands the same function to every thread and returns when all are done; inside it, barrier()
// lines them up. Both spin for a short time (an op takes tens of microseconds) and then sleep, so
// an idle team costs nothing. No allocation after construction.
#pragma once

#include "base/function_ref.h"

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace pinhole {

class ThreadPool {
 public:
  // num_threads >= 1, the caller included.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls fn(thread_idx) on every thread, thread_idx in [0, num_threads). Not re-entrant.
  void run(FunctionRef<void(int thread_idx)> fn);
  // Calls fn(0) here and leaves the others asleep; barrier() then waits for nobody.
  void run_alone(FunctionRef<void(int thread_idx)> fn);

  // Only inside run(), by every thread the same number of times.
  void barrier();

 private:
  void worker(int thread_idx);

  const int num_threads_;
  const FunctionRef<void(int)>* job_ = nullptr;
  alignas(64) std::atomic<uint32_t> generation_{0}; // one more for each run()
  alignas(64) std::atomic<uint32_t> running_{0};    // workers that have not finished this run
  alignas(64) std::atomic<uint32_t> arrived_{0};    // threads waiting at the barrier
  alignas(64) std::atomic<uint32_t> phase_{0};      // one more for each barrier passed
  std::atomic<bool> stop_{false};
  bool alone_ = false; // changes only while no other thread is in a run
  std::vector<std::thread> workers_;
};

// Cores that this process may use: the affinity mask, cut to the cgroup's CPU quota.
int usable_cores();

} // namespace pinhole
