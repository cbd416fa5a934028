#include "engine/weight_stream.h"

#include <algorithm>
#include <cassert>

namespace pinhole {

namespace {

// Read in one call: long enough for the disk's full rate, short enough to stop soon.
constexpr uint64_t kPieceBytes = 16 << 20;

} // namespace

WeightStream::WeightStream(const Graph& graph, const std::vector<bool>& streamed,
                           std::span<const MappedFile* const> files, int64_t window_bytes)
    : window_bytes_(window_bytes), segment_of_op_(graph.ops().size(), kNone) {
  const auto add = [&](Segment& segment, WeightId id) {
    const Weight& weight = graph.weight(id);
    const auto bytes = static_cast<uint64_t>(row_bytes(weight.format, weight.cols) * weight.rows);
    const auto range = find_range(files, weight.data, bytes);
    assert(range);
    if (!range) // it is read when it is used
      return;
    segment.ranges.push_back(*range);
    segment.bytes += static_cast<int64_t>(bytes);
  };
  for (size_t i = 0; i < graph.ops().size(); ++i) {
    if (!streamed[i])
      continue;
    Segment segment;
    for (const MatmulPart& part : graph.ops()[i].parts)
      add(segment, part.weight);
    if (segment.ranges.empty())
      continue;
    segment_of_op_[i] = segments_.size();
    segments_.push_back(std::move(segment));
  }
  if (!segments_.empty())
    reader_ = std::thread([this] { read_ahead(); });
}

WeightStream::~WeightStream() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (reader_.joinable())
    reader_.join();
}

void WeightStream::drop(const Segment& segment) {
  for (const FileRange& range : segment.ranges)
    range.file->drop(range.offset, range.bytes);
}

void WeightStream::read_ahead() {
  std::unique_lock lock(mutex_);
  while (true) {
    const auto may_read = [&] {
      const Segment& next = segments_[read_ % segments_.size()];
      // Never more than one round ahead: a segment that is in use must not be read and dropped
      // twice.
      return awake_ && read_ - released_ < segments_.size() &&
             (held_bytes_ == 0 || held_bytes_ + next.bytes <= window_bytes_);
    };
    changed_.wait(lock, [&] { return stop_ || may_read(); });
    if (stop_)
      return;
    const Segment& next = segments_[read_ % segments_.size()];
    held_bytes_ += next.bytes;
    reading_ = true;
    bool broken_off = false;
    for (const FileRange& range : next.ranges) {
      for (uint64_t done = 0; done < range.bytes && !broken_off; done += kPieceBytes) {
        lock.unlock();
        const uint64_t bytes = std::min(kPieceBytes, range.bytes - done);
        if (done + bytes < range.bytes) // the disk has work while pages are mapped
          range.file->prefetch(range.offset + done + bytes,
                               std::min(kPieceBytes, range.bytes - done - bytes));
        range.file->populate(range.offset + done, bytes);
        lock.lock();
        broken_off = stop_ || !awake_;
      }
    }
    reading_ = false;
    if (broken_off) {
      drop(next);
      held_bytes_ -= next.bytes;
    } else {
      ++read_;
    }
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
  changed_.wait(lock, [&] { return read_ > number; });
}

void WeightStream::release(size_t op_idx) {
  const size_t idx = segment_of_op_[op_idx];
  if (idx == kNone)
    return;
  drop(segments_[idx]);
  {
    const std::lock_guard lock(mutex_);
    held_bytes_ -= segments_[idx].bytes;
    ++released_;
  }
  changed_.notify_all();
}

void WeightStream::rest() {
  if (segments_.empty())
    return;
  std::unique_lock lock(mutex_);
  awake_ = false;
  changed_.notify_all();
  changed_.wait(lock, [&] { return !reading_; });
  for (; released_ < read_; ++released_) {
    const Segment& segment = segments_[released_ % segments_.size()];
    drop(segment);
    held_bytes_ -= segment.bytes;
  }
  // The next run begins with the first segment.
  read_ = used_ = released_ = 0;
}

} // namespace pinhole
