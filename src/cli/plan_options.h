// What would do instead: other quantisations, contexts, pictures and layers on a GPU that fit where
// the plan is for, found by search.
#pragma once

#include "cli/planned_run.h"

#include <string>
#include <string_view>
#include <vector>

namespace pinhole::cli {

// One that is worth showing.
struct PlanOption {
  std::string what;    // "longest context" ...
  std::string weights; // a recipe, or "as they are"
  int64_t weight_bytes = 0;
  int64_t context_tokens = 0;
  PlannedRun run;
  SpeedPlan speed;
};

// A model with one of the quantisations that are searched.
struct QuantisedModel {
  std::string weights;
  Model model;
};
// The model itself first, then what recipes make smaller of it, the largest first.
std::vector<QuantisedModel> quantised_models(const Model& model, const std::string& weights);

// At most six, each the best at something: the least quantised that fits as asked, the fastest, the
// longest context, the largest picture, everything on the GPU; where nothing fits as asked, what
// has to give way.
std::vector<PlanOption> find_options(const std::vector<QuantisedModel>& models,
                                     const PlanRequest& request, const KernelChoice& kernels,
                                     const KernelRates& rates, const Place& place);

} // namespace pinhole::cli
