// Which parts of a model a GPU's memory holds beside a CPU's: whole transformer blocks with their
// part of the KV cache, as programs with a GPU back end place them.
#pragma once

#include "plan/memory.h"
#include "plan/residency.h"

#include <cstdint>

namespace pinhole {

struct Offload {
  int64_t limit_bytes = 0;  // of the GPU's memory; 0: there is no GPU
  int64_t used_bytes = 0;   // of it: arena, blocks with their cache, vision, output matrix
  int64_t weight_bytes = 0; // of them weights, which the RAM need not hold
  int64_t cache_bytes = 0;  // of them KV cache
  int64_t layers = 0;       // text blocks [total - layers, total)
  int64_t total_layers = 0;
  bool vision = false; // the vision part, whole
  bool output = false; // the output matrix, the last to come

  bool any() const { return layers > 0 || vision || output; }
  bool all() const { return output && layers == total_layers; }
  // Whether an op of the text part with this block runs on the GPU.
  bool has_block(int32_t block) const {
    return block < 0 ? output : layers > 0 && block >= total_layers - layers;
  }
};

// The most that fits: the arena must; the vision part is next, whose arithmetic gains most, then
// blocks from the last one down, then the output matrix.
Offload plan_offload(const Model& model, const MemoryPlan& plan, int64_t limit_bytes);

// The run's plan for the RAM beside it: without what lies in the GPU's memory.
MemoryPlan without(const Offload& offload, const MemoryPlan& plan);

} // namespace pinhole
