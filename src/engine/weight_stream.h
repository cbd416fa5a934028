// Weights that do not stay in memory: a thread reads them from the mapped files in the order in
// which a graph's ops use them, ahead by a window of bytes, and drops them after use. What
// plan/residency.h decided is kept: no more than the window is mapped at once.
//
// The order is a circle: after the last op of a graph comes the first of its next run.
#pragma once

#include "base/mapped_file.h"
#include "model/graph.h"

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace pinhole {

class WeightStream {
 public:
  // `streamed` by op; every weight of these ops must lie in one of `files`, which outlive the
  // stream.
  WeightStream(const Graph& graph, const std::vector<bool>& streamed,
               std::span<const MappedFile* const> files, int64_t window_bytes);
  ~WeightStream();
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  // Called by one thread, op after op of a run: returns when the op's weights are in memory.
  void wait_for(size_t op_idx);
  void release(size_t op_idx);
  // Drops everything and stops reading until the next wait_for(): the graph will not run soon, or
  // its last run was broken off.
  void rest();

 private:
  struct Segment { // of one op
    std::vector<FileRange> ranges;
    int64_t bytes = 0;
  };
  static constexpr size_t kNone = static_cast<size_t>(-1);

  void read_ahead();
  static void drop(const Segment& segment);

  const int64_t window_bytes_;
  std::vector<Segment> segments_;     // in the order of use
  std::vector<size_t> segment_of_op_; // kNone: nothing of this op is streamed

  std::mutex mutex_;
  std::condition_variable changed_;
  // Counted over all runs: segment number i is segments_[i % size].
  uint64_t read_ = 0;     // are in memory, or were
  uint64_t used_ = 0;     // were waited for
  uint64_t released_ = 0; // were dropped
  int64_t held_bytes_ = 0;
  bool awake_ = false, reading_ = false, stop_ = false;
  std::thread reader_;
};

} // namespace pinhole
