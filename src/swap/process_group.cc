#include "swap/process_group.h"

#include "base/memory_limit.h"

#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <memory>
#include <spawn.h>
#include <string_view>
#include <sys/wait.h>
#include <thread>

extern char** environ;

namespace pinhole {

namespace {

// The live processes of a group; those that ended and were not reaped take no memory.
std::vector<pid_t> live_members(pid_t group) {
  std::vector<pid_t> out;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir("/proc"), &::closedir);
  if (!folder)
    return out;
  while (const dirent* entry = ::readdir(folder.get())) {
    const std::string_view name = entry->d_name;
    pid_t pid = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (parsed.ec != std::errc{} || parsed.ptr != name.data() + name.size())
      continue;
    // "12 (name) S 1 12 ...": the name may hold anything, so from the last bracket.
    const std::string stat = read_kernel_file(fmt::format("/proc/{}/stat", pid));
    const size_t bracket = stat.rfind(") ");
    if (bracket == std::string::npos)
      continue;
    char state = 0;
    int parent = 0, process_group = 0;
    if (std::sscanf(stat.c_str() + bracket + 2, "%c %d %d", &state, &parent, &process_group) == 3 &&
        process_group == group && state != 'Z' && state != 'X') {
      out.push_back(pid);
    }
  }
  return out;
}

struct Actions {
  Actions() { posix_spawn_file_actions_init(&files), posix_spawnattr_init(&attributes); }
  ~Actions() { posix_spawn_file_actions_destroy(&files), posix_spawnattr_destroy(&attributes); }
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
};

} // namespace

ProcessGroup::~ProcessGroup() {
  // A killed process ends soon, unless the kernel waits for a device.
  for (int i = 0; is_started() && i < 500 && !try_reap(); ++i) {
    signal(SIGKILL);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

Status ProcessGroup::start(const std::vector<std::string>& command, const std::string& log_path) {
  if (is_started())
    return fail(ErrorCode::kBusy, "it is started already");
  std::vector<char*> words;
  for (const std::string& word : command)
    words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);

  Actions actions;
  const std::string output = log_path.empty() ? "/dev/null" : log_path;
  posix_spawn_file_actions_addopen(&actions.files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions.files, STDOUT_FILENO, output.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0644);
  posix_spawn_file_actions_adddup2(&actions.files, STDOUT_FILENO, STDERR_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&actions.files, STDERR_FILENO + 1);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setpgroup(&actions.attributes, 0);
  posix_spawnattr_setsigmask(&actions.attributes, &none);
  posix_spawnattr_setsigdefault(&actions.attributes, &all);
  posix_spawnattr_setflags(&actions.attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  if (!log_path.empty()) {
    const int log = ::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log < 0) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("the log cannot be written: {}", std::strerror(errno)), log_path);
    }
    ::close(log);
  }
  const int problem = ::posix_spawnp(&leader_, words[0], &actions.files, &actions.attributes,
                                     words.data(), environ);
  if (problem != 0) {
    leader_ = 0;
    const bool is_missing = problem == ENOENT || problem == EACCES || problem == ENOEXEC;
    return fail(is_missing ? ErrorCode::kNotFound : ErrorCode::kIo,
                fmt::format("cannot be started: {}", std::strerror(problem)), command[0],
                is_missing ? "check the program's name and path" : "");
  }
  return {};
}

std::optional<std::string> ProcessGroup::ended() const {
  siginfo_t info = {};
  if (!is_started())
    return "not started";
  if (::waitid(P_PID, static_cast<id_t>(leader_), &info, WEXITED | WNOHANG | WNOWAIT) != 0)
    return fmt::format("lost: {}", std::strerror(errno));
  if (info.si_pid == 0)
    return std::nullopt;
  return info.si_code == CLD_EXITED ? fmt::format("exited with {}", info.si_status)
                                    : fmt::format("was killed by signal {}", info.si_status);
}

void ProcessGroup::signal(int number) const {
  if (is_started())
    ::kill(-leader_, number);
}

bool ProcessGroup::has_others() const { return !live_members(leader_).empty(); }

bool ProcessGroup::try_reap() {
  if (!is_started())
    return true;
  if (!ended())
    return false;
  if (has_others()) {
    signal(SIGKILL);
    if (has_others())
      return false;
  }
  int status = 0;
  ::waitpid(leader_, &status, WNOHANG);
  leader_ = 0;
  return true;
}

std::optional<int64_t> ProcessGroup::used_bytes() const {
  if (!is_started())
    return std::nullopt;
  std::optional<int64_t> sum;
  for (const pid_t pid : live_members(leader_)) {
    const auto bytes =
        meminfo_bytes(read_kernel_file(fmt::format("/proc/{}/smaps_rollup", pid)), "Pss");
    if (bytes)
      sum = sum.value_or(0) + *bytes;
  }
  return sum;
}

} // namespace pinhole
