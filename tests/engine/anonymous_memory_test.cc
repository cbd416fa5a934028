// Memory that is given back in part.
#include "engine/anonymous_memory.h"

#include "support/golden.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <unistd.h>

namespace pinhole {
namespace {

TEST(AnonymousMemory, WholePagesOfAPartAreGivenBack) {
  const int64_t page = ::sysconf(_SC_PAGESIZE);
  const AnonymousMemory memory = testing::take(AnonymousMemory::reserve(5 * page, "test"));
  std::fill_n(memory.data(), 5 * page, std::byte{1});
  const auto ones = [&](int64_t begin, int64_t end) {
    return std::count(memory.data() + begin, memory.data() + end, std::byte{1});
  };
  memory.release_pages(page + 1, page - 1); // whole page: none
  memory.release_pages(3 * page, 0);
  EXPECT_EQ(ones(0, 5 * page), 5 * page);
  memory.release_pages(page - 1, 2 * page + 2); // pages 1 and 2, a byte on each side
  EXPECT_EQ(ones(0, page), page);
  EXPECT_EQ(ones(page, 3 * page), 0);
  EXPECT_EQ(ones(3 * page, 5 * page), 2 * page);
  memory.data()[page] = std::byte{1}; // still reserved
  EXPECT_EQ(ones(page, 3 * page), 1);
  AnonymousMemory().release_pages(0, 0);
}

} // namespace
} // namespace pinhole
