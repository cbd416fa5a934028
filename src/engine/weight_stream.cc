#include "engine/weight_stream.h"

#include "base/checked.h"

#include <algorithm>
#include <cassert>

namespace pinhole {

namespace {

constexpr int64_t kBlock = DirectFile::kBlockBytes;

} // namespace

WeightStream::WeightStream(const Graph& graph, const std::vector<bool>& streamed,
                           std::span<const MappedFile* const> files, const AnonymousMemory& window)
    : window_(window), slot_bytes_(window.bytes() / kWindowSlots),
      segment_of_op_(graph.ops().size(), kNone), number_of_op_(graph.ops().size(), 0) {
  for (const MappedFile* file : files)
    files_.emplace_back(*file);
  for (size_t i = 0; i < graph.ops().size(); ++i) {
    if (!streamed[i])
      continue;
    Segment segment;
    int64_t slot_offset = 0;
    for (const MatmulPart& part : graph.ops()[i].parts)
      add_part(graph.weight(part.weight), files, segment, slot_offset);
    if (segment.parts.empty())
      continue;
    assert(slot_offset <= slot_bytes_);
    segment_of_op_[i] = segments_.size();
    segments_.push_back(std::move(segment));
  }
  for (int i = 0; i < (segments_.empty() ? 0 : kStreamReaders); ++i)
    readers_.emplace_back([this] { read_ahead(); });
}

// A matrix lies at the place in a block that it has in the file.
void WeightStream::add_part(const Weight& weight, std::span<const MappedFile* const> files,
                            Segment& segment, int64_t& slot_offset) const {
  const int64_t bytes = row_bytes(weight.format, weight.cols) * weight.rows;
  const auto range = find_range(files, weight.data, static_cast<uint64_t>(bytes));
  assert(range);
  if (!range) // it is read when it is used
    return;
  range->file->keep_apart(range->offset, range->bytes);
  const auto file =
      static_cast<size_t>(std::find(files.begin(), files.end(), range->file) - files.begin());
  const auto offset = static_cast<int64_t>(range->offset);
  const int64_t begin = offset / kBlock * kBlock;
  const int64_t end = round_up(offset + bytes, kBlock);
  segment.parts.push_back({weight.data, bytes, slot_offset + offset - begin});
  for (int64_t at = begin; at < end; at += kStreamReadBytes) {
    segment.reads.push_back({file, static_cast<uint64_t>(at), std::min(kStreamReadBytes, end - at),
                             slot_offset + at - begin});
  }
  slot_offset += end - begin;
}

WeightStream::~WeightStream() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& reader : readers_)
    reader.join();
}

void WeightStream::read_ahead() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] {
      return stop_ || (awake_ && begun_ - released_ < static_cast<uint64_t>(kWindowSlots));
    });
    if (stop_)
      return;
    const uint64_t number = begun_;
    const Segment& segment = segments_[number % segments_.size()];
    size_t& left = left_[number % kWindowSlots];
    if (next_read_ == 0)
      left = segment.reads.size();
    const Read& read = segment.reads[next_read_];
    if (++next_read_ == segment.reads.size()) {
      next_read_ = 0;
      ++begun_;
    }
    ++in_flight_;
    lock.unlock();
    const std::span to(slot(number) + read.slot_offset, static_cast<size_t>(read.bytes));
    files_[read.file].read(read.offset, to);
    lock.lock();
    --in_flight_;
    if (--left == 0 || in_flight_ == 0)
      changed_.notify_all();
  }
}

void WeightStream::wait_for(size_t op_idx) {
  const size_t segment = segment_of_op_[op_idx];
  if (segment == kNone)
    return;
  std::unique_lock lock(mutex_);
  awake_ = true;
  changed_.notify_all();
  const uint64_t number = used_++;
  assert(number % segments_.size() == segment); // ops come in their order
  static_cast<void>(segment);
  number_of_op_[op_idx] = number;
  changed_.wait(lock, [&] { return begun_ > number && left_[number % kWindowSlots] == 0; });
}

void WeightStream::release(size_t op_idx) {
  if (segment_of_op_[op_idx] == kNone)
    return;
  {
    const std::lock_guard lock(mutex_);
    ++released_;
  }
  changed_.notify_all();
}

const std::byte* WeightStream::resident(size_t op_idx, const std::byte* mapped) const {
  if (segment_of_op_[op_idx] == kNone)
    return mapped;
  for (const Part& part : segments_[segment_of_op_[op_idx]].parts) {
    if (mapped >= part.mapped && mapped < part.mapped + part.bytes)
      return slot(number_of_op_[op_idx]) + part.slot_offset + (mapped - part.mapped);
  }
  return mapped; // a bias stays
}

void WeightStream::rest() {
  if (segments_.empty())
    return;
  std::unique_lock lock(mutex_);
  awake_ = false;
  changed_.wait(lock, [this] { return in_flight_ == 0; });
  // The next run begins with the first segment.
  begun_ = used_ = released_ = 0;
  next_read_ = 0;
}

} // namespace pinhole
