#include "serve/registry.h"

#include "base/sha256.h"
#include "quant/formats.h"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <map>
#include <system_error>

namespace pinhole::serve {

namespace {

namespace fs = std::filesystem;

std::string name_from_path(const std::string& path) {
  fs::path clean = fs::path(path).lexically_normal();
  if (!clean.has_filename())
    clean = clean.parent_path();
  return clean.extension() == ".gguf" ? clean.stem().string() : clean.filename().string();
}

// The element type that most bytes of the text part have.
std::string main_type(const ModelFile& file) {
  std::map<std::string, uint64_t> bytes;
  for (const Tensor& tensor : file.tensors())
    bytes[std::string(format_info(tensor.format).name)] += tensor.bytes;
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? std::string() : most->first;
}

std::string template_text(const ModelFile& file) {
  if (file.container() == Container::kHuggingFace)
    return file.chat_template().value_or(std::string());
  const auto text = file.gguf().string("tokenizer.chat_template");
  return text ? std::string(*text) : std::string();
}

// What there is to tell of a model's files.
ModelCard describe(const LoadedModel& loaded, const SingleModelOptions& options) {
  ModelCard card;
  const Model& model = loaded.model;
  card.name = options.name;
  card.aliases = options.aliases;
  card.family = model.family;
  card.title = model.name;
  card.quantisation = main_type(loaded.files.text);
  card.model_context_tokens = model.context_length;
  card.hidden_size = model.hidden_size;
  card.layers = model.cache.layers;
  card.reads_pictures = model.pictures.has_value();
  card.knows_tools = template_knows_tools(loaded);
  card.chat_template = template_text(loaded.files.text);
  Sha256 hash;
  hash.update(card.name.data(), card.name.size());
  const auto add = [&](const ModelFile& file) {
    for (const Tensor& tensor : file.tensors())
      card.parameters += tensor.elements();
    for (const MappedFile& part : file.parts()) {
      std::error_code error;
      const auto time = fs::last_write_time(part.path(), error);
      const int64_t seconds = error ? 0
                                    : std::chrono::duration_cast<std::chrono::seconds>(
                                          std::chrono::file_clock::to_sys(time).time_since_epoch())
                                          .count();
      card.modified_s = std::max(card.modified_s, seconds);
      const auto bytes = static_cast<int64_t>(part.bytes().size());
      card.file_bytes += bytes;
      const int64_t facts[] = {bytes, seconds};
      hash.update(facts, sizeof facts);
    }
  };
  add(loaded.files.text);
  if (loaded.files.projector)
    add(*loaded.files.projector);
  card.digest = to_hex(hash.finish());
  return card;
}

} // namespace

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
    card = describe(*loaded->model, options_);
    card.context_tokens = loaded->service->plan().shape.context_tokens;
    card.reserved_bytes = loaded->service->reserved_bytes();
    card.mapped_bytes = loaded->service->plan().mapped_bytes;
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
                                         const std::atomic<bool>& gone) {
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

void SingleModel::tick() {
  const std::lock_guard lock(mutex_);
  if (loaded_ && keep_ && in_use_ == 0 && std::chrono::steady_clock::now() - used_ >= *keep_)
    loaded_.reset();
}

} // namespace pinhole::serve
