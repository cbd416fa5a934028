// A file mapped read-only, and small files read whole.
#pragma once

#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace pinhole {

// Owns a read-only, shared mapping of a whole file. Pages are the page cache's: they cost no
// anonymous memory and the kernel may drop them. Moving keeps the address.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::string& path);
  // Takes over a descriptor of a file without a path (a memfd); `name` is for errors.
  static Result<MappedFile> adopt(int fd, const std::string& name);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  int descriptor() const { return fd_; }
  // How much of the file the page cache holds now; all of it where the kernel does not say.
  uint64_t cached_bytes() const;
  // Whether the page cache holds all of a range, of 2 MiB at most.
  bool is_cached(uint64_t offset, uint64_t length) const;
  // Asks the kernel to read `length` bytes at `offset` ahead; advice only, never an error.
  void prefetch(uint64_t offset, uint64_t length) const;
  // Reads a range and maps its pages, in 2 MiB pages where the file system has them; returns when
  // they are there. Like drop() advice only: what fails is read on first use.
  void populate(uint64_t offset, uint64_t length) const;
  // From now on, what is touched beside a range does not bring pages of it into memory, as Linux
  // does since 6.18 where the page cache has both in one large folio.
  void keep_apart(uint64_t offset, uint64_t length) const;
  // Unmaps the whole pages of a range, which the page cache goes on holding.
  void unmap(uint64_t offset, uint64_t length) const;
  // Unmaps the whole pages of a range and lets the page cache forget them.
  void drop(uint64_t offset, uint64_t length) const;
  // Reads a range past the mapping, none of which is mapped by it. False: it could not be read.
  bool read_at(uint64_t offset, std::span<std::byte> out) const;

 private:
  void advise(uint64_t offset, uint64_t length, bool outward, int advice) const;

  int fd_ = -1;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::string path_;
};

// A part of a mapped file.
struct FileRange {
  const MappedFile* file = nullptr;
  uint64_t offset = 0, bytes = 0;
};

// The file in which `data` lies; nothing when it lies in none of them.
std::optional<FileRange> find_range(std::span<const MappedFile* const> files, const std::byte* data,
                                    uint64_t bytes);

// The whole file as a string; an error when it is larger than `max_bytes`.
Result<std::string> read_text_file(const std::string& path, uint64_t max_bytes);
// The same for a descriptor that cannot be mapped (a pipe); `name` is for the error.
Result<std::string> read_stream(int fd, const std::string& name, uint64_t max_bytes);

} // namespace pinhole
