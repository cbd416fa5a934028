// What `pinhole plan` knows about one model before anything is loaded.
#pragma once

#include "answer/picture.h"
#include "base/json.h"
#include "cli/common.h"
#include "plan/recipe.h"
#include "plan/residency.h"
#include "plan/speed.h"

#include <string>
#include <vector>

namespace pinhole::cli {

struct PlanRequest {
  std::string path, mmproj;
  std::string weights; // a recipe (plan/recipe.h); empty: as the files are
  std::vector<Size> images;
  int64_t context_tokens = 4096;
  int64_t chunk_tokens = 512;
  int64_t text_tokens = 64; // of the prompt, beside its pictures
  PictureOptions picture;
  FetchProgress on_fetch; // of a model that is read over the network
};

enum class Verdict {
  kFits,    // everything stays in memory
  kStreams, // it runs, with weights that are read from the disk again for every token
  kNone,    // what must stay in memory is more than the limit
};
std::string_view verdict_name(Verdict verdict);

struct PlanReport {
  std::string path;
  ModelFiles files; // the model points into them
  Model model;
  bool config_only = false;
  std::vector<RoleBytes> roles;
  std::vector<Picture> pictures;
  MemoryPlan memory;
  Residency residency;                                     // when it streams
  std::string refusal;                                     // why it does not fit at all
  int64_t prefill_arena_bytes = 0, decode_arena_bytes = 0; // what these alone would need
  TransformersFootprint transformers;
  QuestionShape question;
  SpeedPlan speed;
  MemoryBudget limit;
  // With everything else as asked; 0: not even the least fits.
  int64_t longest_context_tokens = 0;
  Size largest_picture;
  int64_t largest_picture_tokens = 0;

  int64_t needed_bytes() const {
    return memory.anonymous_bytes() + memory.mapped_bytes + kProgramFileBytes;
  }
  Verdict verdict() const;
};

// Describes the model from its files' headers, or its configuration alone, and plans the run.
// Speeds are still missing: they need the kernels' rates (add_speed).
Result<PlanReport> make_report(const PlanRequest& request, const KernelChoice& kernels,
                               const MemoryBudget& limit);
void add_speed(const KernelChoice& kernels, const KernelRates& rates, PlanReport& report);

Json report_to_json(const PlanReport& report, const KernelRates& rates, bool layers);
void print_report(const PlanReport& report, const KernelRates& rates);
void print_layers(const PlanReport& report);
void print_explanation(const PlanReport& report);
// Several models, a line each.
void print_comparison(const std::vector<PlanReport>& reports);

} // namespace pinhole::cli
