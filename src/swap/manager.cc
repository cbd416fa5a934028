#include "swap/manager.h"

#include "swap/worker.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>

namespace pinhole {

namespace {

using Clock = std::chrono::steady_clock;

// One caller that waits. Resolved exactly once by the writer, unless the caller gave up before.
struct Ticket {
  std::mutex mutex;
  std::condition_variable resolved;
  std::optional<Result<Lease>> result;
  bool is_abandoned = false;
};

struct Message {
  SwapEvent event;
  std::shared_ptr<Ticket> ticket; // of a kRequest
};

Error stopped_error() { return {ErrorCode::kCancelled, "the program is stopping", "", ""}; }

} // namespace

struct SwapCore : std::enable_shared_from_this<SwapCore> {
  SwapCore(SwapConfig swap_config, ManagerOptions manager_options)
      : config(std::move(swap_config)), options(std::move(manager_options)),
        state(initial_state(config)), deferred(config.models.size()) {
    for (size_t i = 0; i < config.models.size(); ++i)
      lost.push_back(std::make_shared<std::atomic<bool>>(false));
  }

  Millis now() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count();
  }
  Clock::time_point time_of(Millis ms) const { return start + std::chrono::milliseconds(ms); }

  bool post(SwapEvent event, std::shared_ptr<Ticket> ticket = nullptr);
  void start_threads(std::vector<std::unique_ptr<ModelHost>> hosts);
  void stop();

  // Of the writer.
  void run();
  void handle(Message message);
  void perform(const SwapAction& action, Millis at);
  void resolve(uint64_t request, Result<Lease> result);
  void deliver();
  Lease make_lease(const SwapAction& grant);
  void run_deferred();
  void publish(Millis at);
  bool is_empty() const;
  void close();

  const SwapConfig config;
  const ManagerOptions options;
  const Clock::time_point start = Clock::now();
  std::vector<std::unique_ptr<ModelWorker>> workers;
  std::thread writer;
  std::atomic<uint64_t> next_request{1};
  std::atomic<Millis> advanced_at{0};

  std::mutex inbox_mutex;
  std::condition_variable inbox_wake, closed_wake;
  std::vector<Message> inbox;
  bool is_closed = false; // the writer has ended

  // Of the writer alone.
  struct Deferred {
    uint64_t generation = 0; // 0: none
    bool is_forced = false;
  };
  SwapState state;
  std::unordered_map<uint64_t, std::shared_ptr<Ticket>> tickets;
  std::vector<std::shared_ptr<std::atomic<bool>>> lost; // of the model's current generation
  std::vector<Deferred> deferred;                       // unloads that wait for leases
  struct Outcome {
    std::shared_ptr<Ticket> ticket;
    Result<Lease> result;
  };
  std::vector<Outcome> outcomes; // delivered when the status shows them
  Millis wake_at = kNever;
  Millis stop_limit = kNever;

  mutable std::mutex status_mutex;
  SwapStatus status;
};

bool SwapCore::post(SwapEvent event, std::shared_ptr<Ticket> ticket) {
  {
    const std::lock_guard lock(inbox_mutex);
    if (is_closed)
      return false;
    inbox.push_back({std::move(event), std::move(ticket)});
  }
  inbox_wake.notify_one();
  return true;
}

void SwapCore::start_threads(std::vector<std::unique_ptr<ModelHost>> hosts) {
  assert(hosts.size() == config.models.size());
  for (size_t i = 0; i < hosts.size(); ++i) {
    workers.push_back(std::make_unique<ModelWorker>(
        i, std::move(hosts[i]), options, [this](SwapEvent event) { post(std::move(event)); }));
  }
  publish(0);
  writer = std::thread([this] { run(); });
}

void SwapCore::run() {
  while (true) {
    std::vector<Message> messages;
    {
      std::unique_lock lock(inbox_mutex);
      const Millis wake = std::min(wake_at, now() + options.heartbeat_ms);
      inbox_wake.wait_until(lock, time_of(wake), [&] { return !inbox.empty(); });
      messages.swap(inbox);
    }
    if (messages.empty())
      messages.emplace_back(); // a tick
    for (Message& message : messages)
      handle(std::move(message));
    const Millis at = now();
    publish(at);
    deliver();
    advanced_at.store(at, std::memory_order_release);
    if (state.is_stopping && (is_empty() || at >= stop_limit))
      break;
  }
  close();
}

