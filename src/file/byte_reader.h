// A cursor over untrusted little-endian bytes: every read is checked against the end, and an error
// says what was being read, at which byte (hex), how much it needs and how much is left.
//
// Of a file that is not here whole, the first bytes can be read: what the file itself cannot hold
// is the same error, and needed() tells a read that went beyond the bytes that are here.
#pragma once

#include "base/result.h"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fmt/format.h>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace pinhole {

static_assert(std::endian::native == std::endian::little, "readers copy little-endian values");

class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string name)
      : ByteReader(bytes, bytes.size(), std::move(name)) {}
  // The first bytes of a file of `file_bytes`.
  ByteReader(std::span<const std::byte> bytes, uint64_t file_bytes, std::string name)
      : bytes_(bytes), file_bytes_(file_bytes), name_(std::move(name)) {}

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return file_bytes_ - offset_; }
  // How many of the file's first bytes the read needs that failed for want of them; 0: none did.
  uint64_t needed() const { return needed_; }
  const std::string& name() const { return name_; }
  std::string where() const { return where(offset_); }
  std::string where(uint64_t offset) const { return fmt::format("{}, byte 0x{:x}", name_, offset); }

  template <class T> Result<T> read(std::string_view what) {
    PINHOLE_TRY(const auto raw, take(sizeof(T), what));
    T value;
    std::memcpy(&value, raw.data(), sizeof(T));
    return value;
  }

  // The next `length` bytes as a view.
  Result<std::span<const std::byte>> take(uint64_t length, std::string_view what) {
    if (length > remaining()) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("the file ends inside {}: {} bytes needed, {} left", what, length,
                              remaining()),
                  where());
    }
    if (length > bytes_.size() - offset_) {
      needed_ = offset_ + length;
      return fail(ErrorCode::kIo,
                  fmt::format("{} ends at byte 0x{:x}, only {} bytes are here", what, needed_,
                              bytes_.size()),
                  where());
    }
    const auto raw = bytes_.subspan(offset_, length);
    offset_ += length;
    return raw;
  }

  // A string with a 64-bit length in front, as a view.
  Result<std::string_view> read_string(std::string_view what, uint64_t max_bytes = UINT64_MAX) {
    const uint64_t begin = offset_;
    PINHOLE_TRY(const uint64_t length, read<uint64_t>(what));
    if (length > max_bytes) {
      return fail(
          ErrorCode::kInvalidInput,
          fmt::format("{} claims {} bytes, at most {} are allowed", what, length, max_bytes),
          where(begin));
    }
    PINHOLE_TRY(const auto raw, take(length, what));
    return std::string_view(reinterpret_cast<const char*>(raw.data()), raw.size());
  }

 private:
  std::span<const std::byte> bytes_; // at most file_bytes_
  uint64_t file_bytes_;
  std::string name_;
  uint64_t offset_ = 0;
  uint64_t needed_ = 0;
};

} // namespace pinhole
