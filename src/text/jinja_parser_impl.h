// The parser's state, shared by its two halves: expressions and statements.
#pragma once

#include "base/result.h"
#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

namespace pinhole::jinja {

class Parser {
 public:
  Parser(Ast& ast, std::vector<Token> tokens) : ast_(ast), tokens_(std::move(tokens)) {}

  Status run();

 private:
  friend class DepthGuard;
  using EndTags = std::initializer_list<std::string_view>;

  // Tokens.
  const Token& current() const { return tokens_[next_]; }
  const Token& ahead() const { return tokens_[std::min(next_ + 1, tokens_.size() - 1)]; }
  const Token& advance() { return tokens_[next_ + 1 < tokens_.size() ? next_++ : next_]; }
  bool is_operator(std::string_view text) const { return is_operator(current(), text); }
  bool is_name(std::string_view text) const { return is_name(current(), text); }
  static bool is_operator(const Token& token, std::string_view text) {
    return token.kind == TokenKind::kOperator && token.text == text;
  }
  static bool is_name(const Token& token, std::string_view text) {
    return token.kind == TokenKind::kName && token.text == text;
  }
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);
  Done expect_operator(std::string_view text);
  Done expect_name(std::string_view text);
  Done expect(TokenKind kind);
  void note_unknown(Position at, std::string_view what, std::string_view name);
  Outcome<std::string_view> expect_any_name();

  // Errors: the first one is kept.
  tl::unexpected<Failed> fail(Position at, std::string message,
                              ErrorCode code = ErrorCode::kInvalidInput, std::string hint = {});
  tl::unexpected<Failed> unexpected(std::string_view expected);

  // Expressions (jinja_parse_expr.cc).
  Outcome<Expr*> make(ExprKind kind, Position at, std::initializer_list<Expr*> children = {});
  Done add_item(Expr* parent, Expr* item);
  Done deepen(Expr* parent, const Expr* child);
  Outcome<Expr*> parse_expression(bool with_conditional = true);
  Outcome<Expr*> parse_conditional();
  Outcome<Expr*> parse_or();
  Outcome<Expr*> parse_and();
  Outcome<Expr*> parse_not();
  Outcome<Expr*> parse_compare();
  Outcome<Expr*> parse_sum();
  Outcome<Expr*> parse_concat();
  Outcome<Expr*> parse_product();
  Outcome<Expr*> parse_power();
  Outcome<Expr*> parse_unary(bool with_filter = true);
  Outcome<Expr*> parse_primary();
  Outcome<Expr*> parse_name();
  Outcome<Expr*> parse_list();
  Outcome<Expr*> parse_dict();
  Outcome<Expr*> parse_postfix(Expr* node);
  Outcome<Expr*> parse_subscript(Expr* node);
  Outcome<Expr*> parse_subscribed(Expr* node);
  Outcome<Expr*> parse_slice(Expr* node, Expr* start);
  Outcome<Expr*> parse_filters_and_tests(Expr* node);
  Outcome<Expr*> parse_filter(Expr* node);
  Outcome<Expr*> parse_filter_chain(Expr* node, bool first_is_inline);
  Outcome<Expr*> parse_test(Expr* node);
  Outcome<Expr*> parse_call(Expr* node);
  Outcome<CallArguments*> parse_arguments(Expr* owner);
  // An expression, or a tuple when commas follow; `end` (a name or "") also ends it.
  Outcome<Expr*> parse_tuple(bool with_conditional, std::string_view end, bool in_parentheses);
  bool at_tuple_end(std::string_view end) const;

  // Statements (jinja_parser.cc).
  using Body = std::vector<Statement*>;
  Statement* make_statement(StatementKind kind, Position at);
  Outcome<Body> parse_body(EndTags end_tags, std::string_view opened_by);
  Done unknown_tag(const Token& tag, EndTags end_tags, std::string_view opened_by);
  // The body of a block up to one of `end_tags`, whose name is then current (or skipped).
  Outcome<Body> parse_block(EndTags end_tags, std::string_view opened_by, bool skip_end);
  Outcome<Statement*> parse_statement(EndTags end_tags, std::string_view opened_by);
  Outcome<Statement*> parse_for();
  Outcome<Statement*> parse_if();
  Outcome<Statement*> parse_set();
  Outcome<Statement*> parse_macro();
  Outcome<Statement*> parse_call_block();
  Outcome<Statement*> parse_filter_block();
  Outcome<Statement*> parse_with();
  Outcome<Statement*> parse_scope(std::string_view tag);
  Outcome<Statement*> parse_print();
  Outcome<Statement*> parse_loop_control(StatementKind kind);
  Done parse_signature(Macro& macro);
  Outcome<Body> parse_macro_body(Macro& macro, std::string_view tag, std::string_view end_tag);
  Outcome<Target*> parse_target(bool with_namespace, std::string_view end);
  Outcome<Target*> parse_single_target(bool with_namespace, std::string_view end);

  Ast& ast_;
  std::vector<Token> tokens_;
  size_t next_ = 0;
  int depth_ = 0;
  int loops_ = 0;          // loops around the current statement, within its macro
  bool soft_ = false;      // inside an if: unknown filters and tests fail when they are reached
  Macro* macro_ = nullptr; // the innermost macro around the current expression
  struct Unknown {
    Position at;
    std::string message;
  };
  std::vector<Unknown> unknown_; // filters and tests that do not exist, outside any condition
  bool has_error_ = false;
  Error error_;
};

// Counts the levels of the parser's recursion.
class DepthGuard {
 public:
  explicit DepthGuard(Parser& parser) : parser_(parser) { ++parser_.depth_; }
  ~DepthGuard() { --parser_.depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;
  // Levels of nested brackets, conditionals and blocks; a level costs up to 4 kB of stack.
  static constexpr int kMaxDepth = 150;
  bool too_deep() const { return parser_.depth_ > kMaxDepth; }

 private:
  Parser& parser_;
};

} // namespace pinhole::jinja
