// One run of a graph: what the op implementations share. Internal to the CPU back end.
#pragma once

#include "base/checked.h"
#include "base/thread_pool.h"
#include "engine/backend.h"
#include "plan/layout.h"

#include <atomic>
#include <cstring>

namespace pinhole {

// Rows [begin, end) of a thread.
struct Share {
  int64_t begin = 0;
  int64_t end = 0;
};

// Splits n rows into contiguous shares whose bounds are multiples of `step`.
inline Share share_of(int64_t n, int64_t step, int thread_idx, int num_threads) {
  const int64_t units = ceil_div(n, step);
  const int64_t begin = units * thread_idx / num_threads * step;
  const int64_t end = units * (thread_idx + 1) / num_threads * step;
  return {std::min(begin, n), std::min(end, n)};
}

// Work that is dealt out by the piece: whoever is done takes the next one, so that a core that
// lends its time to others holds up nobody. Each thread goes through pieces until there are none.
class Deal {
 public:
  int64_t next() { return next_.fetch_add(1, std::memory_order_relaxed); }
  void reset() { next_.store(0, std::memory_order_relaxed); }

 private:
  alignas(64) std::atomic<int64_t> next_{0};
};

// Rows of a matrix as pieces: `rows` each, but for the last.
struct Pieces {
  int64_t count = 0;
  int64_t rows = 0;
};

// Enough pieces that threads finish together, large enough that a piece is worth its start; for m
// rows of x.
inline Pieces pieces_of(int64_t n, int64_t row_bytes, int64_t step, int num_threads, int64_t m) {
  constexpr int64_t kLeastBytes = 64 << 10;
  if (num_threads == 1)
    return {1, n};
  const int64_t per_thread = m == 1 ? 8 : 2; // 8 cost a prompt 6 %: x is read once for each
  const int64_t least = ceil_div(kLeastBytes, row_bytes);
  const int64_t even = ceil_div(n, num_threads);
  const int64_t rows =
      ceil_div(std::min(even, std::max(least, ceil_div(even, per_thread))), step) * step;
  return {ceil_div(n, rows), rows};
}

// Rows of f32 with a stride in floats.
struct Rows {
  float* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
  float* row(int64_t i) const { return data + i * stride; }
};

// The graph's activation for the kernels, whose header stays free of the graph's.
inline kernels::Activation kernel_activation(Activation activation) {
  static_assert(static_cast<int>(Activation::kNone) ==
                static_cast<int>(kernels::Activation::kNone));
  static_assert(static_cast<int>(Activation::kGeluTanh) ==
                static_cast<int>(kernels::Activation::kGeluTanh));
  static_assert(static_cast<int>(Activation::kGeluErf) ==
                static_cast<int>(kernels::Activation::kGeluErf));
  static_assert(static_cast<int>(Activation::kSilu) ==
                static_cast<int>(kernels::Activation::kSilu));
  return static_cast<kernels::Activation>(activation);
}

class OpRunner {
 public:
  OpRunner(const Graph& graph, const Layout& layout, const RowBinding& binding,
           const RunContext& context, ThreadPool& pool, int num_threads)
      : graph_(graph), layout_(layout), binding_(binding), context_(context),
        kernels_(layout.kernels), pool_(pool) {
    kernels_.num_threads = num_threads;
  }

  // Runs op `op_idx` on this thread; the caller puts a barrier between ops.
  void run(size_t op_idx, int thread_idx);

 private:
  Rows rows(ValueId id) const {
    const Value& v = graph_.value(id);
    return {reinterpret_cast<float*>(value_data(graph_, layout_, context_.arena, id)),
            binding_.count(v.rows), v.cols, v.stride};
  }
  const int32_t* indices(ValueId id) const {
    return reinterpret_cast<const int32_t*>(value_data(graph_, layout_, context_.arena, id));
  }
  std::byte* workspace(size_t op_idx) const {
    return context_.arena + layout_.workspace_offset_bytes[op_idx];
  }
  Share share(int64_t n, int64_t step, int thread_idx) const {
    return share_of(n, step, thread_idx, kernels_.num_threads);
  }
  // A norm's or bias' values as f32: in place where the file has them so, else decoded into
  // scratch.
  const float* as_f32(WeightId id, std::byte* scratch) const;
  // The pieces of phase `phase` of an op; all threads are past the op before when the first of them
  // begins this one.
  Deal& deal(size_t op_idx, size_t phase) { return deals_[op_idx % 2][phase]; }

  // Rows [begin, begin + count) of a matrix that is stored [cols, rows] from `data` on, turned over
  // into `strip` [kTransposeStripRows + 1, cols], count <= kTransposeStripRows.
  void turn_over(const Weight& weight, const std::byte* data, int64_t begin, int64_t count,
                 float* strip) const;

  // kernel.run(args) with rows [begin, begin + args.n) of a matrix that is stored turned over.
  void multiply_transposed(const Weight& weight, const std::byte* data, int64_t begin,
                           std::byte* work, const kernels::MatmulKernel& kernel,
                           kernels::MatmulArgs args) const;

  // Decodes row `row` of `table` to y [cols], from the file when it is the unmapped table.
  void look_up(const Weight& table, int64_t row, float* y) const;

  void embed(const Op& op, int thread_idx);
  void put_rows(const Op& op, int thread_idx);
  void gather_rows(const Op& op, int thread_idx);
  void gather_weighted(const Op& op, std::byte* work, int thread_idx);
  void with_vector(const Op& op, std::byte* work, int thread_idx); // kPutVector, kScale
  void regroup(const Op& op, int thread_idx);
  // tanh of its tensor, what that leaves of 1, or 1.
  float gate_of(const Gate& gate) const;
  void add_gated(const Op& op, int thread_idx);
  void add_table_rows(const Op& op, std::byte* work, int thread_idx);
  void put_columns(const Op& op, int thread_idx);
  void matmul(const Op& op, size_t op_idx, std::byte* work, int thread_idx);
  void norm(const Op& op, std::byte* work, int thread_idx);
  void elementwise(const Op& op, int thread_idx);
  void rope_table(const Op& op, int thread_idx);
  void rope(const Op& op, int thread_idx);
  void kv_store(const Op& op, int thread_idx);
  void store_picture_keys(const Op& op, int thread_idx);
  // What attention reads and writes for a sequence; past_tokens count where keys are cached.
  kernels::AttentionArgs attention_args(const Op& op, const SequenceRows& part) const;
  void attention(const Op& op, Deal& pieces, std::byte* work, int thread_idx);
  void route(const Op& op, int thread_idx);
  void moe(const Op& op, size_t op_idx, std::byte* work, int thread_idx);

  const Graph& graph_;
  const Layout& layout_;
  const RowBinding& binding_;
  const RunContext& context_;
  KernelChoice kernels_; // of the layout, for the threads that take part
  ThreadPool& pool_;
  Deal deals_[2][3]; // for even and odd ops, by phase
};

} // namespace pinhole
