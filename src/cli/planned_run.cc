#include "cli/planned_run.h"

#include "base/memory_limit.h"
#include "base/units.h"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>

namespace pinhole::cli {

namespace {

constexpr int64_t kContextStep = 256;
// Whose GPU one is taken to be that is known by its memory alone: the slowest in the table.
constexpr std::string_view kUnknownGpu = "t4";

Result<int64_t> amount(const std::string& text, const std::string& option) {
  const auto bytes = parse_bytes(text);
  if (!bytes)
    return fail(ErrorCode::kInvalidInput, fmt::format("'{}' is no amount of memory", text), option,
                "give it as 16G or 800M");
  return *bytes;
}

Result<std::vector<Picture>> plan_pictures(const PlanRequest& request, const Model& model) {
  std::vector<Picture> out;
  for (const auto& [size, file_bytes] : request.images) {
    if (!model.pictures) {
      return fail(ErrorCode::kUnsupported, "this model has no vision part",
                  shown_name(request.path),
                  "give its projector with --mmproj, or plan without pictures: --image none");
    }
    PINHOLE_TRY(Picture picture,
                plan_picture(size.width, size.height, fmt::format("{}x{}", size.width, size.height),
                             *model.pictures, request.picture));
    if (file_bytes > 0)
      picture.file_bytes = file_bytes;
    out.push_back(std::move(picture));
  }
  return out;
}

// The largest value in [1, high] for which fits(value) holds, given that smaller ones fit too; 0:
// none.
int64_t largest(int64_t high, FunctionRef<bool(int64_t)> fits) {
  int64_t low = 0;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (fits(middle))
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

std::string shown(int64_t bytes) { return format_bytes(static_cast<uint64_t>(bytes)); }

// With a part of it on a GPU the rest must stay in RAM; where that is too much, or there is no GPU,
// weights may be streamed to the CPU.
void judge(const Model& model, const Place& place, PlannedRun& run) {
  if (run.offload.any() && run.needed_bytes() <= place.ram.bytes)
    return;
  auto residency = plan_residency(model, run.memory, place.ram.bytes);
  if (residency) {
    run.residency = std::move(*residency);
    run.offload = Offload{place.gpu_bytes, 0, 0, 0, 0, model.cache.layers, false, false};
    run.in_ram = run.memory;
  } else if (run.offload.any()) {
    run.refusal = fmt::format("{} of RAM are needed beside the GPU, {} are there",
                              shown(run.needed_bytes()), shown(place.ram.bytes));
  } else {
    run.refusal = residency.error().text();
  }
}

} // namespace

Result<PlannedImage> parse_image(const std::string& text) {
  auto size = parse_size(text);
  if (size)
    return PlannedImage{*size, 0};
  std::error_code error;
  if (!std::filesystem::is_regular_file(text, error)) {
    size.error().hint += ", or name a picture file";
    return tl::unexpected(std::move(size.error()));
  }
  PINHOLE_TRY(const MappedFile file, MappedFile::open(text));
  PINHOLE_TRY(const PictureInfo info, probe_picture(file.bytes(), text));
  return PlannedImage{{info.height, info.width}, static_cast<int64_t>(file.bytes().size())};
}

Result<Place> find_place(const std::string& ram, const std::string& machine,
                         const std::string& vram, double gpu_share) {
  Place place;
  if (!machine.empty() && machine != "this") {
    PINHOLE_TRY(place.machine, find_machine(machine));
  }
  if (place.machine && ram.empty()) {
    place.ram = {place.machine->ram_bytes, "RAM of " + std::string(place.machine->name)};
  } else {
    PINHOLE_TRY(place.ram, memory_budget(ram));
  }
  int64_t vram_bytes = place.machine ? place.machine->vram_bytes : 0;
  if (!vram.empty()) {
    PINHOLE_TRY(vram_bytes, amount(vram, "--vram"));
  }
  place.unified = vram.empty() && place.machine && place.machine->unified();
  if (place.unified)
    vram_bytes = place.ram.bytes;
  const double share = gpu_share > 0 ? gpu_share : place.unified ? kUnifiedShare : kVramShare;
  place.gpu_bytes = static_cast<int64_t>(share * static_cast<double>(vram_bytes));
  if (place.machine && place.machine->has_gpu()) {
    place.gpu = *place.machine;
  } else {
    PINHOLE_TRY(place.gpu, find_machine(kUnknownGpu));
  }
  return place;
}

std::string_view verdict_name(Verdict verdict) {
  switch (verdict) {
  case Verdict::kFits:
    return "fits";
  case Verdict::kStreams:
    return "streams";
  case Verdict::kNone:
    return "does not fit";
  }
  return "?";
}

Verdict PlannedRun::verdict() const {
  if (!refusal.empty())
    return Verdict::kNone;
  return residency.streams() ? Verdict::kStreams : Verdict::kFits;
}

Result<PlannedRun> plan_run(const Model& model, const PlanRequest& request,
                            const KernelChoice& kernels, const Place& place) {
  if (request.context_tokens > model.context_length) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("a context of {} tokens, the model was made for {}",
                            request.context_tokens, model.context_length),
                shown_name(request.path), "lower --ctx");
  }
  PlannedRun run;
  PINHOLE_TRY(run.pictures, plan_pictures(request, model));
  RunShape shape;
  shape.context_tokens = request.context_tokens;
  shape.chunk_tokens = request.chunk_tokens;
  shape.parallel = request.parallel;
  add_pictures(run.pictures, shape);
  PINHOLE_TRY(run.memory, plan_memory(model, shape, kernels));
  run.offload = plan_offload(model, run.memory, place.gpu_bytes);
  run.in_ram = place.unified ? run.memory : without(run.offload, run.memory);
  judge(model, place, run);
  run.question.chunk_tokens = run.memory.shape.chunk_tokens;
  run.question.context_tokens = shape.context_tokens;
  run.question.parallel = request.parallel;
  run.question.prompt_tokens = request.text_tokens;
  for (const Picture& picture : run.pictures) {
    run.question.prompt_tokens += picture.tokens;
  }
  add_pictures(run.pictures, model, run.question);
  run.first_question_bytes = first_question_bytes(model, run.memory, run.question.prompt_tokens) +
                             run.memory.mapped_bytes + run.memory.program_mapped_bytes;
  return run;
}

