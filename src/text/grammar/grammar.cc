#include "text/grammar/grammar.h"

#include "text/grammar/pattern.h"
#include "text/utf8.h"

#include <fmt/format.h>

namespace pinhole {

using namespace grammar;

Result<Grammar> Grammar::from_choices(std::span<const std::string> choices) {
  size_t bytes = 0;
  for (const std::string& choice : choices) {
    bytes += choice.size();
    if (utf8_valid_prefix(choice) != choice.size()) {
      return fail(
          ErrorCode::kInvalidInput,
          fmt::format("a choice is not valid UTF-8 from byte {} on", utf8_valid_prefix(choice)));
    }
  }
  if (bytes == 0)
    return fail(ErrorCode::kInvalidInput, "there is no choice");
  if (bytes > kMaxSourceBytes) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("the choices have {} bytes, at most {}", bytes, kMaxSourceBytes));
  }
  Builder builder;
  const RuleId rule = builder.add_rule();
  builder.define(rule, builder.literals({choices.begin(), choices.end()}, kEndNode));
  PINHOLE_TRY(auto program, builder.finish(rule));
  return Grammar(std::move(program));
}

Result<Grammar> Grammar::from_regex(std::string_view pattern) {
  Builder builder;
  CodePointNodes code_points(builder);
  const RuleId rule = builder.add_rule();
  PINHOLE_TRY(const NodeId start, pattern_nodes(pattern, PatternUse::kWhole, Spelling::kText, {},
                                                builder, code_points, kEndNode));
  builder.define(rule, start);
  PINHOLE_TRY(auto program, builder.finish(rule));
  return Grammar(std::move(program));
}

} // namespace pinhole
