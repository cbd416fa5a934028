// A world around the policy: models that load, fail, hang, crash and outgrow their plan, callers
// that come, wait, leave, and never end; on a clock of its own, in a random order that a seed
// gives.
//
// What the guarantees say is checked after each event, from the world's own records of the actions
// and not from the state of the policy, wherever that can be.
#pragma once

#include "swap/policy.h"

#include <array>
#include <cstdint>
#include <functional>
#include <queue>
#include <string>
#include <vector>

namespace pinhole::swap_test {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next(); // splitmix64
  int64_t from(int64_t min, int64_t max) {
    return min + static_cast<int64_t>(next() % static_cast<uint64_t>(max - min + 1));
  }
  bool one_in(int64_t n) { return from(1, n) == 1; }

 private:
  uint64_t state_;
};

// What happened over many schedules; a test that it did is a test of the simulation.
struct Totals {
  uint64_t events = 0, grants = 0, loads = 0, failed_loads = 0, hung_loads = 0, crashes = 0;
  uint64_t hung_unloads = 0, forced_unloads = 0, cancels = 0, stale_events = 0, swaps_of_busy = 0;
  std::array<uint64_t, 5> drains = {};   // by DrainReason
  std::array<uint64_t, 6> refusals = {}; // by RefuseReason
};

class Simulation {
 public:
  // Calm: nothing fails or hangs and nobody leaves; then everything that can fit is granted.
  Simulation(uint64_t seed, bool is_calm, Totals& totals);

  // Runs to the end; what is wrong, with the time, or nothing.
  std::string run();
  uint64_t trace() const { return trace_; } // hash of all actions

 private:
  enum class Phase { kAbsent, kLoading, kReady, kDraining, kDead, kUnloading };
  struct Model {
    Phase phase = Phase::kAbsent;
    uint64_t generation = 0;
    MemoryBytes present; // what the machine has lost to it
    Millis ready_at = 0, drained_at = 0;
    int in_flight = 0;
    int hangs_left = 0; // of its unload
    bool has_grown = false, was_loaded = false, may_fail_forever = false, has_failed = false;
  };
  struct Request {
    size_t model = 0;
    Millis arrived = 0, deadline = 0;
    bool has_arrived = false, is_resolved = false;
  };
  struct Happening {
    Millis time = 0;
    uint64_t order = 0; // random among those of one time
    SwapEvent event;
    bool operator>(const Happening& other) const {
      return time != other.time ? time > other.time : order > other.order;
    }
  };

  void make_config();
  void make_requests();
  void at(Millis time, SwapEvent event);
  SwapEvent about(SwapEvent::Kind kind, size_t model) const;
  void run_until_quiet();
  bool step(const SwapEvent& event); // false: something is wrong
  void before(const SwapEvent& event);
  void on_action(const SwapAction& action);
  void on_start_load(const SwapAction& action);
  void on_drain(const SwapAction& action);
  void on_unload(const SwapAction& action);
  void on_grant(const SwapAction& action);
  void on_refuse(const SwapAction& action);
  void after(const SwapEvent& event);
  void check(bool holds, const char* what);
  bool is_waiting(const Request& request) const {
    return request.has_arrived && !request.is_resolved;
  }

  Random random_;
  const bool is_calm_;
  Totals& totals_;
  SwapConfig config_;
  SwapState state_;
  std::vector<Model> models_;
  std::vector<Request> requests_; // by id - 1
  std::priority_queue<Happening, std::vector<Happening>, std::greater<>> queue_;
  Millis now_ = 0;
  Millis wake_at_ = kNever;
  bool is_stopping_ = false;
  bool unload_was_asked_ = false; // in this step
  uint64_t trace_ = 0xcbf29ce484222325;
  std::string wrong_;
};

} // namespace pinhole::swap_test
