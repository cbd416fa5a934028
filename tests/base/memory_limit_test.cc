// Limits of memory as /proc and cgroups tell them, and amounts of memory as people write them.
#include "base/memory_limit.h"

#include "support/temp_dir.h"

#include <filesystem>
#include <gtest/gtest.h>

namespace pinhole {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

// A root folder with the files that the limits are read from.
class Root {
 public:
  Root() {
    write("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n"
                          "MemAvailable:    8388608 kB\n");
  }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(folder_.file(name)).parent_path());
    folder_.write(name, text);
  }
  MemoryLimit read() const { return memory_limit_at(folder_.path()); }

 private:
  testing::TempDir folder_;
};

// What can be opened and not read, as files of a process that ends in between.
TEST(MemoryLimit, AKernelFileThatFailsWhileItIsReadIsEmpty) {
  const testing::TempDir folder;
  EXPECT_EQ(read_kernel_file(folder.path()), "");
  EXPECT_EQ(read_kernel_file(folder.path() + "/none"), "");
  folder.write("stat", "12 (name) S");
  EXPECT_EQ(read_kernel_file(folder.path() + "/stat"), "12 (name) S");
}

TEST(MemoryLimit, WithoutAGroupIsWhatIsAvailable) {
  const Root root;
  const MemoryLimit limit = root.read();
  EXPECT_EQ(limit.total_bytes, 16 * kGiB);
  EXPECT_EQ(limit.available_bytes, 8 * kGiB);
  EXPECT_FALSE(limit.cgroup_bytes);
  EXPECT_EQ(limit.usable_bytes(), 8 * kGiB);
}

TEST(MemoryLimit, LeastOfAGroupAndThoseAboveItVersion2) {
  const Root root;
  root.write("proc/self/cgroup", "0::/user/app\n");
  root.write("sys/fs/cgroup/user/app/memory.max", "max\n");
  root.write("sys/fs/cgroup/user/memory.max", "4294967296\n");
  root.write("sys/fs/cgroup/user/memory.current", "1073741824\n");
  const MemoryLimit limit = root.read();
  EXPECT_EQ(limit.cgroup_bytes, 4 * kGiB);
  EXPECT_EQ(limit.usable_bytes(), 3 * kGiB);
}

TEST(MemoryLimit, Version1AndItsNumberForNoLimit) {
  const Root root;
  root.write("proc/self/cgroup", "4:cpu,cpuacct:/x\n7:memory:/job\n0::/other\n");
  root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  root.write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2147483648\n");
  root.write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "3221225472\n");
  EXPECT_EQ(root.read().cgroup_bytes, 2 * kGiB);
  EXPECT_EQ(root.read().usable_bytes(), 0); // over it already
  root.write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(root.read().usable_bytes(), 8 * kGiB);
}

TEST(MemoryLimit, PageCacheOfAGroupCanBeTakenBack) {
  const Root root;
  root.write("proc/self/cgroup", "0::/app\n");
  root.write("sys/fs/cgroup/app/memory.max", "4294967296\n");
  root.write("sys/fs/cgroup/app/memory.current", "3221225472\n");
  EXPECT_EQ(root.read().usable_bytes(), kGiB);
  root.write("sys/fs/cgroup/app/memory.stat",
             "anon 1073741824\nfile 2147483648\ninactive_file 1073741824\n"
             "active_file 1073741824\n");
  EXPECT_EQ(root.read().usable_bytes(), 3 * kGiB);
}

TEST(MemoryLimit, GroupThatIsMountedAsTheRootOfAContainer) {
  const Root root;
  root.write("proc/self/cgroup", "0::/docker/0123\n"); // not visible inside
  root.write("sys/fs/cgroup/memory.max", "1073741824\n");
  EXPECT_EQ(root.read().cgroup_bytes, kGiB);
}

TEST(MemoryLimit, OfThisMachine) {
  const MemoryLimit limit = memory_limit();
  EXPECT_GT(limit.total_bytes, 0);
  EXPECT_GT(limit.available_bytes, 0);
  EXPECT_LE(limit.available_bytes, limit.total_bytes);
}

TEST(ParseBytes, UnitsThatPeopleWrite) {
  EXPECT_EQ(parse_bytes("16G"), 16 * kGiB);
  EXPECT_EQ(parse_bytes("16GiB"), 16 * kGiB);
  EXPECT_EQ(parse_bytes("16GB"), 16 * kGiB);
  EXPECT_EQ(parse_bytes("1.5G"), 3 * kGiB / 2);
  EXPECT_EQ(parse_bytes("512M"), kGiB / 2);
  EXPECT_EQ(parse_bytes("4096"), 4096);
  EXPECT_EQ(parse_bytes("4096B"), 4096);
}

TEST(ParseBytes, NothingElse) {
  for (const char* text : {"", "G", "x", "-1G", "0", "0.0001", "nan", "inf", "1e300", "16 G",
                           "16GX", "16Gi", "1e18G", "16G16G"})
    EXPECT_FALSE(parse_bytes(text)) << text;
}

} // namespace
} // namespace pinhole
