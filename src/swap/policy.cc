#include "swap/policy.h"

#include "base/units.h"

#include <algorithm>
#include <cassert>
#include <fmt/format.h>

namespace pinhole {

namespace {

// Memory of a measured process grows a little after its first requests; a plan has no such margin.
constexpr int64_t kMeasureMarginPercent = 10;

bool is_loadable(const ModelRecord& model, Millis now) {
  return model.phase == ModelPhase::kAbsent ||
         (model.phase == ModelPhase::kFailed && model.failed_until <= now);
}

// How long the request waits before the models that are in use make room for it.
Millis patience_ms(const SwapLimits& limits, const WaitingRequest& request) {
  return std::min(limits.max_wait_ms, (request.deadline - request.arrived) / 2);
}

MemoryBytes at_least_zero(const MemoryBytes& bytes) {
  return {std::max<int64_t>(bytes.ram, 0), std::max<int64_t>(bytes.vram, 0)};
}

// What pinned models other than this one take, or will take when they are loaded: not available.
MemoryBytes pinned_bytes(const SwapConfig& config, const SwapState& state, size_t but) {
  MemoryBytes sum;
  for (size_t i = 0; i < state.models.size(); ++i) {
    const ModelRecord& model = state.models[i];
    if (i == but || !config.models[i].is_pinned || model.is_permanent)
      continue;
    sum += {std::max(model.planned.ram, model.reserved.ram),
            std::max(model.planned.vram, model.reserved.vram)};
  }
  return sum;
}

// One call of advance_swap(): the event, then what follows from the state and the time.
class Step {
 public:
  Step(const SwapConfig& config, SwapState& state, Millis now)
      : config_(config), limits_(config.limits), state_(state), now_(now) {}

  void apply(const SwapEvent& event);
  void settle();
  SwapDecision take() {
    decision_.wake_at = wake_at();
    return std::move(decision_);
  }

 private:
  // The oldest request that waits for a model, and how many do.
  struct Demand {
    const WaitingRequest* oldest = nullptr;
    size_t num_waiting = 0;
  };

  void apply_request(const SwapEvent& event);
  void apply_loaded(size_t idx, const MemoryBytes& used);
  void apply_released(ModelRecord& model);
  void apply_unload_asked(size_t idx);

  SwapAction& act(SwapAction::Kind kind, size_t idx);
  void refuse(const WaitingRequest& request, RefuseReason reason);
  void set_phase(ModelRecord& model, ModelPhase phase);
  void fail_model(size_t idx, bool is_permanent, std::string error);
  void drain(size_t idx, DrainReason reason);
  void unload(size_t idx, bool is_forced);
  bool grow(ModelRecord& model, const MemoryBytes& used);

  MemoryBytes free_bytes() const { return limits_.ceiling - reserved_bytes(state_); }
  MemoryBytes needed_bytes(size_t idx) const;
  std::optional<RefuseReason> why_refused(const WaitingRequest& request) const;

  void settle_phases();
  void settle_waiting();
  void settle_idle();
  void settle_loads();
  bool make_room(size_t target, const MemoryBytes& missing, bool is_due, MemoryBytes& leaving);
  Millis wake_at() const;

