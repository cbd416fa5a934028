#include "swap/setup.h"

#include "base/units.h"
#include "file/printable.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole {

namespace {

// A host gives up first, and says more about why.
constexpr Millis kHostGraceMs = 5'000;

std::string names_of(const SwapSettings& settings) {
  constexpr size_t kMaxShown = 10;
  std::string out;
  for (size_t i = 0; i < std::min(settings.models.size(), kMaxShown); ++i)
    out += (i == 0 ? "" : ", ") + settings.models[i].name;
  return settings.models.size() > kMaxShown ? out + ", ..." : out;
}

} // namespace

Result<SwapConfig> swap_config(const SwapSettings& settings, int64_t usable_bytes) {
  SwapConfig config;
  SwapLimits& limits = config.limits;
  limits.ceiling = {settings.ram_bytes.value_or(usable_bytes), settings.vram_bytes};
  limits.max_wait_ms = settings.max_wait_ms;
  limits.min_residency_ms = settings.min_residency_ms;
  limits.drain_timeout_ms = settings.drain_timeout_ms;
  limits.max_waiting = static_cast<size_t>(settings.max_waiting);
  Millis stop_timeout_ms = 0;
  MemoryBytes pinned;
  for (const ModelSettings& model : settings.models) {
    if (!model.is_measured && !model.ram_bytes) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("model {} has no planned bytes", printable(model.name)), {},
                  "give it ram = \"SIZE\"");
    }
    SwapModel out;
    out.name = model.name;
    out.planned = {model.ram_bytes.value_or(0), model.vram_bytes};
    out.is_measured = model.is_measured;
    out.is_pinned = model.is_pinned;
    out.ttl_ms = model.ttl_ms;
    out.max_in_flight = model.parallel;
    out.load_timeout_ms = model.load_timeout_ms + kHostGraceMs;
    if (out.is_pinned)
      pinned += out.planned;
    stop_timeout_ms = std::max(stop_timeout_ms, model.stop_timeout_ms);
    config.models.push_back(std::move(out));
  }
  // Stop signal, SIGKILL, a second look at the memory.
  limits.unload_timeout_ms = std::max(limits.unload_timeout_ms, stop_timeout_ms + 2 * kHostGraceMs);
  if (!pinned.fits_in(limits.ceiling)) {
    return fail(
        ErrorCode::kTooLarge,
        fmt::format("pinned models need {} of RAM and {} of VRAM, the ceilings are {} and {}",
                    format_bytes(static_cast<uint64_t>(pinned.ram)),
                    format_bytes(static_cast<uint64_t>(pinned.vram)),
                    format_bytes(static_cast<uint64_t>(limits.ceiling.ram)),
                    format_bytes(static_cast<uint64_t>(limits.ceiling.vram))),
        {}, "unpin one, or raise ram or vram");
  }
  return config;
}

ExternalOptions external_options(const SwapSettings& settings, size_t model) {
  const ModelSettings& from = settings.models[model];
  ExternalOptions out;
  out.command = from.command;
  out.health_path = from.health_path;
  out.fixed_port = from.port;
  out.first_port = settings.first_port;
  out.last_port = settings.last_port;
  out.log_path = from.log_path;
  out.stop_signal = from.stop_signal;
  out.stop_timeout_ms = from.stop_timeout_ms;
  out.load_timeout_ms = from.load_timeout_ms;
  out.planned = {from.ram_bytes.value_or(0), from.vram_bytes};
  out.is_measured = from.is_measured;
  return out;
}

Result<Route> route_request(const SwapSettings& settings, std::string_view name,
                            bool has_pictures) {
  const std::string_view wanted = name.empty() ? settings.default_model : name;
  const auto& models = settings.models;
  const auto found = std::find_if(models.begin(), models.end(), [&](const ModelSettings& model) {
    return model.name == wanted ||
           std::find(model.aliases.begin(), model.aliases.end(), wanted) != model.aliases.end();
  });
  if (found == models.end()) {
    return fail(ErrorCode::kNotFound, fmt::format("no model {}", printable(wanted)), {},
                fmt::format("the models are: {}", names_of(settings)));
  }
  Route route;
  route.answers = static_cast<size_t>(found - models.begin());
  if (!has_pictures || found->role == ModelRole::kVision)
    return route;
  const auto vision = std::find_if(models.begin(), models.end(), [&](const ModelSettings& model) {
    return model.group == found->group && model.role == ModelRole::kVision;
  });
  if (vision == models.end()) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("model {} reads no pictures, and group {} has no model that does",
                            printable(found->name), printable(found->group)),
                {}, "ask a vision model, or put one into the group");
  }
  const size_t vision_idx = static_cast<size_t>(vision - models.begin());
  for (const GroupSettings& group : settings.groups) {
    if (group.name == found->group && group.describe_then_answer) {
      route.describes = vision_idx;
      route.describe_prompt = group.describe_prompt;
      return route;
    }
  }
  route.answers = vision_idx;
  route.was_redirected = true;
  return route;
}

} // namespace pinhole
