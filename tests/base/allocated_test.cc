#include "base/allocated.h"

#include <gtest/gtest.h>
#include <memory>
#include <vector>

namespace pinhole {
namespace {

TEST(Allocated, CountsSmallAndLargeBlocksUntilTheyAreFreed) {
  if (allocated_bytes() == 0)
    GTEST_SKIP() << "this allocator does not tell what it has handed out";
  constexpr int64_t kSlack = 64 << 10;
  const int64_t before = allocated_bytes();
  {
    const std::vector<char> large(5 << 20);
    std::vector<std::unique_ptr<char[]>> small;
    for (int i = 0; i < 1000; ++i)
      small.push_back(std::make_unique<char[]>(1000));
    const int64_t held = allocated_bytes() - before;
    EXPECT_GE(held, (5 << 20) + 1000 * 1000);
    EXPECT_LE(held, (5 << 20) + 1000 * 1000 + kSlack);
  }
  EXPECT_LE(allocated_bytes() - before, kSlack);
}

} // namespace
} // namespace pinhole
