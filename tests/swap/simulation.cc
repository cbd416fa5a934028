#include "swap/simulation.h"

#include <algorithm>

namespace pinhole::swap_test {

namespace {

constexpr int kMaxSteps = 20'000; // a schedule has some hundred

} // namespace

uint64_t Random::next() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

Simulation::Simulation(uint64_t seed, bool is_calm, Totals& totals)
    : random_(seed), is_calm_(is_calm), totals_(totals) {
  make_config();
  state_ = initial_state(config_);
  models_.resize(config_.models.size());
  make_requests();
}

void Simulation::make_config() {
  SwapLimits& limits = config_.limits;
  const bool has_vram = random_.one_in(3);
  limits.ceiling = {100, has_vram ? 50 : 0};
  limits.max_wait_ms = random_.from(0, 500);
  limits.min_residency_ms = random_.one_in(4) ? 0 : random_.from(1, 300);
  limits.drain_timeout_ms = random_.from(50, 500);
  limits.unload_timeout_ms = random_.from(30, 200);
  limits.first_back_off_ms = random_.from(10, 50);
  limits.max_back_off_ms = random_.from(50, 200);
  limits.stable_ms = random_.from(100, 1000);
  limits.max_attempts = static_cast<int>(random_.from(1, 3));
  limits.max_waiting = random_.one_in(10) && !is_calm_ ? 4 : 1024;
  if (is_calm_) {
    limits.drain_timeout_ms = 5'000;
    limits.unload_timeout_ms = 1'000;
  }
  int64_t pinned = 0, pinned_vram = 0;
  const int64_t num_models = random_.from(1, 5);
  for (int64_t i = 0; i < num_models; ++i) {
    SwapModel model;
    model.planned = {random_.one_in(12) ? random_.from(101, 130) : random_.from(10, 90),
                     has_vram && random_.one_in(2) ? random_.from(1, 50) : 0};
    model.is_measured = random_.one_in(8);
    model.is_pinned = !model.is_measured && random_.one_in(8) &&
                      pinned + model.planned.ram <= 100 &&
                      pinned_vram + model.planned.vram <= limits.ceiling.vram;
    if (model.is_measured)
      model.planned.ram = 0;
    if (model.is_pinned) {
      pinned += model.planned.ram;
      pinned_vram += model.planned.vram;
    }
    model.ttl_ms = random_.one_in(4) ? kNever : random_.from(0, 800);
    model.max_in_flight = static_cast<int>(random_.from(1, 3));
    model.load_timeout_ms = is_calm_ ? 1'000 : random_.from(60, 300);
    config_.models.push_back(model);
  }
}

void Simulation::make_requests() {
  const int64_t num_requests = random_.from(3, 24);
  const Millis span = random_.one_in(2) ? 200 : 3'000; // a burst, or not
  for (int64_t i = 0; i < num_requests; ++i) {
    Request request;
    request.model =
        static_cast<size_t>(random_.from(0, static_cast<int64_t>(config_.models.size()) - 1));
    request.arrived = random_.from(0, span);
    request.deadline = request.arrived + (is_calm_ ? 1'000'000 : random_.from(0, 2'000));
    SwapEvent event = about(SwapEvent::Kind::kRequest, request.model);
    event.request = static_cast<uint64_t>(i) + 1;
    event.deadline = request.deadline;
    if (random_.one_in(8))
      event.keep_ms = random_.from(0, 300);
    at(request.arrived, event);
    if (!is_calm_ && random_.one_in(8)) {
      event.kind = SwapEvent::Kind::kCancel;
      at(request.arrived + random_.from(0, 400), event);
    }
    requests_.push_back(request);
  }
  if (is_calm_)
    return;
  for (int64_t i = random_.from(0, 3); i > 0; --i) {
    const auto kind = random_.one_in(2)   ? SwapEvent::Kind::kUnloadAsked
                      : random_.one_in(2) ? SwapEvent::Kind::kForgetFailures
                                          : SwapEvent::Kind::kTick;
    at(random_.from(0, span + 500), about(kind, requests_[0].model));
  }
}

void Simulation::at(Millis time, SwapEvent event) {
  queue_.push({time, random_.next(), std::move(event)});
}

SwapEvent Simulation::about(SwapEvent::Kind kind, size_t model) const {
  SwapEvent event;
  event.kind = kind;
  event.model = model;
  event.generation = models_.empty() ? 0 : models_[model].generation;
  return event;
}

void Simulation::check(bool holds, const char* what) {
  if (!holds && wrong_.empty())
    wrong_ = std::string(what) + ", at " + std::to_string(now_) + " ms";
}

std::string Simulation::run() {
  run_until_quiet();
  for (const Request& request : requests_)
    check(request.is_resolved, "a request was lost");
  for (size_t i = 0; i < models_.size(); ++i) {
    if (!config_.models[i].is_pinned && state_.models[i].ttl_ms < kNever)
      check(models_[i].present == MemoryBytes{}, "a model with a ttl is still loaded when idle");
  }
  is_stopping_ = true;
  at(now_, about(SwapEvent::Kind::kStop, 0));
  run_until_quiet();
  check(reserved_bytes(state_) == MemoryBytes{}, "bytes are reserved after the stop");
  for (const Model& model : models_)
    check(model.phase == Phase::kAbsent, "a model is there after the stop");
  return wrong_;
}

void Simulation::run_until_quiet() {
  for (int steps = 0; !queue_.empty() || wake_at_ < kNever; ++steps) {
    check(steps < kMaxSteps, "it wakes without end");
    SwapEvent event; // a tick
    if (!queue_.empty() && queue_.top().time <= wake_at_) {
      now_ = std::max(now_, queue_.top().time);
      event = queue_.top().event;
      queue_.pop();
    } else {
      now_ = wake_at_;
    }
    if (!step(event))
      return;
    // An event of an earlier generation, or twice the same: nothing may come of it.
    if (!is_calm_ && random_.one_in(20)) {
      constexpr std::array kKinds = {SwapEvent::Kind::kFinished,   SwapEvent::Kind::kLoaded,
                                     SwapEvent::Kind::kLoadFailed, SwapEvent::Kind::kCrashed,
                                     SwapEvent::Kind::kReleased,   SwapEvent::Kind::kMeasured};
      SwapEvent stale =
          about(kKinds[random_.next() % kKinds.size()], random_.next() % models_.size());
      if (stale.generation > 0) {
        stale.generation -= 1;
        stale.used = {1000, 1000};
        stale.is_permanent = true;
        ++totals_.stale_events;
        if (!step(stale))
          return;
      }
    }
  }
}

bool Simulation::step(const SwapEvent& event) {
  using Kind = SwapEvent::Kind;
  if (event.kind == Kind::kCancel) { // of one that is granted already: its caller ends soon
    Request& request = requests_[event.request - 1];
    if (!is_waiting(request))
      return true;
    request.is_resolved = true;
    ++totals_.cancels;
  }
  ++totals_.events;
  unload_was_asked_ = event.kind == Kind::kUnloadAsked;
  before(event);
  const SwapDecision decision = advance_swap(config_, state_, event, now_);
  for (const SwapAction& action : decision.actions) {
    for (const uint64_t value : {static_cast<uint64_t>(action.kind), action.request,
                                 action.generation, static_cast<uint64_t>(action.model)}) {
      trace_ = (trace_ ^ value) * 0x100000001b3;
    }
    on_action(action);
  }
  wake_at_ = decision.wake_at;
  check(wake_at_ > now_, "the next wake is not in the future");
  after(event);
  return wrong_.empty();
}

// The world changes before the policy hears of it.
void Simulation::before(const SwapEvent& event) {
  Model& model = models_[event.model];
  const bool is_current = event.generation == model.generation;
  const bool is_serving = model.phase == Phase::kReady || model.phase == Phase::kDraining;
  switch (event.kind) {
  case SwapEvent::Kind::kRequest:
    requests_[event.request - 1].has_arrived = true;
    break;
  case SwapEvent::Kind::kFinished:
    if (is_current && model.in_flight > 0)
      --model.in_flight;
    break;
  case SwapEvent::Kind::kLoaded:
    if (is_current && model.phase == Phase::kLoading) {
      model.phase = Phase::kReady;
      model.ready_at = now_;
      model.was_loaded = true;
      model.has_grown |= !event.used.fits_in(model.present);
    }
    break;
  case SwapEvent::Kind::kMeasured:
    model.has_grown |= is_current && is_serving && !event.used.fits_in(model.present);
    break;
  case SwapEvent::Kind::kLoadFailed:
    if (is_current && model.phase == Phase::kLoading) {
      model.phase = Phase::kDead;
      model.has_failed = true;
      model.may_fail_forever |= event.is_permanent;
    }
    break;
  case SwapEvent::Kind::kCrashed:
    if (is_current && is_serving) {
      model.phase = Phase::kDead;
      model.has_failed = true;
      ++totals_.crashes;
    }
    break;
  case SwapEvent::Kind::kReleased:
    if (is_current && model.phase == Phase::kUnloading) {
      model.phase = Phase::kAbsent;
      model.present = {};
      model.in_flight = 0;
    }
    break;
  case SwapEvent::Kind::kForgetFailures:
    for (Model& each : models_)
      each.may_fail_forever = false;
    break;
  default:
    break;
  }
}

void Simulation::on_action(const SwapAction& action) {
  check(action.model < models_.size(), "no such model");
  check(action.kind == SwapAction::Kind::kRefuse ||
            action.generation == state_.models[action.model].generation,
        "an old generation");
  switch (action.kind) {
  case SwapAction::Kind::kStartLoad:
    return on_start_load(action);
  case SwapAction::Kind::kDrain:
    return on_drain(action);
  case SwapAction::Kind::kUnload:
    return on_unload(action);
  case SwapAction::Kind::kGrant:
    return on_grant(action);
  case SwapAction::Kind::kRefuse:
    return on_refuse(action);
  }
}

void Simulation::on_start_load(const SwapAction& action) {
  Model& model = models_[action.model];
  const SwapModel& spec = config_.models[action.model];
  ++totals_.loads;
  check(model.phase == Phase::kAbsent, "two loads of one model at a time");
  check(action.generation == model.generation + 1, "a load without a new generation");
  check(!is_stopping_, "a load after the stop");
  check(!model.may_fail_forever, "a load that fails each time was tried again");
  check(std::any_of(requests_.begin(), requests_.end(),
                    [&](const Request& r) { return is_waiting(r) && r.model == action.model; }),
        "a load that nobody waits for");
  model.phase = Phase::kLoading;
  model.generation = action.generation;
  model.present = action.bytes;
  model.in_flight = 0;

  SwapEvent loaded = about(SwapEvent::Kind::kLoaded, action.model);
  loaded.used = spec.is_measured ? MemoryBytes{random_.from(1, action.bytes.ram), action.bytes.vram}
                                 : action.bytes;
  const Millis ready = now_ + random_.from(0, is_calm_ ? 300 : 80);
  if (is_calm_)
    return at(ready, loaded);
  if (random_.one_in(12)) {
    ++totals_.hung_loads;
    return;
  }
  if (random_.one_in(8)) {
    ++totals_.failed_loads;
    SwapEvent failed = about(SwapEvent::Kind::kLoadFailed, action.model);
    failed.is_permanent = random_.one_in(4);
    failed.error = "injected";
    return at(ready, failed);
  }
  if (random_.one_in(15))
    loaded.used += {random_.from(1, 40), 0};
  at(ready, loaded);
  if (random_.one_in(15)) {
    SwapEvent measured = about(SwapEvent::Kind::kMeasured, action.model);
    measured.used = action.bytes + MemoryBytes{random_.from(-10, 20), 0};
    at(ready + random_.from(0, 500), measured);
  }
  if (random_.one_in(6))
    at(ready + random_.from(0, 600), about(SwapEvent::Kind::kCrashed, action.model));
}

void Simulation::on_drain(const SwapAction& action) {
  Model& model = models_[action.model];
  ++totals_.drains[static_cast<size_t>(action.drain_reason)];
  check(model.phase == Phase::kReady, "a drain of what is not ready");
  model.phase = Phase::kDraining;
  model.drained_at = now_;
  const auto waits = [&](const Request& r) { return is_waiting(r) && r.model == action.model; };
  const bool has_waiting = std::any_of(requests_.begin(), requests_.end(), waits);
  const SwapLimits& limits = config_.limits;
  switch (action.drain_reason) {
  case DrainReason::kMakeRoom: {
    check(!config_.models[action.model].is_pinned, "a pinned model was evicted");
    check(now_ - model.ready_at >= limits.min_residency_ms, "evicted before its residency ended");
    // For whom? Somebody else waits; if this one is in use, long enough.
    const bool is_busy = has_waiting || model.in_flight > 0;
    totals_.swaps_of_busy += is_busy;
    check(std::any_of(requests_.begin(), requests_.end(),
                      [&](const Request& r) {
                        const Millis patience =
                            std::min(limits.max_wait_ms, (r.deadline - r.arrived) / 2);
                        const Phase phase = models_[r.model].phase;
                        return is_waiting(r) && r.model != action.model &&
                               phase == Phase::kAbsent &&
                               (!is_busy || now_ - r.arrived >= patience);
                      }),
          "evicted for nobody, or too soon for somebody");
    break;
  }
  case DrainReason::kIdle:
    check(!has_waiting && model.in_flight == 0, "a ttl ended a model in use");
    check(!config_.models[action.model].is_pinned, "a ttl ended a pinned model");
    break;
  case DrainReason::kAsked:
    check(unload_was_asked_, "nobody asked for this unload");
    break;
  case DrainReason::kOverdrawn:
    check(model.has_grown, "overdrawn without growth");
    break;
  case DrainReason::kStopping:
    check(is_stopping_, "drained for a stop that is none");
    break;
  }
}

void Simulation::on_unload(const SwapAction& action) {
  Model& model = models_[action.model];
  check(model.phase != Phase::kAbsent, "an unload of what is not there");
  check(action.is_forced || model.in_flight == 0, "an unload cuts off requests in flight");
  check(action.is_forced || model.phase == Phase::kDraining, "an unload without a drain");
  if (model.phase == Phase::kDraining && action.is_forced) {
    check(now_ - model.drained_at >= config_.limits.drain_timeout_ms,
          "requests in flight were cut off before the drain timeout");
  }
  if (model.phase == Phase::kLoading)
    model.has_failed = true; // a timeout
  if (model.phase == Phase::kReady)
    check(model.has_grown, "a ready model was cut off");
  totals_.forced_unloads += action.is_forced;
  if (model.phase != Phase::kUnloading)
    model.hangs_left = is_calm_ || !random_.one_in(8) ? 0 : static_cast<int>(random_.from(1, 3));
  else
    --model.hangs_left;
  model.phase = Phase::kUnloading;
  if (model.hangs_left > 0) {
    ++totals_.hung_unloads;
    return;
  }
  at(now_ + random_.from(0, 25), about(SwapEvent::Kind::kReleased, action.model));
}

void Simulation::on_grant(const SwapAction& action) {
  Model& model = models_[action.model];
  ++totals_.grants;
  Request& request = requests_[action.request - 1];
  check(model.phase == Phase::kReady, "a grant of a model that is not ready");
  check(is_waiting(request), "a grant to one that does not wait");
  check(request.model == action.model, "a grant of another model");
  check(now_ < request.deadline, "a grant after the deadline");
  check(!is_stopping_, "a grant after the stop");
  request.is_resolved = true;
  check(++model.in_flight <= config_.models[action.model].max_in_flight, "too many in flight");
  for (size_t i = 0; i < requests_.size(); ++i) {
    check(!is_waiting(requests_[i]) || requests_[i].model != action.model ||
              requests_[i].arrived >= request.arrived,
          "a younger request of the same model went first");
  }
  const Millis length =
      !is_calm_ && random_.one_in(15) ? random_.from(1'000, 5'000) : random_.from(0, 120);
  at(now_ + length, about(SwapEvent::Kind::kFinished, action.model));
}

void Simulation::on_refuse(const SwapAction& action) {
  ++totals_.refusals[static_cast<size_t>(action.refuse_reason)];
  Request& request = requests_[action.request - 1];
  const Model& model = models_[action.model];
  check(is_waiting(request) && request.model == action.model,
        "a refusal of one that does not wait");
  request.is_resolved = true;
  switch (action.refuse_reason) {
  case RefuseReason::kNeverFits:
    check(!action.bytes.fits_in(action.available), "it does fit");
    check(model.has_grown || model.was_loaded || config_.models[action.model].is_measured ||
              action.bytes == config_.models[action.model].planned,
          "a refusal names other bytes than the plan");
    break;
  case RefuseReason::kDeadline:
    check(now_ == request.deadline || request.deadline <= request.arrived,
          "refused before or after its deadline");
    check(!is_calm_, "not granted though nothing fails");
    break;
  case RefuseReason::kFailed:
    check(model.may_fail_forever, "refused for a failure that may pass");
    break;
  case RefuseReason::kBackOff:
    check(model.has_failed || model.has_grown, "refused without a failure");
    break;
  case RefuseReason::kQueueFull:
    check(config_.limits.max_waiting < requests_.size(), "the queue is not full");
    break;
  case RefuseReason::kStopping:
    check(is_stopping_, "refused for a stop that is none");
    break;
  }
}

void Simulation::after(const SwapEvent& event) {
  MemoryBytes present;
  for (size_t i = 0; i < models_.size(); ++i) {
    Model& model = models_[i];
    check(model.phase != Phase::kDead, "what has crashed is not unloaded");
    // One that was measured gave bytes back, one that grew took some, if nobody had them.
    const bool was_measured =
        event.kind == SwapEvent::Kind::kLoaded || event.kind == SwapEvent::Kind::kMeasured;
    if (was_measured && i == event.model && event.generation == model.generation) {
      const MemoryBytes most = {std::max(model.present.ram, event.used.ram),
                                std::max(model.present.vram, event.used.vram)};
      check(state_.models[i].reserved.fits_in(most), "more is reserved than is used");
      model.present = state_.models[i].reserved;
    }
    check(model.present == state_.models[i].reserved, "the ledger is not what the machine has");
    check((model.phase == Phase::kAbsent) == (model.present == MemoryBytes{}),
          "bytes without a model, or a model without bytes");
    check(model.in_flight == state_.models[i].in_flight, "requests in flight are miscounted");
    present += model.present;
  }
  check(present.fits_in(config_.limits.ceiling), "the ceiling was crossed");
  check(reserved_bytes(state_) == present, "the ledger's sum is wrong");
  for (const Request& request : requests_)
    check(!is_waiting(request) || request.deadline > now_, "a request waits past its deadline");
  if (event.kind != SwapEvent::Kind::kRequest)
    return;
  // Feasibility first: what is larger than the ceiling is refused in the same step.
  const Model& model = models_[event.model];
  if (!config_.models[event.model].planned.fits_in(config_.limits.ceiling) && !model.has_grown)
    check(requests_[event.request - 1].is_resolved, "what never fits was not refused at once");
}

} // namespace pinhole::swap_test
