#include "base/mapped_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace pinhole {

namespace {

Error io_error(const char* what, const std::string& path) {
  const ErrorCode code = errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo;
  return Error{code, fmt::format("cannot {}: {}", what, std::strerror(errno)), path, {}};
}

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0)
      ::close(fd);
  }
};

constexpr uint64_t kPageBytes = 4096;

struct Pages {
  uint64_t begin = 0, length = 0;
};

// The pages that a range touches (`outward`), or that lie in it whole.
Pages whole_pages(uint64_t offset, uint64_t length, uint64_t size, bool outward) {
  if (offset >= size || length == 0)
    return {};
  const uint64_t end = length < size - offset ? offset + length : size;
  const uint64_t begin = outward ? offset / kPageBytes * kPageBytes
                                 : (offset + kPageBytes - 1) / kPageBytes * kPageBytes;
  const uint64_t stop = outward || end == size ? end : end / kPageBytes * kPageBytes;
  return begin < stop ? Pages{begin, stop - begin} : Pages{};
}

} // namespace

Result<MappedFile> MappedFile::open(const std::string& path) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0)
    return tl::unexpected(io_error("open", path));
  return adopt(std::exchange(file.fd, -1), path);
}

Result<MappedFile> MappedFile::adopt(int fd, const std::string& path) {
  Descriptor file{fd};
  struct stat info {};
  if (::fstat(file.fd, &info) != 0)
    return tl::unexpected(io_error("stat", path));
  if (!S_ISREG(info.st_mode))
    return fail(ErrorCode::kInvalidInput, "not a regular file", path);
  MappedFile out;
  out.path_ = path;
  out.size_ = static_cast<size_t>(info.st_size);
  if (out.size_ == 0)
    return out;
  void* data = ::mmap(nullptr, out.size_, PROT_READ, MAP_SHARED, file.fd, 0);
  if (data == MAP_FAILED) {
    out.size_ = 0;
    return tl::unexpected(io_error("map", path));
  }
  out.data_ = static_cast<const std::byte*>(data);
  std::swap(out.fd_, file.fd);
  return out;
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr)
    ::munmap(const_cast<std::byte*>(data_), size_);
  if (fd_ >= 0)
    ::close(fd_);
}

uint64_t MappedFile::cached_bytes() const {
  constexpr size_t kPage = 4096, kPages = 16384; // asked for at a time
  std::vector<unsigned char> there(kPages);
  uint64_t cached = 0;
  for (size_t at = 0; at < size_; at += kPage * kPages) {
    const size_t bytes = std::min(kPage * kPages, size_ - at);
    if (::mincore(const_cast<std::byte*>(data_) + at, bytes, there.data()) != 0)
      return size_;
    for (size_t page = 0; page * kPage < bytes; ++page)
      cached += (there[page] & 1) != 0 ? std::min(kPage, bytes - page * kPage) : 0;
  }
  return cached;
}

bool MappedFile::is_cached(uint64_t offset, uint64_t length) const {
  unsigned char there[(2 << 20) / kPageBytes + 1];
  const Pages pages = whole_pages(offset, length, size_, true);
  if (pages.length == 0 || pages.length > sizeof there * kPageBytes ||
      ::mincore(const_cast<std::byte*>(data_) + pages.begin, pages.length, there) != 0)
    return false;
  const uint64_t count = (pages.length + kPageBytes - 1) / kPageBytes;
  return std::all_of(there, there + count, [](unsigned char page) { return (page & 1) != 0; });
}

void MappedFile::prefetch(uint64_t offset, uint64_t length) const {
  if (offset >= size_)
    return;
  const uint64_t begin = offset / kPageBytes * kPageBytes;
  const uint64_t end = std::min<uint64_t>(size_, offset + length);
  ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_WILLNEED);
}

void MappedFile::advise(uint64_t offset, uint64_t length, bool outward, int advice) const {
  const Pages pages = whole_pages(offset, length, size_, outward);
  if (pages.length > 0)
    ::madvise(const_cast<std::byte*>(data_) + pages.begin, pages.length, advice);
}

void MappedFile::populate(uint64_t offset, uint64_t length) const {
  advise(offset, length, true, MADV_HUGEPAGE);
  advise(offset, length, true, MADV_POPULATE_READ);
}

void MappedFile::keep_apart(uint64_t offset, uint64_t length) const {
  advise(offset, length, false, MADV_RANDOM); // a mapping of its own, which no fault looks beyond
}

void MappedFile::unmap(uint64_t offset, uint64_t length) const {
  advise(offset, length, false, MADV_DONTNEED);
}

void MappedFile::drop(uint64_t offset, uint64_t length) const {
  unmap(offset, length);
  const Pages pages = whole_pages(offset, length, size_, false);
  if (pages.length > 0)
    ::posix_fadvise(fd_, static_cast<off_t>(pages.begin), static_cast<off_t>(pages.length),
                    POSIX_FADV_DONTNEED);
}

bool MappedFile::read_at(uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t n = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    offset += static_cast<uint64_t>(n);
    out = out.subspan(static_cast<size_t>(n));
  }
  return true;
}

std::optional<FileRange> find_range(std::span<const MappedFile* const> files, const std::byte* data,
                                    uint64_t bytes) {
  for (const MappedFile* file : files) {
    const std::byte* begin = file->bytes().data();
    if (data >= begin && data < begin + file->bytes().size())
      return FileRange{file, static_cast<uint64_t>(data - begin), bytes};
  }
  return std::nullopt;
}

Result<std::string> read_stream(int fd, const std::string& name, uint64_t max_bytes) {
  std::string out;
  char buffer[1 << 16];
  while (true) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n == 0)
      return out;
    if (n < 0) {
      if (errno == EINTR)
        continue;
      return tl::unexpected(io_error("read", name));
    }
    if (out.size() + static_cast<size_t>(n) > max_bytes) {
      return fail(ErrorCode::kTooLarge,
                  fmt::format("more than {} bytes, the limit here", max_bytes), name);
    }
    out.append(buffer, static_cast<size_t>(n));
  }
}

Result<std::string> read_text_file(const std::string& path, uint64_t max_bytes) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0)
    return tl::unexpected(io_error("open", path));
  return read_stream(file.fd, path, max_bytes);
}

} // namespace pinhole
