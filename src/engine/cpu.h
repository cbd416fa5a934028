// The CPU back end: every thread walks the op list, takes its share of each op and meets the others
// at a barrier. Kernels come from a table (kernels/select.h); nothing is allocated during a run.
#pragma once

#include "base/thread_pool.h"
#include "engine/backend.h"
#include "engine/team_choice.h"
#include "plan/layout.h"

#include <vector>

namespace pinhole {

class CpuBackend : public Backend {
 public:
  // `num_threads` threads, the caller's included. Layouts must have been made for as many.
  explicit CpuBackend(int num_threads) : pool_(num_threads) {}

  bool run(const Graph& graph, const Layout& layout, const RowBinding& rows,
           const RunContext& context) override;

  ThreadPool& threads() { return pool_; }
  // When set, run() adds each op's wall time in seconds at its index (resized once, before the
  // run).
  void set_profile(std::vector<double>* op_seconds) { profile_ = op_seconds; }

 private:
  ThreadPool pool_;
  std::vector<double>* profile_ = nullptr;
  TeamChoice choice_; // for runs of `chosen_rows_` rows of `chosen_graph_`
  const Graph* chosen_graph_ = nullptr;
  int64_t chosen_rows_ = 0;
  std::atomic<bool> stop_[2]{}; // decided by thread 0 for even and odd ops, read after the barrier
};

} // namespace pinhole
