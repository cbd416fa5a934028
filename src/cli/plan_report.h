// What `pinhole plan` knows about one model before anything is loaded.
#pragma once

#include "base/json.h"
#include "cli/plan_options.h"
#include "cli/planned_run.h"
#include "plan/recipe.h"

#include <string>
#include <vector>

namespace pinhole::cli {

struct PlanReport {
  std::string path;
  ModelFiles files; // the model points into them
  Model model;
  bool config_only = false;
  bool remote = false;
  int64_t uncached_bytes = 0; // of the files, which the page cache does not hold
  std::vector<RoleBytes> roles;
  PlannedRun run;
  Place place;
  int64_t prefill_arena_bytes = 0, decode_arena_bytes = 0; // what these alone would need
  TransformersFootprint transformers;
  KernelRates rates; // that the speed follows from
  SpeedPlan speed;
  // With everything else as asked; 0: not even the least fits.
  int64_t longest_context_tokens = 0;
  Picture largest_picture;
  std::vector<PlanOption> options; // what else would do; best first
};

// Describes the model from its files' headers, or its configuration alone, and plans the run.
// Speeds are still missing: they need the kernels' rates.
Result<PlanReport> make_report(const PlanRequest& request, const KernelChoice& kernels,
                               const Place& place);

Json report_to_json(const PlanReport& report, bool layers);
void print_report(const PlanReport& report);
void print_layers(const PlanReport& report);
void print_explanation(const PlanReport& report);
// Several models, a line each.
void print_comparison(const std::vector<PlanReport>& reports);
// The parts of each model's memory as stacked bars against the limit: an SVG of its own.
std::string report_to_svg(const std::vector<PlanReport>& reports);

} // namespace pinhole::cli
