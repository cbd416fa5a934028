// Reads parts of a mapped file into memory of the caller, from the disk past the page cache: what
// is read once and kept elsewhere does not push out what others have there.
#pragma once

#include "base/mapped_file.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace pinhole {

// What reads a disk as fast as it goes: so many threads, each so much at a time. On a virtual disk,
// whose rate moved between 1 and 4 GB/s, three or four readers of 0.5 to 1 MiB were the fastest in
// most rounds, pieces of 4 MiB and more the slowest.
inline constexpr int kStreamReaders = 3;
inline constexpr int64_t kStreamReadBytes = 1 << 20;

class DirectFile {
 public:
  // Offsets, sizes and addresses of reads are multiples of it.
  static constexpr int64_t kBlockBytes = 4096;

  // `file` outlives it. On file systems without O_DIRECT, and where `file` was not opened from a
  // disk, reads go through the page cache.
  explicit DirectFile(const MappedFile& file);
  DirectFile(DirectFile&& other) noexcept;
  DirectFile& operator=(DirectFile&&) = delete;
  ~DirectFile();

  // Whole blocks, at most 2 MiB; of the file's last one, what there is. What the page cache holds
  // comes from there, what cannot be read from the mapping, whose errors end the program. May be
  // called by several threads.
  void read(uint64_t offset, std::span<std::byte> out) const;

 private:
  // Until `there` bytes are read; false when the descriptor does not give them.
  bool read_blocks(uint64_t offset, std::span<std::byte> out, size_t there) const;

  const MappedFile& file_;
  int fd_ = -1;
};

} // namespace pinhole
