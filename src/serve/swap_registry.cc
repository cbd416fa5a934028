#include "serve/swap_registry.h"

#include "base/memory_limit.h"
#include "base/units.h"
#include "swap/external_process.h"
#include "swap/setup.h"

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <fmt/format.h>
#include <mutex>
#include <stop_token>
#include <thread>

namespace pinhole::serve {

namespace {

constexpr int kRetrySeconds = 5;
constexpr std::chrono::milliseconds kWatch{20};

// Words that begin with '/' become their last part.
std::string without_paths(const std::string& text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const bool begins =
        text[at] == '/' &&
        (at == 0 || std::string_view(" '\"(=:").find(text[at - 1]) != std::string_view::npos);
    if (!begins) {
      out += text[at++];
      continue;
    }
    const size_t end = std::min(text.find_first_of(" '\"):;,", at), text.size());
    const std::string path = text.substr(at, end - at);
    out += std::filesystem::path(path).filename().string();
    at = end;
  }
  return out;
}

ApiError swap_error(const Error& error) {
  ApiError out = to_api_error(error, "model");
  out.message = without_paths(error.text());
  switch (error.code) {
  case ErrorCode::kBusy: // not in time, or too many wait
  case ErrorCode::kIo:   // it failed, and is tried again
    out.status = 503;
    out.type = "unavailable_error";
    out.code = error.code == ErrorCode::kBusy ? "busy" : "model_failed";
    out.retry_after_s = kRetrySeconds;
    break;
  case ErrorCode::kInvalidInput: // it fails each time
    out.status = 500;
    out.type = "server_error";
    out.code = "model_failed";
    out.is_final = true;
    break;
  default:
    break;
  }
  return out;
}

struct Prepared {
  ModelCard card;
  std::unique_ptr<ModelHost> host;
};

Result<Prepared> prepare_local(ModelSettings& model, ServiceOptions service) {
  if (model.source.starts_with("hf:")) {
    return fail(ErrorCode::kUnsupported, "nothing is downloaded by serve", model.source,
                "give the path of a .gguf file or a folder");
  }
  Prepared out;
  PINHOLE_TRY(const auto loaded, load_model(model.source));
  out.card = describe_model(*loaded, model.name, model.aliases);
  if (model.parallel > 1 && loaded->model.cache.has_cross()) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("parallel is {}: a model that attends to its pictures from layers of "
                            "their own gives one answer at a time",
                            model.parallel),
                model.source, "parallel = 1");
  }
  service.parallel = model.parallel;
  service.memory_bytes = 0;
  PINHOLE_TRY(const MemoryPlan plan, plan_service(*loaded, service));
  out.card.context_tokens = plan.shape.context_tokens;
  out.card.reserved_bytes = plan.anonymous_bytes();
  out.card.mapped_bytes = plan.mapped_bytes;
  if (model.role == ModelRole::kVision && !out.card.reads_pictures) {
    return fail(ErrorCode::kInvalidInput, "role is \"vision\", and the model reads no pictures",
                model.source, "put its mmproj file beside it");
  }
  if (out.card.reads_pictures)
    model.role = ModelRole::kVision;
  if (!model.is_measured && !model.ram_bytes)
    model.ram_bytes = ledger_bytes(plan, service);
  out.host = std::make_unique<LocalHost>(LocalHostOptions{model.source, {}, service});
  return out;
}

Prepared prepare_external(const SwapSettings& settings, size_t idx) {
  const ModelSettings& model = settings.models[idx];
  Prepared out;
  out.card.name = model.name;
  out.card.aliases = model.aliases;
  out.card.is_external = true;
  out.card.reads_pictures = model.role == ModelRole::kVision;
  out.card.reserved_bytes = model.ram_bytes.value_or(0);
  out.host = std::make_unique<ExternalProcess>(external_options(settings, idx));
  return out;
}

} // namespace

