// A TOML text as a tree with line numbers.
//
// Invariant: the text is untrusted; its size, the depth of its nesting and the number of parts of
// its keys are bounded before or while it is read, so that no recursion is deep. Source:
// TOML 1.0.0, read by toml++ (libtomlplusplus-dev), whose header no other file includes.
#pragma once

#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

constexpr size_t kMaxTomlBytes = 256 << 10;

struct TomlMember;

struct TomlNode {
  enum class Kind { kTable, kArray, kText, kInteger, kFloat, kBool, kTime };
  Kind kind = Kind::kTable;
  int line = 0; // 1-based
  std::string text;
  int64_t integer = 0;
  double number = 0;
  bool boolean = false;
  std::vector<TomlMember> members; // of a table, sorted by key
  std::vector<TomlNode> items;     // of an array

  const TomlNode* find(std::string_view key) const;
  std::string shown() const; // the value in a message: "'text'", "12", "a table"
};

struct TomlMember {
  std::string key;
  TomlNode node;
};

// `file` is for messages only.
Result<TomlNode> parse_toml(std::string_view text, const std::string& file);

} // namespace pinhole