SpeedPlan speed_of(const Model& model, const PlannedRun& run, const KernelChoice& kernels,
                   const KernelRates& rates, const Place& place, int64_t uncached_bytes) {
  const Placement placement{
      place.machine ? cpu_rates(*place.machine) : rates,
      run.memory.mapped_bytes,
      touched_bytes(run.in_ram, model.cache, kernels.kv_type, run.question.prompt_tokens),
      run.residency,
      run.offload,
      gpu_rates(place.gpu),
      uncached_bytes};
  return plan_speed(model, run.question, kernels.kv_type, placement);
}

int64_t longest_context(const Model& model, const PlanRequest& request, const KernelChoice& kernels,
                        const Place& place, FunctionRef<bool(const PlannedRun&)> accepts) {
  return kContextStep * largest(model.context_length / kContextStep, [&](int64_t steps) {
           PlanRequest longer = request;
           longer.context_tokens = steps * kContextStep;
           const auto run = plan_run(model, longer, kernels, place);
           return run && accepts(*run);
         });
}

Size largest_picture(const Model& model, const PlanRequest& request, const KernelChoice& kernels,
                     const Place& place, FunctionRef<bool(const PlannedRun&)> accepts) {
  if (!model.pictures)
    return {};
  // As sides in steps of one token; up to the model's own bound.
  const int64_t side = model.pictures->patch_size * model.pictures->merge_size;
  const auto size_of = [&](int64_t steps) {
    return Size{std::max<int64_t>(side, steps * 3 / 4 * side), steps * side};
  };
  const int64_t steps = largest(int64_t{1} << 12, [&](int64_t width) {
    PlanRequest larger = request;
    larger.images = {{size_of(width), 0}};
    const auto run = plan_run(model, larger, kernels, place);
    return run && run->pictures[0].target.width >= width * side &&
           run->question.prompt_tokens <= request.context_tokens && accepts(*run);
  });
  return steps == 0 ? Size{} : size_of(steps);
}

} // namespace pinhole::cli
