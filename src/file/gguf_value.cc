#include "file/gguf_value.h"

#include "file/printable.h"

#include <cstring>
#include <fmt/format.h>
#include <type_traits>

namespace pinhole {

namespace {

template <class T> T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

// Appends every element of a fixed-size type, converted to Out.
template <class T, class Out> void append(const GgufArray& array, std::vector<Out>& out) {
  for (uint64_t i = 0; i < array.count; ++i) {
    out.push_back(static_cast<Out>(load<T>(array.raw.data() + i * sizeof(T))));
  }
}

template <class Out> bool append_integers(const GgufArray& array, std::vector<Out>& out) {
  switch (array.element_type) {
  case GgufType::kUint8:
  case GgufType::kBool:
    append<uint8_t>(array, out);
    return true;
  case GgufType::kInt8:
    append<int8_t>(array, out);
    return true;
  case GgufType::kUint16:
    append<uint16_t>(array, out);
    return true;
  case GgufType::kInt16:
    append<int16_t>(array, out);
    return true;
  case GgufType::kUint32:
    append<uint32_t>(array, out);
    return true;
  case GgufType::kInt32:
    append<int32_t>(array, out);
    return true;
  case GgufType::kUint64:
    append<uint64_t>(array, out);
    return true;
  case GgufType::kInt64:
    append<int64_t>(array, out);
    return true;
  default:
    return false;
  }
}

// Converted arrays are up to 8 times as large as the file's: bounded (vocabularies have 300,000).
constexpr uint64_t kMaxConverted = 1u << 22;

Status check_count(uint64_t count) {
  if (count <= kMaxConverted)
    return {};
  return fail(ErrorCode::kTooLarge,
              fmt::format("array of {} numbers, the limit is {}", count, kMaxConverted));
}

std::string type_of(const GgufMeta::Entry& entry) {
  if (entry.type != GgufType::kArray)
    return std::string(gguf_type_name(entry.type));
  const auto* array = std::get_if<GgufArray>(&entry.value);
  if (array == nullptr)
    return "array";
  return fmt::format("array of {} {}", array->count, gguf_type_name(array->element_type));
}

tl::unexpected<Error> wrong_type(const GgufMeta::Entry& entry, const char* expected,
                                 const std::string& location) {
  return fail(ErrorCode::kInvalidInput,
              fmt::format("key {} is of type {}, expected {}", printable(entry.key), type_of(entry),
                          expected),
              location);
}

tl::unexpected<Error> missing(std::string_view key, const std::string& location) {
  return fail(ErrorCode::kNotFound, fmt::format("metadata key {} is missing", printable(key)),
              location);
}

Result<int64_t> to_integer(const GgufMeta::Entry& entry, const std::string& location) {
  if (const auto* value = std::get_if<int64_t>(&entry.value))
    return *value;
  if (const auto* value = std::get_if<uint64_t>(&entry.value)) {
    if (*value <= static_cast<uint64_t>(INT64_MAX))
      return static_cast<int64_t>(*value);
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("key {} is {}, expected at most {}", printable(entry.key), *value, INT64_MAX),
        location);
  }
  return wrong_type(entry, "an integer", location);
}

Result<double> to_number(const GgufMeta::Entry& entry, const std::string& location) {
  if (const auto* value = std::get_if<double>(&entry.value))
    return *value;
  if (const auto* value = std::get_if<int64_t>(&entry.value))
    return static_cast<double>(*value);
  if (const auto* value = std::get_if<uint64_t>(&entry.value))
    return static_cast<double>(*value);
  return wrong_type(entry, "a number", location);
}

} // namespace

std::string_view gguf_type_name(GgufType type) {
  static constexpr std::string_view kNames[] = {"uint8",  "int8",    "uint16", "int16",  "uint32",
                                                "int32",  "float32", "bool",   "string", "array",
                                                "uint64", "int64",   "float64"};
  const auto idx = static_cast<uint32_t>(type);
  return idx < std::size(kNames) ? kNames[idx] : "unknown";
}

uint64_t gguf_type_bytes(GgufType type) {
  switch (type) {
  case GgufType::kUint8:
  case GgufType::kInt8:
  case GgufType::kBool:
    return 1;
  case GgufType::kUint16:
  case GgufType::kInt16:
    return 2;
  case GgufType::kUint32:
  case GgufType::kInt32:
  case GgufType::kFloat32:
    return 4;
  case GgufType::kUint64:
  case GgufType::kInt64:
  case GgufType::kFloat64:
    return 8;
  case GgufType::kString:
  case GgufType::kArray:
    break;
  }
  return 0;
}

