#include "cli/common.h"

#include "base/memory_limit.h"
#include "base/thread_pool.h"
#include "base/units.h"
#include "kernels/select.h"

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <poll.h>
#include <unistd.h>
#include <utility>

namespace pinhole::cli {

namespace {

std::atomic<bool> g_interrupted{false};
int g_wake[2] = {-1, -1}; // a pipe: readable once interrupted, so that a poll cannot miss it

void on_interrupt(int) {
  if (g_interrupted.exchange(true))
    ::_exit(kExitInterrupted);
  const int saved = errno;
  (void)!::write(g_wake[1], "", 1);
  errno = saved;
}

// no-color.org: NO_COLOR counts when it is not empty.
bool colours(int fd) {
  const char* no_color = std::getenv("NO_COLOR");
  return is_terminal(fd) && (no_color == nullptr || *no_color == '\0');
}

} // namespace

int exit_code(ErrorCode code) {
  switch (code) {
  case ErrorCode::kTooLarge:
    return kExitTooLarge;
  case ErrorCode::kCancelled:
    return kExitInterrupted;
  default:
    return kExitBadInput;
  }
}

int report(const Error& error) {
  fmt::print(stderr, "pinhole: {}\n", error.text());
  return exit_code(error.code);
}

const std::atomic<bool>& interrupted() { return g_interrupted; }

void catch_interrupts() {
  if (::pipe2(g_wake, O_CLOEXEC | O_NONBLOCK) != 0)
    g_wake[0] = g_wake[1] = -1;
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool read_line(std::string& line) {
  static std::string buffered;
  while (!interrupted()) {
    if (const size_t end = buffered.find('\n'); end != std::string::npos) {
      line = buffered.substr(0, end);
      buffered.erase(0, end + 1);
      return true;
    }
    pollfd waits[] = {{STDIN_FILENO, POLLIN, 0}, {g_wake[0], POLLIN, 0}};
    if (::poll(waits, 2, -1) < 0)
      continue; // a signal: the loop looks whether it was an interrupt
    if (waits[0].revents == 0)
      continue;
    char bytes[4096];
    const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (n > 0) {
      buffered.append(bytes, static_cast<size_t>(n));
    } else if (n == 0 || errno != EINTR) {
      line = std::exchange(buffered, {});
      return !line.empty();
    }
  }
  return false;
}

bool is_terminal(int fd) { return ::isatty(fd) != 0; }

std::string dim(std::string_view text, int fd) {
  return colours(fd) ? fmt::format("\033[2m{}\033[0m", text) : std::string(text);
}

std::string bold(std::string_view text, int fd) {
  return colours(fd) ? fmt::format("\033[1m{}\033[0m", text) : std::string(text);
}

ProgressLine::ProgressLine(bool enabled) : enabled_(enabled && is_terminal(STDERR_FILENO)) {}

ProgressLine::~ProgressLine() { clear(); }

void ProgressLine::update(std::string_view stage, int64_t done, int64_t total,
                          std::string_view unit) {
  if (!enabled_)
    return;
  const auto now = std::chrono::steady_clock::now();
  if (stage != stage_) {
    stage_ = stage;
    stage_start_ = now;
  } else if (done < total && now - last_shown_ < std::chrono::milliseconds(100)) {
    return;
  }
  last_shown_ = now;
  std::string line(stage);
  if (total > 1)
    line += fmt::format(" {}/{}", done, total);
  const double seconds = std::chrono::duration<double>(now - stage_start_).count();
  if (done > 0 && done < total && seconds > 0.2) {
    const double rate = static_cast<double>(done) / seconds;
    line += fmt::format("  {:.0f} {}/s, {} left", rate, unit,
                        format_millis(static_cast<double>(total - done) / rate * 1000));
  }
  fmt::print(stderr, "\r\033[K{}", dim(line, STDERR_FILENO));
  std::fflush(stderr);
  shown_ = true;
}

void ProgressLine::clear() {
  if (!shown_)
    return;
  fmt::print(stderr, "\r\033[K");
  std::fflush(stderr);
  shown_ = false;
}

void ComputeOptions::add_to(CLI::App& app) {
  app.add_option("--threads", threads,
                 "Threads that compute (default: PINHOLE_THREADS or all cores)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--kv-type", kv_type, "Element type of the KV cache")
      ->check(CLI::IsMember({"f32", "f16", "q8_0"}))
      ->capture_default_str();
  app.add_flag("--exact", exact, "f32 arithmetic throughout (slow; to check against a reference)");
}

Result<KernelChoice> ComputeOptions::resolve() const {
  KernelChoice choice;
  PINHOLE_TRY(choice.table, kernels::select());
  choice.exact = exact;
  choice.num_threads = threads;
  if (threads == 0) {
    choice.num_threads = usable_cores();
    if (const char* text = std::getenv("PINHOLE_THREADS")) {
      char* end = nullptr;
      const long value = std::strtol(text, &end, 10);
      if (end == text || *end != '\0' || value < 1 || value > 1024) {
        return fail(ErrorCode::kInvalidInput,
                    fmt::format("PINHOLE_THREADS is '{}', expected 1 to 1024", text));
      }
      choice.num_threads = static_cast<int>(value);
    }
  }
  choice.kv_type = kv_type == "f32"    ? kernels::KvType::kF32
                   : kv_type == "q8_0" ? kernels::KvType::kQ8_0
                                       : kernels::KvType::kF16;
  return choice;
}

MemoryUse memory_use() {
  MemoryUse use;
  std::ifstream status("/proc/self/status");
  std::string key;
  while (status >> key) {
    int64_t kib = 0;
    if (key == "RssAnon:" && status >> kib)
      use.anonymous = kib * 1024;
    else if (key == "RssFile:" && status >> kib)
      use.file = kib * 1024;
    else if (key == "VmHWM:" && status >> kib)
      use.peak = kib * 1024;
    status.ignore(4096, '\n');
  }
  return use;
}

Result<std::string> default_model() {
  namespace fs = std::filesystem;
  if (const char* path = std::getenv("PINHOLE_MODEL"); path != nullptr && *path != '\0') {
    return std::string(path);
  }
  constexpr const char* kBundled = "pinhole-mini/pinhole-mini-f16.gguf";
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error).parent_path();
  const fs::path places[] = {program / "../share/pinhole/models", program / "../../models",
                             fs::path(PINHOLE_SOURCE_DIR) / "models"};
  for (const fs::path& place : places) {
    if (fs::exists(place / kBundled, error))
      return (place / kBundled).lexically_normal().string();
  }
  return fail(ErrorCode::kNotFound, fmt::format("the bundled model {} was not found", kBundled), {},
              "name a model with -m, or set PINHOLE_MODEL");
}

Result<Size> parse_size(const std::string& text) {
  Size size;
  const char* end = text.data() + text.size();
  const auto width = std::from_chars(text.data(), end, size.width);
  if (width.ec == std::errc{} && width.ptr != end && *width.ptr == 'x') {
    const auto height = std::from_chars(width.ptr + 1, end, size.height);
    if (height.ec == std::errc{} && height.ptr == end && size.width > 0 && size.height > 0)
      return size;
  }
  return fail(ErrorCode::kInvalidInput, fmt::format("'{}' is no picture size", text), "--image",
              "give it as WIDTHxHEIGHT, such as 1024x768");
}

Result<MemoryBudget> memory_budget(const std::string& ram) {
  if (!ram.empty()) {
    const auto bytes = parse_bytes(ram);
    if (!bytes)
      return fail(ErrorCode::kInvalidInput, fmt::format("'{}' is no amount of memory", ram),
                  "--ram", "give it as 16G or 800M");
    return MemoryBudget{*bytes, "--ram"};
  }
  const MemoryLimit limit = memory_limit();
  const bool cgroup = limit.usable_bytes() < limit.available_bytes;
  return MemoryBudget{limit.usable_bytes(), cgroup ? "left in the cgroup" : "available now"};
}

} // namespace pinhole::cli
