#include "engine/expert_cache.h"

#include "base/checked.h"
#include "plan/residency.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace pinhole {

namespace {

constexpr int64_t kBlock = DirectFile::kBlockBytes;
// A virtual disk, O_DIRECT, two threads: pieces of 432 and 864 KiB 4.7 GB/s, of 2.6 MiB 2.3, of
// 16 MiB 1.9; one thread 1.6 to 2.3.
constexpr int64_t kReadBytes = 512 << 10;

int64_t block_begin(uint64_t offset) { return static_cast<int64_t>(offset) / kBlock * kBlock; }

} // namespace

Result<std::unique_ptr<ExpertCache>> ExpertCache::create(const Graph& graph,
                                                         std::span<const MappedFile* const> files,
                                                         int64_t budget_bytes) {
  std::unique_ptr<ExpertCache> cache(new ExpertCache(graph, files, budget_bytes));
  PINHOLE_TRY(cache->pool_,
              AnonymousMemory::reserve(cache->slots_ * cache->slot_bytes_, "experts"));
  return cache;
}

ExpertCache::ExpertCache(const Graph& graph, std::span<const MappedFile* const> files,
                         int64_t budget_bytes)
    : slot_bytes_(expert_slot_bytes(graph)), first_of_op_(graph.ops().size(), -1),
      count_of_op_(graph.ops().size(), 0) {
  for (const MappedFile* file : files)
    files_.emplace_back(*file);
  size_t most_reads = 0; // of one expert
  for (size_t i = 0; i < graph.ops().size(); ++i) {
    const Op& op = graph.ops()[i];
    if (op.kind != OpKind::kMoe)
      continue;
    const int64_t count = graph.weight(op.gate).experts;
    first_of_op_[i] = static_cast<int32_t>(experts_.size());
    count_of_op_[i] = static_cast<int32_t>(count);
    least_slots_ = std::max(least_slots_, count);
    for (int64_t e = 0; e < count; ++e) {
      Expert& expert = experts_.emplace_back();
      size_t used = 0, reads = 0;
      const Tensor* before = nullptr;
      for (const WeightId id : {op.gate, op.up, op.down}) {
        const Tensor* tensor = graph.weight(id).tensor;
        if (tensor == before) // gate and up in one
          continue;
        before = tensor;
        Part& part = expert.parts[used++];
        add_part(*tensor, e, count, files, part);
        reads += static_cast<size_t>(ceil_div(part.bytes + kBlock, kReadBytes) + 1);
      }
      most_reads = std::max(most_reads, reads);
    }
  }
  slots_ = std::min(std::max(budget_bytes / slot_bytes_, least_slots_),
                    static_cast<int64_t>(experts_.size()));
  budget_slots_ = slots_;
  for (int64_t slot = slots_ - 1; slot >= 0; --slot)
    free_slots_.push_back(static_cast<int32_t>(slot));
  reads_.reserve(most_reads * static_cast<size_t>(least_slots_));
}

void ExpertCache::add_part(const Tensor& tensor, int64_t expert, int64_t experts,
                           std::span<const MappedFile* const> files, Part& part) const {
  const auto range = find_range(files, tensor.data, tensor.bytes);
  assert(range);
  if (expert == 0)
    range->file->keep_apart(range->offset, range->bytes);
  const int64_t bytes = static_cast<int64_t>(tensor.bytes) / experts;
  part.mapped = tensor.data + expert * bytes;
  part.file =
      static_cast<int32_t>(std::find(files.begin(), files.end(), range->file) - files.begin());
  part.offset = range->offset + static_cast<uint64_t>(expert * bytes);
  part.bytes = bytes;
}

void ExpertCache::unlink(int32_t idx) {
  const Expert& expert = experts_[static_cast<size_t>(idx)];
  (expert.newer < 0 ? newest_ : experts_[static_cast<size_t>(expert.newer)].older) = expert.older;
  (expert.older < 0 ? oldest_ : experts_[static_cast<size_t>(expert.older)].newer) = expert.newer;
}

