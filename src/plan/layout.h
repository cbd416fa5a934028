// Where every buffer of a graph lies in the compute arena: the one layout function that prediction
// and run both call.
//
// Offsets follow from lifetimes: a buffer is born at the first op that writes it (inputs: before
// the first op) and dies after the last op that touches it (outputs: never). Beside the graph's own
// buffers each op may need a workspace (packed activations, per-thread scratch, expert rows).
#pragma once

#include "kernels/table.h"
#include "model/graph.h"

#include <cstdint>
#include <vector>

namespace pinhole {

// What the kernels of this run are chosen by; part of the layout, since their workspaces are.
struct KernelChoice {
  const kernels::Table* table = nullptr;
  bool exact = false; // f32 arithmetic everywhere
  int num_threads = 1;
  kernels::KvType kv_type = kernels::KvType::kF16;
};

struct Layout {
  KernelChoice kernels;                        // what the workspaces were sized for
  RowBinding max_rows;                         // the largest binding that fits
  std::vector<int64_t> buffer_offset_bytes;    // by BufferId
  std::vector<int64_t> workspace_offset_bytes; // by op index
  std::vector<int64_t> workspace_bytes;
  int64_t arena_bytes = 0;
};

// Lays out `graph` for up to `max_rows`, with attention over up to max_keys cached keys, and over
// up to max_picture_keys of pictures.
Layout lay_out(const Graph& graph, const RowBinding& max_rows, int64_t max_keys,
               const KernelChoice& kernels, int64_t max_picture_keys = 0);

// Bytes that `op` needs beside its values, for `rows` items exactly; `max_keys` are those that its
// attention may see.
int64_t op_workspace_bytes(const Graph& graph, const Op& op, const RowBinding& rows,
                           int64_t max_keys, const KernelChoice& kernels);

// The parts of an op's workspace; engine and layout read the same numbers.
struct MatmulWorkspace {
  int64_t x_bytes = 0;       // packed x, shared by all threads
  int64_t vector_bytes = 0;  // per thread: a bias decoded to f32
  int64_t scratch_bytes = 0; // per thread
  int64_t strip_bytes = 0;   // per thread: f32 [kTransposeStripRows + 1, k] of a transposed matrix
  int64_t thread_bytes() const { return vector_bytes + scratch_bytes + strip_bytes; }
};
MatmulWorkspace matmul_workspace(const Graph& graph, const Op& op, int64_t m,
                                 const KernelChoice& kernels);

// Rows of a strip in which a transposed matrix is turned over at a time; a line more holds a stored
// row of it.
inline constexpr int64_t kTransposeStripRows = 64;
// What a weight is multiplied as.
inline FormatId kernel_format(const Weight& weight) {
  return weight.transposed ? FormatId::kF32 : weight.format;
}

struct MoeWorkspace {
  int64_t order_bytes = 0; // i32: first row of each expert, token and slot of each row
  int64_t rows_bytes = 0;  // f32 [tokens * top_k, hidden]: gathered x, later the experts' outputs
  int64_t hidden_bytes =
      0; // f32 [tokens * top_k, 2 * moe_intermediate_size]: gate and up side by side
  int64_t packed_bytes = 0;  // packed x of the largest expert group
  int64_t strip_bytes = 0;   // per thread: f32 [kTransposeStripRows, k] of a transposed matrix
  int64_t scratch_bytes = 0; // per thread
  int64_t total(int num_threads) const {
    return order_bytes + rows_bytes + hidden_bytes + packed_bytes +
           num_threads * (strip_bytes + scratch_bytes);
  }
};
MoeWorkspace moe_workspace(const Graph& graph, const Op& op, int64_t tokens,
                           const KernelChoice& kernels);

inline constexpr int64_t kAlignment = 64; // of every offset: a cache line, an AVX-512 register

} // namespace pinhole
