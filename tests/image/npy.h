// The few .npy files that the picture tests read: C order, little endian, |u1 or <f4.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <string>
#include <vector>

namespace pinhole {

inline std::string read_test_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

template <class T> std::vector<T> read_npy(const std::string& path) {
  const std::string file = read_test_file(path);
  if (file.size() < 10 || file.compare(0, 6, "\x93NUMPY") != 0) {
    ADD_FAILURE() << path << " is not an .npy file";
    return {};
  }
  const size_t header = 10 + static_cast<uint8_t>(file[8]) + 256 * static_cast<uint8_t>(file[9]);
  const std::string text = file.substr(10, header - 10);
  EXPECT_NE(text.find(sizeof(T) == 1 ? "|u1" : "<f4"), text.npos) << path << text;
  std::vector<T> out((file.size() - header) / sizeof(T));
  std::memcpy(out.data(), file.data() + header, out.size() * sizeof(T));
  return out;
}

} // namespace pinhole
