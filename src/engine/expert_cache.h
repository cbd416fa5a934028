// Experts of a mixture that do not all stay in memory: those that a step's tokens chose are read
// from the mapped files, the ones used longest ago are dropped, so that no more than a budget is
// mapped. Nothing is allocated after construction.
#pragma once

#include "base/mapped_file.h"
#include "model/graph.h"

#include <cstdint>
#include <span>
#include <vector>

namespace pinhole {

class ExpertCache {
 public:
  // `budget_bytes` holds all experts of any one op at least; the weights lie in `files`, which
  // outlive the cache.
  ExpertCache(const Graph& graph, std::span<const MappedFile* const> files, int64_t budget_bytes);

  // One thread: the experts e of op `op_idx` with rows (row_begin[e] < row_begin[e + 1]) will be
  // used. Makes room and starts reading those that are missing.
  void choose(size_t op_idx, const int32_t* row_begin);
  // Every thread, after choose(): returns when its share of them is there.
  void fetch(int thread_idx, int num_threads) const;

  // Between runs: from now on at most so much is held, but room for all experts of any one op, and
  // no more than at construction.
  void set_budget(int64_t bytes);
  int64_t held_bytes() const { return held_bytes_; }

 private:
  struct Expert {
    FileRange ranges[3]; // gate, up, down; unused ones have no bytes
    int64_t bytes = 0;
    int32_t newer = -1, older = -1; // in the order of use, when held
    int32_t first = 0, last = 0;    // experts of its op
    bool held = false;
    uint64_t step = 0; // of its last use
  };

  // Linux maps a large folio of the page cache whole (since 6.18): what of it belongs to neighbours
  // that are not held is unmapped again.
  void unmap_neighbours(int32_t idx) const;
  void drop_oldest(); // what is above the budget, but for the step's own experts
  void unlink(int32_t idx);
  void make_newest(int32_t idx);

  const int64_t planned_bytes_;
  int64_t least_bytes_ = 0; // of the op with the largest experts, all of them
  int64_t budget_bytes_;
  std::vector<int32_t> first_of_op_; // in experts_; -1: no mixture
  std::vector<int32_t> count_of_op_;
  std::vector<Expert> experts_;
  std::vector<int32_t> missing_; // of the last choose()
  int32_t newest_ = -1, oldest_ = -1;
  int64_t held_bytes_ = 0;
  uint64_t step_ = 0;
};

} // namespace pinhole
