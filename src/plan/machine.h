// What this machine can do at most, measured: memory read and arithmetic, on one thread and on all.
// Predictions and reports are shares of these.
#pragma once

#include "base/mapped_file.h"
#include "base/thread_pool.h"
#include "kernels/table.h"

#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

struct MachineRate {
  std::string name; // "read" in GB/s; a kind of arithmetic in Gop/s (a multiply-add is two)
  double one_thread = 0;
  double all_threads = 0;
};

struct Machine {
  std::string isa;
  int num_threads = 1;
  MachineRate read;                    // GB/s from memory, beyond the caches
  std::vector<MachineRate> arithmetic; // Gop/s, in the order of kernels::Table::peaks

  // The rate called `name` on all threads, 0 when this instruction set has no such arithmetic.
  double ops(std::string_view name) const;
};

// Memory read on one thread and on all. It moves with the work of neighbours, by a factor of two
// where it was watched: measure it beside what is held against it.
MachineRate measure_read(const kernels::Table& table, ThreadPool& threads);

// Gop/s of the first kind of arithmetic on all threads, in some ten milliseconds: how fast the
// cores are at this moment.
double measure_arithmetic(const kernels::Table& table, ThreadPool& threads);

// GB/s at which a file that the page cache lacks is mapped: a part of it, which is forgotten before
// and after. 0 for an empty file.
double measure_disk(const MappedFile& file);

// GB/s at which streamed weights (engine/weight_stream.h) come from a file: a part of it, which the
// page cache forgets before. 0 for an empty file.
double measure_stream(const MappedFile& file);

// GB/s at which the threads together touch the first `bytes` of a mapped file for the first time,
// when the page cache holds it. They stay mapped. 0 for none.
double measure_mapping(const MappedFile& file, size_t bytes, ThreadPool& threads);

// Seconds to find the next op of a run and its pieces: bundled model, 65 ops a token, Zen 5: 0 to
// 0.9 us.
inline constexpr double kNextOpSeconds = 0.5e-6;

// GB/s at which the threads together touch `bytes` of reserved memory for the first time. 0: there
// is not so much.
double measure_touch(int64_t bytes, ThreadPool& threads);

// Takes about a second and 512 MiB; the best of several short runs, so that a moment of other work
// does not count.
Machine measure_machine(const kernels::Table& table, ThreadPool& threads);

} // namespace pinhole
