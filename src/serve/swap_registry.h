// Models of a settings file behind the registry of the APIs: they share one memory ceiling, come
// when a request names them and leave when others need the room.
//
// Invariant: a request holds at most one lease at a time. What replies say of a failure has no path
// of this machine; the log has it whole.
#pragma once

#include "serve/local_host.h"
#include "serve/registry.h"
#include "swap/manager.h"
#include "swap/settings.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pinhole::serve {

struct SwapRegistryOptions {
  SwapSettings settings;
  ServiceOptions service;   // of every model in this process; parallel and memory are the settings'
  int64_t usable_bytes = 0; // the ceiling where the settings have none
  bool checks_machine = true; // a load waits until the machine has the memory
  std::function<void(const std::string& line)> log = [](const std::string&) {};
};

class SwapRegistry : public ModelRegistry {
 public:
  // Reads the headers of all models in this process, to plan them; loads none.
  static Result<std::unique_ptr<SwapRegistry>> create(SwapRegistryOptions options);
  ~SwapRegistry() override;

  std::vector<ModelCard> list() override;
  std::optional<ModelCard> find(std::string_view name) override;
  ApiResult<ModelUse> acquire(std::string_view name, const KeepAlive& keep,
                              std::atomic<bool>& gone) override;
  ApiResult<ModelRoute> route(std::string_view name, bool has_pictures) override;
  bool has_externals() override;
  ApiResult<ExternalUse> acquire_external(std::string_view name, const KeepAlive& keep,
                                          std::atomic<bool>& gone) override;
  ApiResult<void> load(std::string_view name, const KeepAlive& keep,
                       std::atomic<bool>& gone) override;
  void unload(std::string_view name) override;
  bool is_ready() override { return true; }
  bool is_advancing() override;
  std::string default_name() override;
  uint64_t num_loads() override;
  int64_t num_processing() override;
  int64_t limit_bytes() override;
  RunningModels running() override;
  void tick() override; // writes to the log what changed

  SwapStatus status() const;
  const SwapSettings& settings() const { return settings_; }

 private:
  class Watcher;
  struct Use;
  SwapRegistry(SwapRegistryOptions options, SwapConfig config, std::vector<ModelCard> cards,
               std::vector<std::unique_ptr<ModelHost>> hosts);
  ApiResult<size_t> index_of(std::string_view name) const;
  ApiResult<std::shared_ptr<Use>> lease(size_t model, const KeepAlive& keep,
                                        std::atomic<bool>& gone);
  bool is_external(size_t model) const { return !settings_.models[model].command.empty(); }

  const SwapSettings settings_;
  const std::function<void(const std::string&)> log_;
  const std::vector<ModelCard> cards_; // as settings_.models
  std::shared_ptr<Watcher> watcher_;
  std::unique_ptr<SwapManager> manager_;
  std::vector<ModelStatus> logged_; // of tick()
};

} // namespace pinhole::serve
