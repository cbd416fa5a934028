// How fast the kernels of this machine really are, per weight format: measured once with the
// kernels themselves, on all threads at once, and kept in the user's cache folder. Predicted times
// are counts of work (plan/work.h) over these rates.
#pragma once

#include "base/json.h"
#include "base/thread_pool.h"
#include "kernels/table.h"
#include "plan/layout.h"

#include <array>
#include <string>

namespace pinhole {

// Of one weight format, all threads together.
struct FormatRate {
  // Many rows of x (prefill, the vision tower): seconds = flops / many + weight bytes / unpack + x
  // bytes / pack + y bytes / out.
  double many_gflop_per_s = 0;
  double unpack_gb_per_s = 0;
  double pack_gb_per_s = 0;
  double one_gb_per_s = 0; // one row of x, weights from the caches: what arithmetic allows decode
  double out_gb_per_s = 0;
  double peak_gop_per_s = 0; // what measure_arithmetic said beside it; 0: not known
  // One row of x, weights from memory, or from the caches where a token's fit them: of this moment
  // (plan/moment.h), not kept; 0: not known.
  double memory_gb_per_s = 0;
  double alone_gb_per_s = 0; // the same on one thread; 0: a token takes too long for that

  bool measured() const {
    return many_gflop_per_s > 0 && unpack_gb_per_s > 0 && pack_gb_per_s > 0 && one_gb_per_s > 0 &&
           out_gb_per_s > 0;
  }
};

struct KernelRates {
  std::string cpu; // as /proc/cpuinfo names it
  std::string isa;
  int num_threads = 1;
  bool exact = false;
  bool disturbed = false;    // measured while other work took the cores: worth measuring again
  double read_gb_per_s = 0;  // memory, beyond the caches
  double peak_gop_per_s = 0; // measure_arithmetic beside what follows; 0: not known
  double attention_gflop_per_s = 0; // many queries
  double cache_gb_per_s = 0;        // one query, keys and values from memory
  double cached_gb_per_s = 0;       // the same from the cores' caches; 0: not known
  double elementwise_gb_per_s = 0;  // norms and activations: bytes read and written
  double activation_gb_per_s = 0;   // GELU on f32: bytes of its input
  double map_gb_per_s = 0;          // first touch of a mapped file that the page cache holds
  // Of this moment (plan/moment.h), not kept: first touch of reserved memory, which the kernel
  // clears; between two ops, where threads wait for each other.
  double touch_gb_per_s = 0;
  double op_seconds = 0;
  double disk_gb_per_s = 0;       // of the model's file, when it is streamed; not kept
  int64_t shared_cache_bytes = 0; // the last level of cache; 0: not known
  std::array<FormatRate, std::size(kFormats)> formats{}; // by FormatId; zeros: not measured

  const FormatRate& of(FormatId format) const { return formats[static_cast<size_t>(format)]; }
};

// Measures what is missing in `rates` of the formats that `graph` multiplies with: about a second
// a format, and as long for the rest. Returns whether anything was measured.
// What is of the moment is measured anew each time: plan/moment.h.
bool measure_rates(const Graph& graph, const KernelChoice& kernels, ThreadPool& threads,
                   KernelRates& rates);

// The rates as they are when measure_arithmetic says `peak_gop_per_s`: on a shared machine cores
// lend their time, or their clock, to neighbours.
KernelRates rates_at(const KernelRates& rates, double peak_gop_per_s);

// The kept rates of this CPU, instruction set and thread count; empty ones where none are kept.
KernelRates load_rates(const KernelChoice& kernels);
// Written aside and renamed. An error says what to do; predictions do not need the file.
Status save_rates(const KernelRates& rates);
// $XDG_CACHE_HOME/pinhole/rates.json, or ~/.cache/pinhole/rates.json.
std::string rates_path();

Json rates_to_json(const KernelRates& rates);

} // namespace pinhole
