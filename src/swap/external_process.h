// A model behind a server in a process of its own (llama-server, for example).
//
// Invariant: {port} in the command becomes a free port of the loopback; the server is ready when
// GET of its health path answers 200. It is stopped with a signal, and killed when that is not
// enough within a time; then it and all that it started are gone, or the unload fails.
#pragma once

#include "swap/host.h"
#include "swap/process_group.h"

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace pinhole {

struct ExternalOptions {
  std::vector<std::string> command;       // program and arguments; {port} is replaced in each
  std::string health_path = "/health";    // empty: ready as soon as it runs
  uint16_t fixed_port = 0;                // where it listens if the command has no {port}
  uint16_t first_port = 0, last_port = 0; // where to look for a free one; 0: anywhere
  std::string log_path;                   // both outputs, appended; empty: thrown away
  int stop_signal = SIGTERM;
  Millis stop_timeout_ms = 10'000; // then SIGKILL
  Millis kill_timeout_ms = 5'000;  // then the unload has failed
  Millis load_timeout_ms = 300'000;
  MemoryBytes planned;      // what it is said to take
  bool is_measured = false; // RAM is read from the system once it is ready
};

class ExternalProcess : public ModelHost {
 public:
  explicit ExternalProcess(ExternalOptions options) : options_(std::move(options)) {}

  Result<MemoryBytes> load(uint64_t generation, const MemoryBytes& reserved) override;
  Status unload(uint64_t generation) override;
  bool memory_released(uint64_t generation) override;
  bool is_alive() override;
  std::optional<MemoryBytes> used_bytes() override;
  void interrupt(uint64_t generation) override;
  bool can_unload_in_use() const override { return true; }
  std::string address() const override; // "http://127.0.0.1:8081"

 private:
  bool is_interrupted(uint64_t generation);
  void sleep_ms(uint64_t generation, Millis ms); // less when interrupted
  Status wait_until_ready(uint64_t generation, uint16_t port);
  bool wait_until_reaped(uint64_t generation, Millis ms);

  const ExternalOptions options_;
  ProcessGroup group_;
  std::atomic<uint16_t> port_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  uint64_t interrupted_ = 0; // newest generation
};

} // namespace pinhole
