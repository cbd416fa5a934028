// 64-bit arithmetic on sizes that come from files: an overflow is an answer, never a wrap-around.
#pragma once

#include <cstdint>
#include <optional>

namespace pinhole {

inline std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  uint64_t out;
  if (__builtin_mul_overflow(a, b, &out))
    return std::nullopt;
  return out;
}

inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t out;
  if (__builtin_add_overflow(a, b, &out))
    return std::nullopt;
  return out;
}

// Smallest multiple of `step` (> 0) that is >= value; for our own sizes, not for untrusted ones.
constexpr int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }
constexpr int64_t ceil_div(int64_t value, int64_t step) { return (value + step - 1) / step; }

} // namespace pinhole
