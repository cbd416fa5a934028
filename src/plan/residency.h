// Which weights stay in memory when not all of them may: the plan of a run under a limit.
//
// What does not stay is read from the file again for every run of its graph (a chunk of the prompt,
// a token, a picture), op by op in the order of use, through a window of memory that is filled
// ahead. Experts of a mixture come as tokens choose them, into what memory is left, where the ones
// used longest ago give way.
#pragma once

#include "plan/memory.h"

#include <cstdint>
#include <vector>

namespace pinhole {

// In the window: the op that runs, the one that must follow without a pause, and what is read
// ahead.
inline constexpr int kWindowSlots = 4;

struct Residency {
  int64_t limit_bytes = 0;
  int64_t resident_bytes = 0;      // of weights that stay
  int64_t window_bytes = 0;        // anonymous: slots of one streamed op each; 0: no op is streamed
  int64_t expert_cache_bytes = 0;  // anonymous: slots of experts; 0: all stay
  int64_t expert_bytes = 0;        // of all experts, when not all stay
  int64_t streamed_text_bytes = 0; // read for every run of the text graph, experts apart
  int64_t streamed_vision_bytes = 0; // for every picture
  std::vector<bool> text, vision;    // by op: streamed

  bool streams() const { return window_bytes > 0 || expert_cache_bytes > 0; }
  // Everything that is in memory at once.
  int64_t peak_bytes(const MemoryPlan& plan) const;
};

// Bytes of the matrices that an op reads; 0 for ops that read only rows of a table, or none.
int64_t op_weight_bytes(const Graph& graph, const Op& op);

// Whether the op adds rows that it looks up in a matrix, of which most are not read.
bool looks_up_table(const Graph& graph, const Op& op);

// Memory for one expert of any mixture of the graph: its matrices, each read in whole blocks.
int64_t expert_slot_bytes(const Graph& graph);

// The best residency under `limit_bytes`; an error with the least limit when even that is too much.
Result<Residency> plan_residency(const Model& model, const MemoryPlan& plan, int64_t limit_bytes);

} // namespace pinhole
