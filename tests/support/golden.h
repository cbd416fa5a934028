// Paths into the golden collection and its arrays, and folders that are copies of a model with
// something changed.
#pragma once

#include "base/json.h"
#include "file/npy.h"
#include "support/temp_dir.h"

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <stdexcept>
#include <string>
#include <vector>

namespace pinhole::testing {

inline std::string golden(const std::string& path) {
  return std::string(PINHOLE_GOLDEN_DIR) + "/" + path;
}

inline std::string source_path(const std::string& path) {
  return std::string(PINHOLE_SOURCE_DIR) + "/" + path;
}

inline bool have_golden() { return std::filesystem::exists(golden("README.md")); }

// A test without the collection proves nothing, and says so.
#define REQUIRE_GOLDEN()                                                                           \
  if (!::pinhole::testing::have_golden())                                                          \
  GTEST_SKIP() << "there is no golden collection at " << PINHOLE_GOLDEN_DIR

// The value of a Result; the error's text is thrown, which fails the test.
template <class T> T take(Result<T> result) {
  if (!result)
    throw std::runtime_error(result.error().text());
  return std::move(*result);
}
inline void take(Status status) {
  if (!status)
    throw std::runtime_error(status.error().text());
}

struct FloatArray {
  std::vector<int64_t> shape; // row-major, outermost first
  std::vector<float> values;
};

inline FloatArray load_floats(const std::string& path) {
  const NpyArray array = take(NpyArray::open(path));
  const auto values = take(array.floats());
  return {array.shape, {values.begin(), values.end()}};
}

inline std::vector<int64_t> load_ints(const std::string& path) {
  return take(take(NpyArray::open(path)).ints());
}

inline Json load_json(const std::string& path) { return take(read_json_file(path)); }

// A folder of links to a model's files. What a test replaces becomes a file of its own.
class ModelCopy {
 public:
  explicit ModelCopy(const std::string& folder) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.is_regular_file()) {
        std::filesystem::create_symlink(std::filesystem::absolute(entry.path()),
                                        folder_.file(entry.path().filename().string()));
      }
    }
  }
  const std::string& path() const { return folder_.path(); }
  std::string file(const std::string& name) const { return folder_.file(name); }
  void remove(const std::string& name) const { std::filesystem::remove(file(name)); }
  void replace(const std::string& name, const std::string& bytes) const {
    remove(name);
    folder_.write(name, bytes);
  }
  // Applies `change` to a JSON file.
  template <class Fn> void edit_json(const std::string& name, Fn change) const {
    Json json = load_json(file(name));
    change(json);
    replace(name, json.dump());
  }
  // Applies `change` to the JSON header of a safetensors file; its data stays.
  template <class Fn> void edit_safetensors(const std::string& name, Fn change) const {
    const std::string bytes = read_file(file(name));
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    Json header = Json::parse(bytes.substr(8, length));
    change(header);
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    length = text.size();
    std::string head(8, '\0');
    std::memcpy(head.data(), &length, 8);
    uint64_t old_length = 0;
    std::memcpy(&old_length, bytes.data(), 8);
    replace(name, head + text + bytes.substr(8 + old_length));
  }

 private:
  TempDir folder_;
};

} // namespace pinhole::testing
