// Threads that answer requests: made when they are needed, kept until the end.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace pinhole::serve {

class WorkerPool {
 public:
  explicit WorkerPool(size_t max_threads) : max_threads_(max_threads) {}
  ~WorkerPool(); // waits for the work that was submitted
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // False: `max_waiting` wait already, or no thread can be made.
  bool submit(std::function<void()> work, size_t max_waiting);

 private:
  void run();

  const size_t max_threads_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> waiting_;
  std::vector<std::thread> threads_;
  size_t num_idle_ = 0;
  bool ends_ = false;
};

} // namespace pinhole::serve
