// Which model is in memory when: the decision, without effects.
//
// Invariant: advance_swap() is the only writer of a SwapState. It reads no clock and does no I/O;
// the same state, event and time give the same actions. Bytes are reserved before a load begins and
// stay reserved until the release is confirmed (kReleased), so their sum is at most the ceiling at
// every moment. Events carry the generation of the load they are about; older ones are ignored.
#pragma once

#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace pinhole {

using Millis = int64_t; // on the clock of whoever calls; only differences count
constexpr Millis kNever = std::numeric_limits<Millis>::max() / 4;

struct MemoryBytes {
  int64_t ram = 0;
  int64_t vram = 0;

  friend bool operator==(const MemoryBytes&, const MemoryBytes&) = default;
  MemoryBytes& operator+=(const MemoryBytes& other);
  MemoryBytes& operator-=(const MemoryBytes& other);
  friend MemoryBytes operator+(MemoryBytes a, const MemoryBytes& b) { return a += b; }
  friend MemoryBytes operator-(MemoryBytes a, const MemoryBytes& b) { return a -= b; }
  bool fits_in(const MemoryBytes& room) const { return ram <= room.ram && vram <= room.vram; }
};

enum class ModelPhase {
  kAbsent,
  kLoading,
  kReady,
  kDraining,  // grants nothing; its requests in flight end
  kUnloading, // the release is not confirmed: the bytes are still reserved
  kFailed,    // absent, and not loaded again before failed_until
};
const char* phase_name(ModelPhase phase); // "ready"

// What does not change while the program runs.
struct SwapModel {
  std::string name;
  MemoryBytes planned; // most that it takes while it is loaded
  // planned.ram is not known before the first load: that reserves all that pinned models leave.
  bool is_measured = false;
  bool is_pinned = false; // leaves only when asked, or when it takes more than it may
  Millis ttl_ms = kNever; // unloaded this long after its last use
  int max_in_flight = 1;
  Millis load_timeout_ms = 300'000;
};

struct SwapLimits {
  MemoryBytes ceiling;
  // Requests of a loaded model are served before a swap for as long as the oldest request of
  // another model waits at most this, and at most half the time until its deadline.
  Millis max_wait_ms = 15'000;
  Millis min_residency_ms = 5'000;   // no eviction sooner after a load
  Millis drain_timeout_ms = 120'000; // requests in flight are cut off after this
  Millis unload_timeout_ms = 30'000; // an unload without confirmation is forced, again and again
  Millis first_back_off_ms = 1'000;  // after a failure that may pass; doubles with each
  Millis max_back_off_ms = 60'000;
  Millis stable_ms = 60'000; // ready for this long: earlier failures are forgotten
  int max_attempts = 3;      // failed loads before those who wait are refused
  size_t max_waiting = 1024;
};

struct SwapConfig {
  std::vector<SwapModel> models; // at least one
  SwapLimits limits;
};

// A model as it is now; `generation` counts its loads.
struct ModelRecord {
  ModelPhase phase = ModelPhase::kAbsent;
  uint64_t generation = 0;
  MemoryBytes reserved;   // zero exactly in kAbsent and kFailed
  MemoryBytes planned;    // what the next load reserves
  bool is_planned = true; // false: to be measured
  Millis since = 0;       // when the phase began
  Millis ready_since = 0; // of this generation
  Millis last_used = 0;
  Millis ttl_ms = kNever;    // of the last request
  int in_flight = 0;         // of this generation
  int failures = 0;          // in a row
  bool has_failed = false;   // the unload that runs follows a failure
  bool is_permanent = false; // the failure is the same each time
  Millis failed_until = 0;
  int64_t num_forced = 0; // how often this unload was asked for again
  std::string error;      // of the last failure
};

struct WaitingRequest {
  uint64_t id = 0;
  size_t model = 0;
  Millis arrived = 0;
  Millis deadline = 0;
  std::optional<Millis> keep_ms; // the model's ttl after this request
};

struct SwapState {
  std::vector<ModelRecord> models;    // as SwapConfig::models
  std::deque<WaitingRequest> waiting; // oldest first
  bool is_stopping = false;
};
SwapState initial_state(const SwapConfig& config);
MemoryBytes reserved_bytes(const SwapState& state);

struct SwapEvent {
  enum class Kind {
    kTick,
    kRequest,        // request, model, deadline, keep_ms
    kCancel,         // request: whoever waited has gone
    kFinished,       // model, generation: a granted request has ended
    kLoaded,         // model, generation, used
    kLoadFailed,     // model, generation, is_permanent, error
    kCrashed,        // model, generation, error
    kReleased,       // model, generation: the memory was read again and is free
    kMeasured,       // model, generation, used
    kUnloadAsked,    // model
    kForgetFailures, // of all models: the settings changed
    kStop,           // nothing is granted any more, all is unloaded
  };
  Kind kind = Kind::kTick;
  size_t model = 0;
  uint64_t generation = 0;
  uint64_t request = 0; // unique
  Millis deadline = 0;
  std::optional<Millis> keep_ms;
  MemoryBytes used;
  bool is_permanent = false;
  std::string error;
};

enum class DrainReason { kMakeRoom, kIdle, kAsked, kOverdrawn, kStopping };
enum class RefuseReason {
  kNeverFits, // not even alone, beside the pinned models
  kDeadline,
  kFailed,  // the load fails, and would again
  kBackOff, // the load failed; it is tried again later
  kQueueFull,
  kStopping,
};

struct SwapAction {
  enum class Kind {
    kStartLoad, // model, generation, bytes: reserved
    kDrain,     // model, generation, drain_reason: grants nothing from now on
    kUnload,    // model, generation, is_forced: confirm with kReleased
    kGrant,     // request, model, generation
    kRefuse,    // request, model, refuse_reason, bytes: needed, available, error, retry_at
  };
  Kind kind = Kind::kGrant;
  size_t model = 0;
  uint64_t generation = 0;
  uint64_t request = 0;
  MemoryBytes bytes;
  MemoryBytes available;
  DrainReason drain_reason = DrainReason::kMakeRoom;
  RefuseReason refuse_reason = RefuseReason::kDeadline;
  bool is_forced = false;   // do not wait for requests in flight, interrupt what runs
  bool is_measured = false; // of kStartLoad: the bytes are a bound, not a plan
  Millis retry_at = kNever;
  std::string error;
};

struct SwapDecision {
  std::vector<SwapAction> actions; // in this order
  Millis wake_at = kNever;         // later than `now`: call again with kTick
};

// The next state and what must be done, after `event` at `now` (never less than before).
SwapDecision advance_swap(const SwapConfig& config, SwapState& state, const SwapEvent& event,
                          Millis now);

// A refusal as an error, with bytes needed, available and the ceiling where they are the reason.
Error refusal_error(const SwapConfig& config, const SwapState& state, const SwapAction& refusal,
                    Millis now);

} // namespace pinhole
