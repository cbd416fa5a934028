#include "cli/plan_report.h"

#include "cli/common.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole::cli {

namespace {

constexpr int64_t kContextStep = 256;

RunShape run_shape(const PlanRequest& request, const std::vector<Picture>& pictures) {
  RunShape shape;
  shape.context_tokens = request.context_tokens;
  shape.chunk_tokens = request.chunk_tokens;
  add_pictures(pictures, shape);
  return shape;
}

Result<std::vector<Picture>> plan_pictures(const PlanRequest& request, const Model& model) {
  std::vector<Picture> out;
  for (const Size& size : request.images) {
    if (!model.pictures) {
      return fail(ErrorCode::kUnsupported, "this model has no vision part",
                  shown_name(request.path),
                  "give its projector with --mmproj, or plan without pictures: --image none");
    }
    PINHOLE_TRY(Picture picture,
                plan_picture(size.width, size.height, fmt::format("{}x{}", size.width, size.height),
                             *model.pictures, request.picture));
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

// Whether such a run stays in memory whole; where the one that was asked for is streamed, whether
// it runs at all.
bool fits(const PlanReport& report, const RunShape& shape, const KernelChoice& kernels) {
  const auto plan = plan_memory(report.model, shape, kernels);
  if (!plan)
    return false;
  const auto residency = plan_residency(report.model, *plan, report.limit.bytes);
  return residency && (!residency->streams() || report.residency.streams());
}

void find_room(const PlanRequest& request, const KernelChoice& kernels, PlanReport& report) {
  const RunShape shape = run_shape(request, report.pictures);
  report.longest_context_tokens =
      kContextStep * largest(report.model.context_length / kContextStep, [&](int64_t steps) {
        RunShape longer = shape;
        longer.context_tokens = steps * kContextStep;
        return fits(report, longer, kernels);
      });
  if (!report.model.pictures)
    return;
  // 4:3, as sides in steps of one token; up to the model's own bound.
  const PictureSpec& spec = *report.model.pictures;
  const int64_t side = spec.patch_size * spec.merge_size;
  const auto picture_of = [&](int64_t steps) {
    const int64_t height = std::max<int64_t>(side, steps * 3 / 4 * side);
    return plan_picture(steps * side, height, "", spec, request.picture);
  };
  const int64_t steps = largest(int64_t{1} << 12, [&](int64_t width) {
    const auto picture = picture_of(width);
    if (!picture || picture->target.width < width * side || picture->tokens > shape.context_tokens)
      return false;
    return fits(report, run_shape(request, {*picture}), kernels);
  });
  if (steps == 0)
    return;
  const auto picture = picture_of(steps);
  report.largest_picture = {picture->height_px, picture->width_px};
  report.largest_picture_tokens = picture->tokens;
}

} // namespace

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

Verdict PlanReport::verdict() const {
  if (!refusal.empty())
    return Verdict::kNone;
  return residency.streams() ? Verdict::kStreams : Verdict::kFits;
}

Result<PlanReport> make_report(const PlanRequest& request, const KernelChoice& kernels,
                               const MemoryBudget& limit) {
  PlanReport report;
  report.path = shown_name(request.path);
  report.limit = limit;
  PINHOLE_TRY(report.files,
              ModelFiles::open_to_plan(request.path, request.mmproj, request.on_fetch));
  report.config_only = report.files.text.config_only();
  PINHOLE_TRY(report.model, describe_model(report.files));
  // Counted before a recipe changes what the weights are.
  report.transformers = transformers_footprint(report.model);
  if (!request.weights.empty())
    PINHOLE_CHECK(apply_recipe(request.weights, report.model));
  report.roles = bytes_by_role(report.model);
  if (request.context_tokens > report.model.context_length) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("a context of {} tokens, the model was made for {}",
                            request.context_tokens, report.model.context_length),
                report.path, "lower --ctx");
  }
  PINHOLE_TRY(report.pictures, plan_pictures(request, report.model));
  const RunShape shape = run_shape(request, report.pictures);
  PINHOLE_TRY(report.memory, plan_memory(report.model, shape, kernels));
  report.prefill_arena_bytes = report.memory.text.arena_bytes;
  report.decode_arena_bytes =
      lay_out(report.model.text, {1, 1}, shape.context_tokens, report.memory.text.kernels)
          .arena_bytes;
  auto residency = plan_residency(report.model, report.memory, limit.bytes);
  if (residency)
    report.residency = std::move(*residency);
  else
    report.refusal = residency.error().text();
  find_room(request, kernels, report);
  report.question.chunk_tokens = report.memory.shape.chunk_tokens;
  report.question.context_tokens = shape.context_tokens;
  report.question.prompt_tokens = request.text_tokens + shape.feature_tokens;
  for (const Picture& picture : report.pictures)
    report.question.picture_patches.push_back(picture.grid.patches());
  if (report.question.prompt_tokens > shape.context_tokens) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("pictures and prompt take {} tokens, the context has {}",
                            report.question.prompt_tokens, shape.context_tokens),
                report.path, "raise --ctx, or send smaller pictures (--max-image-tokens)");
  }
  return report;
}

