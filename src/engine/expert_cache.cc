#include "engine/expert_cache.h"

#include <algorithm>
#include <cassert>

namespace pinhole {

namespace {

constexpr uint64_t kLargestFolio = 2 << 20;

} // namespace

ExpertCache::ExpertCache(const Graph& graph, std::span<const MappedFile* const> files,
                         int64_t budget_bytes)
    : planned_bytes_(budget_bytes), budget_bytes_(budget_bytes),
      first_of_op_(graph.ops().size(), -1), count_of_op_(graph.ops().size(), 0) {
  for (size_t i = 0; i < graph.ops().size(); ++i) {
    const Op& op = graph.ops()[i];
    if (op.kind != OpKind::kMoe)
      continue;
    first_of_op_[i] = static_cast<int32_t>(experts_.size());
    count_of_op_[i] = static_cast<int32_t>(graph.weight(op.gate).experts);
    int64_t bytes_of_op = 0;
    for (int32_t e = 0; e < count_of_op_[i]; ++e) {
      Expert expert{};
      expert.first = first_of_op_[i];
      expert.last = first_of_op_[i] + count_of_op_[i] - 1;
      size_t used = 0;
      const Tensor* before = nullptr;
      for (const WeightId id : {op.gate, op.up, op.down}) {
        const Tensor* tensor = graph.weight(id).tensor;
        if (tensor == before) // gate and up in one
          continue;
        before = tensor;
        const uint64_t bytes = tensor->bytes / static_cast<uint64_t>(count_of_op_[i]);
        auto range = find_range(files, tensor->data, tensor->bytes);
        if (!range)
          continue;
        if (e == 0)
          range->file->use_small_pages(range->offset, range->bytes);
        range->offset += static_cast<uint64_t>(e) * bytes;
        range->bytes = bytes;
        expert.ranges[used++] = *range;
        expert.bytes += static_cast<int64_t>(bytes);
      }
      bytes_of_op += expert.bytes;
      experts_.push_back(expert);
    }
    least_bytes_ = std::max(least_bytes_, bytes_of_op);
  }
  missing_.reserve(experts_.size());
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
  while (held_bytes_ > budget_bytes_ && oldest_ >= 0) {
    const int32_t idx = oldest_;
    Expert& expert = experts_[static_cast<size_t>(idx)];
    if (expert.step == step_)
      break; // all that is held is in use
    unlink(idx);
    expert.held = false;
    held_bytes_ -= expert.bytes;
    for (const FileRange& range : expert.ranges) {
      if (range.bytes > 0)
        range.file->drop(range.offset, range.bytes);
    }
  }
}

void ExpertCache::set_budget(int64_t bytes) {
  budget_bytes_ = std::min(std::max(bytes, least_bytes_), planned_bytes_);
  ++step_; // the last step's experts are not in use any more
  drop_oldest();
}

void ExpertCache::choose(size_t op_idx, const int32_t* row_begin) {
  missing_.clear();
  ++step_;
  const int32_t first = first_of_op_[op_idx];
  for (int32_t e = 0; e < count_of_op_[op_idx]; ++e) {
    if (row_begin[e] == row_begin[e + 1])
      continue;
    Expert& expert = experts_[static_cast<size_t>(first + e)];
    expert.step = step_;
    if (expert.held)
      unlink(first + e);
    else
      missing_.push_back(first + e);
    make_newest(first + e);
    if (!expert.held)
      held_bytes_ += expert.bytes;
    expert.held = true;
  }
  drop_oldest();
  // All at once: the disk likes many requests.
  for (const int32_t idx : missing_) {
    for (const FileRange& range : experts_[static_cast<size_t>(idx)].ranges) {
      if (range.bytes > 0)
        range.file->prefetch(range.offset, range.bytes);
    }
  }
}

void ExpertCache::unmap_neighbours(int32_t idx) const {
  const Expert& expert = experts_[static_cast<size_t>(idx)];
  for (size_t part = 0; part < std::size(expert.ranges); ++part) {
    const uint64_t bytes = expert.ranges[part].bytes;
    if (bytes == 0)
      continue;
    const auto reach = static_cast<int32_t>(kLargestFolio / bytes + 1);
    const int32_t begin = std::max(expert.first, idx - std::min(reach, idx));
    const int32_t end = std::min(expert.last, idx + reach);
    for (int32_t other = begin; other <= end; ++other) {
      const Expert& neighbour = experts_[static_cast<size_t>(other)];
      if (!neighbour.held)
        neighbour.ranges[part].file->unmap(neighbour.ranges[part].offset, bytes);
    }
  }
}

void ExpertCache::fetch(int thread_idx, int num_threads) const {
  for (size_t i = static_cast<size_t>(thread_idx); i < missing_.size();
       i += static_cast<size_t>(num_threads)) {
    for (const FileRange& range : experts_[static_cast<size_t>(missing_[i])].ranges) {
      if (range.bytes > 0)
        range.file->populate_small(range.offset, range.bytes);
    }
    unmap_neighbours(missing_[i]);
  }
}

} // namespace pinhole
