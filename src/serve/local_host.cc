#include "serve/local_host.h"

#include "base/units.h"
#include "serve/process_memory.h"

#include <algorithm>
#include <cassert>
#include <fmt/format.h>
#include <map>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace pinhole::serve {

namespace {

// Requests, pictures on their way, stacks: what the process may have beside its models.
constexpr int64_t kBesideModels = 64 << 20;
// What does not fall within this time is not the unloaded model's: that has nothing left to free.
constexpr std::chrono::milliseconds kFallTime{1'000};

// What the models of this process account for.
class Account {
 public:
  static Account& of_process() {
    static Account account;
    return account;
  }
  void add(const void* host, int64_t anonymous, const std::vector<std::string>& files) {
    const std::lock_guard lock(mutex_);
    anonymous_[host] = anonymous;
    for (const std::string& file : files)
      ++files_[file];
  }
  void remove(const void* host, const std::vector<std::string>& files) {
    const std::lock_guard lock(mutex_);
    if (anonymous_.erase(host) == 0)
      return;
    for (const std::string& file : files)
      --files_[file];
  }
  bool has_file(const std::string& file) {
    const std::lock_guard lock(mutex_);
    const auto found = files_.find(file);
    return found != files_.end() && found->second > 0;
  }
  int64_t allowed_bytes() {
    const std::lock_guard lock(mutex_);
    int64_t out = base_ + kBesideModels;
    for (const auto& [host, bytes] : anonymous_)
      out += bytes;
    return out;
  }

 private:
  std::mutex mutex_;
  const int64_t base_ = anonymous_bytes_now();
  std::map<const void*, int64_t> anonymous_;
  std::map<std::string, int> files_; // by how many models
};

} // namespace

struct LocalHost::Loaded {
  std::unique_ptr<LoadedModel> model;
  std::unique_ptr<ModelService> service; // uses `model`
};

int64_t ledger_bytes(const MemoryPlan& plan, const ServiceOptions& options) {
  return plan.anonymous_bytes() + plan.mapped_bytes + options.grammar_bytes;
}

LocalHost::LocalHost(LocalHostOptions options) : options_(std::move(options)) {
  (void)Account::of_process();
}

LocalHost::~LocalHost() { (void)unload(~uint64_t{0}); }

bool LocalHost::is_interrupted(uint64_t generation) const {
  const std::lock_guard lock(mutex_);
  return interrupted_ >= generation;
}

void LocalHost::interrupt(uint64_t generation) {
  const std::lock_guard lock(mutex_);
  interrupted_ = std::max(interrupted_, generation);
}

Result<MemoryBytes> LocalHost::load(uint64_t generation, const MemoryBytes& reserved) {
  const auto check = [&]() -> Status {
    if (is_interrupted(generation))
      return fail(ErrorCode::kCancelled, "interrupted while it was loading");
    return {};
  };
  PINHOLE_CHECK(check());
  auto loaded = std::make_unique<Loaded>();
  PINHOLE_TRY(loaded->model, load_model(options_.path, options_.mmproj));
  PINHOLE_CHECK(check());
  mapped_files_.clear();
  for (const MappedFile& part : loaded->model->files.text.parts())
    mapped_files_.push_back(part.path());
  if (loaded->model->files.projector) {
    for (const MappedFile& part : loaded->model->files.projector->parts())
      mapped_files_.push_back(part.path());
  }
  ServiceOptions service = options_.service;
  PINHOLE_TRY(const MemoryPlan plan, plan_service(*loaded->model, service));
  // The program's own code is no model's.
  service.memory_bytes = reserved.ram + plan.program_mapped_bytes;
  Account::of_process().add(this, ledger_bytes(plan, service) - plan.mapped_bytes, mapped_files_);
  PINHOLE_TRY(loaded->service, make_service(*loaded->model, service));
  const ModelService& made = *loaded->service;
  const MemoryBytes used{made.reserved_bytes() + mapped_bytes(made) + service.grammar_bytes, 0};
  if (used.ram > reserved.ram) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("it takes {}, {} are reserved for it",
                            format_bytes(static_cast<uint64_t>(used.ram)),
                            format_bytes(static_cast<uint64_t>(reserved.ram))));
  }
  PINHOLE_CHECK(check());
  const std::lock_guard lock(mutex_);
  loaded_ = std::move(loaded);
  return used;
}

Status LocalHost::unload(uint64_t) {
  std::unique_ptr<Loaded> loaded;
  {
    const std::lock_guard lock(mutex_);
    loaded = std::move(loaded_);
  }
  loaded.reset();
  Account::of_process().remove(this, mapped_files_);
#if defined(__GLIBC__)
  ::malloc_trim(0);
#endif
  unloaded_at_ = std::chrono::steady_clock::now();
  return {};
}

bool LocalHost::memory_released(uint64_t) {
  for (const std::string& file : mapped_files_) {
    if (!Account::of_process().has_file(file) && is_mapped_now(file))
      return false;
  }
  return anonymous_bytes_now() <= Account::of_process().allowed_bytes() ||
         std::chrono::steady_clock::now() - unloaded_at_ >= kFallTime;
}

bool LocalHost::is_alive() {
  const std::lock_guard lock(mutex_);
  return loaded_ != nullptr;
}

ModelService& LocalHost::service() const {
  const std::lock_guard lock(mutex_);
  assert(loaded_ != nullptr);
  return *loaded_->service;
}

} // namespace pinhole::serve
