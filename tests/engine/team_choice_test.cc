// One thread or all: the faster one is found, kept, and left when the machine changes.
#include "engine/team_choice.h"

#include <gtest/gtest.h>

namespace pinhole {
namespace {

struct Outcome {
  double seconds = 0;
  int alone = 0;
};

Outcome run(TeamChoice& choice, int runs, double team_seconds, double alone_seconds) {
  Outcome out;
  for (int i = 0; i < runs; ++i) {
    const double seconds = choice.alone() ? alone_seconds : team_seconds;
    out.alone += choice.alone() ? 1 : 0;
    out.seconds += seconds;
    choice.ran(seconds);
  }
  return out;
}

TEST(TeamChoice, KeepsAllThreadsWhereTheyAreFaster) {
  TeamChoice choice;
  const Outcome out = run(choice, 10000, 100e-6, 190e-6);
  EXPECT_LT(out.alone, 10000 / 64 + 4);
  EXPECT_LT(out.seconds, 1.02 * 10000 * 100e-6);
}

TEST(TeamChoice, GoesToOneThreadWhereMeetingsAreSlow) {
  TeamChoice choice;
  const Outcome out = run(choice, 10000, 4e-3, 200e-6);
  EXPECT_GT(out.alone, 9900);
  EXPECT_LT(out.seconds, 1.1 * 10000 * 200e-6);
}

TEST(TeamChoice, NoticesThatACoreIsTakenAndThatItIsBack) {
  TeamChoice choice;
  run(choice, 10000, 100e-6, 190e-6);
  const Outcome busy = run(choice, 2000, 4e-3, 200e-6);
  EXPECT_GT(busy.alone, 1950);
  run(choice, 20000, 100e-6, 190e-6); // 2 to 4 seconds
  EXPECT_FALSE(choice.alone());
}

TEST(TeamChoice, LongRunsAreNeverTriedAlone) {
  TeamChoice choice;
  EXPECT_EQ(run(choice, 100, 80e-3, 10e-3).alone, 0);
}

TEST(TeamChoice, OneSlowRunChangesNothing) {
  TeamChoice choice;
  run(choice, 1000, 100e-6, 190e-6);
  run(choice, 1, 50e-3, 50e-3);
  EXPECT_LT(run(choice, 1000, 100e-6, 190e-6).alone, 1000 / 32);
}

} // namespace
} // namespace pinhole
