#include "serve/worker_pool.h"

#include <system_error>

namespace pinhole::serve {

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_)
    thread.join();
}

bool WorkerPool::submit(std::function<void()> work, size_t max_waiting) {
  const std::lock_guard lock(mutex_);
  if (num_idle_ <= waiting_.size() && threads_.size() < max_threads_) {
    try {
      threads_.emplace_back([this] { run(); });
    } catch (const std::system_error&) {
      if (threads_.empty())
        return false; // otherwise the ones that are there do it
    }
  }
  if (waiting_.size() >= max_waiting)
    return false;
  waiting_.push_back(std::move(work));
  changed_.notify_one();
  return true;
}

void WorkerPool::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    ++num_idle_;
    changed_.wait(lock, [this] { return ends_ || !waiting_.empty(); });
    --num_idle_;
    if (waiting_.empty())
      return;
    std::function<void()> work = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
  }
}

} // namespace pinhole::serve
