// Models under one memory ceiling: callers acquire a lease, the manager loads and unloads.
//
// Invariant: one thread, the writer, owns the state of swap/policy.h; everybody else sends it
// events. Loads and unloads run on one thread per model, so that the writer never waits for them.
// Every acquire() returns by its deadline, at the latest kGraceMs after it, even if the writer
// hangs.
#pragma once

#include "base/result.h"
#include "swap/host.h"
#include "swap/policy.h"

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

namespace pinhole {

struct ManagerOptions {
  // What the machine has free, read before each load; nothing: not asked.
  std::function<int64_t()> usable_bytes;
  Millis memory_wait_ms = 2'000;  // for the machine to have it, before a load
  Millis release_wait_ms = 2'000; // for memory_released(), after an unload
  Millis watch_ms = 500;          // between two looks whether a host is alive
  Millis heartbeat_ms = 1'000;    // the writer advances at least this often
};

struct ModelStatus {
  std::string name;
  ModelPhase phase = ModelPhase::kAbsent;
  uint64_t generation = 0;
  MemoryBytes reserved, planned;
  bool is_planned = true; // false: measured by its first load
  bool is_pinned = false;
  int in_flight = 0;
  int num_waiting = 0;
  Millis idle_ms = 0;                  // since its last use
  std::optional<Millis> expires_in_ms; // when it is unloaded if nobody asks for it
  int failures = 0;
  std::string error; // of its last failure
};

struct SwapStatus {
  MemoryBytes ceiling, reserved;
  std::vector<ModelStatus> models; // as SwapConfig::models
  int num_waiting = 0;
  uint64_t num_granted = 0, num_refused = 0, num_loads = 0, num_evictions = 0, num_crashes = 0;
  Millis advanced_ms_ago = 0; // since the writer last did something
};

class SwapManager;
struct SwapCore;

// The right to use a loaded model, until destruction. Give one back before acquiring another: two
// that wait for each other wait until their deadlines.
class Lease {
 public:
  Lease() = default;
  Lease(Lease&&) noexcept;
  Lease& operator=(Lease&&) noexcept;
  ~Lease();

  explicit operator bool() const { return core_ != nullptr; }
  size_t model() const { return model_; }
  uint64_t generation() const { return generation_; }
  ModelHost& host() const { return *host_; }
  // The model crashed, or is cut off: end the request. With a model in this process its memory
  // stays until the lease is given back.
  bool is_lost() const { return lost_ && lost_->load(std::memory_order_acquire); }
  void give_back();

 private:
  friend struct SwapCore;
  std::shared_ptr<SwapCore> core_;
  ModelHost* host_ = nullptr;
  size_t model_ = 0;
  uint64_t generation_ = 0;
  std::shared_ptr<std::atomic<bool>> lost_;
};

class SwapManager {
 public:
  static constexpr Millis kGraceMs = 2'000;

  // hosts[i] serves config.models[i].
  SwapManager(SwapConfig config, std::vector<std::unique_ptr<ModelHost>> hosts,
              ManagerOptions options = {});
  // Stops, and waits until all is unloaded, or was forced to. A lease that is still held is lost:
  // its host has gone.
  ~SwapManager();
  SwapManager(const SwapManager&) = delete;
  SwapManager& operator=(const SwapManager&) = delete;

  struct Request {
    size_t model = 0;
    Millis wait_ms = 60'000;       // then it is refused
    std::optional<Millis> keep_ms; // the model's ttl from now on, as of this request
  };
  // Waits until the model is ready for this caller. `cancel`: the caller has gone.
  Result<Lease> acquire(const Request& request, std::stop_token cancel = {});

  void unload(size_t model); // when its requests in flight have ended
  void forget_failures();    // the settings or files changed: failed models are tried again
  void stop();               // refuses all that waits and comes; returns when all is unloaded

  SwapStatus status() const;
  // Whether the writer has advanced within `limit_ms`: what /health asks.
  bool is_advancing(Millis limit_ms = 10'000) const;

 private:
  std::shared_ptr<SwapCore> core_;
};

} // namespace pinhole
