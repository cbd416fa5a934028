#include "serve/registry.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole::serve {

ApiResult<ModelRoute> ModelRegistry::route(std::string_view name, bool) {
  ModelRoute out;
  out.answers = name;
  return out;
}

ApiResult<ExternalUse> ModelRegistry::acquire_external(std::string_view, const KeepAlive&,
                                                       std::atomic<bool>&) {
  return refuse(400, "no model here is in a process of its own", "model");
}

ApiResult<void> ModelRegistry::load(std::string_view name, const KeepAlive& keep,
                                    std::atomic<bool>& gone) {
  PINHOLE_API_CHECK(acquire(name, keep, gone));
  return {};
}

struct SingleModel::Loaded {
  std::unique_ptr<LoadedModel> model;
  std::unique_ptr<ModelService> service; // uses `model`
};

SingleModel::SingleModel(SingleModelOptions options) : options_(std::move(options)) {
  if (options_.name.empty())
    options_.name = name_from_path(options_.path);
  card_.name = options_.name;
  card_.aliases = options_.aliases;
}

SingleModel::~SingleModel() = default;

// Without the lock: nobody else loads meanwhile, loading_ says so.
Status SingleModel::load() {
  {
    const std::lock_guard lock(mutex_);
    loading_ = true;
  }
  auto loaded = std::make_shared<Loaded>();
  ModelCard card;
  const Status status = [&]() -> Status {
    PINHOLE_TRY(loaded->model, load_model(options_.path, options_.mmproj));
    PINHOLE_TRY(loaded->service, make_service(*loaded->model, options_.service));
    card = describe_model(*loaded->model, options_.name, options_.aliases);
    card.context_tokens = loaded->service->plan().shape.context_tokens;
    card.reserved_bytes = loaded->service->reserved_bytes();
    card.mapped_bytes = mapped_bytes(*loaded->service);
    return {};
  }();
  const std::lock_guard lock(mutex_);
  loading_ = false;
  if (status) {
    loaded_ = std::move(loaded);
    card_ = std::move(card);
    was_loaded_ = true;
    leave_when_idle_ = false;
    ++loads_;
    touch();
  }
  changed_.notify_all();
  return status;
}

void SingleModel::touch() { used_ = std::chrono::steady_clock::now(); }

bool SingleModel::answers_to(std::string_view name) const {
  const std::string_view tag = ":latest";
  if (name.size() > tag.size() && name.ends_with(tag))
    name.remove_suffix(tag.size());
  return name.empty() || name == options_.name ||
         std::find(options_.aliases.begin(), options_.aliases.end(), name) !=
             options_.aliases.end();
}

std::vector<ModelCard> SingleModel::list() {
  const std::lock_guard lock(mutex_);
  ModelCard card = card_;
  card.is_loaded = loaded_ != nullptr;
  if (card.is_loaded && keep_) {
    const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now() - used_);
    card.expires_in = std::max(std::chrono::milliseconds(0), *keep_ - age);
  }
  return {std::move(card)};
}

std::optional<ModelCard> SingleModel::find(std::string_view name) {
  if (!answers_to(name))
    return std::nullopt;
  return list().front();
}

ApiResult<ModelUse> SingleModel::acquire(std::string_view name, const KeepAlive& keep,
                                         std::atomic<bool>& gone) {
  if (!answers_to(name)) {
    return refuse(404,
                  fmt::format("there is no model '{}' here; there is '{}'", name.substr(0, 100),
                              options_.name),
                  "model", "model_not_found");
  }
  std::unique_lock lock(mutex_);
  while (loaded_ == nullptr) {
    if (gone)
      return refuse(503, "the request was cancelled");
    if (loading_ || !was_loaded_) {
      changed_.wait_for(lock, std::chrono::milliseconds(50));
      continue;
    }
    loading_ = true; // others wait for this thread
    lock.unlock();
    const Status status = load();
    if (!status)
      return tl::unexpected<ApiError>(to_api_error(status.error()));
    lock.lock();
  }
  if (keep.is_given)
    keep_ = keep.time;
  leave_when_idle_ = false;
  ++in_use_;
  touch();
  std::shared_ptr<Loaded> held = loaded_;
  ModelService* const service = held->service.get();
  return ModelUse(service, [this, held = std::move(held)](ModelService*) mutable {
    held.reset();
    const std::lock_guard back(mutex_);
    --in_use_;
    touch();
    if (in_use_ == 0 && leave_when_idle_)
      loaded_.reset();
  });
}

void SingleModel::unload(std::string_view name) {
  if (!answers_to(name))
    return;
  const std::lock_guard lock(mutex_);
  if (in_use_ == 0)
    loaded_.reset();
  else
    leave_when_idle_ = true;
}

bool SingleModel::is_ready() {
  const std::lock_guard lock(mutex_);
  return was_loaded_ && !loading_;
}

std::shared_ptr<SingleModel::Loaded> SingleModel::held() {
  const std::lock_guard lock(mutex_);
  return loaded_;
}

bool SingleModel::is_advancing() {
  const auto loaded = held();
  return loaded == nullptr || loaded->service->is_advancing();
}

int64_t SingleModel::num_processing() {
  const auto loaded = held();
  return loaded == nullptr ? 0 : loaded->service->status().processing;
}

int64_t SingleModel::limit_bytes() { return options_.service.memory_bytes; }

std::string SingleModel::default_name() { return options_.name; }

uint64_t SingleModel::num_loads() {
  const std::lock_guard lock(mutex_);
  return loads_;
}

RunningModels SingleModel::running() {
  const auto loaded = held();
  const ModelCard card = list().front();
  RunningModels out;
  out.limit_bytes = limit_bytes();
  RunningModel model;
  model.name = card.name;
  if (card.reserved_bytes > 0) // known since it was loaded first
    model.planned_bytes = card.reserved_bytes + card.mapped_bytes + options_.service.grammar_bytes;
  if (loaded) {
    model.reserved_bytes = out.reserved_bytes = out.planned_bytes = model.planned_bytes;
    model.mapped_bytes = card.mapped_bytes;
    const ServiceStatus status = loaded->service->status();
    model.in_flight = status.processing;
    model.waiting = status.waiting;
    model.expires_in = card.expires_in;
  }
  const std::lock_guard lock(mutex_);
  model.phase = loaded_ ? "ready" : loading_ || !was_loaded_ ? "loading" : "absent";
  out.swaps = loads_;
  out.models.push_back(std::move(model));
  return out;
}

void SingleModel::tick() {
  const std::lock_guard lock(mutex_);
  if (loaded_ && keep_ && in_use_ == 0 && std::chrono::steady_clock::now() - used_ >= *keep_)
    loaded_.reset();
}

} // namespace pinhole::serve
