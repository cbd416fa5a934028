#include "plan/memory.h"

#include "base/checked.h"
#include "plan/recipe.h"

#include <algorithm>
#include <fmt/format.h>
#include <set>

namespace pinhole {

namespace {

// Libraries' and the program's own data, the description of the model among them; and the
// tokenizer's tables per entry, where only a configuration tells of them. Measured on the models
// of docs/performance.md, which has the command.
constexpr int64_t kProgramBytes = 15 << 16;
constexpr int64_t kBytesPerVocabularyEntry = 80;
// Code and libraries, mapped: 13.2 MiB on the bundled model, a MiB more or less by what of them a
// model and a picture need.
constexpr int64_t kProgramFileBytes = 53 << 18;
// Choosing a token: logits, their order, what was seen. The first conversation's are in the above.
constexpr int64_t kSamplerBytesPerToken = 13;
constexpr int64_t kMaxCacheBytes = int64_t{1} << 50; // nothing real is near it

// A graph whose matrices are all F32 is computed in F32: who keeps such a file wants the precision.
KernelChoice choice_for(const Graph& graph, KernelChoice kernels) {
  bool all_f32 = true;
  for (const Weight& weight : graph.weights()) {
    all_f32 = all_f32 && (weight.rows == 1 || weight.format == FormatId::kF32);
  }
  kernels.exact = kernels.exact || all_f32;
  return kernels;
}

int64_t looked_up_bytes(const Model& model) {
  int64_t bytes = 0;
  for (const Op& op : model.text.ops()) {
    if (!only_looks_up(model, op))
      continue;
    const Weight& table = model.text.weight(op.weight);
    bytes += row_bytes(table.format, table.cols) * table.rows;
  }
  return bytes;
}

// Of tensors that are read only where there are pictures.
int64_t vision_bytes(const Model& model) {
  std::set<const Tensor*> others;
  for (const Op& op : model.text.ops()) {
    if (!op.needs_pictures)
      for_weights(op, [&](WeightId id) { others.insert(model.text.weight(id).tensor); });
  }
  return bytes_of_tensors(model, [&](const Tensor* tensor) { return !others.contains(tensor); });
}

} // namespace

int64_t kv_row_bytes(kernels::KvType type, int64_t head_dim) {
  switch (type) {
  case kernels::KvType::kF32:
    return head_dim * 4;
  case kernels::KvType::kF16:
    return head_dim * 2;
  case kernels::KvType::kQ8_0:
    return row_bytes(FormatId::kQ8_0, head_dim);
  }
  return 0;
}

int64_t kv_bytes_per_token(const CacheSpec& cache, kernels::KvType type) {
  return 2 * (cache.layers - cache.cross_layers()) * cache.kv_heads *
         kv_row_bytes(type, cache.head_dim);
}

int64_t picture_bytes_per_token(const CacheSpec& cache, kernels::KvType type) {
  return 2 * cache.cross_layers() * cache.kv_heads * kv_row_bytes(type, cache.head_dim);
}

int64_t kv_rows(const CacheSpec& cache, int64_t layer, const RunShape& shape) {
  if (cache.is_cross(layer))
    return 0;
  if (!cache.is_sliding(layer))
    return shape.context_tokens;
  return std::min(shape.context_tokens, cache.window - 1 + kSpareTokens + shape.chunk_tokens);
}

int64_t kv_cache_bytes(const CacheSpec& cache, kernels::KvType type, const RunShape& shape) {
  int64_t rows = 0;
  for (int64_t layer = 0; layer < cache.layers; ++layer)
    rows += kv_rows(cache, layer, shape);
  return 2 * rows * cache.kv_heads * kv_row_bytes(type, cache.head_dim);
}

int64_t touched_bytes(const MemoryPlan& plan, const CacheSpec& cache, kernels::KvType type,
                      int64_t prompt_tokens) {
  constexpr int64_t kLargePage = 2 << 20;
  int64_t bytes = plan.arena_bytes + plan.features_bytes + plan.picture_cache_bytes;
  const int64_t row_bytes = kv_row_bytes(type, cache.head_dim);
  for (int64_t layer = 0; layer < cache.layers; ++layer) {
    const int64_t head_bytes = kv_rows(cache, layer, plan.shape) * row_bytes;
    bytes +=
        2 * cache.kv_heads * std::min(head_bytes, round_up(prompt_tokens * row_bytes, kLargePage));
  }
  return bytes;
}

int64_t first_question_bytes(const Model& model, const MemoryPlan& plan, int64_t prompt_tokens) {
  const RowBinding rows{std::clamp<int64_t>(prompt_tokens, 1, plan.text.max_rows.items),
                        plan.text.max_rows.outputs};
  const int64_t prefill_bytes = lay_out(model.text, rows, plan.shape.context_tokens,
                                        plan.text.kernels, plan.shape.feature_tokens)
                                    .arena_bytes;
  const int64_t arena_bytes = plan.vision_offset_bytes > 0
                                  ? plan.vision.arena_bytes + prefill_bytes
                                  : std::max(plan.vision.arena_bytes, prefill_bytes);
  return plan.fixed_bytes + plan.features_bytes + plan.picture_cache_bytes +
         std::max(plan.vision.arena_bytes + plan.picture_io_bytes,
                  arena_bytes + plan.kv_cache_bytes);
}

std::vector<MemoryPart> MemoryPlan::parts() const {
  std::vector<MemoryPart> parts = {{"compute arena", arena_bytes}, {"KV cache", kv_cache_bytes}};
  if (picture_cache_bytes > 0)
    parts.push_back({"picture cache", picture_cache_bytes});
  parts.insert(parts.end(), {{"picture embeddings", features_bytes},
                             {"picture decoding", picture_io_bytes},
                             {"program and vocabulary", fixed_bytes}});
  return parts;
}

Result<MemoryPlan> plan_memory(const Model& model, const RunShape& shape,
                               const KernelChoice& kernels) {
  if (kernels.kv_type == kernels::KvType::kQ8_0 && model.cache.head_dim % 32 != 0) {
    return fail(
        ErrorCode::kUnsupported,
        fmt::format("a q8_0 KV cache needs a head_dim that is a multiple of 32, this model's "
                    "is {}",
                    model.cache.head_dim),
        {}, "use --kv-type f16");
  }
  MemoryPlan plan;
  plan.shape = shape;
  if (shape.max_patches > 0 && model.pictures && model.pictures->sees_itself_whole) {
    const int64_t unit = model.pictures->merge_size * model.pictures->merge_size;
    plan.shape.chunk_tokens =
        std::max(shape.chunk_tokens, shape.max_patches / unit + shape.parallel - 1);
  }
  // A step takes a token of every conversation.
  plan.shape.chunk_tokens =
      std::max(std::min(plan.shape.chunk_tokens, shape.context_tokens), shape.parallel);
  plan.shape.output_rows =
      std::min(std::max(shape.output_rows, shape.parallel), plan.shape.chunk_tokens);
  plan.text = lay_out(model.text, {plan.shape.chunk_tokens, plan.shape.output_rows},
                      shape.context_tokens, choice_for(model.text, kernels), shape.feature_tokens);
  plan.arena_bytes = plan.text.arena_bytes;
  if (shape.max_patches > 0 && model.pictures) {
    plan.vision = lay_out(model.vision, {shape.max_patches, 0}, shape.max_patches,
                          choice_for(model.vision, kernels));
    if (shape.parallel > 1)
      plan.vision_offset_bytes = round_up(plan.text.arena_bytes, kAlignment);
    plan.arena_bytes =
        std::max(plan.arena_bytes, plan.vision_offset_bytes + plan.vision.arena_bytes);
    plan.features_bytes =
        shape.feature_tokens * model.pictures->feature_slots * model.pictures->feature_size * 4;
    plan.picture_cache_bytes =
        shape.feature_tokens * picture_bytes_per_token(model.cache, kernels.kv_type);
    plan.picture_io_bytes = shape.picture_io_bytes;
  }
  const int64_t per_token = kv_bytes_per_token(model.cache, kernels.kv_type);
  if (shape.context_tokens >
      kMaxCacheBytes / std::max<int64_t>(per_token, 1) / std::max<int64_t>(shape.parallel, 1)) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("{} KV caches of {} tokens of {} bytes", shape.parallel,
                            shape.context_tokens, per_token),
                {}, "lower --ctx");
  }
  plan.kv_cache_bytes = shape.parallel * kv_cache_bytes(model.cache, kernels.kv_type, plan.shape);
  plan.fixed_bytes = kProgramBytes +
                     (model.vocabulary_bytes > 0 ? model.vocabulary_bytes
                                                 : model.vocab_size * kBytesPerVocabularyEntry) +
                     (shape.parallel - 1) * model.vocab_size * kSamplerBytesPerToken;
  plan.looked_up_bytes = looked_up_bytes(model);
  plan.mapped_bytes = static_cast<int64_t>(model.weight_bytes) - plan.looked_up_bytes -
                      (shape.max_patches > 0 ? 0 : vision_bytes(model));
  plan.program_mapped_bytes = kProgramFileBytes + static_cast<int64_t>(model.header_bytes);
  return plan;
}

} // namespace pinhole
