#include "plan/offload.h"

#include "plan/recipe.h"

#include <algorithm>

namespace pinhole {

namespace {

// Matrices of text block `block`; -1: the output matrix.
int64_t block_bytes(const Graph& graph, int32_t block) {
  int64_t bytes = 0;
  for (const Op& op : graph.ops())
    bytes += op.block == block ? op_weight_bytes(graph, op) : 0;
  return bytes;
}

} // namespace

Offload plan_offload(const Model& model, const MemoryPlan& plan, int64_t limit_bytes) {
  Offload out;
  out.limit_bytes = limit_bytes;
  out.total_layers = model.cache.layers;
  int64_t left = limit_bytes - plan.arena_bytes - plan.features_bytes - plan.picture_cache_bytes;
  if (limit_bytes == 0 || left <= 0)
    return out;
  const auto take = [&](int64_t weights, int64_t cache) {
    if (weights + cache > left)
      return false;
    left -= weights + cache;
    out.weight_bytes += weights;
    out.cache_bytes += cache;
    return true;
  };
  if (plan.shape.max_patches > 0) {
    int64_t vision = 0;
    for (const RoleBytes& role : bytes_by_role(model))
      vision += part_of(role.role) == Part::kText ? 0 : role.bytes;
    out.vision = take(vision, 0);
  }
  const int64_t layers = std::max<int64_t>(out.total_layers, 1);
  const int64_t cache = plan.kv_cache_bytes / layers;
  while (
      out.layers < out.total_layers &&
      take(block_bytes(model.text, static_cast<int32_t>(out.total_layers - out.layers - 1)), cache))
    ++out.layers;
  out.output = out.layers == out.total_layers && take(block_bytes(model.text, -1), 0);
  if (out.any())
    out.used_bytes = limit_bytes - left;
  return out;
}

MemoryPlan without(const Offload& offload, const MemoryPlan& plan) {
  MemoryPlan out = plan;
  out.mapped_bytes -= std::min(offload.weight_bytes, plan.mapped_bytes);
  out.kv_cache_bytes -= std::min(offload.cache_bytes, plan.kv_cache_bytes);
  if (offload.all()) { // nothing is computed in RAM
    out.arena_bytes = 0;
    out.features_bytes = 0;
    out.picture_cache_bytes = 0;
  }
  return out;
}

} // namespace pinhole
