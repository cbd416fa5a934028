// What an op costs in principle: arithmetic and bytes, counted from the graph. Held against the
// machine's ceilings (plan/machine.h) it says how good a run is, or how long one will take.
#pragma once

#include "kernels/table.h"
#include "model/graph.h"

namespace pinhole {

struct Work {
  double flops = 0;        // a multiply-add is two
  double weight_bytes = 0; // read from the mapped files, each weight once
  double cache_bytes = 0;  // of the KV cache, read

  Work& operator+=(const Work& other);
};

// The run that an op is counted in.
struct WorkShape {
  RowBinding rows;
  int64_t past_tokens = 0; // in the KV cache before this run, of each conversation
  // Rows are one token of each of so many conversations with a past of their own, where this is
  // above 1; else they follow each other in one.
  int64_t conversations = 1;
  int64_t window_keys = 0;  // keys that a row sees in windowed attention
  int64_t picture_keys = 0; // keys of pictures that a row sees in cross-attention; 0: no pictures
  kernels::KvType kv_type = kernels::KvType::kF16;
  bool cached = false; // the cores' caches hold all keys and values from one run to the next
};

// An op of cross-attention layers where there are no pictures.
bool is_skipped(const Op& op, const WorkShape& shape);
// Norms, activations and copies count no flops: next to matmul and attention they are nothing.
// Experts count as many as this many tokens will choose if all are chosen equally often.
Work op_work(const Graph& graph, const Op& op, const WorkShape& shape);
// Of one weight of a matmul.
Work part_work(const Graph& graph, const Op& op, const MatmulPart& part, const WorkShape& shape);

} // namespace pinhole
