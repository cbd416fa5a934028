#include "base/direct_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <utility>

namespace pinhole {

DirectFile::DirectFile(const MappedFile& file) : file_(file) {
  // The same file, even if another has its name now.
  const std::string path = fmt::format("/proc/self/fd/{}", file.descriptor());
  fd_ = ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
}

DirectFile::DirectFile(DirectFile&& other) noexcept : file_(other.file_) {
  std::swap(fd_, other.fd_);
}

DirectFile::~DirectFile() {
  if (fd_ >= 0)
    ::close(fd_);
}

void DirectFile::read(uint64_t offset, std::span<std::byte> out) const {
  const std::span<const std::byte> mapped = file_.bytes();
  if (offset >= mapped.size())
    return;
  const size_t there = std::min<size_t>(out.size(), mapped.size() - offset);
  const bool cached = file_.is_cached(offset, there);
  if (!cached && fd_ >= 0 && read_blocks(offset, out, there))
    return;
  if (!file_.read_at(offset, out.first(there)))
    std::memcpy(out.data(), mapped.data() + offset, there);
}

bool DirectFile::read_blocks(uint64_t offset, std::span<std::byte> out, size_t there) const {
  size_t done = 0;
  while (done < there) {
    const ssize_t n =
        ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false; // a disk with larger blocks, say
    done += static_cast<size_t>(n);
  }
  return true;
}

} // namespace pinhole
