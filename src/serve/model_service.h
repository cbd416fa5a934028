// A loaded model, as the APIs use it: it answers from many threads at once and tells what it has
// reserved.
#pragma once

#include "answer/answerer.h"
#include "base/result.h"
#include "plan/memory.h"
#include "plan/residency.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace pinhole::serve {

struct ServiceStatus {
  int64_t processing = 0; // requests that the model works on
  int64_t waiting = 0;
};

class ModelService {
 public:
  virtual ~ModelService() = default;

  // Blocks until the answer is there; from any thread. Events come from whichever thread works.
  // kBusy: too many wait already.
  virtual Result<Answer> answer(std::span<const ChatTurn> turns, std::span<Picture> pictures,
                                const AnswerOptions& options, const AnswerEvents& events,
                                const std::atomic<bool>* cancel) = 0;
  // Goes on from a text as it is, without a chat template; special tokens in it count as such.
  virtual Result<Answer> complete(std::string_view raw_prompt, const AnswerOptions& options,
                                  const AnswerEvents& events, const std::atomic<bool>* cancel) = 0;

  virtual const LoadedModel& loaded() const = 0;
  virtual const MemoryPlan& plan() const = 0;
  virtual const Residency& residency() const = 0; // which weights stay in memory
  virtual const KernelChoice& kernels() const = 0;
  virtual int64_t reserved_bytes() const = 0; // anonymous memory, everything
  virtual int64_t limit_bytes() const = 0;    // 0: none
  // How pictures are sized and bounded; what fits into them fits into the plan.
  virtual const PictureOptions& picture_options() const = 0;
  virtual int64_t grammar_bytes() const = 0; // that the grammar of one answer may take
  virtual ServiceStatus status() const = 0;
  virtual bool is_advancing() const = 0;
};

struct ServiceOptions {
  int64_t context_tokens = 0; // 0: kDefaultContext, or the model's if that is less
  int64_t chunk_tokens = 512;
  // Answers at the same time; 0: 4, or as many less that the weights still stay in memory beside
  // their contexts.
  int64_t parallel = 0;
  int64_t memory_bytes = 0;     // that this process may take
  int64_t max_image_tokens = 0; // 0: three quarters of the context, or the model's own bound
  int64_t max_image_pixels = 25'000'000;
  int64_t grammar_bytes = 64 << 20; // for the grammars of structured answers, all together
  int64_t max_waiting = 64;
  KernelChoice kernels;
};
inline constexpr int64_t kDefaultContext = 4096;

// Bytes of weights that stay in memory.
int64_t mapped_bytes(const ModelService& service);

// What make_service() would reserve where memory has no bound, without reserving anything.
Result<MemoryPlan> plan_service(const LoadedModel& loaded, const ServiceOptions& options);

// `loaded` must outlive the service.
Result<std::unique_ptr<ModelService>> make_service(const LoadedModel& loaded,
                                                   const ServiceOptions& options);

} // namespace pinhole::serve
