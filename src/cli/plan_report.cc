#include "cli/plan_report.h"

#include "answer/loaded_model.h"
#include "cli/common.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole::cli {

namespace {

constexpr int64_t kHardlyAny = 32 << 20; // bytes that are not worth a word, or a measurement

int64_t uncached_bytes(const ModelFiles& files) {
  uint64_t bytes = 0;
  for (const ModelFile* file : {&files.text, files.projector ? &*files.projector : nullptr}) {
    if (file == nullptr)
      continue;
    for (const MappedFile& part : file->parts())
      bytes += part.bytes().size() - part.cached_bytes();
  }
  const auto all = static_cast<int64_t>(bytes);
  return all < kHardlyAny ? 0 : all;
}

// Whether such a run stays in memory whole; where the one that was asked for is streamed, whether
// it runs at all.
bool does_as_well(const PlannedRun& asked, const PlannedRun& other) {
  return other.verdict() == Verdict::kFits ||
         (other.verdict() == Verdict::kStreams && asked.residency.streams());
}

Status find_room(const PlanRequest& request, const KernelChoice& kernels, PlanReport& report) {
  const auto accepts = [&](const PlannedRun& other) { return does_as_well(report.run, other); };
  report.longest_context_tokens =
      longest_context(report.model, request, kernels, report.place, accepts);
  const Size size = largest_picture(report.model, request, kernels, report.place, accepts);
  if (size.width > 0) {
    PINHOLE_TRY(report.largest_picture,
                plan_picture(size.width, size.height, "", *report.model.pictures, request.picture));
  }
  return {};
}

} // namespace

Result<PlanReport> make_report(const PlanRequest& request, const KernelChoice& kernels,
                               const Place& place) {
  PlanReport report;
  report.path = shown_name(request.path);
  report.place = place;
  PINHOLE_TRY(report.files,
              ModelFiles::open_to_plan(request.path, request.mmproj, request.on_fetch));
  report.config_only = report.files.text.config_only();
  report.remote = is_url(request.path);
  if (!report.remote && !place.machine)
    report.uncached_bytes = uncached_bytes(report.files);
  PINHOLE_TRY(report.model, describe_model(report.files));
  if (!report.config_only)
    report.model.vocabulary_bytes = measure_vocabulary(report.files.text);
  // Counted before a recipe changes what the weights are.
  report.transformers = transformers_footprint(report.model);
  if (!request.weights.empty())
    PINHOLE_CHECK(apply_recipe(request.weights, report.model));
  report.roles = bytes_by_role(report.model);
  PINHOLE_TRY(report.run, plan_run(report.model, request, kernels, place));
  const MemoryPlan& memory = report.run.memory;
  report.prefill_arena_bytes = memory.text.arena_bytes;
  report.decode_arena_bytes =
      lay_out(report.model.text, {request.parallel, request.parallel}, memory.shape.context_tokens,
              memory.text.kernels, memory.shape.feature_tokens)
          .arena_bytes;
  PINHOLE_CHECK(find_room(request, kernels, report));
  if (report.run.question.prompt_tokens > request.context_tokens) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("pictures and prompt take {} tokens, the context has {}",
                            report.run.question.prompt_tokens, request.context_tokens),
                report.path, "raise --ctx, or send smaller pictures (--max-image-tokens)");
  }
  return report;
}

namespace {

Json speed_to_json(const PlannedRun& run, const SpeedPlan& speed) {
  const auto conversations = static_cast<double>(run.question.parallel);
  return {{"prompt_tokens", run.question.prompt_tokens},
          {"map_seconds", speed.map_seconds},
          {"touch_seconds", speed.touch_seconds},
          {"picture_seconds", speed.picture_seconds},
          {"encode_seconds", speed.encode_seconds},
          {"prefill_seconds", speed.prefill_seconds},
          {"first_token_seconds", speed.first_token_seconds()},
          {"tokens_per_second", conversations / speed.decode_seconds},
          {"tokens_per_second_full_context", conversations / speed.decode_full_seconds}};
}

Json pictures_to_json(const Model& model, const std::vector<Picture>& pictures) {
  Json out = Json::array();
  for (const Picture& picture : pictures) {
    Json one = {{"width", picture.width_px},
                {"height", picture.height_px},
                {"read_at", {picture.target.width, picture.target.height}},
                {"patches", picture.pieces * picture.grid.patches()},
                {"tokens", picture.tokens}};
    if (model.cache.has_cross())
      one["cached_tokens"] = picture.feature_tokens();
    out.push_back(std::move(one));
  }
  return out;
}

Json offload_to_json(const Offload& offload) {
  return {{"limit_bytes", offload.limit_bytes},
          {"used_bytes", offload.used_bytes},
          {"weight_bytes", offload.weight_bytes},
          {"kv_cache_bytes", offload.cache_bytes},
          {"layers", offload.layers},
          {"total_layers", offload.total_layers},
          {"vision", offload.vision},
          {"output", offload.output}};
}

} // namespace

