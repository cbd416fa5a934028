// A small safetensors writer for tests. Independent of the reader: it shares no code with src/file.
#pragma once

#include <cstdint>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole::testing {

// A file from a header's JSON text and data, whether or not they belong together.
inline std::string safetensors_raw(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out.append(header).append(data);
}

class SafetensorsWriter {
 public:
  SafetensorsWriter& tensor(std::string_view name, std::string_view dtype,
                            const std::vector<int64_t>& shape, std::string_view data) {
    header_ += fmt::format(R"({}"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                           header_.empty() ? "" : ",", name, dtype, fmt::join(shape, ","),
                           data_.size(), data_.size() + data.size());
    data_ += data;
    return *this;
  }
  SafetensorsWriter& tensor_f32(std::string_view name, const std::vector<int64_t>& shape,
                                const std::vector<float>& values) {
    std::string data(values.size() * 4, '\0');
    std::memcpy(data.data(), values.data(), data.size());
    return tensor(name, "F32", shape, data);
  }
  // The header is padded with spaces so that the data begins at a multiple of 8.
  std::string bytes() const {
    std::string header = "{" + header_ + "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    return safetensors_raw(header, data_);
  }

 private:
  std::string header_, data_;
};

} // namespace pinhole::testing
