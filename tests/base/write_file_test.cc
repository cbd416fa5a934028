// A file is as before or as wanted, and nothing is left beside it.
#include "base/write_file.h"

#include "base/mapped_file.h"
#include "support/temp_dir.h"

#include <csignal>
#include <filesystem>
#include <gtest/gtest.h>
#include <sys/resource.h>

namespace pinhole {
namespace {

size_t entries(const std::string& folder) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder))
    ++count;
  return count;
}

TEST(WriteFile, MakesFoldersAndReplaces) {
  const testing::TempDir folder;
  const std::string path = folder.file("a/b/c.json");
  ASSERT_TRUE(write_file(path, "old"));
  ASSERT_TRUE(write_file(path, "new"));
  EXPECT_EQ(read_text_file(path, 100).value(), "new");
  EXPECT_EQ(entries(folder.file("a/b")), 1u);
}

TEST(WriteFile, LeavesTheOldFileWhenTheNewOneDoesNotFit) {
  const testing::TempDir folder;
  const std::string path = folder.file("x");
  ASSERT_TRUE(write_file(path, "old"));
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{1000, before.rlim_max};
  const auto ignored = signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status status = write_file(path, std::string(5000, 'n'));
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, ignored);
  EXPECT_FALSE(status);
  EXPECT_EQ(read_text_file(path, 100).value(), "old");
  EXPECT_EQ(entries(folder.path()), 1u);
}

TEST(WriteFile, SaysWhereItCannotWrite) {
  const testing::TempDir folder;
  ASSERT_TRUE(write_file(folder.file("file"), ""));
  const Status status = write_file(folder.file("file/below"), "x");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
}

} // namespace
} // namespace pinhole
