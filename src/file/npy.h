// NumPy arrays of golden cases: .npy versions 1 to 3, C order, '<f4', '<i4', '<i8', '|u1', '|b1'.
//
// Source: NumPy's format description (numpy.lib.format). Invariant: the data has exactly the bytes
// that shape and dtype ask for. An array points into its mapping or into the bytes that were
// parsed.
#pragma once

#include "base/mapped_file.h"
#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace pinhole {

enum class NpyType { kF32, kI32, kI64, kU8, kBool };

struct NpyArray {
  std::vector<int64_t> shape; // row-major, outermost first; empty for a scalar
  NpyType type = NpyType::kF32;
  std::span<const std::byte> raw;
  std::string name;
  MappedFile file; // empty for an array that was parsed from memory

  static Result<NpyArray> open(const std::string& path);
  static Result<NpyArray> parse(std::span<const std::byte> bytes, const std::string& name);

  int64_t elements() const;
  // Views; an array of another type is an error that names both.
  Result<std::span<const float>> floats() const;
  Result<std::span<const uint8_t>> bytes() const; // '|u1' and '|b1'
  // Copies, from '<i4' and '<i8'.
  Result<std::vector<int64_t>> ints() const;
};

} // namespace pinhole
