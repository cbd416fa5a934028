// Mixture of experts on the CPU: rows are grouped by expert, so that each chosen expert's weights
// are read once for all its tokens.
#include "engine/expert_cache.h"
#include "engine/op_runner.h"

#include <algorithm>
#include <cmath>

namespace pinhole {

using kernels::MatmulArgs;
using kernels::MatmulKernel;

void OpRunner::route(const Op& op, int thread_idx) {
  const Rows logits = rows(op.x);
  const Rows weights = rows(op.b);
  auto* ids = const_cast<int32_t*>(indices(op.a));
  const Share part = share(logits.rows, 1, thread_idx);
  for (int64_t i = part.begin; i < part.end; ++i) {
    float* p = logits.row(i);
    kernels_.table->softmax(p, p, logits.cols);
    float sum = 0;
    for (int64_t j = 0; j < op.top_k; ++j) {
      const int64_t best = kernels_.table->argmax(p, logits.cols);
      ids[i * op.top_k + j] = static_cast<int32_t>(best);
      weights.row(i)[j] = p[best];
      sum += p[best];
      p[best] = -1.0f; // probabilities are >= 0: not chosen again
    }
    if (!op.renormalise)
      continue;
    for (int64_t j = 0; j < op.top_k; ++j)
      weights.row(i)[j] /= sum;
  }
}

namespace {

// The workspace of one kMoe op, as moe_workspace() lays it out.
struct MoeState {
  int32_t* expert_begin; // [experts + 1]: first row of each expert
  int32_t* token_of;     // [rows]
  int32_t* row_of;       // [tokens * top_k]
  int64_t* packed_at;    // [experts]: offset of its packed rows
  float* x;              // [rows, hidden]
  float* hidden;         // [rows, 2 * ffn]
  std::byte* packed;
  std::byte* strip;   // this thread's
  std::byte* scratch; // this thread's
};

MoeState split(std::byte* work, const MoeWorkspace& sizes, int64_t experts, int64_t rows,
               int thread_idx, int num_threads) {
  MoeState s{};
  s.expert_begin = reinterpret_cast<int32_t*>(work);
  s.token_of = s.expert_begin + experts + 1;
  s.row_of = s.token_of + rows;
  s.packed_at =
      reinterpret_cast<int64_t*>(work + round_up((experts + 1 + 2 * rows) * 4, kAlignment));
  work += sizes.order_bytes;
  s.x = reinterpret_cast<float*>(work);
  work += sizes.rows_bytes;
  s.hidden = reinterpret_cast<float*>(work);
  work += sizes.hidden_bytes;
  s.packed = work;
  work += sizes.packed_bytes;
  s.strip = work + thread_idx * sizes.strip_bytes;
  work += num_threads * sizes.strip_bytes;
  s.scratch = work + thread_idx * sizes.scratch_bytes;
  return s;
}

} // namespace

void OpRunner::moe(const Op& op, size_t op_idx, std::byte* work, int thread_idx) {
  const Rows x = rows(op.x);
  const Rows y = rows(op.y);
  const Rows weights = rows(op.b);
  const int32_t* ids = indices(op.a);
  const Weight& gate = graph_.weight(op.gate);
  const Weight& up = graph_.weight(op.up);
  const Weight& down = graph_.weight(op.down);
  const int64_t experts = gate.experts;
  const int64_t num_rows = x.rows * op.top_k;
  const int64_t ffn = gate.rows;
  const MoeWorkspace sizes = moe_workspace(graph_, op, x.rows, kernels_);
  MoeState s = split(work, sizes, experts, num_rows, thread_idx, kernels_.num_threads);

  if (thread_idx == 0) { // counting sort of (token, slot) by expert
    std::fill(s.expert_begin, s.expert_begin + experts + 1, 0);
    for (int64_t i = 0; i < num_rows; ++i)
      ++s.expert_begin[ids[i] + 1];
    for (int64_t e = 0; e < experts; ++e)
      s.expert_begin[e + 1] += s.expert_begin[e];
    for (int64_t i = 0; i < num_rows; ++i) {
      const int32_t row = s.expert_begin[ids[i]]++;
      s.row_of[i] = row;
      s.token_of[row] = static_cast<int32_t>(i / op.top_k);
    }
    for (int64_t e = experts; e > 0; --e)
      s.expert_begin[e] = s.expert_begin[e - 1];
    s.expert_begin[0] = 0;
    if (context_.experts != nullptr)
      context_.experts->choose(op_idx, s.expert_begin);
  }
  pool_.barrier();
  if (context_.experts != nullptr)
    context_.experts->fetch();
  const Share gathered = share(num_rows, 1, thread_idx);
  for (int64_t r = gathered.begin; r < gathered.end; ++r) {
    std::memcpy(s.x + r * x.cols, x.row(s.token_of[r]), static_cast<size_t>(x.cols) * 4);
  }
  pool_.barrier();

  // Packs every expert's rows of `data` for `weight`'s kernels, experts dealt out among the
  // threads.
  const auto pack = [&](const Weight& weight, const float* data, int64_t stride,
                        std::byte* packed) {
    int64_t at = 0;
    int64_t active = 0;
    for (int64_t e = 0; e < experts; ++e) {
      const int64_t m = s.expert_begin[e + 1] - s.expert_begin[e];
      if (m == 0)
        continue;
      const MatmulKernel* kernel = kernels_.table->matmul(kernel_format(weight), m, kernels_.exact);
      if (thread_idx == 0)
        s.packed_at[e] = at;
      if (active++ % kernels_.num_threads == thread_idx) {
        kernel->pack_x(data + s.expert_begin[e] * stride, stride, m, weight.cols, 0, m,
                       packed + at);
      }
      at += round_up(kernel->x_bytes(m, weight.cols), kAlignment);
    }
  };
  // `weight` of every expert times that expert's packed rows; the pieces from `first` on of this
  // phase. Returns the first after them. A thread that has `piece` in its hand goes on with it.
  int64_t piece = 0;
  const auto multiply = [&](const Weight& weight, const std::byte* packed, float* out,
                            int64_t out_stride, Deal& pieces, int64_t first) {
    for (int64_t e = 0; e < experts; ++e) {
      const int64_t m = s.expert_begin[e + 1] - s.expert_begin[e];
      if (m == 0)
        continue;
      const MatmulKernel* kernel = kernels_.table->matmul(kernel_format(weight), m, kernels_.exact);
      const Pieces split =
          pieces_of(weight.rows, weight.row_stride_bytes, kernel->n_step, kernels_.num_threads, m);
      const std::byte* data = weight.data + e * weight.expert_stride_bytes;
      if (context_.experts != nullptr)
        data = context_.experts->resident(op_idx, e, data);
      for (; piece < first + split.count; piece = pieces.next()) {
        const int64_t begin = (piece - first) * split.rows;
        MatmulArgs args{};
        args.x = packed + s.packed_at[e];
        args.y = out + s.expert_begin[e] * out_stride + begin;
        args.y_stride = out_stride;
        args.m = m;
        args.n = std::min(split.rows, weight.rows - begin);
        args.k = weight.cols;
        args.scratch = s.scratch;
        args.w = data + begin * weight.row_stride_bytes;
        args.w_row_bytes = weight.row_stride_bytes;
        if (weight.transposed)
          multiply_transposed(weight, data, begin, s.strip, *kernel, args);
        else
          kernel->run(args);
      }
      first += split.count;
    }
    return first;
  };

  // gate, up = …chunk(2); current = act_fn(gate) * up
  std::byte* packed_up = gate.format == up.format ? s.packed : s.packed + sizes.packed_bytes / 2;
  pack(gate, s.x, x.cols, s.packed);
  pool_.barrier();
  piece = deal(op_idx, 0).next();
  int64_t first = multiply(gate, s.packed, s.hidden, 2 * ffn, deal(op_idx, 0), 0);
  Deal* pieces = &deal(op_idx, 0);
  if (packed_up != s.packed) {
    pool_.barrier(); // packed_at is about to change
    pack(up, s.x, x.cols, packed_up);
    pool_.barrier();
    pieces = &deal(op_idx, 1);
    piece = pieces->next();
    first = 0;
  }
  multiply(up, packed_up, s.hidden + ffn, 2 * ffn, *pieces, first);
  pool_.barrier();
  for (int64_t r = gathered.begin; r < gathered.end; ++r) {
    float* row = s.hidden + r * 2 * ffn;
    kernels_.table->gated(kernel_activation(op.activation), row, row + ffn, row, ffn);
  }
  pool_.barrier();
  // down_proj, over the gathered rows, which are not needed any more
  pack(down, s.hidden, 2 * ffn, s.packed);
  pool_.barrier();
  piece = deal(op_idx, 2).next();
  multiply(down, s.packed, s.x, x.cols, deal(op_idx, 2), 0);
  pool_.barrier();
  const Share tokens = share(x.rows, 1, thread_idx);
  for (int64_t t = tokens.begin; t < tokens.end; ++t) {
    for (int64_t j = 0; j < op.top_k; ++j) {
      kernels_.table->mul_add(s.x + s.row_of[t * op.top_k + j] * x.cols, weights.row(t)[j],
                              y.row(t), x.cols);
    }
  }
}

} // namespace pinhole
