// The syntax tree of a regular expression. Nodes refer to others by index; children stand before
// their parents.
#pragma once

#include "base/result.h"
#include "text/grammar/code_points.h"

namespace pinhole::grammar {

struct PatternNode {
  enum class Kind {
    kSet,          // one code point of sets[set]
    kSequence,     // children, one after the other; none: the empty text
    kAlternatives, // one of the children
    kRepeat,       // children[0], min to max times (max below 0: without end)
    kBegin,        // ^
    kEnd,          // $
  };
  Kind kind = Kind::kSequence;
  std::vector<uint32_t> children;
  uint32_t set = 0;
  int64_t min = 0, max = 0;
  size_t at = 0; // byte in the pattern
};

struct PatternTree {
  std::vector<PatternNode> nodes;
  std::vector<CodePointSet> sets;
  uint32_t root = 0; // kAlternatives of kSequences
};

Result<PatternTree> parse_pattern(std::string_view pattern);

} // namespace pinhole::grammar
