// Page-aligned anonymous memory, reserved once: the arena, the KV cache, picture embeddings.
#pragma once

#include "base/result.h"

#include <cstddef>
#include <cstdint>

namespace pinhole {

class AnonymousMemory {
 public:
  // Zero-filled; 0 bytes is an empty object. `what` names it in the error.
  static Result<AnonymousMemory> reserve(int64_t bytes, const char* what);

  AnonymousMemory() = default;
  AnonymousMemory(AnonymousMemory&& other) noexcept;
  AnonymousMemory& operator=(AnonymousMemory&& other) noexcept;
  AnonymousMemory(const AnonymousMemory&) = delete;
  AnonymousMemory& operator=(const AnonymousMemory&) = delete;
  ~AnonymousMemory();

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  // Gives the whole pages of a part back to the system; they stay reserved and read as zeros.
  void release_pages(int64_t offset, int64_t bytes) const;

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

} // namespace pinhole
