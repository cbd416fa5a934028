#include "swap/worker.h"

#include "base/units.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

namespace pinhole {

namespace {

constexpr Millis kPollMs = 20;
// Memory in use is read less often than life: a read walks all mappings of the process.
constexpr int kWatchesPerMeasure = 4;

bool is_permanent(ErrorCode code) {
  return code == ErrorCode::kInvalidInput || code == ErrorCode::kNotFound ||
         code == ErrorCode::kUnsupported || code == ErrorCode::kTooLarge;
}

} // namespace

ModelWorker::ModelWorker(size_t model, std::unique_ptr<ModelHost> host,
                         const ManagerOptions& options, Post post)
    : model_(model), host_(std::move(host)), options_(options), post_(std::move(post)) {
  thread_ = std::thread([this] { run(); });
}

ModelWorker::~ModelWorker() {
  {
    const std::lock_guard lock(mutex_);
    quit_ = true;
    interrupted_ = ~uint64_t{0};
  }
  wake_.notify_all();
  host_->interrupt(~uint64_t{0});
  thread_.join();
}

void ModelWorker::load(uint64_t generation, const MemoryBytes& reserved, bool is_measured) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back({true, generation, reserved, is_measured});
  }
  wake_.notify_all();
}

void ModelWorker::unload(uint64_t generation, bool is_forced) {
  {
    const std::lock_guard lock(mutex_);
    if (is_forced)
      interrupted_ = std::max(interrupted_, generation);
    if (unloading_ != generation) {
      unloading_ = generation;
      jobs_.push_back({.generation = generation});
    }
  }
  wake_.notify_all();
  if (is_forced)
    host_->interrupt(generation);
}

SwapEvent ModelWorker::event(SwapEvent::Kind kind, uint64_t generation) const {
  SwapEvent out;
  out.kind = kind;
  out.model = model_;
  out.generation = generation;
  return out;
}

void ModelWorker::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    const auto has_work = [&] { return quit_ || !jobs_.empty(); };
    if (ready_ == 0)
      wake_.wait(lock, has_work);
    else
      wake_.wait_for(lock, std::chrono::milliseconds(options_.watch_ms), has_work);
    if (jobs_.empty() && quit_)
      break;
    if (jobs_.empty()) {
      lock.unlock();
      watch();
      lock.lock();
      continue;
    }
    const Job job = jobs_.front();
    jobs_.pop_front();
    lock.unlock();
    if (job.is_load)
      run_load(job);
    else
      run_unload(job);
    lock.lock();
  }
  lock.unlock();
  (void)host_->unload(~uint64_t{0}); // whatever is left
}

bool ModelWorker::sleep_ms(Millis ms) {
  std::unique_lock lock(mutex_);
  return !wake_.wait_for(lock, std::chrono::milliseconds(ms), [&] { return quit_; });
}

// Other programs take memory at any time: what the ledger has free, the machine must have too.
bool ModelWorker::wait_for_memory(const Job& job) {
  if (!options_.usable_bytes || job.is_measured)
    return true;
  for (Millis waited = 0; options_.usable_bytes() < job.reserved.ram; waited += kPollMs) {
    const auto was_interrupted = [&] {
      const std::lock_guard lock(mutex_);
      return interrupted_ >= job.generation;
    };
    if (waited >= options_.memory_wait_ms || was_interrupted() || !sleep_ms(kPollMs))
      return false;
  }
  return true;
}

void ModelWorker::run_load(const Job& job) {
  Result<MemoryBytes> used = MemoryBytes{};
  if (wait_for_memory(job)) {
    used = host_->load(job.generation, job.reserved);
  } else {
    used = fail(ErrorCode::kBusy, fmt::format("it needs {} of RAM, the machine has {}",
                                              format_bytes(static_cast<uint64_t>(job.reserved.ram)),
                                              format_bytes(static_cast<uint64_t>(
                                                  std::max<int64_t>(options_.usable_bytes(), 0)))));
  }
  if (!used) {
    SwapEvent failed = event(SwapEvent::Kind::kLoadFailed, job.generation);
    failed.is_permanent = is_permanent(used.error().code);
    failed.error = used.error().text();
    post_(std::move(failed));
    return;
  }
  ready_ = job.generation;
  reserved_ = {std::max(job.reserved.ram, used->ram), std::max(job.reserved.vram, used->vram)};
  if (job.is_measured)
    reserved_.ram = used->ram;
  SwapEvent loaded = event(SwapEvent::Kind::kLoaded, job.generation);
  loaded.used = *used;
  post_(std::move(loaded));
}

void ModelWorker::run_unload(const Job& job) {
  ready_ = 0;
  const Status done = host_->unload(job.generation);
  bool is_released = done.has_value() && host_->memory_released(job.generation);
  for (Millis waited = 0; !is_released && waited < options_.release_wait_ms; waited += kPollMs) {
    if (!sleep_ms(kPollMs))
      break;
    is_released = host_->memory_released(job.generation);
  }
  {
    const std::lock_guard lock(mutex_);
    if (unloading_ == job.generation)
      unloading_ = 0; // not released: it is asked for again
  }
  if (is_released)
    post_(event(SwapEvent::Kind::kReleased, job.generation));
}

void ModelWorker::watch() {
  if (!host_->is_alive()) {
    SwapEvent crashed = event(SwapEvent::Kind::kCrashed, ready_);
    crashed.error = "it ended by itself";
    ready_ = 0;
    post_(std::move(crashed));
    return;
  }
  num_watches_ = (num_watches_ + 1) % kWatchesPerMeasure;
  if (num_watches_ != 0)
    return;
  const auto used = host_->used_bytes();
  if (!used || used->fits_in(reserved_))
    return;
  reserved_ = {std::max(used->ram, reserved_.ram), std::max(used->vram, reserved_.vram)};
  SwapEvent measured = event(SwapEvent::Kind::kMeasured, ready_);
  measured.used = *used;
  post_(std::move(measured));
}

} // namespace pinhole