void ExpertCache::make_newest(int32_t idx) {
  Expert& expert = experts_[static_cast<size_t>(idx)];
  expert.newer = -1;
  expert.older = newest_;
  (newest_ < 0 ? oldest_ : experts_[static_cast<size_t>(newest_)].newer) = idx;
  newest_ = idx;
}

void ExpertCache::drop_oldest() {
  Expert& expert = experts_[static_cast<size_t>(oldest_)];
  assert(expert.step != step_); // there is room for all that one step uses
  unlink(oldest_);
  free_slots_.push_back(expert.slot);
  expert.slot = -1;
  --held_slots_;
}

void ExpertCache::set_budget(int64_t bytes) {
  budget_slots_ = std::min(std::max(bytes / slot_bytes_, least_slots_), slots_);
  ++step_; // the last step's experts are not in use any more
  while (held_slots_ > budget_slots_) {
    drop_oldest();
    pool_.release_pages(free_slots_.back() * slot_bytes_, slot_bytes_);
  }
}

// Parts lie one after the other, each at the place in a block that it has in the file.
std::byte* ExpertCache::part_in_slot(const Expert& expert, size_t part) const {
  std::byte* at = pool_.data() + expert.slot * slot_bytes_;
  for (size_t i = 0; i < part; ++i)
    at += round_up(expert.parts[i].bytes, kBlock) + kBlock;
  const uint64_t offset = expert.parts[part].offset;
  return at + (static_cast<int64_t>(offset) - block_begin(offset));
}

void ExpertCache::plan_reads(const Expert& expert) {
  for (size_t i = 0; i < std::size(expert.parts) && expert.parts[i].bytes > 0; ++i) {
    const Part& part = expert.parts[i];
    const int64_t begin = block_begin(part.offset);
    const int64_t end = round_up(static_cast<int64_t>(part.offset) + part.bytes, kBlock);
    std::byte* to = part_in_slot(expert, i) - (static_cast<int64_t>(part.offset) - begin);
    for (int64_t at = begin; at < end; at += kReadBytes) {
      reads_.push_back({part.file, static_cast<uint64_t>(at), to + (at - begin),
                        static_cast<size_t>(std::min(kReadBytes, end - at))});
    }
  }
}

void ExpertCache::choose(size_t op_idx, const int32_t* row_begin) {
  reads_.clear();
  next_read_.store(0, std::memory_order_relaxed); // a barrier follows
  ++step_;
  const int32_t first = first_of_op_[op_idx];
  const auto is_used = [&](int32_t e) { return row_begin[e] < row_begin[e + 1]; };
  for (int32_t e = 0; e < count_of_op_[op_idx]; ++e) { // what is held and used, stays
    Expert& expert = experts_[static_cast<size_t>(first + e)];
    if (!is_used(e) || expert.slot < 0)
      continue;
    expert.step = step_;
    unlink(first + e);
    make_newest(first + e);
  }
  for (int32_t e = 0; e < count_of_op_[op_idx]; ++e) {
    Expert& expert = experts_[static_cast<size_t>(first + e)];
    if (!is_used(e) || expert.slot >= 0)
      continue;
    if (held_slots_ == budget_slots_)
      drop_oldest();
    expert.slot = free_slots_.back();
    free_slots_.pop_back();
    ++held_slots_;
    expert.step = step_;
    make_newest(first + e);
    plan_reads(expert);
  }
}

void ExpertCache::fetch() {
  while (true) {
    const size_t idx = next_read_.fetch_add(1, std::memory_order_relaxed);
    if (idx >= reads_.size())
      return;
    const Read& read = reads_[idx];
    const std::span to(read.to, read.bytes);
    files_[static_cast<size_t>(read.file)].read(read.offset, to);
  }
}

const std::byte* ExpertCache::resident(size_t op_idx, int64_t expert,
                                       const std::byte* mapped) const {
  const Expert& found =
      experts_[static_cast<size_t>(first_of_op_[op_idx]) + static_cast<size_t>(expert)];
  for (size_t i = 0; i < std::size(found.parts); ++i) {
    const Part& part = found.parts[i];
    if (mapped >= part.mapped && mapped < part.mapped + part.bytes)
      return part_in_slot(found, i) + (mapped - part.mapped);
  }
  assert(false);
  return mapped;
}

} // namespace pinhole
