// From the settings to what runs: the policy's configuration, the hosts of external models, and
// which models answer a request.
#pragma once

#include "base/result.h"
#include "swap/external_process.h"
#include "swap/settings.h"

#include <cstddef>
#include <string_view>
#include <vector>

namespace pinhole {

// models[i] is settings.models[i]. In-process models must have their ram_bytes by now, from a plan.
// `usable_bytes` is the ceiling where the settings have none.
Result<SwapConfig> swap_config(const SwapSettings& settings, int64_t usable_bytes);

// For ExternalProcess; settings.models[model] has a command.
ExternalOptions external_options(const SwapSettings& settings, size_t model);

// Which models a request needs, in this order, one lease at a time.
struct Route {
  size_t answers = 0;
  std::optional<size_t> describes; // first: the pictures become text for `answers`
  std::string describe_prompt;
  bool was_redirected = false; // the pictures went to the vision model of the group
};

// `name` is a name or an alias; empty: the default.
Result<Route> route_request(const SwapSettings& settings, std::string_view name, bool has_pictures);

} // namespace pinhole