void SwapCore::handle(Message message) {
  const SwapEvent& event = message.event;
  if (message.ticket)
    tickets.emplace(event.request, std::move(message.ticket));
  const Millis at = now();
  if (event.kind == SwapEvent::Kind::kStop && !state.is_stopping)
    stop_limit = at + config.limits.drain_timeout_ms + 3 * config.limits.unload_timeout_ms;
  SwapDecision decision = advance_swap(config, state, event, at);
  for (const SwapAction& action : decision.actions)
    perform(action, at);
  if (event.kind == SwapEvent::Kind::kCancel) {
    resolve(event.request,
            fail(ErrorCode::kCancelled, "whoever asked has gone before the model was ready"));
  }
  if (event.kind == SwapEvent::Kind::kCrashed) {
    const std::lock_guard lock(status_mutex);
    status.num_crashes += static_cast<uint64_t>(
        std::count_if(decision.actions.begin(), decision.actions.end(), [&](const auto& action) {
          return action.kind == SwapAction::Kind::kUnload && action.model == event.model;
        }));
  }
  run_deferred();
  wake_at = decision.wake_at;
}

void SwapCore::perform(const SwapAction& action, Millis at) {
  const size_t idx = action.model;
  switch (action.kind) {
  case SwapAction::Kind::kStartLoad: {
    lost[idx] = std::make_shared<std::atomic<bool>>(false);
    workers[idx]->load(action.generation, action.bytes, action.is_measured);
    const std::lock_guard lock(status_mutex);
    ++status.num_loads;
    break;
  }
  case SwapAction::Kind::kDrain: {
    const std::lock_guard lock(status_mutex);
    status.num_evictions += action.drain_reason == DrainReason::kMakeRoom;
    break;
  }
  case SwapAction::Kind::kUnload:
    if (action.is_forced)
      lost[idx]->store(true, std::memory_order_release);
    deferred[idx] = {action.generation, action.is_forced};
    break;
  case SwapAction::Kind::kGrant:
    resolve(action.request, make_lease(action));
    break;
  case SwapAction::Kind::kRefuse:
    resolve(action.request, tl::unexpected<Error>(refusal_error(config, state, action, at)));
    break;
  }
}

Lease SwapCore::make_lease(const SwapAction& grant) {
  Lease lease;
  lease.core_ = shared_from_this();
  lease.host_ = &workers[grant.model]->host();
  lease.model_ = grant.model;
  lease.generation_ = grant.generation;
  lease.lost_ = lost[grant.model];
  return lease;
}

void SwapCore::resolve(uint64_t request, Result<Lease> result) {
  const auto found = tickets.find(request);
  if (found == tickets.end())
    return;
  {
    const std::lock_guard lock(status_mutex);
    ++(result ? status.num_granted : status.num_refused);
  }
  outcomes.push_back({std::move(found->second), std::move(result)});
  tickets.erase(found);
}

// A lease that nobody takes gives itself back.
void SwapCore::deliver() {
  for (Outcome& outcome : outcomes) {
    {
      const std::lock_guard lock(outcome.ticket->mutex);
      if (!outcome.ticket->is_abandoned)
        outcome.ticket->result.emplace(std::move(outcome.result));
    }
    outcome.ticket->resolved.notify_all();
  }
  outcomes.clear();
}

void SwapCore::run_deferred() {
  for (size_t i = 0; i < deferred.size(); ++i) {
    Deferred& unload = deferred[i];
    if (unload.generation == 0)
      continue;
    if (state.models[i].in_flight > 0 && !workers[i]->host().can_unload_in_use())
      continue;
    workers[i]->unload(unload.generation, unload.is_forced);
    unload = {};
  }
}

bool SwapCore::is_empty() const {
  return std::all_of(state.models.begin(), state.models.end(), [](const ModelRecord& model) {
    return model.phase == ModelPhase::kAbsent || model.phase == ModelPhase::kFailed;
  });
}

void SwapCore::publish(Millis at) {
  const std::lock_guard lock(status_mutex);
  status.ceiling = config.limits.ceiling;
  status.reserved = reserved_bytes(state);
  status.num_waiting = static_cast<int>(state.waiting.size());
  status.models.resize(state.models.size());
  for (size_t i = 0; i < state.models.size(); ++i) {
    const ModelRecord& model = state.models[i];
    ModelStatus& out = status.models[i];
    out.name = config.models[i].name;
    out.phase = model.phase;
    out.generation = model.generation;
    out.reserved = model.reserved;
    out.planned = model.planned;
    out.is_planned = model.is_planned;
    out.is_pinned = config.models[i].is_pinned;
    out.in_flight = model.in_flight;
    out.num_waiting =
        static_cast<int>(std::count_if(state.waiting.begin(), state.waiting.end(),
                                       [&](const auto& request) { return request.model == i; }));
    out.idle_ms = model.in_flight > 0 ? 0 : at - model.last_used;
    out.expires_in_ms.reset();
    if (model.phase == ModelPhase::kReady && model.ttl_ms < kNever && !out.is_pinned)
      out.expires_in_ms = std::max<Millis>(model.ttl_ms - out.idle_ms, 0);
    out.failures = model.failures;
    out.error = model.error;
  }
}