Result<std::vector<std::string_view>> GgufArray::strings() const {
  if (element_type != GgufType::kString) {
    return fail(ErrorCode::kInvalidInput, fmt::format("array of {}, expected an array of strings",
                                                      gguf_type_name(element_type)));
  }
  std::vector<std::string_view> out;
  out.reserve(count);
  uint64_t offset = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const auto length = load<uint64_t>(raw.data() + offset);
    offset += sizeof(uint64_t);
    out.emplace_back(reinterpret_cast<const char*>(raw.data()) + offset, length);
    offset += length;
  }
  return out;
}

Result<std::vector<int64_t>> GgufArray::integers() const {
  PINHOLE_CHECK(check_count(count));
  if (element_type == GgufType::kUint64) {
    for (uint64_t i = 0; i < count; ++i) {
      const auto value = load<uint64_t>(raw.data() + i * sizeof(uint64_t));
      if (value > static_cast<uint64_t>(INT64_MAX)) {
        return fail(ErrorCode::kInvalidInput,
                    fmt::format("element {} is {}, expected at most {}", i, value, INT64_MAX));
      }
    }
  }
  std::vector<int64_t> out;
  out.reserve(gguf_type_bytes(element_type) == 0 ? 0 : count);
  if (!append_integers(*this, out)) {
    return fail(ErrorCode::kInvalidInput, fmt::format("array of {}, expected an array of integers",
                                                      gguf_type_name(element_type)));
  }
  return out;
}

Result<std::vector<double>> GgufArray::numbers() const {
  PINHOLE_CHECK(check_count(count));
  std::vector<double> out;
  out.reserve(gguf_type_bytes(element_type) == 0 ? 0 : count);
  if (element_type == GgufType::kFloat32)
    append<float>(*this, out);
  else if (element_type == GgufType::kFloat64)
    append<double>(*this, out);
  else if (element_type == GgufType::kBool || !append_integers(*this, out)) {
    return fail(ErrorCode::kInvalidInput, fmt::format("array of {}, expected an array of numbers",
                                                      gguf_type_name(element_type)));
  }
  return out;
}

const GgufMeta::Entry* GgufMeta::find(std::string_view key) const {
  for (const Entry& entry : entries_) {
    if (entry.key == key)
      return &entry;
  }
  return nullptr;
}

Result<int64_t> GgufMeta::integer(std::string_view key) const {
  const Entry* entry = find(key);
  if (entry == nullptr)
    return missing(key, location_);
  return to_integer(*entry, location_);
}

Result<double> GgufMeta::number(std::string_view key) const {
  const Entry* entry = find(key);
  if (entry == nullptr)
    return missing(key, location_);
  return to_number(*entry, location_);
}

Result<std::string_view> GgufMeta::string(std::string_view key) const {
  const Entry* entry = find(key);
  if (entry == nullptr)
    return missing(key, location_);
  const auto* value = std::get_if<std::string_view>(&entry->value);
  if (value == nullptr)
    return wrong_type(*entry, "a string", location_);
  return *value;
}

Result<const GgufArray*> GgufMeta::array(std::string_view key) const {
  const Entry* entry = find(key);
  if (entry == nullptr)
    return missing(key, location_);
  const auto* value = std::get_if<GgufArray>(&entry->value);
  if (value == nullptr)
    return wrong_type(*entry, "an array", location_);
  return value;
}

Result<int64_t> GgufMeta::integer_or(std::string_view key, int64_t fallback) const {
  const Entry* entry = find(key);
  if (entry == nullptr)
    return fallback;
  return to_integer(*entry, location_);
}

Result<double> GgufMeta::number_or(std::string_view key, double fallback) const {
  const Entry* entry = find(key);
  if (entry == nullptr)
    return fallback;
  return to_number(*entry, location_);
}

Result<bool> GgufMeta::boolean_or(std::string_view key, bool fallback) const {
  const Entry* entry = find(key);
  if (entry == nullptr)
    return fallback;
  const auto* value = std::get_if<bool>(&entry->value);
  if (value == nullptr)
    return wrong_type(*entry, "a bool", location_);
  return *value;
}

} // namespace pinhole
