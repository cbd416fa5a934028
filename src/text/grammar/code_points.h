// Sets of Unicode code points, and the bytes that spell them: UTF-8, in a JSON string with what
// must be escaped (RFC 8259, section 7) in its shortest form.
//
// Surrogates are in no set: they have no UTF-8.
#pragma once

#include "text/grammar/program.h"

#include <map>
#include <utility>

namespace pinhole::grammar {

class CodePointSet {
 public:
  static constexpr uint32_t kLast = 0x10FFFF;

  void add(uint32_t first, uint32_t last) { ranges_.emplace_back(first, last); }
  void add(const CodePointSet& other);
  void normalise(); // sorted, disjoint, without surrogates
  CodePointSet complement() const;
  static CodePointSet all();

  // Sorted and disjoint after normalise().
  const std::vector<std::pair<uint32_t, uint32_t>>& ranges() const { return ranges_; }

 private:
  std::vector<std::pair<uint32_t, uint32_t>> ranges_;
};

enum class Spelling { kText, kJsonString };

// Nodes that read one code point of a set. A set that takes more than a byte is a rule, made once.
class CodePointNodes {
 public:
  explicit CodePointNodes(Builder& builder) : builder_(builder) {}
  NodeId one_of(const CodePointSet& set, Spelling spelling, NodeId next);

 private:
  NodeId utf8(uint32_t first, uint32_t last, NodeId next);

  Builder& builder_;
  std::map<std::pair<std::vector<std::pair<uint32_t, uint32_t>>, Spelling>, RuleId> rules_;
};

// How a JSON string spells `code_point` when it must be escaped; empty when it stands for itself.
std::string json_escape(uint32_t code_point);

} // namespace pinhole::grammar
