// Memory to measure with.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <sys/mman.h>

namespace pinhole {

// Zeroed memory of its own, in large pages where there are: as an arena is.
class Pages {
 public:
  explicit Pages(int64_t bytes) {
    const auto wanted = static_cast<size_t>(std::max<int64_t>(bytes, 1));
    size_ = (wanted + kLargeBytes - 1) / kLargeBytes * kLargeBytes + kLargeBytes; // room to align
    void* memory =
        ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
      return;
    base_ = memory;
    const auto address = reinterpret_cast<uintptr_t>(memory);
    data_ = reinterpret_cast<std::byte*>((address + kLargeBytes - 1) / kLargeBytes * kLargeBytes);
    ::madvise(base_, size_, MADV_HUGEPAGE);
  }
  Pages(Pages&& other) noexcept : size_(other.size_), base_(other.base_), data_(other.data_) {
    other.base_ = nullptr;
  }
  Pages& operator=(Pages&&) = delete;
  ~Pages() {
    if (base_ != nullptr)
      ::munmap(base_, size_);
  }
  std::byte* data() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }

 private:
  static constexpr size_t kLargeBytes = 2 << 20;

  size_t size_ = 0;
  void* base_ = nullptr;
  std::byte* data_ = nullptr;
};

} // namespace pinhole