  const SwapConfig& config_;
  const SwapLimits& limits_;
  SwapState& state_;
  const Millis now_;
  std::vector<Demand> demand_;
  SwapDecision decision_;
};

SwapAction& Step::act(SwapAction::Kind kind, size_t idx) {
  SwapAction& action = decision_.actions.emplace_back();
  action.kind = kind;
  action.model = idx;
  action.generation = state_.models[idx].generation;
  return action;
}

void Step::refuse(const WaitingRequest& request, RefuseReason reason) {
  SwapAction& action = act(SwapAction::Kind::kRefuse, request.model);
  const ModelRecord& model = state_.models[request.model];
  action.request = request.id;
  action.refuse_reason = reason;
  action.bytes = needed_bytes(request.model);
  action.available = at_least_zero(limits_.ceiling - pinned_bytes(config_, state_, request.model));
  action.error = model.error;
  if (reason == RefuseReason::kBackOff && model.phase == ModelPhase::kFailed)
    action.retry_at = model.failed_until;
}

void Step::set_phase(ModelRecord& model, ModelPhase phase) {
  model.phase = phase;
  model.since = now_;
}

void Step::fail_model(size_t idx, bool is_permanent, std::string error) {
  ModelRecord& model = state_.models[idx];
  ++model.failures;
  model.has_failed = true;
  model.is_permanent = is_permanent;
  model.error = std::move(error);
}

void Step::drain(size_t idx, DrainReason reason) {
  ModelRecord& model = state_.models[idx];
  assert(model.phase == ModelPhase::kReady);
  if (now_ - model.ready_since >= limits_.stable_ms)
    model.failures = 0;
  set_phase(model, ModelPhase::kDraining);
  act(SwapAction::Kind::kDrain, idx).drain_reason = reason;
  if (model.in_flight == 0)
    unload(idx, false);
}

void Step::unload(size_t idx, bool is_forced) {
  set_phase(state_.models[idx], ModelPhase::kUnloading);
  state_.models[idx].num_forced = 0;
  act(SwapAction::Kind::kUnload, idx).is_forced = is_forced;
}

// A model that takes more than it reserved may keep it only if nobody else has it.
bool Step::grow(ModelRecord& model, const MemoryBytes& used) {
  const MemoryBytes wanted = {std::max(used.ram, model.reserved.ram),
                              std::max(used.vram, model.reserved.vram)};
  model.planned = {std::max(wanted.ram, model.planned.ram),
                   std::max(wanted.vram, model.planned.vram)};
  model.is_planned = true;
  if (!(wanted - model.reserved).fits_in(free_bytes()))
    return false;
  model.reserved = wanted;
  return true;
}

MemoryBytes Step::needed_bytes(size_t idx) const {
  const ModelRecord& model = state_.models[idx];
  if (model.is_planned)
    return model.planned;
  // Unknown: all that there is, at least one byte.
  const MemoryBytes available = limits_.ceiling - pinned_bytes(config_, state_, idx);
  return {std::max<int64_t>(available.ram, 1), model.planned.vram};
}

void Step::apply(const SwapEvent& event) {
  using Kind = SwapEvent::Kind;
  ModelRecord& model = state_.models[event.model];
  const bool is_current = event.generation == model.generation;
  const bool is_serving = model.phase == ModelPhase::kReady || model.phase == ModelPhase::kDraining;
  switch (event.kind) {
  case Kind::kTick:
    break;
  case Kind::kRequest:
    apply_request(event);
    break;
  case Kind::kCancel:
    std::erase_if(state_.waiting, [&](const auto& r) { return r.id == event.request; });
    break;
  case Kind::kFinished:
    if (is_current && model.in_flight > 0) {
      --model.in_flight;
      model.last_used = now_;
    }
    break;
  case Kind::kLoaded:
    if (is_current && model.phase == ModelPhase::kLoading)
      apply_loaded(event.model, event.used);
    break;
  case Kind::kLoadFailed:
    if (is_current && model.phase == ModelPhase::kLoading) {
      fail_model(event.model, event.is_permanent, event.error);
      unload(event.model, true);
    }
    break;
  case Kind::kCrashed:
    if (is_current && is_serving) {
      if (now_ - model.ready_since >= limits_.stable_ms)
        model.failures = 0;
      fail_model(event.model, false, event.error);
      unload(event.model, true);
    }
    break;
  case Kind::kReleased:
    if (is_current && model.phase == ModelPhase::kUnloading)
      apply_released(model);
    break;
  case Kind::kMeasured:
    if (is_current && is_serving && !event.used.fits_in(model.reserved) &&
        !grow(model, event.used) && model.phase == ModelPhase::kReady) {
      drain(event.model, DrainReason::kOverdrawn);
    }
    break;
  case Kind::kUnloadAsked:
    apply_unload_asked(event.model);
    break;
  case Kind::kForgetFailures:
    for (ModelRecord& failed : state_.models) {
      failed.failures = 0;
      failed.is_permanent = false;
      if (failed.phase == ModelPhase::kFailed)
        set_phase(failed, ModelPhase::kAbsent);
    }
    break;
  case Kind::kStop:
    state_.is_stopping = true;
    break;
  }
}

void Step::apply_request(const SwapEvent& event) {
  const WaitingRequest request = {event.request, event.model, now_, event.deadline, event.keep_ms};
  if (!state_.is_stopping && state_.waiting.size() >= limits_.max_waiting)
    refuse(request, RefuseReason::kQueueFull);
  else
    state_.waiting.push_back(request);
}

void Step::apply_loaded(size_t idx, const MemoryBytes& used) {
  ModelRecord& model = state_.models[idx];
  if (!used.fits_in(model.reserved)) {
    const MemoryBytes reserved = model.reserved;
    if (!grow(model, used)) {
      fail_model(idx, false,
                 fmt::format("it takes {} RAM and {} VRAM, {} and {} were reserved",
                             format_bytes(static_cast<uint64_t>(used.ram)),
                             format_bytes(static_cast<uint64_t>(used.vram)),
                             format_bytes(static_cast<uint64_t>(reserved.ram)),
                             format_bytes(static_cast<uint64_t>(reserved.vram))));
      unload(idx, true);
      return;
    }
  } else if (!model.is_planned) {
    model.reserved.ram =
        std::min(model.reserved.ram, used.ram + used.ram / 100 * kMeasureMarginPercent);
    model.planned = model.reserved;
    model.is_planned = true;
  }
  set_phase(model, ModelPhase::kReady);
  model.ready_since = model.last_used = now_;
  model.ttl_ms = config_.models[idx].ttl_ms;
}

void Step::apply_released(ModelRecord& model) {
  model.reserved = {};
  model.in_flight = 0;
  if (!model.has_failed) {
    set_phase(model, ModelPhase::kAbsent);
    return;
  }
  model.has_failed = false;
  set_phase(model, ModelPhase::kFailed);
  Millis back_off = limits_.first_back_off_ms;
  for (int i = 1; i < model.failures && back_off < limits_.max_back_off_ms; ++i)
    back_off *= 2;
  model.failed_until =
      model.is_permanent ? kNever : now_ + std::min(back_off, limits_.max_back_off_ms);
}

// A load that someone waits for goes on.
void Step::apply_unload_asked(size_t idx) {
  ModelRecord& model = state_.models[idx];
  if (model.phase == ModelPhase::kReady)
    drain(idx, DrainReason::kAsked);
  else if (model.phase == ModelPhase::kLoading &&
           std::none_of(state_.waiting.begin(), state_.waiting.end(),
                        [&](const auto& r) { return r.model == idx; }))
    unload(idx, true);
}

void Step::settle() {
  settle_phases();
  settle_waiting();
  settle_idle();
  if (!state_.is_stopping)
    settle_loads();
}

// Phases that have lasted too long, or have nothing left to wait for.
void Step::settle_phases() {
  for (size_t i = 0; i < state_.models.size(); ++i) {
    ModelRecord& model = state_.models[i];
    const Millis age = now_ - model.since;
    const bool is_stopping = state_.is_stopping;
    if (model.phase == ModelPhase::kLoading && age >= config_.models[i].load_timeout_ms) {
      fail_model(i, false,
                 fmt::format("not ready after {}", format_millis(static_cast<double>(age))));
      unload(i, true);
    } else if (model.phase == ModelPhase::kLoading && is_stopping) {
      unload(i, true);
    } else if (model.phase == ModelPhase::kReady && is_stopping) {
      drain(i, DrainReason::kStopping);
    } else if (model.phase == ModelPhase::kDraining && model.in_flight == 0) {
      unload(i, false);
    } else if (model.phase == ModelPhase::kDraining && age >= limits_.drain_timeout_ms) {
      unload(i, true);
    } else if (model.phase == ModelPhase::kUnloading) {
      // Asked again each time that the timeout has passed once more; `since` stays.
      const Millis timeout = limits_.unload_timeout_ms;
      if (age >= timeout && age / timeout > model.num_forced) {
        model.num_forced = age / timeout;
        act(SwapAction::Kind::kUnload, i).is_forced = true;
      }
    }
  }
}

std::optional<RefuseReason> Step::why_refused(const WaitingRequest& request) const {
  const ModelRecord& model = state_.models[request.model];
  if (state_.is_stopping)
    return RefuseReason::kStopping;
  if (request.deadline <= now_)
    return RefuseReason::kDeadline;
  if (model.is_permanent)
    return RefuseReason::kFailed;
  const bool backs_off = model.phase == ModelPhase::kFailed && model.failed_until > now_;
  const bool is_last = model.failures >= limits_.max_attempts;
  if ((backs_off && (is_last || model.failed_until >= request.deadline)) ||
      (model.phase == ModelPhase::kUnloading && model.has_failed && is_last)) {
    return RefuseReason::kBackOff;
  }
  const bool is_present = model.phase == ModelPhase::kReady || model.phase == ModelPhase::kLoading;
  if (!is_present &&
      !needed_bytes(request.model)
           .fits_in(limits_.ceiling - pinned_bytes(config_, state_, request.model))) {
    return RefuseReason::kNeverFits;
  }
  return std::nullopt;
}

// Refuses what cannot be granted, grants what can, oldest first.
void Step::settle_waiting() {
  std::erase_if(state_.waiting, [&](const WaitingRequest& request) {
    if (const auto reason = why_refused(request)) {
      refuse(request, *reason);
      return true;
    }
    ModelRecord& model = state_.models[request.model];
    if (model.phase != ModelPhase::kReady ||
        model.in_flight >= config_.models[request.model].max_in_flight) {
      return false;
    }
    ++model.in_flight;
    model.last_used = now_;
    model.ttl_ms = request.keep_ms.value_or(config_.models[request.model].ttl_ms);
    act(SwapAction::Kind::kGrant, request.model).request = request.id;
    return true;
  });
  demand_.assign(state_.models.size(), {});
  for (const WaitingRequest& request : state_.waiting) {
    Demand& demand = demand_[request.model];
    if (demand.num_waiting++ == 0)
      demand.oldest = &request;
  }
}

void Step::settle_idle() {
  for (size_t i = 0; i < state_.models.size(); ++i) {
    const ModelRecord& model = state_.models[i];
    if (model.phase == ModelPhase::kReady && model.in_flight == 0 && demand_[i].num_waiting == 0 &&
        !config_.models[i].is_pinned && now_ - model.last_used >= model.ttl_ms) {
      drain(i, DrainReason::kIdle);
    }
  }
}

// Models that are asked for, the one with the oldest request first. What an earlier one needs is
// out of reach for those after it: `free` is here now, `total` will be when all that leaves has
// left.
void Step::settle_loads() {
  MemoryBytes free = free_bytes();
  MemoryBytes total = free;
  for (const ModelRecord& model : state_.models) {
    const bool is_leaving =
        model.phase == ModelPhase::kDraining ||
        (model.phase == ModelPhase::kUnloading && now_ - model.since < limits_.unload_timeout_ms);
    if (is_leaving)
      total += model.reserved;
  }
  for (const WaitingRequest& request : state_.waiting) {
    const size_t target = request.model;
    ModelRecord& model = state_.models[target];
    if (demand_[target].oldest != &request || !is_loadable(model, now_))
      continue;
    const MemoryBytes needed = needed_bytes(target);
    if (needed.fits_in(free) && needed.fits_in(total)) {
      ++model.generation;
      model.reserved = needed;
      set_phase(model, ModelPhase::kLoading);
      SwapAction& action = act(SwapAction::Kind::kStartLoad, target);
      action.bytes = needed;
      action.is_measured = !model.is_planned;
      free -= needed;
      total -= needed;
      continue;
    }
    if (needed.fits_in(total)) {
      total -= needed; // what leaves is for this one
      continue;
    }
    const bool is_due = now_ - request.arrived >= patience_ms(limits_, request);
    MemoryBytes leaving;
    if (make_room(target, at_least_zero(needed - total), is_due, leaving))
      total += leaving - needed;
    else if (is_due)
      total -= needed; // nothing younger takes what it waits for
  }
}

// Drains models until `missing` bytes leave, or none if it cannot: those not in use first, then
// least recently used; of these none whose bytes turn out not to be needed.
bool Step::make_room(size_t target, const MemoryBytes& missing, bool is_due, MemoryBytes& leaving) {
  std::vector<size_t> candidates;
  const auto is_busy = [&](size_t i) {
    return state_.models[i].in_flight > 0 || demand_[i].num_waiting > 0;
  };
  for (size_t i = 0; i < state_.models.size(); ++i) {
    const ModelRecord& model = state_.models[i];
    if (i != target && model.phase == ModelPhase::kReady && !config_.models[i].is_pinned &&
        now_ - model.ready_since >= limits_.min_residency_ms && (is_due || !is_busy(i))) {
      candidates.push_back(i);
    }
  }
  std::sort(candidates.begin(), candidates.end(), [&](size_t a, size_t b) {
    if (is_busy(a) != is_busy(b))
      return is_busy(b);
    if (state_.models[a].last_used != state_.models[b].last_used)
      return state_.models[a].last_used < state_.models[b].last_used;
    return a < b;
  });
  std::vector<size_t> victims;
  for (const size_t i : candidates) {
    if (missing.fits_in(leaving))
      break;
    const MemoryBytes& bytes = state_.models[i].reserved;
    if ((leaving.ram < missing.ram && bytes.ram > 0) ||
        (leaving.vram < missing.vram && bytes.vram > 0)) {
      victims.push_back(i);
      leaving += bytes;
    }
  }
  if (!missing.fits_in(leaving)) {
    leaving = {};
    return false;
  }
  for (size_t n = victims.size(); n-- > 0;) {
    const MemoryBytes& bytes = state_.models[victims[n]].reserved;
    if (missing.fits_in(leaving - bytes)) {
      leaving -= bytes;
      victims.erase(victims.begin() + static_cast<ptrdiff_t>(n));
    }
  }
  for (const size_t i : victims)
    drain(i, DrainReason::kMakeRoom);
  return true;
}

// The next time at which something follows from the state without an event.
Millis Step::wake_at() const {
  Millis wake = kNever;
  const auto at = [&](Millis time) {
    if (time > now_)
      wake = std::min(wake, time);
  };
  for (const WaitingRequest& request : state_.waiting) {
    at(request.deadline);
    at(request.arrived + patience_ms(limits_, request));
  }
  for (size_t i = 0; i < state_.models.size(); ++i) {
    const ModelRecord& model = state_.models[i];
    switch (model.phase) {
    case ModelPhase::kAbsent:
      break;
    case ModelPhase::kFailed:
      if (!state_.waiting.empty())
        at(model.failed_until);
      break;
    case ModelPhase::kLoading:
      at(model.since + config_.models[i].load_timeout_ms);
      break;
    case ModelPhase::kReady:
      if (!state_.waiting.empty())
        at(model.ready_since + limits_.min_residency_ms);
      if (model.in_flight == 0 && !config_.models[i].is_pinned && model.ttl_ms < kNever)
        at(model.last_used + model.ttl_ms);
      break;
    case ModelPhase::kDraining:
      at(model.since + limits_.drain_timeout_ms);
      break;
    case ModelPhase::kUnloading:
      at(model.since + (model.num_forced + 1) * limits_.unload_timeout_ms);
      break;
    }
  }
  return wake;
}

} // namespace

MemoryBytes& MemoryBytes::operator+=(const MemoryBytes& other) {
  ram += other.ram;
  vram += other.vram;
  return *this;
}

MemoryBytes& MemoryBytes::operator-=(const MemoryBytes& other) {
  ram -= other.ram;
  vram -= other.vram;
  return *this;
}

SwapState initial_state(const SwapConfig& config) {
  SwapState state;
  for (const SwapModel& model : config.models) {
    ModelRecord& record = state.models.emplace_back();
    record.planned = model.planned;
    record.is_planned = !model.is_measured;
    record.ttl_ms = model.ttl_ms;
  }
  return state;
}

MemoryBytes reserved_bytes(const SwapState& state) {
  MemoryBytes sum;
  for (const ModelRecord& model : state.models)
    sum += model.reserved;
  return sum;
}

SwapDecision advance_swap(const SwapConfig& config, SwapState& state, const SwapEvent& event,
                          Millis now) {
  assert(event.model < state.models.size());
  Step step(config, state, now);
  step.apply(event);
  step.settle();
  return step.take();
}

} // namespace pinhole