Json report_to_json(const PlanReport& report, bool layers) {
  const Model& model = report.model;
  const MemoryPlan& memory = report.run.memory;
  const Residency& residency = report.run.residency;
  Json out = {{"path", report.path},
              {"name", model.name},
              {"family", model.family},
              {"from_config_only", report.config_only},
              {"parameters", report.transformers.parameters},
              {"context_tokens", memory.shape.context_tokens},
              {"parallel", memory.shape.parallel},
              {"weights", Json::object()}};
  for (const RoleBytes& role : report.roles)
    out["weights"][std::string(role_name(role.role))] = {
        {"tensors", role.tensors}, {"elements", role.elements}, {"bytes", role.bytes}};
  out["memory_bytes"] = {
      {"weights_mapped", memory.mapped_bytes},
      {"weights_looked_up", memory.looked_up_bytes},
      {"arena", memory.arena_bytes},
      {"arena_encode", memory.vision.arena_bytes},
      {"arena_prefill", report.prefill_arena_bytes},
      {"arena_decode", report.decode_arena_bytes},
      {"kv_cache", memory.kv_cache_bytes},
      {"kv_cache_per_token",
       memory.kv_cache_bytes /
           std::max<int64_t>(memory.shape.context_tokens * memory.shape.parallel, 1)},
      {"picture_cache", memory.picture_cache_bytes},
      {"picture_embeddings", memory.features_bytes},
      {"picture_decoding", memory.picture_io_bytes},
      {"program", memory.fixed_bytes},
      {"program_mapped", memory.program_mapped_bytes},
      {"anonymous", memory.anonymous_bytes()},
      {"needed", report.run.needed_bytes()},
      {"first_question", report.run.first_question_bytes},
      {"limit", report.place.ram.bytes}};
  if (residency.streams()) {
    out["streaming_bytes"] = {{"resident", residency.resident_bytes},
                              {"window", residency.window_bytes},
                              {"expert_cache", residency.expert_cache_bytes},
                              {"experts", residency.expert_bytes},
                              {"per_token", residency.streamed_text_bytes},
                              {"per_picture", residency.streamed_vision_bytes},
                              {"peak", residency.peak_bytes(memory)}};
  }
  if (report.place.machine)
    out["machine"] = report.place.machine->name;
  if (report.place.gpu_bytes > 0)
    out["gpu"] = offload_to_json(report.run.offload);
  out["limit_source"] = report.place.ram.source;
  out["verdict"] = verdict_name(report.run.verdict());
  out["room"] = {{"longest_context_tokens", report.longest_context_tokens},
                 {"largest_picture",
                  {{"width", report.largest_picture.width_px},
                   {"height", report.largest_picture.height_px},
                   {"tokens", report.largest_picture.tokens}}}};
  out["pictures"] = pictures_to_json(model, report.run.pictures);
  out["speed"] = speed_to_json(report.run, report.speed);
  out["uncached_bytes"] = report.uncached_bytes;
  out["options"] = Json::array();
  for (const PlanOption& option : report.options) {
    Json one = {{"what", option.what},
                {"weights", option.weights},
                {"weight_bytes", option.weight_bytes},
                {"context_tokens", option.context_tokens},
                {"pictures", pictures_to_json(model, option.run.pictures)},
                {"needed_bytes", option.run.needed_bytes()},
                {"verdict", verdict_name(option.run.verdict())},
                {"speed", speed_to_json(option.run, option.speed)}};
    if (report.place.gpu_bytes > 0)
      one["gpu"] = offload_to_json(option.run.offload);
    out["options"].push_back(std::move(one));
  }
  out["transformers_bytes"] = {{"float32", report.transformers.float32_bytes()},
                               {"bfloat16", report.transformers.bfloat16_bytes()},
                               {"nf4", report.transformers.nf4_bytes()},
                               {"nf4_constants", report.transformers.nf4_constant_bytes()}};
  if (layers) {
    out["layers"] = Json::array();
    for (const BlockCost& block : report.speed.blocks) {
      out["layers"].push_back({{"block", block.block},
                               {"on_gpu", block.on_gpu},
                               {"weight_bytes", block.weight_bytes},
                               {"disk_seconds", block.disk_seconds},
                               {"link_seconds", block.link_seconds},
                               {"prefill_seconds", block.prefill_seconds},
                               {"decode_seconds", block.decode_seconds}});
    }
  }
  out["rates"] = rates_to_json(report.rates);
  return out;
}

} // namespace pinhole::cli
