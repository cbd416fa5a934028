// Models by name: what the APIs ask when a request names one. One model in this process is the
// first registry; models under one memory ceiling (src/swap) are another behind the same interface.
#pragma once

#include "serve/api_error.h"
#include "serve/model_service.h"

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole::serve {

// What may be told of a model: no path.
struct ModelCard {
  std::string name;
  std::vector<std::string> aliases;
  std::string family, title, quantisation; // as the files say
  int64_t parameters = 0;
  int64_t file_bytes = 0;
  int64_t context_tokens = 0, model_context_tokens = 0;
  int64_t hidden_size = 0, layers = 0;
  bool reads_pictures = false;
  bool knows_tools = false; // its chat template does
  std::string digest;       // of name, sizes and times of its files: the same file, the same digest
  int64_t modified_s = 0;   // since 1970
  std::string chat_template;

  bool is_loaded = false;
  int64_t reserved_bytes = 0, mapped_bytes = 0;
  std::optional<std::chrono::milliseconds> expires_in; // when it is unloaded; nothing: never
};

// The right to use a loaded model, until the last copy is gone.
using ModelUse = std::shared_ptr<ModelService>;

// How long a model stays after a request: nothing said, for ever, or a time.
struct KeepAlive {
  bool is_given = false;
  std::optional<std::chrono::milliseconds> time; // nothing: for ever
};

class ModelRegistry {
 public:
  virtual ~ModelRegistry() = default;
  virtual std::vector<ModelCard> list() = 0;
  // By name or alias, "name:latest" as well; empty: the default. Nothing: there is none.
  virtual std::optional<ModelCard> find(std::string_view name) = 0;
  // Waits until the model is loaded; ends early when `gone` is set.
  virtual ApiResult<ModelUse> acquire(std::string_view name, const KeepAlive& keep,
                                      const std::atomic<bool>& gone) = 0;
  virtual void unload(std::string_view name) = 0; // when nobody uses it any more
  virtual bool is_ready() = 0;                    // the default model is loaded, or can be
  virtual bool is_advancing() = 0;
  virtual std::string default_name() = 0;
  virtual uint64_t num_loads() = 0;
  virtual int64_t num_processing() = 0; // requests that models work on now
  virtual int64_t limit_bytes() = 0;    // of all models together; 0: none
  virtual void tick() {}                // about once a second
};

struct SingleModelOptions {
  std::string path, mmproj;
  std::string name; // empty: from the path
  std::vector<std::string> aliases;
  ServiceOptions service;
};

// One model in this process. Unloading gives its memory back; the next request loads it again.
class SingleModel : public ModelRegistry {
 public:
  explicit SingleModel(SingleModelOptions options);
  ~SingleModel() override;
  // The first time, so that what is wrong is told at once.
  Status load();

  std::vector<ModelCard> list() override;
  std::optional<ModelCard> find(std::string_view name) override;
  ApiResult<ModelUse> acquire(std::string_view name, const KeepAlive& keep,
                              const std::atomic<bool>& gone) override;
  void unload(std::string_view name) override;
  bool is_ready() override;
  bool is_advancing() override;
  std::string default_name() override;
  uint64_t num_loads() override;
  int64_t num_processing() override;
  int64_t limit_bytes() override;
  void tick() override;

 private:
  struct Loaded;
  std::shared_ptr<Loaded> held();
  bool answers_to(std::string_view name) const;
  void touch();

  SingleModelOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Loaded> loaded_;
  ModelCard card_;
  bool loading_ = false;
  bool was_loaded_ = false;
  int in_use_ = 0;
  bool leave_when_idle_ = false;
  uint64_t loads_ = 0;
  std::optional<std::chrono::milliseconds> keep_; // nothing: for ever
  std::chrono::steady_clock::time_point used_;
};

} // namespace pinhole::serve
