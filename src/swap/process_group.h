// A program in a process group of its own: started, watched, stopped with all that it started.
//
// Invariant: the first process is reaped last, when no other of its group is left: until then its
// id cannot be given to anybody else, so that no signal goes to a stranger. Source: POSIX
// posix_spawn, waitid; Linux proc(5).
#pragma once

#include "base/result.h"

#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace pinhole {

class ProcessGroup {
 public:
  ProcessGroup() = default;
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;
  ~ProcessGroup(); // kills it

  // Standard input is empty; both outputs go to the end of `log_path`, nowhere if that is empty.
  // No other open file is handed on.
  Status start(const std::vector<std::string>& command, const std::string& log_path);
  bool is_started() const { return leader_ > 0; }
  pid_t leader() const { return leader_; }
  // What became of the first process: nothing while it runs, else "exited with 1", "killed by 9".
  std::optional<std::string> ended() const;
  void signal(int number) const; // to all of the group
  // Reaps the first process if all have ended; kills those whose first process has ended.
  bool try_reap();
  // Of all its processes: memory that is theirs, their part of what is shared (Pss). Nothing if the
  // system does not tell.
  std::optional<int64_t> used_bytes() const;

 private:
  bool has_others() const;
  pid_t leader_ = 0;
};

} // namespace pinhole
