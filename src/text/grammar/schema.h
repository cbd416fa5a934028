// JSON Schema draft 2020-12, what grammars need of it before there is a grammar: references,
// types, and one schema out of several that must all hold.
//
// A keyword that constrains and is not handled is an error with its name; annotations are ignored,
// as the specification (JSON Schema Core, section 6.5) says for names that it does not know.
#pragma once

#include "base/json.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole::grammar {

// Types of a value as bits; kNumber holds the integers too.
enum TypeBits : unsigned {
  kNullType = 1,
  kBooleanType = 2,
  kIntegerType = 4,
  kNumberType = 8 | kIntegerType,
  kStringType = 16,
  kArrayType = 32,
  kObjectType = 64,
  kAnyType = 127,
};

class Schemas {
 public:
  explicit Schemas(const Json& root) : root_(root) {}

  // Refuses what is no schema, and keywords that are not handled. `path`: a JSON pointer, "#/…".
  static Status check(const Json& schema, const std::string& path);

  // What "$ref": "#/…" points at.
  Result<const Json*> resolve(const Json& ref, const std::string& path) const;

  // The same schema without "$ref" and "allOf" at its top.
  Result<Json> expand(const Json& schema, const std::string& path, int depth = 0) const;

  // A schema that holds where both do.
  Result<Json> merge(const Json& a, const Json& b, const std::string& path, int depth = 0) const;

  // Types that a value may have: of `type`, `enum` and `const`; where these are absent, those that
  // the other keywords speak about.
  static Result<unsigned> types(const Json& schema, const std::string& path);
  static unsigned type_of(const Json& value);
  // The values of `enum` or `const` that `type` allows; nullopt without them.
  static Result<std::optional<std::vector<Json>>> values(const Json& schema,
                                                         const std::string& path);

  // No value that is written for one of the two can be valid for the other.
  Result<bool> disjoint(const Json& a, const Json& b, const std::string& path) const;

  // Has a keyword that constrains, beside those in `without`.
  static bool constrains(const Json& schema, std::initializer_list<std::string_view> without = {});
  static Json without(const Json& schema, std::string_view keyword);

 private:
  Status merge_keyword(Json& out, const std::string& key, const Json& value,
                       const std::string& path, int depth) const;
  Status merge_properties(Json& out, const Json& b, const std::string& path, int depth) const;

  // Schemas that refer to each other can ask for more merging than they have bytes.
  Status charge(const Json& schema, const std::string& path) const;

  const Json& root_;
  mutable size_t work_bytes_ = 0;
};

// The error of a keyword: its JSON pointer is the location.
tl::unexpected<Error> schema_error(const std::string& path, std::string message,
                                   ErrorCode code = ErrorCode::kInvalidInput);
// "#/a" and "b/c" give "#/a/b~1c".
std::string pointer_below(const std::string& path, std::string_view name);
std::string shown(const Json& value); // for messages: short

} // namespace pinhole::grammar
