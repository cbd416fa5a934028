// Words for people: phases, and refusals as errors.

#include "base/units.h"
#include "swap/policy.h"

#include <fmt/format.h>

namespace pinhole {

const char* phase_name(ModelPhase phase) {
  switch (phase) {
  case ModelPhase::kAbsent:
    return "absent";
  case ModelPhase::kLoading:
    return "loading";
  case ModelPhase::kReady:
    return "ready";
  case ModelPhase::kDraining:
    return "draining";
  case ModelPhase::kUnloading:
    return "unloading";
  case ModelPhase::kFailed:
    return "failed";
  }
  return "unknown";
}

Error refusal_error(const SwapConfig& config, const SwapState& state, const SwapAction& refusal,
                    Millis now) {
  const std::string name = fmt::format("model '{}'", config.models[refusal.model].name);
  const auto both = [](const MemoryBytes& bytes) {
    std::string out = format_bytes(static_cast<uint64_t>(bytes.ram)) + " of RAM";
    if (bytes.vram > 0)
      out += " and " + format_bytes(static_cast<uint64_t>(bytes.vram)) + " of VRAM";
    return out;
  };
  switch (refusal.refuse_reason) {
  case RefuseReason::kNeverFits:
    return {ErrorCode::kTooLarge,
            fmt::format("it needs {}, {} are available beside pinned models, the ceiling is {}",
                        both(refusal.bytes), both(refusal.available), both(config.limits.ceiling)),
            name, "raise the ceiling, unpin a model, or choose a smaller one"};
  case RefuseReason::kDeadline:
    return {ErrorCode::kBusy,
            fmt::format("not available in time: it is {}, and {} requests wait; it needs {}, {} of "
                        "{} are reserved",
                        phase_name(state.models[refusal.model].phase), state.waiting.size(),
                        both(refusal.bytes), both(reserved_bytes(state)),
                        both(config.limits.ceiling)),
            name, "try again, with a later deadline"};
  case RefuseReason::kFailed:
    return {ErrorCode::kInvalidInput, "it cannot be loaded: " + refusal.error, name,
            "it is not tried again before the settings change"};
  case RefuseReason::kBackOff:
    return {ErrorCode::kIo, "it failed: " + refusal.error, name,
            refusal.retry_at < kNever
                ? fmt::format("it is tried again in {}",
                              format_millis(static_cast<double>(refusal.retry_at - now)))
                : "it is tried again later"};
  case RefuseReason::kQueueFull:
    return {ErrorCode::kBusy,
            fmt::format("{} requests wait already, which is the limit", config.limits.max_waiting),
            name, "try again later"};
  case RefuseReason::kStopping:
    return {ErrorCode::kCancelled, "the program is stopping", name, ""};
  }
  return {ErrorCode::kIo, "refused", name, ""};
}

} // namespace pinhole
