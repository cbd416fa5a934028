// The thread of one model: loads, unloads and watches its host, and tells what came of it.
//
// Invariant: the host is called from this thread only (but interrupt()); each job ends in at most
// one event. An unload is confirmed only when the host has looked at the memory again.
#pragma once

#include "swap/host.h"
#include "swap/manager.h"

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace pinhole {

class ModelWorker {
 public:
  using Post = std::function<void(SwapEvent)>;

  ModelWorker(size_t model, std::unique_ptr<ModelHost> host, const ManagerOptions& options,
              Post post);
  ~ModelWorker(); // interrupts what runs, and waits for it

  // None of these waits for the host.
  void load(uint64_t generation, const MemoryBytes& reserved, bool is_measured);
  void unload(uint64_t generation, bool is_forced);
  ModelHost& host() { return *host_; }

 private:
  struct Job {
    bool is_load = false;
    uint64_t generation = 0;
    MemoryBytes reserved;
    bool is_measured = false;
  };
  void run();
  void run_load(const Job& job);
  void run_unload(const Job& job);
  void watch();
  bool wait_for_memory(const Job& job);
  bool sleep_ms(Millis ms); // false: interrupted
  SwapEvent event(SwapEvent::Kind kind, uint64_t generation) const;

  const size_t model_;
  const std::unique_ptr<ModelHost> host_;
  const ManagerOptions& options_;
  const Post post_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  uint64_t unloading_ = 0;   // generation of the unload that runs or is queued
  uint64_t interrupted_ = 0; // newest generation that was interrupted
  bool quit_ = false;

  // Of the thread itself.
  uint64_t ready_ = 0; // generation that is watched
  int num_watches_ = 0;
  MemoryBytes reserved_;
  std::thread thread_;
};

} // namespace pinhole
