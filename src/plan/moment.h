// How fast this machine is at this moment, for the model at hand: on machines that are shared,
// cores and memory change by a factor of two from minute to minute, so none of this is kept.
#pragma once

#include "base/mapped_file.h"
#include "base/thread_pool.h"
#include "plan/rates.h"

#include <chrono>

namespace pinhole {

// Sets what `rates` has of the moment (read_gb_per_s, map_gb_per_s, touch_gb_per_s,
// op_seconds, FormatRate::memory_gb_per_s of the formats that decoding `text` reads) and scales the
// rest to what the cores do now (rates_at). `weights`: the model's own file when the page cache
// holds it, whose pages are then the ones that are read, and which is unmapped again; null: memory
// of its own, and map_gb_per_s stays. Takes half a second, of which means are taken, as a run will
// meet good moments and bad ones.
void measure_moment(const Graph& text, const MappedFile* weights, const KernelChoice& kernels,
                    ThreadPool& threads, KernelRates& rates);

// Whether other work took the cores away since this began: threads were made to wait more often
// than the kernel's own doings explain.
class Disturbance {
 public:
  Disturbance();
  bool disturbed() const;
  // Whether so many involuntary context switches in that time tell of other work.
  static bool are_many(int64_t switches, double seconds);
  // Whether what is measured now would be: other work waits for the cores.
  static bool likely();

 private:
  int64_t switches_; // involuntary ones, of this process
  std::chrono::steady_clock::time_point start_;
};

} // namespace pinhole
