// A model in this process, as src/swap loads and unloads it.
//
// Invariant: what load() returns is anonymous memory that the plan has, weights that are mapped,
// and room for grammars. After unload() nothing of it is mapped, and the process has no more
// anonymous memory than the models that are left account for: memory_released() looks at both
// again.
#pragma once

#include "serve/model_service.h"
#include "swap/host.h"

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace pinhole::serve {

struct LocalHostOptions {
  std::string path, mmproj;
  ServiceOptions service; // memory_bytes: from what is reserved
};

// Bytes that a planned service takes in the ledger.
int64_t ledger_bytes(const MemoryPlan& plan, const ServiceOptions& options);

class LocalHost : public ModelHost {
 public:
  explicit LocalHost(LocalHostOptions options);
  ~LocalHost() override;

  Result<MemoryBytes> load(uint64_t generation, const MemoryBytes& reserved) override;
  Status unload(uint64_t generation) override;
  bool memory_released(uint64_t generation) override;
  bool is_alive() override;
  void interrupt(uint64_t generation) override;
  bool can_unload_in_use() const override { return false; }

  // While a lease is held; from any thread.
  ModelService& service() const;

 private:
  struct Loaded;
  bool is_interrupted(uint64_t generation) const;

  const LocalHostOptions options_;
  mutable std::mutex mutex_;
  std::unique_ptr<Loaded> loaded_;
  std::vector<std::string> mapped_files_; // of the last load
  std::chrono::steady_clock::time_point unloaded_at_;
  uint64_t interrupted_ = 0; // newest generation
};

} // namespace pinhole::serve
