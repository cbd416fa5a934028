// Weights that do not stay in memory: threads read them from the files in the order in which a
// graph's ops use them, ahead by a window of slots, one op's weights each. What plan/residency.h
// decided is kept: there is nothing of them outside the window.
//
// The order is a circle: after the last op of a graph comes the first of its next run.
#pragma once

#include "base/direct_file.h"
#include "engine/anonymous_memory.h"
#include "model/graph.h"
#include "plan/residency.h"

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace pinhole {

class WeightStream {
 public:
  // `streamed` by op; every weight of these ops must lie in one of `files`. `window` has
  // kWindowSlots slots; streams may share it when all but one of them rest. Files and window
  // outlive the stream.
  WeightStream(const Graph& graph, const std::vector<bool>& streamed,
               std::span<const MappedFile* const> files, const AnonymousMemory& window);
  ~WeightStream();
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  // Called by one thread, op after op of a run: returns when the op's weights are in memory.
  void wait_for(size_t op_idx);
  void release(size_t op_idx);
  // Between the two, for every thread: where `mapped`, an address in the weights of that op, lies
  // in memory; `mapped` itself when the op is not streamed.
  const std::byte* resident(size_t op_idx, const std::byte* mapped) const;
  // Stops reading until the next wait_for(): the graph will not run soon, or its last run was
  // broken off.
  void rest();

 private:
  struct Part { // a matrix
    const std::byte* mapped = nullptr;
    int64_t bytes = 0;
    int64_t slot_offset = 0;
  };
  struct Read { // of whole blocks of a file
    size_t file = 0;
    uint64_t offset = 0;
    int64_t bytes = 0;
    int64_t slot_offset = 0;
  };
  struct Segment { // of one op
    std::vector<Part> parts;
    std::vector<Read> reads;
  };
  static constexpr size_t kNone = static_cast<size_t>(-1);

  void add_part(const Weight& weight, std::span<const MappedFile* const> files, Segment& segment,
                int64_t& slot_offset) const;
  void read_ahead();
  std::byte* slot(uint64_t segment_number) const {
    return window_.data() + static_cast<int64_t>(segment_number % kWindowSlots) * slot_bytes_;
  }

  const AnonymousMemory& window_;
  const int64_t slot_bytes_;
  std::vector<DirectFile> files_;
  std::vector<Segment> segments_;      // in the order of use
  std::vector<size_t> segment_of_op_;  // kNone: nothing of this op is streamed
  std::vector<uint64_t> number_of_op_; // the segment's that the op waited for

  std::mutex mutex_;
  std::condition_variable changed_;
  // Counted over all runs: segment number i is segments_[i % size], in slot i % kWindowSlots.
  uint64_t begun_ = 0;             // all their reads were taken by some thread
  uint64_t used_ = 0;              // were waited for
  uint64_t released_ = 0;          // their slots are free
  size_t next_read_ = 0;           // of segment number begun_
  size_t left_[kWindowSlots] = {}; // reads of the segment in a slot that are not done
  int in_flight_ = 0;
  bool awake_ = false, stop_ = false;
  std::vector<std::thread> readers_;
};

} // namespace pinhole
