// When memory counts as short, and what is read of /proc and of cgroups to know it.
#include "base/memory_pressure.h"

#include "support/memory_root.h"

#include <gtest/gtest.h>

namespace pinhole {
namespace {

using testing::MemoryRoot;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kGiB = int64_t{1} << 30;
constexpr PressureLevel kNone = PressureLevel::kNone;
constexpr PressureLevel kTight = PressureLevel::kTight;
constexpr PressureLevel kCritical = PressureLevel::kCritical;

TEST(PressureLevel, OfWhatIsAvailableAndHowLongProgramsWait) {
  const struct {
    int64_t available, total, some, full;
    PressureLevel want;
  } cases[] = {
      {16 * kGiB, 16 * kGiB, 0, 0, kNone},
      {2 * kGiB, 16 * kGiB, 0, 0, kNone}, // an eighth
      {2 * kGiB - 1, 16 * kGiB, 0, 0, kTight},
      {512 * kMiB, 16 * kGiB, 0, 0, kTight}, // a thirty-second
      {512 * kMiB - 1, 16 * kGiB, 0, 0, kCritical},
      {0, 16 * kGiB, 0, 0, kCritical},
      // Large machines: 4 GiB and 1 GiB.
      {4 * kGiB, 512 * kGiB, 0, 0, kNone},
      {4 * kGiB - 1, 512 * kGiB, 0, 0, kTight},
      {1 * kGiB, 512 * kGiB, 0, 0, kTight},
      {1 * kGiB - 1, 512 * kGiB, 0, 0, kCritical},
      // Stalls count where little is available.
      {4 * kGiB, 16 * kGiB, 100, 100, kNone},
      {4 * kGiB - 1, 16 * kGiB, 9, 9, kNone},
      {4 * kGiB - 1, 16 * kGiB, 10, 0, kTight},
      {4 * kGiB - 1, 16 * kGiB, 100, 100, kTight},
      {2 * kGiB - 1, 16 * kGiB, 100, 9, kTight},
      {2 * kGiB - 1, 16 * kGiB, 100, 10, kCritical},
      // Nothing is known.
      {0, 0, 0, 0, kNone},
      {0, 0, 100, 100, kNone},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(pressure_level(c.available, c.total, {c.some, c.full}), c.want)
        << c.available << " of " << c.total << ", some " << c.some << ", full " << c.full;
  }
}

TEST(MemoryWatch, FollowsWhatIsAvailable) {
  const MemoryRoot root;
  MemoryWatch watch(root.options());
  EXPECT_EQ(watch.state().level, kNone);
  EXPECT_EQ(watch.state().available_bytes, 8 * kGiB);
  EXPECT_EQ(watch.state().total_bytes, 16 * kGiB);
  root.set_available_mib(1024);
  EXPECT_EQ(watch.state().level, kTight);
  root.set_available_mib(100);
  EXPECT_EQ(watch.state().level, kCritical);
  EXPECT_EQ(watch.state().available_bytes, 100 * kMiB);
  root.set_available_mib(0);
  EXPECT_EQ(watch.state().level, kCritical);
  root.set_available_mib(8192);
  EXPECT_EQ(watch.state().level, kNone);
}

TEST(MemoryWatch, FollowsStalls) {
  const MemoryRoot root;
  root.set_stall("0.00", "0.00");
  MemoryWatch watch(root.options());
  root.set_available_mib(3000);
  EXPECT_EQ(watch.state().level, kNone);
  root.set_stall("12.34", "9.99");
  EXPECT_EQ(watch.state().level, kTight);
  EXPECT_EQ(watch.state().stall.some_percent, 12);
  EXPECT_EQ(watch.state().stall.full_percent, 9);
  root.set_available_mib(1000);
  EXPECT_EQ(watch.state().level, kTight);
  root.set_stall("100.00", "10.00");
  EXPECT_EQ(watch.state().level, kCritical);
}

TEST(MemoryWatch, ReadsAgainAfterTheIntervalOrWhenAsked) {
  const MemoryRoot root;
  MemoryWatch watch({root.path(), std::chrono::hours(1)});
  EXPECT_EQ(watch.state().level, kNone);
  root.set_available_mib(100);
  EXPECT_EQ(watch.state().level, kNone);
  EXPECT_EQ(watch.read().level, kCritical);
  EXPECT_EQ(watch.state().level, kCritical);
}

TEST(MemoryWatch, LimitOfTheGroupCountsWhereLessIsLeftInIt) {
  for (const bool v2 : {true, false}) {
    const MemoryRoot root;
    const std::string folder = v2 ? "sys/fs/cgroup/app/" : "sys/fs/cgroup/memory/app/";
    const std::string usage = folder + (v2 ? "memory.current" : "memory.usage_in_bytes");
    const std::string limit = folder + (v2 ? "memory.max" : "memory.limit_in_bytes");
    root.write("proc/self/cgroup", v2 ? "0::/app\n" : "7:memory:/app\n");
    root.write(limit, "1073741824\n");
    root.write(usage, "536870912\n");
    MemoryWatch watch(root.options());
    EXPECT_EQ(watch.state().level, kNone);
    EXPECT_EQ(watch.state().total_bytes, 16 * kGiB);
    root.write(usage, "1063256064\n"); // 10 MiB are left
    EXPECT_EQ(watch.state().level, kCritical);
    EXPECT_EQ(watch.state().available_bytes, 10 * kMiB);
    EXPECT_EQ(watch.state().total_bytes, kGiB);
    root.write(limit, "2147483648\n"); // raised
    EXPECT_EQ(watch.state().level, kNone);
    root.write(limit, v2 ? "max\n" : "9223372036854771712\n");
    EXPECT_EQ(watch.state().level, kNone);
    root.write(limit, "1073741824\n");
    EXPECT_EQ(watch.state().level, kCritical);
  }
}

TEST(MemoryWatch, PageCacheOfTheGroupIsNotInUse) {
  const MemoryRoot root;
  root.write("proc/self/cgroup", "0::/app\n");
  root.write("sys/fs/cgroup/app/memory.max", "1073741824\n");
  root.write("sys/fs/cgroup/app/memory.current", "1073741824\n");
  root.write("sys/fs/cgroup/app/memory.stat",
             "anon 536870912\ninactive_file 436870912\nactive_file 100000000\n");
  EXPECT_EQ(MemoryWatch(root.options()).state().level, kNone);
  root.write("sys/fs/cgroup/app/memory.stat", "anon 1073741824\ninactive_file 0\n");
  EXPECT_EQ(MemoryWatch(root.options()).state().level, kCritical);
}

TEST(MemoryWatch, WhatIsNotThereOrMakesNoSenseDoesNotCount) {
  const testing::TempDir empty;
  EXPECT_EQ(MemoryWatch({empty.path(), {}}).state().level, kNone);
  const std::string total = "MemTotal: 16777216 kB\n";
  for (const std::string& meminfo : {
           std::string(), std::string("\n\n\n"), std::string("MemAvailable: 0 kB\n"), total,
           total + "MemAvailable:\n", total + "MemAvailable: x kB\n",
           total + "MemAvailable: -5 kB\n", total + "MemAvailable 0 kB\n",
           total + "MemAvailableNow: 0 kB\n", total + "MemAvailable: 99999999999999999999 kB\n",
           total + "MemAvailable: 9223372036854775807 kB\n",
           std::string("MemTotal: 9223372036854775807 kB\nMemAvailable: 0 kB\n"),
           total + "MemAvailable: 16777216 kB", // no end of line
           std::string(1 << 20, 'x'), std::string(1 << 20, '\0'),
           total + std::string(8192 - total.size() - 16, ' ') + "\nMemAvailable: 0", // cut
       }) {
    const MemoryRoot root;
    root.write("proc/meminfo", meminfo);
    EXPECT_EQ(MemoryWatch(root.options()).state().level, kNone) << meminfo.substr(0, 100);
  }
  for (const char* stall :
       {"", "some", "some avg10=", "some avg10=x", "some avg10=-50.00\n", "some avg10=101.00\n",
        "some avg10=99999999999999999999\n", "some avg10 = 50\n", "full avg60=50\n", "\n\n"}) {
    const MemoryRoot root;
    root.set_available_mib(3000);
    root.write("proc/pressure/memory", stall);
    EXPECT_EQ(MemoryWatch(root.options()).state().level, kNone) << stall;
  }
  for (const char* usage : {"", "x\n", "-1\n", "99999999999999999999\n"}) {
    const MemoryRoot root;
    root.write("proc/self/cgroup", "0::/app\n");
    root.write("sys/fs/cgroup/app/memory.max", "1073741824\n");
    root.write("sys/fs/cgroup/app/memory.current", usage);
    EXPECT_EQ(MemoryWatch(root.options()).state().level, kNone) << usage;
  }
}

TEST(MemoryWatch, OfThisMachine) {
  MemoryWatch watch;
  EXPECT_GT(watch.state().total_bytes, 0);
  EXPECT_GT(watch.state().available_bytes, 0);
}

} // namespace
} // namespace pinhole