void add_speed(const KernelChoice& kernels, const KernelRates& rates, PlanReport& report) {
  report.speed =
      plan_speed(report.model, report.question, kernels.kv_type, rates, report.residency);
}

Json report_to_json(const PlanReport& report, const KernelRates& rates, bool layers) {
  const Model& model = report.model;
  const MemoryPlan& memory = report.memory;
  Json out = {{"path", report.path},
              {"name", model.name},
              {"family", model.family},
              {"from_config_only", report.config_only},
              {"parameters", report.transformers.parameters},
              {"context_tokens", memory.shape.context_tokens},
              {"weights", Json::object()}};
  for (const RoleBytes& role : report.roles)
    out["weights"][std::string(role_name(role.role))] = {
        {"tensors", role.tensors}, {"elements", role.elements}, {"bytes", role.bytes}};
  out["memory_bytes"] = {
      {"weights_mapped", memory.mapped_bytes},
      {"arena", memory.arena_bytes},
      {"arena_encode", memory.vision.arena_bytes},
      {"arena_prefill", report.prefill_arena_bytes},
      {"arena_decode", report.decode_arena_bytes},
      {"kv_cache", memory.kv_cache_bytes},
      {"kv_cache_per_token",
       memory.kv_cache_bytes / std::max<int64_t>(memory.shape.context_tokens, 1)},
      {"picture_embeddings", memory.features_bytes},
      {"picture_decoding", memory.picture_io_bytes},
      {"program", memory.fixed_bytes},
      {"program_mapped", kProgramFileBytes},
      {"anonymous", memory.anonymous_bytes()},
      {"needed", report.needed_bytes()},
      {"limit", report.limit.bytes}};
  if (report.residency.streams()) {
    out["streaming_bytes"] = {{"resident", report.residency.resident_bytes},
                              {"window", report.residency.window_bytes},
                              {"expert_cache", report.residency.expert_cache_bytes},
                              {"experts", report.residency.expert_bytes},
                              {"per_token", report.residency.streamed_text_bytes},
                              {"per_picture", report.residency.streamed_vision_bytes},
                              {"peak", report.residency.peak_bytes(memory)}};
  }
  out["limit_source"] = report.limit.source;
  out["verdict"] = verdict_name(report.verdict());
  out["room"] = {{"longest_context_tokens", report.longest_context_tokens},
                 {"largest_picture",
                  {{"width", report.largest_picture.width},
                   {"height", report.largest_picture.height},
                   {"tokens", report.largest_picture_tokens}}}};
  out["pictures"] = Json::array();
  for (const Picture& picture : report.pictures) {
    out["pictures"].push_back({{"width", picture.width_px},
                               {"height", picture.height_px},
                               {"read_at", {picture.target.width, picture.target.height}},
                               {"patches", picture.grid.patches()},
                               {"tokens", picture.tokens}});
  }
  const SpeedPlan& speed = report.speed;
  out["speed"] = {{"prompt_tokens", report.question.prompt_tokens},
                  {"map_seconds", speed.map_seconds},
                  {"encode_seconds", speed.encode_seconds},
                  {"prefill_seconds", speed.prefill_seconds},
                  {"first_token_seconds", speed.first_token_seconds()},
                  {"tokens_per_second", 1 / speed.decode_seconds},
                  {"tokens_per_second_full_context", 1 / speed.decode_full_seconds}};
  out["transformers_bytes"] = {{"float32", report.transformers.float32_bytes()},
                               {"bfloat16", report.transformers.bfloat16_bytes()},
                               {"nf4", report.transformers.nf4_bytes()},
                               {"nf4_constants", report.transformers.nf4_constant_bytes()}};
  if (layers) {
    out["layers"] = Json::array();
    for (const BlockCost& block : speed.blocks) {
      out["layers"].push_back({{"block", block.block},
                               {"weight_bytes", block.weight_bytes},
                               {"prefill_seconds", block.prefill_seconds},
                               {"decode_seconds", block.decode_seconds}});
    }
  }
  out["rates"] = rates_to_json(rates);
  return out;
}

} // namespace pinhole::cli
