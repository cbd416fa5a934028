// A small GGUF writer for tests: valid files, and files with any field made wrong.
//
// Source: the GGUF specification. Independent of the reader: it shares no code with src/file.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pinhole::testing {

template <class T> std::string raw_bytes(T value) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &value, sizeof(T));
  return out;
}

inline std::string gguf_string(std::string_view text) {
  return raw_bytes<uint64_t>(text.size()) + std::string(text);
}

// Value type numbers of the specification.
enum GgufTypeNumber : uint32_t {
  kTypeU8,
  kTypeI8,
  kTypeU16,
  kTypeI16,
  kTypeU32,
  kTypeI32,
  kTypeF32,
  kTypeBool,
  kTypeString,
  kTypeArray,
  kTypeU64,
  kTypeI64,
  kTypeF64,
};

class GgufWriter {
 public:
  uint32_t version = 3;
  uint64_t alignment = 32; // of the data; "general.alignment" is added by the caller
  std::string magic = "GGUF";
  std::optional<uint64_t> claimed_tensors, claimed_keys; // instead of the true counts

  struct TensorRow {
    std::string name;
    std::vector<uint64_t> dims; // GGUF order: innermost first
    uint32_t type = 0;
    std::string data;
    std::optional<uint64_t> offset; // instead of the true one
  };

  GgufWriter& key_raw(std::string_view key, uint32_t type, const std::string& payload) {
    keys_ += gguf_string(key) + raw_bytes<uint32_t>(type) + payload;
    ++num_keys_;
    return *this;
  }
  template <class T> GgufWriter& key(std::string_view name, uint32_t type, T value) {
    return key_raw(name, type, raw_bytes(value));
  }
  GgufWriter& key_string(std::string_view name, std::string_view value) {
    return key_raw(name, kTypeString, gguf_string(value));
  }
  template <class T>
  GgufWriter& key_array(std::string_view name, uint32_t element_type,
                        const std::vector<T>& values) {
    std::string payload = raw_bytes(element_type) + raw_bytes<uint64_t>(values.size());
    for (const T& value : values)
      payload += raw_bytes(value);
    return key_raw(name, kTypeArray, payload);
  }
  GgufWriter& key_strings(std::string_view name, const std::vector<std::string>& values) {
    std::string payload = raw_bytes<uint32_t>(kTypeString) + raw_bytes<uint64_t>(values.size());
    for (const std::string& value : values)
      payload += gguf_string(value);
    return key_raw(name, kTypeArray, payload);
  }
  GgufWriter& tensor(TensorRow row) {
    tensors_.push_back(std::move(row));
    return *this;
  }
  GgufWriter& tensor_f32(std::string name, std::vector<uint64_t> dims,
                         const std::vector<float>& values) {
    std::string data(values.size() * 4, '\0');
    std::memcpy(data.data(), values.data(), data.size());
    return tensor({std::move(name), std::move(dims), 0, std::move(data), {}});
  }

  // Header, key-values and tensor table.
  std::string head() const {
    std::string out = magic + raw_bytes(version) +
                      raw_bytes<uint64_t>(claimed_tensors.value_or(tensors_.size())) +
                      raw_bytes<uint64_t>(claimed_keys.value_or(num_keys_)) + keys_;
    uint64_t offset = 0;
    for (const TensorRow& row : tensors_) {
      out += gguf_string(row.name) + raw_bytes<uint32_t>(static_cast<uint32_t>(row.dims.size()));
      for (const uint64_t dim : row.dims)
        out += raw_bytes(dim);
      out += raw_bytes(row.type) + raw_bytes(row.offset.value_or(offset));
      offset = pad(offset + row.data.size());
    }
    return out;
  }
  std::string bytes() const {
    std::string out = head();
    out.resize(pad(out.size()), '\0');
    const size_t data_begin = out.size();
    for (const TensorRow& row : tensors_) {
      out.resize(data_begin + pad(out.size() - data_begin), '\0');
      out += row.data;
    }
    return out;
  }

 private:
  uint64_t pad(uint64_t value) const { return (value + alignment - 1) / alignment * alignment; }

  std::string keys_;
  uint64_t num_keys_ = 0;
  std::vector<TensorRow> tensors_;
};

} // namespace pinhole::testing