// Nothing is accepted any more; whoever still waits is told.
void SwapCore::close() {
  std::vector<Message> rest;
  {
    const std::lock_guard lock(inbox_mutex);
    is_closed = true;
    rest.swap(inbox);
  }
  for (Message& message : rest) {
    if (message.ticket)
      tickets.emplace(message.event.request, std::move(message.ticket));
  }
  while (!tickets.empty())
    resolve(tickets.begin()->first, tl::unexpected<Error>(stopped_error()));
  deliver();
  for (const auto& flag : lost)
    flag->store(true, std::memory_order_release);
  closed_wake.notify_all();
}

void SwapCore::stop() {
  SwapEvent event;
  event.kind = SwapEvent::Kind::kStop;
  post(std::move(event));
  std::unique_lock lock(inbox_mutex);
  closed_wake.wait(lock, [&] { return is_closed; });
}

Lease::Lease(Lease&& other) noexcept
    : core_(std::move(other.core_)), host_(other.host_), model_(other.model_),
      generation_(other.generation_), lost_(std::move(other.lost_)) {
  other.core_ = nullptr;
}

Lease& Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    give_back();
    core_ = std::move(other.core_);
    other.core_ = nullptr;
    host_ = other.host_;
    model_ = other.model_;
    generation_ = other.generation_;
    lost_ = std::move(other.lost_);
  }
  return *this;
}

Lease::~Lease() { give_back(); }

void Lease::give_back() {
  if (!core_)
    return;
  SwapEvent event;
  event.kind = SwapEvent::Kind::kFinished;
  event.model = model_;
  event.generation = generation_;
  core_->post(std::move(event));
  core_.reset();
}

SwapManager::SwapManager(SwapConfig config, std::vector<std::unique_ptr<ModelHost>> hosts,
                         ManagerOptions options)
    : core_(std::make_shared<SwapCore>(std::move(config), std::move(options))) {
  core_->start_threads(std::move(hosts));
}

SwapManager::~SwapManager() {
  core_->stop();
  core_->writer.join();
  core_->workers.clear();
}

Result<Lease> SwapManager::acquire(const Request& request, std::stop_token cancel) {
  if (request.model >= core_->config.models.size())
    return fail(ErrorCode::kNotFound, "no such model");
  const auto ticket = std::make_shared<Ticket>();
  SwapEvent event;
  event.kind = SwapEvent::Kind::kRequest;
  event.request = core_->next_request.fetch_add(1);
  event.model = request.model;
  event.deadline = core_->now() + std::clamp<Millis>(request.wait_ms, 0, 7 * 86'400'000);
  event.keep_ms = request.keep_ms;
  const uint64_t id = event.request;
  const auto give_up_at = core_->time_of(event.deadline + kGraceMs);
  if (!core_->post(std::move(event), ticket))
    return tl::unexpected<Error>(stopped_error());
  const std::stop_callback on_cancel(cancel, [&] {
    SwapEvent gone;
    gone.kind = SwapEvent::Kind::kCancel;
    gone.request = id;
    core_->post(std::move(gone));
  });
  std::unique_lock lock(ticket->mutex);
  if (!ticket->resolved.wait_until(lock, give_up_at, [&] { return ticket->result.has_value(); })) {
    ticket->is_abandoned = true;
    return fail(ErrorCode::kIo, "the scheduler does not advance");
  }
  return std::move(*ticket->result);
}

void SwapManager::unload(size_t model) {
  if (model >= core_->config.models.size())
    return;
  SwapEvent event;
  event.kind = SwapEvent::Kind::kUnloadAsked;
  event.model = model;
  core_->post(std::move(event));
}

void SwapManager::forget_failures() {
  SwapEvent event;
  event.kind = SwapEvent::Kind::kForgetFailures;
  core_->post(std::move(event));
}

void SwapManager::stop() { core_->stop(); }

SwapStatus SwapManager::status() const {
  const std::lock_guard lock(core_->status_mutex);
  SwapStatus out = core_->status;
  out.advanced_ms_ago = core_->now() - core_->advanced_at.load(std::memory_order_acquire);
  return out;
}

bool SwapManager::is_advancing(Millis limit_ms) const {
  return core_->now() - core_->advanced_at.load(std::memory_order_acquire) <= limit_ms;
}

} // namespace pinhole
