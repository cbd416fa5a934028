#include "engine/anonymous_memory.h"

#include "base/checked.h"

#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

namespace pinhole {

Result<AnonymousMemory> AnonymousMemory::reserve(int64_t bytes, const char* what) {
  AnonymousMemory out;
  if (bytes <= 0)
    return out;
  void* data = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return fail(ErrorCode::kTooLarge, fmt::format("cannot reserve {} bytes for the {}: {}", bytes,
                                                  what, std::strerror(errno)));
  }
  // Large pages where the kernel gives them: fewer TLB misses on long streams.
  ::madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  out.data_ = static_cast<std::byte*>(data);
  out.bytes_ = bytes;
  return out;
}

AnonymousMemory::AnonymousMemory(AnonymousMemory&& other) noexcept { *this = std::move(other); }

AnonymousMemory& AnonymousMemory::operator=(AnonymousMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

AnonymousMemory::~AnonymousMemory() {
  if (data_ != nullptr)
    ::munmap(data_, static_cast<size_t>(bytes_));
}

void AnonymousMemory::release_pages(int64_t offset, int64_t bytes) const {
  const int64_t page = ::sysconf(_SC_PAGESIZE);
  const int64_t begin = round_up(offset, page);
  const int64_t end = (offset + bytes) / page * page;
  if (begin < end)
    ::madvise(data_ + begin, static_cast<size_t>(end - begin), MADV_DONTNEED);
}

} // namespace pinhole
