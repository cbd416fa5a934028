// Where the golden collection lies, and what a test does without it.
#pragma once

#include <filesystem>
#include <gtest/gtest.h>
#include <string>

namespace pinhole::testing {

inline std::string golden(const std::string& path) {
  return std::string(PINHOLE_GOLDEN_DIR) + "/" + path;
}

inline bool have_golden() { return std::filesystem::exists(golden("README.md")); }

// A test without the collection proves nothing, and says so.
#define REQUIRE_GOLDEN()                                                                           \
  if (!::pinhole::testing::have_golden())                                                          \
  GTEST_SKIP() << "there is no golden collection at " << PINHOLE_GOLDEN_DIR

} // namespace pinhole::testing
