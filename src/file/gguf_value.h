// GGUF metadata values. Arrays stay in the mapping (a vocabulary has 150,000 strings): their bounds
// are checked when the file is opened, their elements are read on request.
#pragma once

#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace pinhole {

// The specification's gguf_metadata_value_type.
enum class GgufType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

std::string_view gguf_type_name(GgufType type); // "uint32", "string" ...
uint64_t gguf_type_bytes(GgufType type);        // of one element; 0 for strings and arrays

struct GgufArray {
  GgufType element_type = GgufType::kUint8;
  uint64_t count = 0;
  std::span<const std::byte> raw; // checked: holds `count` elements exactly

  Result<std::vector<std::string_view>> strings() const; // views into the mapping
  Result<std::vector<int64_t>> integers() const;         // from any integer or bool type
  Result<std::vector<double>> numbers() const;           // from any number type
};

using GgufValue = std::variant<uint64_t, int64_t, double, bool, std::string_view, GgufArray>;

// Key-values in file order, with typed look-ups. `*_or` gives the fallback only for an absent key;
// a value of the wrong type is always an error that names key, found and expected type.
class GgufMeta {
 public:
  struct Entry {
    std::string key;
    GgufType type;
    GgufValue value;
  };
  const std::vector<Entry>& entries() const { return entries_; }
  const Entry* find(std::string_view key) const;

  Result<int64_t> integer(std::string_view key) const;
  Result<double> number(std::string_view key) const;
  Result<std::string_view> string(std::string_view key) const;
  Result<const GgufArray*> array(std::string_view key) const;
  Result<int64_t> integer_or(std::string_view key, int64_t fallback) const;
  Result<double> number_or(std::string_view key, double fallback) const;
  Result<bool> boolean_or(std::string_view key, bool fallback) const;

  // For the reader and for tests.
  void add(Entry entry) { entries_.push_back(std::move(entry)); }
  void set_location(std::string path) { location_ = std::move(path); }

 private:
  std::vector<Entry> entries_;
  std::string location_; // the file, for errors
};

} // namespace pinhole
