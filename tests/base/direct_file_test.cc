// Parts of a file read past the page cache are the file's bytes, whether it holds them or not.
#include "base/direct_file.h"

#include "support/temp_dir.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

namespace pinhole {
namespace {

constexpr size_t kBlock = DirectFile::kBlockBytes;

std::string text_of(size_t bytes) {
  std::string out(bytes, ' ');
  for (size_t i = 0; i < bytes; ++i)
    out[i] = static_cast<char>('a' + i % 23 + i / kBlock % 3);
  return out;
}

struct Blocks {
  explicit Blocks(size_t bytes)
      : size(bytes), data(static_cast<std::byte*>(std::aligned_alloc(kBlock, bytes))) {
    std::memset(data.get(), 0, bytes);
  }
  std::string text(size_t bytes) const { return {reinterpret_cast<char*>(data.get()), bytes}; }
  std::span<std::byte> span() const { return {data.get(), size}; }
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  size_t size;
  std::unique_ptr<std::byte, Free> data;
};

void expect_reads(const MappedFile& mapped, const std::string& text) {
  const DirectFile file(mapped);
  for (const bool forgotten : {false, true}) {
    if (forgotten)
      mapped.drop(0, text.size());
    for (size_t begin = 0; begin < text.size(); begin += 3 * kBlock) {
      const Blocks out(3 * kBlock);
      file.read(begin, out.span());
      const size_t there = std::min(3 * kBlock, text.size() - begin); // the last one is cut
      EXPECT_EQ(out.text(there), text.substr(begin, there)) << begin << ", " << forgotten;
    }
    const Blocks out(kBlock);
    file.read((text.size() / kBlock + 1) * kBlock, out.span()); // past the end: nothing
    EXPECT_EQ(out.text(kBlock), std::string(kBlock, '\0'));
  }
}

TEST(DirectFile, ReadsWhatIsCachedAndWhatIsNot) {
  const testing::TempDir folder;
  const std::string text = text_of(10 * kBlock + 100);
  folder.write("file", text);
  const MappedFile mapped = MappedFile::open(folder.file("file")).value();
  ::fsync(mapped.descriptor()); // what is dirty cannot be forgotten
  expect_reads(mapped, text);
}

TEST(DirectFile, ReadsFilesThatAreNotOnADisk) {
  const int fd = ::memfd_create("memory", MFD_CLOEXEC);
  ASSERT_GE(fd, 0);
  const std::string text = text_of(7 * kBlock + 1);
  ASSERT_EQ(::write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  expect_reads(MappedFile::adopt(fd, "memory").value(), text);
}

TEST(MappedFile, TellsWhetherTheCacheHoldsARange) {
  const testing::TempDir folder;
  folder.write("file", "");
  const int fd = ::open(folder.file("file").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::ftruncate(fd, 64 * kBlock), 0); // a hole, of which nothing was ever read
  const std::string block = text_of(kBlock);
  ASSERT_EQ(::pwrite(fd, block.data(), kBlock, 5 * kBlock), static_cast<ssize_t>(kBlock));
  const MappedFile mapped = MappedFile::adopt(fd, "file").value();
  EXPECT_TRUE(mapped.is_cached(5 * kBlock, kBlock));
  EXPECT_TRUE(mapped.is_cached(5 * kBlock + 10, kBlock - 10));
  EXPECT_FALSE(mapped.is_cached(5 * kBlock, 36 * kBlock));
  EXPECT_FALSE(mapped.is_cached(40 * kBlock, kBlock));
  EXPECT_FALSE(mapped.is_cached(64 * kBlock, kBlock)); // past the end
}

} // namespace
} // namespace pinhole
