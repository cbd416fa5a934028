#include "engine/team_choice.h"

#include "plan/speed.h"

#include <algorithm>

namespace pinhole {

namespace {

constexpr int kTrialRuns = 4;
constexpr double kLeastStaySeconds = 0.03, kMostStaySeconds = 2;
constexpr double kTrialShare = 1.0 / 64; // of all runs, at most
constexpr int kMostInVain = 6;           // trials that double the stay
constexpr double kSlow = 2;              // times what a run took: if it stays so, something changed
constexpr double kBetter = 0.95;         // times it: worth a change

} // namespace

void TeamChoice::ran(double seconds) {
  seconds_ += seconds;
  ++num_runs_;
  if (in_trial_)
    return ran_in_trial();
  if (num_runs_ < kTrialRuns)
    return;
  if (kept_seconds_ == 0)
    return begin_trial();
  num_slow_ = seconds > kSlow * kept_seconds_ ? num_slow_ + 1 : 0;
  if (num_slow_ == kTrialRuns) {
    seconds_ = seconds;
    num_runs_ = 1;
    num_in_vain_ = 0;
    begin_trial();
  } else if (seconds_ >= stay_seconds_) {
    begin_trial();
  }
}

void TeamChoice::begin_trial() {
  kept_seconds_ = seconds_ / num_runs_;
  seconds_ = 0;
  num_runs_ = 0;
  num_slow_ = 0;
  // The ops of a long run are long beside a meeting, and pieces of them go to who is there.
  if (kept_seconds_ > kLongRunSeconds && !alone_)
    return stay(kept_seconds_);
  in_trial_ = true;
  alone_ = !alone_;
}

void TeamChoice::ran_in_trial() {
  const bool hopeless = seconds_ > kTrialRuns * kept_seconds_;
  if (num_runs_ < kTrialRuns && !hopeless)
    return;
  const double tried = seconds_ / num_runs_;
  in_trial_ = false;
  seconds_ = 0;
  num_runs_ = 0;
  if (!hopeless && tried < kBetter * kept_seconds_) {
    num_in_vain_ = 0;
    return stay(tried);
  }
  alone_ = !alone_;
  num_in_vain_ = std::min(num_in_vain_ + 1, kMostInVain);
  stay(kept_seconds_);
}

void TeamChoice::stay(double run_seconds) {
  kept_seconds_ = run_seconds;
  stay_seconds_ = std::max(std::min(kLeastStaySeconds * (1 << num_in_vain_), kMostStaySeconds),
                           kTrialRuns * run_seconds / kTrialShare);
}

} // namespace pinhole