// Looks whether clients have gone that wait for a model, and whether models were lost that are
// used.
class SwapRegistry::Watcher {
 public:
  Watcher() : thread_([this] { run(); }) {}
  ~Watcher() {
    {
      const std::lock_guard lock(mutex_);
      ends_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void add(const void* key, std::function<void()> look) {
    {
      const std::lock_guard lock(mutex_);
      looks_.emplace_back(key, std::move(look));
    }
    changed_.notify_all();
  }
  void remove(const void* key) {
    const std::lock_guard lock(mutex_);
    std::erase_if(looks_, [&](const auto& look) { return look.first == key; });
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (!ends_) {
      if (looks_.empty()) {
        changed_.wait(lock);
        continue;
      }
      for (const auto& [key, look] : looks_)
        look();
      changed_.wait_for(lock, kWatch, [this] { return ends_; });
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::pair<const void*, std::function<void()>>> looks_;
  bool ends_ = false;
  std::thread thread_;
};

struct SwapRegistry::Use {
  std::shared_ptr<Watcher> watcher;
  Lease lease;
  ~Use() {
    if (watcher)
      watcher->remove(this);
  }
};

Result<std::unique_ptr<SwapRegistry>> SwapRegistry::create(SwapRegistryOptions options) {
  SwapSettings& settings = options.settings;
  std::vector<ModelCard> cards;
  std::vector<std::unique_ptr<ModelHost>> hosts;
  for (size_t i = 0; i < settings.models.size(); ++i) {
    ModelSettings& model = settings.models[i];
    Result<Prepared> prepared = model.command.empty() ? prepare_local(model, options.service)
                                                      : prepare_external(settings, i);
    if (!prepared)
      return fail_in(fmt::format("model '{}', line {}", model.name, model.line),
                     std::move(prepared.error()));
    cards.push_back(std::move(prepared->card));
    hosts.push_back(std::move(prepared->host));
  }
  PINHOLE_TRY(SwapConfig config, swap_config(settings, options.usable_bytes));
  return std::unique_ptr<SwapRegistry>(
      new SwapRegistry(std::move(options), std::move(config), std::move(cards), std::move(hosts)));
}

SwapRegistry::SwapRegistry(SwapRegistryOptions options, SwapConfig config,
                           std::vector<ModelCard> cards,
                           std::vector<std::unique_ptr<ModelHost>> hosts)
    : settings_(std::move(options.settings)), log_(std::move(options.log)),
      cards_(std::move(cards)), watcher_(std::make_shared<Watcher>()) {
  ManagerOptions manager;
  if (options.checks_machine)
    manager.usable_bytes = [] { return memory_limit().usable_bytes(); };
  manager_ = std::make_unique<SwapManager>(std::move(config), std::move(hosts), manager);
  logged_ = manager_->status().models;
}

SwapRegistry::~SwapRegistry() { manager_.reset(); }

ApiResult<size_t> SwapRegistry::index_of(std::string_view name) const {
  auto route = route_request(settings_, name, false);
  const std::string_view tag = ":latest";
  if (!route && name.size() > tag.size() && name.ends_with(tag))
    route = route_request(settings_, name.substr(0, name.size() - tag.size()), false);
  if (!route) {
    ApiError error = to_api_error(route.error(), "model");
    error.code = "model_not_found";
    return tl::unexpected<ApiError>(std::move(error));
  }
  return route->answers;
}

ApiResult<ModelRoute> SwapRegistry::route(std::string_view name, bool has_pictures) {
  PINHOLE_API(const size_t idx, index_of(name));
  const auto route = route_request(settings_, settings_.models[idx].name, has_pictures);
  if (!route)
    return tl::unexpected<ApiError>(to_api_error(route.error(), "model"));
  ModelRoute out;
  out.answers = settings_.models[route->answers].name;
  out.is_external = is_external(route->answers);
  if (route->describes) {
    out.describes = settings_.models[*route->describes].name;
    out.describer_is_external = is_external(*route->describes);
    out.describe_prompt = route->describe_prompt;
  }
  return out;
}

bool SwapRegistry::has_externals() {
  return std::any_of(settings_.models.begin(), settings_.models.end(),
                     [](const ModelSettings& model) { return !model.command.empty(); });
}

// The request ends when its model in this process is cut off; its wait, when its client has gone.
ApiResult<std::shared_ptr<SwapRegistry::Use>>
SwapRegistry::lease(size_t model, const KeepAlive& keep, std::atomic<bool>& gone) {
  SwapManager::Request request;
  request.model = model;
  request.wait_ms = settings_.request_timeout_ms;
  if (keep.is_given)
    request.keep_ms = keep.time ? static_cast<Millis>(keep.time->count()) : kNever;
  std::stop_source cancel;
  watcher_->add(&cancel, [&gone, &cancel] {
    if (gone)
      cancel.request_stop();
  });
  auto lease = manager_->acquire(request, cancel.get_token());
  watcher_->remove(&cancel);
  if (!lease)
    return tl::unexpected<ApiError>(swap_error(lease.error()));
  auto use = std::make_shared<Use>();
  use->watcher = watcher_;
  use->lease = std::move(*lease);
  if (is_external(model))
    return use; // its server's connection says so, and the client is told
  watcher_->add(use.get(), [&gone, use = use.get()] {
    if (use->lease.is_lost())
      gone = true;
  });
  return use;
}

ApiResult<ModelUse> SwapRegistry::acquire(std::string_view name, const KeepAlive& keep,
                                          std::atomic<bool>& gone) {
  PINHOLE_API(const size_t idx, index_of(name));
  if (is_external(idx)) {
    return refuse(400,
                  fmt::format("model '{}' is a server of its own, for which this is not done; ask "
                              "it at /v1/chat/completions",
                              settings_.models[idx].name),
                  "model", "unsupported");
  }
  PINHOLE_API(auto use, lease(idx, keep, gone));
  ModelService& service = static_cast<LocalHost&>(use->lease.host()).service();
  return ModelUse(&service, [use = std::move(use)](ModelService*) mutable { use.reset(); });
}

ApiResult<ExternalUse> SwapRegistry::acquire_external(std::string_view name, const KeepAlive& keep,
                                                      std::atomic<bool>& gone) {
  PINHOLE_API(const size_t idx, index_of(name));
  if (!is_external(idx))
    return ModelRegistry::acquire_external(name, keep, gone);
  PINHOLE_API(auto use, lease(idx, keep, gone));
  const ModelSettings& model = settings_.models[idx];
  ExternalUse out;
  out.address = use->lease.host().address();
  out.model = model.name;
  out.is_lost = [use] { return use->lease.is_lost(); };
  out.hold = std::move(use);
  return out;
}

ApiResult<void> SwapRegistry::load(std::string_view name, const KeepAlive& keep,
                                   std::atomic<bool>& gone) {
  PINHOLE_API(const size_t idx, index_of(name));
  PINHOLE_API_CHECK(lease(idx, keep, gone));
  return {};
}

void SwapRegistry::unload(std::string_view name) {
  if (const auto idx = index_of(name))
    manager_->unload(*idx);
}

std::vector<ModelCard> SwapRegistry::list() {
  std::vector<ModelCard> out = cards_;
  const SwapStatus now = manager_->status();
  for (size_t i = 0; i < out.size(); ++i) {
    const ModelStatus& model = now.models[i];
    out[i].is_loaded = model.phase == ModelPhase::kReady || model.phase == ModelPhase::kDraining;
    if (out[i].is_external)
      out[i].reserved_bytes = out[i].is_loaded ? model.reserved.ram : model.planned.ram;
    if (model.expires_in_ms)
      out[i].expires_in = std::chrono::milliseconds(*model.expires_in_ms);
  }
  return out;
}

std::optional<ModelCard> SwapRegistry::find(std::string_view name) {
  const auto idx = index_of(name);
  if (!idx)
    return std::nullopt;
  return list()[*idx];
}

bool SwapRegistry::is_advancing() { return manager_->is_advancing(); }

std::string SwapRegistry::default_name() { return settings_.default_model; }

uint64_t SwapRegistry::num_loads() { return manager_->status().num_loads; }

int64_t SwapRegistry::num_processing() {
  int64_t out = 0;
  for (const ModelStatus& model : manager_->status().models)
    out += model.in_flight;
  return out;
}

int64_t SwapRegistry::limit_bytes() { return manager_->status().ceiling.ram; }

SwapStatus SwapRegistry::status() const { return manager_->status(); }

RunningModels SwapRegistry::running() {
  const SwapStatus now = manager_->status();
  RunningModels out;
  out.limit_bytes = now.ceiling.ram;
  out.reserved_bytes = now.reserved.ram;
  out.swaps = now.num_loads;
  out.evictions = now.num_evictions;
  for (size_t i = 0; i < now.models.size(); ++i) {
    const ModelStatus& from = now.models[i];
    const bool is_there = from.phase != ModelPhase::kAbsent && from.phase != ModelPhase::kFailed;
    RunningModel model;
    model.name = from.name;
    model.phase = phase_name(is_there ? from.phase : ModelPhase::kAbsent);
    model.is_external = cards_[i].is_external;
    model.planned_bytes = from.planned.ram;
    model.reserved_bytes = from.reserved.ram;
    model.mapped_bytes = is_there ? cards_[i].mapped_bytes : 0;
    model.in_flight = from.in_flight;
    model.waiting = from.num_waiting;
    if (from.expires_in_ms)
      model.expires_in = std::chrono::milliseconds(*from.expires_in_ms);
    model.error = without_paths(from.error);
    out.planned_bytes += is_there ? model.planned_bytes : 0;
    out.models.push_back(std::move(model));
  }
  return out;
}

void SwapRegistry::tick() {
  const SwapStatus now = manager_->status();
  for (size_t i = 0; i < now.models.size(); ++i) {
    const ModelStatus& model = now.models[i];
    ModelStatus& before = logged_[i];
    if (model.error != before.error && !model.error.empty())
      log_(fmt::format("{}: {}", model.name, model.error));
    else if (model.phase != before.phase || model.generation != before.generation)
      log_(fmt::format("{}: {}, {} of {} reserved", model.name, phase_name(model.phase),
                       format_bytes(static_cast<uint64_t>(now.reserved.ram)),
                       format_bytes(static_cast<uint64_t>(now.ceiling.ram))));
    before = model;
  }
}

} // namespace pinhole::serve
