// How short memory is now, on this machine or in this process' group: other programs take it at any
// time. Read from /proc/meminfo, the group's files (base/memory_limit.h) and /proc/pressure/memory,
// which the kernel's Documentation/accounting/psi.rst describes; what is not there does not count.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace pinhole {

enum class PressureLevel {
  kNone,
  kTight,    // caches are given back
  kCritical, // nothing new is begun
};

// Percent of the last ten seconds in which at least one task, or all of them, waited for memory.
struct MemoryStall {
  int64_t some_percent = 0;
  int64_t full_percent = 0;
};

// Below these the level is kTight or kCritical, whatever the stall.
int64_t tight_bytes(int64_t total_bytes);
int64_t critical_bytes(int64_t total_bytes);

// kNone when the total is not known.
PressureLevel pressure_level(int64_t available_bytes, int64_t total_bytes,
                             const MemoryStall& stall);

struct MemoryState {
  PressureLevel level = PressureLevel::kNone;
  // Of the machine, or of the group with the least limit where the level there is higher.
  int64_t available_bytes = 0, total_bytes = 0;
  MemoryStall stall; // of the machine
};

struct MemoryWatchOptions {
  std::string root; // as of memory_limit_at()
  // A reading is two to five calls of the system: 18 us on a virtual EPYC with Linux 6.18, so that
  // this costs a ten-thousandth of the time. The kernel renews its averages every 2 s.
  std::chrono::milliseconds interval{200};
};

// Keeps the files open; a reading allocates nothing. For one thread.
class MemoryWatch {
 public:
  explicit MemoryWatch(const MemoryWatchOptions& options = {});
  ~MemoryWatch();
  MemoryWatch(const MemoryWatch&) = delete;
  MemoryWatch& operator=(const MemoryWatch&) = delete;

  // Not older than the interval. `cache_bytes` of this process' own memory, which it can give back,
  // count as available.
  const MemoryState& state(int64_t cache_bytes = 0);
  // As it is now.
  const MemoryState& read(int64_t cache_bytes = 0);

 private:
  const std::chrono::milliseconds interval_;
  int meminfo_fd_ = -1, stall_fd_ = -1, limit_fd_ = -1, usage_fd_ = -1, stat_fd_ = -1;
  bool was_read_ = false;
  std::chrono::steady_clock::time_point read_at_;
  MemoryState state_;
};

} // namespace pinhole
