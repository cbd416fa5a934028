// Regular expressions as nodes of a grammar: the regular part of ECMA-262's Pattern with the u flag
// (section 22.2.1), where Annex B is as lenient about '{', '}' and ']' as most engines are.
//
// \d, \w and \s are ECMA-262's: ASCII digits, ASCII words, Unicode white space. Lazy quantifiers
// match what greedy ones match. What is not regular, or would be a different language in another
// dialect (possessive quantifiers, inline flags), is an error that names the byte.
#pragma once

#include "base/result.h"
#include "text/grammar/code_points.h"

namespace pinhole::grammar {

enum class PatternUse {
  kWhole,  // the text matches from its start to its end
  kSearch, // a part of it matches: JSON Schema's `pattern`; ^ and $ hold it to the ends
};

struct LengthLimit { // in code points
  int64_t min = 0;
  int64_t max = -1; // below 0: none
};

// Nodes that read a text matched by `pattern` whose length is within `limit`, then `next`.
Result<NodeId> pattern_nodes(std::string_view pattern, PatternUse use, Spelling spelling,
                             const LengthLimit& limit, Builder& builder,
                             CodePointNodes& code_points, NodeId next);

} // namespace pinhole::grammar
