#include "plan/layout.h"

#include "base/checked.h"

#include <algorithm>
#include <array>

namespace pinhole {

namespace {

using kernels::AttentionKernel;
using kernels::MatmulKernel;

int64_t aligned(int64_t bytes) { return round_up(bytes, kAlignment); }

// Calls fn with the row counts at which another kernel may be chosen: a layout for m rows must also
// hold every smaller m, and kernels for few rows can need more per row than those for many. Without
// a list: the engine asks for a workspace's parts in every run, where nothing is allocated.
template <class Fn> void for_candidate_rows(int64_t max_rows, Fn fn) {
  for (int64_t m = 1; m < std::min<int64_t>(max_rows, 32); ++m)
    fn(m);
  for (int64_t m = 32; m < max_rows; m *= 2)
    fn(m);
  fn(max_rows);
}

int64_t strip_bytes(const Weight& weight) {
  return weight.transposed ? aligned((kTransposeStripRows + 1) * weight.cols * 4) : 0;
}

int64_t attention_workspace(const Op& op, int64_t num_q, int64_t max_keys,
                            const KernelChoice& kernels) {
  const bool cached = op.layer >= 0;
  const kernels::KvType type = cached ? kernels.kv_type : kernels::KvType::kF32;
  const AttentionKernel* kernel = kernels.table->attention(type, num_q, kernels.exact);
  return kernels.num_threads *
         aligned(kernel->scratch_bytes(num_q, cached ? max_keys : num_q, op.head_dim));
}

int64_t moe_group_bytes(const KernelChoice& kernels, FormatId format, int64_t tokens, int64_t k,
                        int64_t rows, int64_t experts, int64_t& scratch_bytes) {
  // Groups of unknown sizes that add up to `rows`: every group costs at most its own rounding (the
  // packed size of its rows minus that of whole panels), and all together at most the packed rows.
  int64_t small = 0;
  int64_t all = 0;
  for_candidate_rows(tokens, [&](int64_t m) {
    const MatmulKernel* kernel = kernels.table->matmul(format, m, kernels.exact);
    small = std::max(small, aligned(kernel->x_bytes(1, k)));
    all = std::max(all, aligned(kernel->x_bytes(rows, k)));
    scratch_bytes = std::max(scratch_bytes, aligned(kernel->scratch_bytes(m, k)));
  });
  return all + std::min(experts, rows) * (small + kAlignment);
}

// A buffer's or workspace's claim on the arena.
struct Claim {
  int64_t bytes = 0;
  int64_t first_op = 0;
  int64_t last_op = 0;
  int64_t* offset = nullptr;
};

// Largest first, each at the lowest offset where no claim with an overlapping lifetime lies.
int64_t place(std::vector<Claim>& claims) {
  std::stable_sort(claims.begin(), claims.end(),
                   [](const Claim& a, const Claim& b) { return a.bytes > b.bytes; });
  int64_t total = 0;
  std::vector<const Claim*> overlapping;
  for (size_t i = 0; i < claims.size(); ++i) {
    Claim& claim = claims[i];
    overlapping.clear();
    for (size_t j = 0; j < i; ++j) {
      if (claims[j].first_op <= claim.last_op && claim.first_op <= claims[j].last_op) {
        overlapping.push_back(&claims[j]);
      }
    }
    std::sort(overlapping.begin(), overlapping.end(),
              [](const Claim* a, const Claim* b) { return *a->offset < *b->offset; });
    int64_t offset = 0;
    for (const Claim* other : overlapping) {
      if (offset + claim.bytes <= *other->offset)
        break;
      offset = std::max(offset, *other->offset + other->bytes);
    }
    *claim.offset = offset;
    total = std::max(total, offset + claim.bytes);
  }
  return total;
}

} // namespace

MatmulWorkspace matmul_workspace(const Graph& graph, const Op& op, int64_t m,
                                 const KernelChoice& kernels) {
  MatmulWorkspace out;
  std::array<decltype(MatmulKernel::pack_x), 8> packed{};
  size_t num_packed = 0;
  for (const MatmulPart& part : op.parts) {
    const Weight& weight = graph.weight(part.weight);
    const MatmulKernel* kernel = kernels.table->matmul(kernel_format(weight), m, kernels.exact);
    out.scratch_bytes = std::max(out.scratch_bytes, aligned(kernel->scratch_bytes(m, weight.cols)));
    out.strip_bytes = std::max(out.strip_bytes, strip_bytes(weight));
    if (part.bias != kNoWeight) {
      out.vector_bytes = std::max(out.vector_bytes, aligned(weight.rows * 4));
    }
    const auto end = packed.begin() + static_cast<std::ptrdiff_t>(num_packed);
    if (std::find(packed.begin(), end, kernel->pack_x) == end) {
      packed[num_packed++] = kernel->pack_x;
      out.x_bytes += aligned(kernel->x_bytes(m, weight.cols));
    }
  }
  return out;
}

MoeWorkspace moe_workspace(const Graph& graph, const Op& op, int64_t tokens,
                           const KernelChoice& kernels) {
  const Weight& gate = graph.weight(op.gate);
  const Weight& up = graph.weight(op.up);
  const Weight& down = graph.weight(op.down);
  const int64_t rows = tokens * op.top_k;
  const int64_t experts = gate.experts;
  MoeWorkspace out;
  out.order_bytes = aligned((experts + 1 + 2 * rows) * 4) + aligned(experts * 8);
  out.rows_bytes = aligned(rows * gate.cols * 4);
  out.hidden_bytes = aligned(rows * 2 * gate.rows * 4);
  for (const Weight* weight : {&gate, &up, &down}) {
    out.packed_bytes =
        std::max(out.packed_bytes, moe_group_bytes(kernels, kernel_format(*weight), tokens,
                                                   weight->cols, rows, experts, out.scratch_bytes));
    out.strip_bytes = std::max(out.strip_bytes, strip_bytes(*weight));
  }
  // Gate and up read the same x; when their kernels pack it differently both forms exist at once.
  if (gate.format != up.format)
    out.packed_bytes *= 2;
  return out;
}

int64_t op_workspace_bytes(const Graph& graph, const Op& op, const RowBinding& rows,
                           int64_t max_keys, const KernelChoice& kernels) {
  const auto row_count = [&](ValueId value) { return rows.count(graph.value(value).rows); };
  const auto vector_bytes = [&](WeightId id) {
    return id == kNoWeight ? 0 : aligned(graph.weight(id).cols * 4);
  };
  switch (op.kind) {
  case OpKind::kMatmul: {
    const MatmulWorkspace w = matmul_workspace(graph, op, row_count(op.x), kernels);
    return w.x_bytes + kernels.num_threads * w.thread_bytes();
  }
  case OpKind::kAttention:
    return attention_workspace(op, row_count(op.x), max_keys, kernels);
  case OpKind::kMoe:
    return moe_workspace(graph, op, row_count(op.x), kernels).total(kernels.num_threads);
  case OpKind::kRmsNorm:
  case OpKind::kLayerNorm:
    return kernels.num_threads * (vector_bytes(op.weight) + vector_bytes(op.bias));
  case OpKind::kGatherWeighted:
  case OpKind::kAddTableRows:
  case OpKind::kPutVector:
  case OpKind::kScale:
    return kernels.num_threads * vector_bytes(op.weight);
  default:
    return 0;
  }
}

Layout lay_out(const Graph& graph, const RowBinding& max_rows, int64_t max_keys,
               const KernelChoice& kernels, int64_t max_picture_keys) {
  Layout layout;
  layout.kernels = kernels;
  layout.max_rows = max_rows;
  const size_t num_ops = graph.ops().size();
  layout.buffer_offset_bytes.assign(graph.buffers().size(), 0);
  layout.workspace_offset_bytes.assign(num_ops, 0);
  layout.workspace_bytes.assign(num_ops, 0);

  std::vector<Claim> claims(graph.buffers().size());
  for (size_t i = 0; i < claims.size(); ++i) {
    const Buffer& buffer = graph.buffers()[i];
    claims[i].bytes = aligned(max_rows.count(buffer.rows) * buffer.cols * 4);
    claims[i].offset = &layout.buffer_offset_bytes[i];
    claims[i].first_op = buffer.is_input ? -1 : static_cast<int64_t>(num_ops);
    claims[i].last_op = buffer.is_output ? static_cast<int64_t>(num_ops) : -1;
  }
  for (size_t i = 0; i < num_ops; ++i) {
    const Op& op = graph.ops()[i];
    const auto touch = [&](ValueId value) {
      if (value == kNoValue)
        return;
      Claim& claim = claims[static_cast<size_t>(graph.value(value).buffer)];
      claim.first_op = std::min(claim.first_op, static_cast<int64_t>(i));
      claim.last_op = std::max(claim.last_op, static_cast<int64_t>(i));
    };
    for (const ValueId value : {op.x, op.y, op.a, op.b, op.c, op.residual})
      touch(value);
    for (const MatmulPart& part : op.parts)
      touch(part.y);

    const int64_t keys = op.of_pictures ? max_picture_keys : max_keys;
    for_candidate_rows(max_rows.items, [&](int64_t items) {
      const RowBinding rows{items, std::min(items, max_rows.outputs)};
      layout.workspace_bytes[i] =
          std::max(layout.workspace_bytes[i], op_workspace_bytes(graph, op, rows, keys, kernels));
    });
    if (layout.workspace_bytes[i] > 0) {
      claims.push_back({aligned(layout.workspace_bytes[i]), static_cast<int64_t>(i),
                        static_cast<int64_t>(i), &layout.workspace_offset_bytes[i]});
    }
  }
  layout.arena_bytes = place(claims);
  return layout;
}

} // namespace pinhole
