// Models by name: what the APIs ask when a request names one. One model in this process is the
// first registry; models under one memory ceiling (src/swap) are another behind the same interface.
#pragma once

#include "serve/api_error.h"
#include "serve/model_card.h"
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

// The right to use a loaded model, until the last copy is gone.
using ModelUse = std::shared_ptr<ModelService>;

// How long a model stays after a request: nothing said, for ever, or a time.
struct KeepAlive {
  bool is_given = false;
  std::optional<std::chrono::milliseconds> time; // nothing: for ever
};

// Which models a request needs, one after the other.
struct ModelRoute {
  std::string answers;
  bool is_external = false; // it answers in a process of its own
  // First: its descriptions of the pictures stand in their places; empty: none are made.
  std::string describes;
  bool describer_is_external = false;
  std::string describe_prompt;
};

// The right to use a model in a process of its own, until the last copy is gone.
struct ExternalUse {
  std::string address; // "http://127.0.0.1:8081"
  std::string model;   // what its server calls the model
  bool always_named = false;
  std::shared_ptr<void> hold;
  std::function<bool()> is_lost; // it ended, or is cut off
};

// A model as it is now. `phase`: absent, loading, ready, draining, unloading.
struct RunningModel {
  std::string name;
  std::string phase;
  bool is_external = false;
  // Set aside for it; of that, mapped weights; what its plan says, in memory or not.
  int64_t reserved_bytes = 0, mapped_bytes = 0, planned_bytes = 0;
  int64_t in_flight = 0, waiting = 0;
  std::optional<std::chrono::milliseconds> expires_in; // nothing: never
  std::string error;                                   // of its last failure
};

struct RunningModels {
  // `reserved_bytes`: all that must not be given to others now; `planned_bytes`: what the plans of
  // models in memory have.
  int64_t limit_bytes = 0, reserved_bytes = 0, planned_bytes = 0;
  uint64_t swaps = 0, evictions = 0;
  std::vector<RunningModel> models;
};

class ModelRegistry {
 public:
  virtual ~ModelRegistry() = default;
  virtual std::vector<ModelCard> list() = 0;
  // By name or alias, "name:latest" as well; empty: the default. Nothing: there is none.
  virtual std::optional<ModelCard> find(std::string_view name) = 0;
  // Waits until the model is loaded; ends early when `gone` is set.
  // Sets it, too, when the model is cut off while it is used. A model in a process of its own is
  // an error.
  virtual ApiResult<ModelUse> acquire(std::string_view name, const KeepAlive& keep,
                                      std::atomic<bool>& gone) = 0;
  virtual ApiResult<ModelRoute> route(std::string_view name, bool has_pictures);
  virtual bool has_externals() { return false; }
  virtual ApiResult<ExternalUse> acquire_external(std::string_view name, const KeepAlive& keep,
                                                  std::atomic<bool>& gone);
  // Waits until the model is there, whatever runs it.
  virtual ApiResult<void> load(std::string_view name, const KeepAlive& keep,
                               std::atomic<bool>& gone);
  virtual void unload(std::string_view name) = 0; // when nobody uses it any more
  virtual bool is_ready() = 0;                    // the default model is loaded, or can be
  virtual bool is_advancing() = 0;
  virtual std::string default_name() = 0;
  virtual uint64_t num_loads() = 0;
  virtual int64_t num_processing() = 0; // requests that models work on now
  virtual int64_t limit_bytes() = 0;    // of all models together; 0: none
  virtual RunningModels running() = 0;
  virtual void tick() {} // about once a second
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
                              std::atomic<bool>& gone) override;
  RunningModels running() override;
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
