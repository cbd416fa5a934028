// One run of a graph: what the op implementations share. Internal to the CPU back end.
#pragma once

#include "base/checked.h"
#include "base/thread_pool.h"
#include "engine/backend.h"
#include "plan/layout.h"

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
           const RunContext& context, ThreadPool& pool)
      : graph_(graph), layout_(layout), binding_(binding), context_(context),
        kernels_(layout.kernels), pool_(pool) {}

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

  // Rows [begin, begin + count) of a matrix that is stored [cols, rows] from `data` on, turned over
  // into `strip` [kTransposeStripRows + 1, cols], count <= kTransposeStripRows.
  void turn_over(const Weight& weight, const std::byte* data, int64_t begin, int64_t count,
                 float* strip) const;

  void embed(const Op& op, int thread_idx);
  void put_rows(const Op& op, int thread_idx);
  void gather_rows(const Op& op, int thread_idx);
  void gather_weighted(const Op& op, std::byte* work, int thread_idx);
  void matmul(const Op& op, std::byte* work, int thread_idx);
  void norm(const Op& op, std::byte* work, int thread_idx);
  void elementwise(const Op& op, int thread_idx);
  void rope_table(const Op& op, int thread_idx);
  void rope(const Op& op, int thread_idx);
  void kv_store(const Op& op, int thread_idx);
  void attention(const Op& op, std::byte* work, int thread_idx);
  void route(const Op& op, int thread_idx);
  void moe(const Op& op, std::byte* work, int thread_idx);

  const Graph& graph_;
  const Layout& layout_;
  const RowBinding& binding_;
  const RunContext& context_;
  const KernelChoice& kernels_;
  ThreadPool& pool_;
};

} // namespace pinhole
