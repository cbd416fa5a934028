// One way to run a model, planned: pictures, context, where its weights lie, how fast it is.
#pragma once

#include "answer/picture.h"
#include "cli/common.h"
#include "plan/known_machine.h"
#include "plan/speed.h"

#include <optional>
#include <string>
#include <vector>

namespace pinhole::cli {

// A picture to plan for: a size, or a file that has one.
struct PlannedImage {
  Size size;
  int64_t file_bytes = 0; // 0: there is no file
};
// WIDTHxHEIGHT, or the path of a picture, whose header is read.
Result<PlannedImage> parse_image(const std::string& text);

struct PlanRequest {
  std::string path, mmproj;
  std::string weights; // a recipe (plan/recipe.h); empty: as the files are
  std::vector<PlannedImage> images;
  int64_t context_tokens = 4096;
  int64_t chunk_tokens = 512;
  int64_t text_tokens = 64; // of the prompt, beside its pictures
  int64_t parallel = 1;     // conversations at the same time
  PictureOptions picture;
  FetchProgress on_fetch; // of a model that is read over the network
};

// What a run is planned for.
struct Place {
  MemoryBudget ram;
  std::optional<KnownMachine> machine; // instead of this one
  int64_t gpu_bytes = 0;               // of a GPU's memory that may be used; 0: no GPU
  bool unified = false;                // the GPU's memory is a share of the RAM
  KnownMachine gpu;                    // whose rates a GPU is taken to have
};
// From --ram, --machine, --vram, --gpu-share (0: the usual share). Each may be empty.
Result<Place> find_place(const std::string& ram, const std::string& machine,
                         const std::string& vram, double gpu_share);

enum class Verdict {
  kFits,    // everything stays in memory
  kStreams, // it runs, with weights that are read from the disk again for every token
  kNone,    // what must stay in memory is more than the limit
};
std::string_view verdict_name(Verdict verdict);

struct PlannedRun {
  std::vector<Picture> pictures;
  MemoryPlan memory; // the whole run's
  MemoryPlan in_ram; // of it what the RAM holds: all of it where no GPU has memory of its own
  Offload offload;
  Residency residency; // when it streams
  std::string refusal; // why it does not fit at all
  QuestionShape question;

  int64_t needed_bytes() const {
    return in_ram.anonymous_bytes() + in_ram.mapped_bytes + in_ram.program_mapped_bytes;
  }
  // What is in memory at the peak of a first question that fills the context, where nothing is
  // streamed.
  int64_t first_question_bytes = 0;
  Verdict verdict() const;
};

// An error when the request itself is wrong; what does not fit is a refusal.
Result<PlannedRun> plan_run(const Model& model, const PlanRequest& request,
                            const KernelChoice& kernels, const Place& place);

// `uncached_bytes` of the files are on the disk alone.
SpeedPlan speed_of(const Model& model, const PlannedRun& run, const KernelChoice& kernels,
                   const KernelRates& rates, const Place& place, int64_t uncached_bytes);

// The most that would be in memory with everything else as asked, in whole steps of context tokens
// and 4:3 pictures; 0: not even the least. `accepts` judges a run.
int64_t longest_context(const Model& model, const PlanRequest& request, const KernelChoice& kernels,
                        const Place& place, FunctionRef<bool(const PlannedRun&)> accepts);
Size largest_picture(const Model& model, const PlanRequest& request, const KernelChoice& kernels,
                     const Place& place, FunctionRef<bool(const PlannedRun&)> accepts);

} // namespace pinhole::cli
