// Whether short runs are better on all threads or on the caller's alone.
//
// A token of a small model takes a tenth of a millisecond, in which the threads meet over a hundred
// times. On an idle machine two of them halve it; where another program wants a core, or a
// hypervisor takes it away, each meeting waits for a thread that does not run, and a token takes
// ten times as long as on one thread. So both are tried, and what was faster is kept for a while.
#pragma once

namespace pinhole {

class TeamChoice {
 public:
  // Where the next run belongs.
  bool alone() const { return alone_; }
  // How long it took there.
  void ran(double seconds);

 private:
  void ran_in_trial();
  void begin_trial();
  void stay(double run_seconds);

  bool alone_ = false;
  bool in_trial_ = false;
  double seconds_ = 0; // of the runs since the trial began, or ended
  int num_runs_ = 0;
  int num_slow_ = 0;        // of them, the last ones
  double kept_seconds_ = 0; // a run where the last trial left it; 0: there was none yet
  double stay_seconds_ = 0; // until the next trial
  int num_in_vain_ = 0;     // trials in a row that changed nothing
};

} // namespace pinhole
