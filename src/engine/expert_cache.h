// Experts of a mixture that do not all stay in memory: those that a step's tokens chose are read
// from the files into a pool of slots, one expert each, where the ones used longest ago give way.
// The pool is anonymous memory: mapped, every expert that comes or goes would cost an entry of the
// page table per 4 KiB. Nothing is allocated after construction.
#pragma once

#include "base/direct_file.h"
#include "engine/anonymous_memory.h"
#include "model/graph.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace pinhole {

class ExpertCache {
 public:
  // `budget_bytes` holds the slots of all experts of any one op at least (expert_slot_bytes() of
  // plan/residency.h); the weights lie in `files`, which outlive the cache.
  static Result<std::unique_ptr<ExpertCache>>
  create(const Graph& graph, std::span<const MappedFile* const> files, int64_t budget_bytes);

  // One thread: the experts e of op `op_idx` with rows (row_begin[e] < row_begin[e + 1]) will be
  // used. Gives those that are missing a slot.
  void choose(size_t op_idx, const int32_t* row_begin);
  // Every thread, after choose(): reads of them what no other thread does.
  void fetch();
  // After all threads' fetch(): where `mapped`, an address in the weights of expert `expert` of
  // that op, lies in memory.
  const std::byte* resident(size_t op_idx, int64_t expert, const std::byte* mapped) const;

  // Between runs: from now on at most so much is held, but room for all experts of any one op, and
  // no more than at construction.
  void set_budget(int64_t bytes);
  int64_t held_bytes() const { return held_slots_ * slot_bytes_; }

 private:
  struct Part { // of an expert: its rows of one tensor
    const std::byte* mapped = nullptr;
    int32_t file = 0;    // in files_
    uint64_t offset = 0; // in the file
    int64_t bytes = 0;   // 0: unused
  };
  struct Expert {
    Part parts[3];                  // gate, up, down
    int32_t slot = -1;              // -1: not held
    int32_t newer = -1, older = -1; // in the order of use, when held
    uint64_t step = 0;              // of its last use
  };
  struct Read { // of whole blocks of a file
    int32_t file = 0;
    uint64_t offset = 0;
    std::byte* to = nullptr;
    size_t bytes = 0;
  };

  ExpertCache(const Graph& graph, std::span<const MappedFile* const> files, int64_t budget_bytes);
  void add_part(const Tensor& tensor, int64_t expert, int64_t experts,
                std::span<const MappedFile* const> files, Part& part) const;
  std::byte* part_in_slot(const Expert& expert, size_t part) const;
  void plan_reads(const Expert& expert);
  void drop_oldest();
  void unlink(int32_t idx);
  void make_newest(int32_t idx);

  std::vector<DirectFile> files_;
  int64_t slot_bytes_ = 0;
  int64_t slots_ = 0, least_slots_ = 0; // of the pool; of the op with most experts
  int64_t budget_slots_ = 0, held_slots_ = 0;
  AnonymousMemory pool_;
  std::vector<int32_t> free_slots_;
  std::vector<int32_t> first_of_op_; // in experts_; -1: no mixture
  std::vector<int32_t> count_of_op_;
  std::vector<Expert> experts_;
  std::vector<Read> reads_; // of the last choose()
  std::atomic<size_t> next_read_{0};
  int32_t newest_ = -1, oldest_ = -1;
  uint64_t step_ = 0;
};

} // namespace pinhole
