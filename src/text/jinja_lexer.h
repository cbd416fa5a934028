// Splits a chat template into text and tokens, with Jinja's white space control.
//
// Settings are those of transformers: trim_blocks (the line end after a block or comment goes),
// lstrip_blocks (white space before one that starts a line goes), no trailing line end.
// Source: Jinja 3.1 template designer documentation, "Whitespace Control".
#pragma once

#include "base/result.h"
#include "text/jinja_ast.h"

#include <string>
#include <string_view>
#include <vector>

namespace pinhole::jinja {

enum class TokenKind : uint8_t {
  kText, // text outside tags
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator, // text is the operator
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  Position at = 0;
  std::string_view text; // of a string: its value
  int64_t integer = 0;
  double number = 0;
};

// Line ends to '\n', the last one removed: what Ast::source must hold.
std::string normalize_source(std::string_view source);

// The tokens of ast.source; the last one is kEnd. Decoded strings are kept in ast.strings.
Result<std::vector<Token>> tokenize(Ast& ast);

} // namespace pinhole::jinja
