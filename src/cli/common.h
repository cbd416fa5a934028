// What the subcommands share: terminal, progress, errors, exit codes, Ctrl-C.
#pragma once

#include "base/result.h"
#include "image/image.h"
#include "kernels/table.h"
#include "plan/layout.h"

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace pinhole::cli {

// Exit codes that scripts can use.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;   // the work was done and its outcome is negative
inline constexpr int kExitBadInput = 2; // a file, picture or option is wrong
inline constexpr int kExitTooLarge = 3; // it does not fit: context, memory, limits
inline constexpr int kExitInterrupted = 130;

int exit_code(ErrorCode code);
// Prints "pinhole: <error>" to standard error and returns the exit code.
int report(const Error& error);

// Set by Ctrl-C; a second Ctrl-C ends the program at once.
const std::atomic<bool>& interrupted();
void catch_interrupts();
// The next line of standard input, without its end. False at the end of input and on Ctrl-C.
bool read_line(std::string& line);

bool is_terminal(int fd);
// ANSI codes, or nothing when `fd`, where the text goes, is no terminal or NO_COLOR is set.
std::string dim(std::string_view text, int fd);
std::string bold(std::string_view text, int fd);

// One line on standard error that is rewritten, only on a terminal; gone when it is destroyed.
class ProgressLine {
 public:
  explicit ProgressLine(bool enabled);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  // Shows stage, share done, rate per second and time left.
  void update(std::string_view stage, int64_t done, int64_t total, std::string_view unit);
  void clear();

 private:
  bool enabled_;
  bool shown_ = false;
  std::string stage_;
  std::chrono::steady_clock::time_point stage_start_, last_shown_;
};

// --threads, --exact, --kv-type: how to compute. The kernel table is selected when it is resolved.
struct ComputeOptions {
  int threads = 0; // 0: PINHOLE_THREADS, or all usable cores
  bool exact = false;
  std::string kv_type = "f16";
  void add_to(CLI::App& app);
  Result<KernelChoice> resolve() const;
};

// "1024x768" of --image.
Result<Size> parse_size(const std::string& text);

// The memory that a run may take: --ram when it is given, else what is available now, or left under
// the cgroup's limit.
struct MemoryBudget {
  int64_t bytes = 0;
  std::string source; // "--ram", "available now", "left in the cgroup"
};
Result<MemoryBudget> memory_budget(const std::string& ram);

// Memory of this process now, in bytes.
struct MemoryUse {
  int64_t anonymous = 0; // RssAnon
  int64_t file = 0;      // RssFile: mapped pages that are resident
  int64_t peak = 0;      // VmHWM: all kinds
};
MemoryUse memory_use();

// The model to use when none is named: PINHOLE_MODEL, or the bundled one.
Result<std::string> default_model();

// Adds the subcommands to `app`; each returns its exit code through `exit`.
void add_ask(CLI::App& app, int& exit);
void add_inspect(CLI::App& app, int& exit);
void add_perf(CLI::App& app, int& exit);
void add_plan(CLI::App& app, int& exit);
void add_serve(CLI::App& app, int& exit);
void add_tokenize(CLI::App& app, int& exit);
void add_verify(CLI::App& app, int& exit);

} // namespace pinhole::cli
