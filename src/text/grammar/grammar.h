// What an answer may be, as a grammar over bytes: one of some texts, a regular expression, or JSON
// that a schema accepts.
//
// The three are compiled to the same program (program.h), which text/grammar/matcher.h runs over
// the tokens of a vocabulary. Sources are untrusted: sizes, repetitions and nesting are bounded,
// and what cannot be enforced is an error that names it, never ignored.
#pragma once

#include "base/json.h"
#include "base/result.h"

#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace pinhole {

namespace grammar {
struct Program;
}

class Grammar {
 public:
  static constexpr size_t kMaxSourceBytes = 1 << 20; // of choices together, of a schema's text
  static constexpr size_t kMaxPatternBytes = 16 << 10;
  static constexpr int64_t kMaxRepeat = 10000; // {m,n}, minLength, maxItems and their kin

  // One of the texts, exactly. They must be valid UTF-8, and not all of them empty.
  static Result<Grammar> from_choices(std::span<const std::string> choices);

  // The whole answer matches `pattern`, in the syntax of ECMA-262 with the u flag (JSON Schema's),
  // without what is not regular: no lookaround, backreference or word boundary; no \p{...}. Anchors
  // may stand at the ends. Errors name the byte in the pattern.
  static Result<Grammar> from_regex(std::string_view pattern);

  // JSON that a schema of draft 2020-12 accepts; docs/cli.md lists the keywords. What comes out is
  // a part of what the schema allows: members in the order of `properties`, no others beside them,
  // compact but for one optional space behind ':' and ','. Errors name keyword and JSON pointer.
  static Result<Grammar> from_json_schema(const Json& schema);
  // Any JSON object (the response format "json_object").
  static Result<Grammar> from_json_object();

  const std::shared_ptr<const grammar::Program>& program() const { return program_; }

 private:
  explicit Grammar(std::shared_ptr<const grammar::Program> program)
      : program_(std::move(program)) {}
  std::shared_ptr<const grammar::Program> program_; // never null; shared by copies
};

} // namespace pinhole
