#include "base/memory_pressure.h"

#include "base/memory_limit.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <span>
#include <string_view>
#include <unistd.h>

namespace pinhole {

namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// An eighth, at most 4 GiB: above the tenth of memory at which earlyoom, as it comes, ends the
// largest program, and the page cache of a desktop still fits. The bound is for large machines,
// where an eighth is far from short.
constexpr int64_t kTightShare = 8;
constexpr int64_t kMostTightBytes = 4096 * kMiB;
// A thirty-second, at most 1 GiB: a program that starts takes as much in a second or two.
constexpr int64_t kCriticalShare = 32;
constexpr int64_t kMostCriticalBytes = 1024 * kMiB;
// Stalls count only when less than a quarter is available. With more there is nothing that giving
// memory back would help: somebody waits at a limit of his own group, or the disk is slow.
constexpr int64_t kAmpleShare = 4;
// A tenth of the time is felt by people, and below the 60 % of systemd-oomd's default.
constexpr int64_t kStallPercent = 10;

// The longest file is memory.stat: 60 lines, 2 KiB. What does not fit in is not read.
using Buffer = char[8192];

int open_file(const std::string& path) {
  return path.empty() ? -1 : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
}

// The text of an open file from its beginning; empty when it cannot be read. A line that is cut at
// the buffer's end is left out.
std::string_view text_in(int fd, std::span<char> buffer) {
  if (fd < 0)
    return {};
  ssize_t bytes = 0;
  do {
    bytes = ::pread(fd, buffer.data(), buffer.size(), 0);
  } while (bytes < 0 && errno == EINTR);
  if (bytes <= 0)
    return {};
  const std::string_view text(buffer.data(), static_cast<size_t>(bytes));
  return text.size() < buffer.size() ? text : text.substr(0, text.rfind('\n') + 1);
}

// Of "some avg10=12.34 avg60=...", 12. Anything that is no share counts as 0.
int64_t percent_in(std::string_view text, std::string_view line) {
  const size_t at = text.find(line);
  if (at == std::string_view::npos)
    return 0;
  const auto percent = leading_number(text.substr(at + line.size()));
  return percent && *percent <= 100 ? *percent : 0;
}

} // namespace

int64_t tight_bytes(int64_t total_bytes) {
  return std::min(total_bytes / kTightShare, kMostTightBytes);
}

int64_t critical_bytes(int64_t total_bytes) {
  return std::min(total_bytes / kCriticalShare, kMostCriticalBytes);
}

PressureLevel pressure_level(int64_t available_bytes, int64_t total_bytes,
                             const MemoryStall& stall) {
  if (total_bytes <= 0)
    return PressureLevel::kNone;
  if (available_bytes < critical_bytes(total_bytes))
    return PressureLevel::kCritical;
  if (available_bytes < tight_bytes(total_bytes))
    return stall.full_percent >= kStallPercent ? PressureLevel::kCritical : PressureLevel::kTight;
  if (available_bytes < total_bytes / kAmpleShare && stall.some_percent >= kStallPercent)
    return PressureLevel::kTight;
  return PressureLevel::kNone;
}

MemoryWatch::MemoryWatch(const MemoryWatchOptions& options) : interval_(options.interval) {
  const MemoryLimit limit = memory_limit_at(options.root);
  meminfo_fd_ = open_file(options.root + "/proc/meminfo");
  stall_fd_ = open_file(options.root + "/proc/pressure/memory");
  limit_fd_ = open_file(limit.limit_file);
  usage_fd_ = open_file(limit.usage_file);
  stat_fd_ = open_file(limit.stat_file);
}

MemoryWatch::~MemoryWatch() {
  for (const int fd : {meminfo_fd_, stall_fd_, limit_fd_, usage_fd_, stat_fd_}) {
    if (fd >= 0)
      ::close(fd);
  }
}

const MemoryState& MemoryWatch::state(int64_t cache_bytes) {
  if (was_read_ && std::chrono::steady_clock::now() - read_at_ < interval_)
    return state_;
  return read(cache_bytes);
}

const MemoryState& MemoryWatch::read(int64_t cache_bytes) {
  read_at_ = std::chrono::steady_clock::now();
  was_read_ = true;
  Buffer buffer;
  state_ = {};
  const std::string_view stall = text_in(stall_fd_, buffer);
  state_.stall = {percent_in(stall, "some avg10="), percent_in(stall, "full avg10=")};
  const std::string_view meminfo = text_in(meminfo_fd_, buffer);
  const auto total = meminfo_bytes(meminfo, "MemTotal");
  const auto available = meminfo_bytes(meminfo, "MemAvailable"); // Linux before 3.14 has none
  if (total && available) {
    state_.total_bytes = *total;
    state_.available_bytes = *available + cache_bytes;
    state_.level = pressure_level(state_.available_bytes, state_.total_bytes, state_.stall);
  }
  const auto limit = leading_number(text_in(limit_fd_, buffer));
  const auto usage = leading_number(text_in(usage_fd_, buffer));
  if (!limit || !usage)
    return state_;
  const int64_t in_use = std::max<int64_t>(*usage - page_cache_bytes(text_in(stat_fd_, buffer)), 0);
  const int64_t left = std::max<int64_t>(*limit - in_use, 0) + cache_bytes;
  const PressureLevel level = pressure_level(left, *limit, state_.stall);
  if (level > state_.level) {
    state_.level = level;
    state_.available_bytes = left;
    state_.total_bytes = *limit;
  }
  return state_;
}

} // namespace pinhole
