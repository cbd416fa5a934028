// Statements of the Jinja grammar.

#include "text/jinja_parser.h"

#include "text/jinja_parser_impl.h"

#include <array>
#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

constexpr size_t kMaxSourceBytes = 512u << 10; // the longest known template has 40 kB

constexpr std::array<std::string_view, 8> kForeignTags = {
    "include", "import", "from", "extends", "block", "autoescape", "do", "trans"};

std::string quoted_list(std::initializer_list<std::string_view> tags) {
  std::string out;
  for (const std::string_view tag : tags) {
    out += (out.empty() ? "'" : " or '") + std::string(tag) + "'";
  }
  return out;
}

std::string describe(const Token& token) {
  switch (token.kind) {
  case TokenKind::kText:
    return "text";
  case TokenKind::kVariableBegin:
    return "'{{'";
  case TokenKind::kVariableEnd:
    return "'}}'";
  case TokenKind::kBlockBegin:
    return "'{%'";
  case TokenKind::kBlockEnd:
    return "'%}'";
  case TokenKind::kString:
    return "a string";
  case TokenKind::kFloat:
    return "a number";
  case TokenKind::kEnd:
    return "the end of the template";
  default:
    return fmt::format("'{}'", token.text);
  }
}

} // namespace

bool Parser::skip_operator(std::string_view text) {
  if (!is_operator(text))
    return false;
  advance();
  return true;
}

bool Parser::skip_name(std::string_view text) {
  if (!is_name(text))
    return false;
  advance();
  return true;
}

tl::unexpected<Failed> Parser::fail(Position at, std::string message, ErrorCode code,
                                    std::string hint) {
  if (!has_error_) {
    has_error_ = true;
    error_ = Error{code, std::move(message), describe_position(ast_, at), std::move(hint)};
  }
  return failed();
}

tl::unexpected<Failed> Parser::unexpected(std::string_view expected) {
  return fail(current().at,
              fmt::format("unexpected {}, expected {}", describe(current()), expected));
}

Done Parser::expect_operator(std::string_view text) {
  if (skip_operator(text))
    return {};
  return unexpected(fmt::format("'{}'", text));
}

Done Parser::expect_name(std::string_view text) {
  if (skip_name(text))
    return {};
  return unexpected(fmt::format("'{}'", text));
}

Done Parser::expect(TokenKind kind) {
  if (current().kind != kind)
    return unexpected(describe(Token{kind}));
  advance();
  return {};
}

Outcome<std::string_view> Parser::expect_any_name() {
  if (current().kind != TokenKind::kName)
    return unexpected("a name");
  return advance().text;
}

void Parser::note_unknown(Position at, std::string_view what, std::string_view name) {
  if (!soft_)
    unknown_.push_back({at, fmt::format("No {} named '{}'.", what, name)});
}

Statement* Parser::make_statement(StatementKind kind, Position at) {
  Statement* out = &ast_.statements.emplace_back();
  out->kind = kind;
  out->at = at;
  return out;
}

Outcome<Parser::Body> Parser::parse_body(EndTags end_tags, std::string_view opened_by) {
  Body body;
  while (true) {
    const Token& token = current();
    switch (token.kind) {
    case TokenKind::kText: {
      Statement* text = make_statement(StatementKind::kText, token.at);
      text->text = token.text;
      body.push_back(text);
      advance();
      break;
    }
    case TokenKind::kVariableBegin: {
      Statement* print = make_statement(StatementKind::kPrint, token.at);
      advance();
      JINJA_TRY(print->value, parse_tuple(true, "", false));
      JINJA_CHECK(expect(TokenKind::kVariableEnd));
      body.push_back(print);
      break;
    }
    case TokenKind::kBlockBegin: {
      advance();
      for (const std::string_view tag : end_tags) {
        if (is_name(tag))
          return body;
      }
      JINJA_TRY(Statement * statement, parse_statement(end_tags, opened_by));
      body.push_back(statement);
      JINJA_CHECK(expect(TokenKind::kBlockEnd));
      break;
    }
    case TokenKind::kEnd:
      if (end_tags.size() == 0)
        return body;
      return fail(token.at, fmt::format("Unexpected end of template. Jinja was looking for the "
                                        "following tags: {}. The innermost block that needs to be "
                                        "closed is '{}'.",
                                        quoted_list(end_tags), opened_by));
    default:
      return unexpected("text or a tag");
    }
  }
}

Done Parser::unknown_tag(const Token& tag, EndTags end_tags, std::string_view opened_by) {
  for (const std::string_view foreign : kForeignTags) {
    if (tag.text == foreign) {
      return fail(tag.at, fmt::format("the tag '{}' is not supported in chat templates", foreign),
                  ErrorCode::kUnsupported);
    }
  }
  std::string message = fmt::format("Encountered unknown tag '{}'.", tag.text);
  if (end_tags.size() > 0) {
    message +=
        fmt::format(" Jinja was looking for the following tags: {}. The innermost block that "
                    "needs to be closed is '{}'.",
                    quoted_list(end_tags), opened_by);
  }
  return fail(tag.at, std::move(message), ErrorCode::kUnsupported);
}

Outcome<Parser::Body> Parser::parse_block(EndTags end_tags, std::string_view opened_by,
                                          bool skip_end) {
  skip_operator(":");
  JINJA_CHECK(expect(TokenKind::kBlockEnd));
  JINJA_TRY(Body body, parse_body(end_tags, opened_by));
  if (skip_end)
    advance();
  return body;
}

Outcome<Statement*> Parser::parse_statement(EndTags end_tags, std::string_view opened_by) {
  const DepthGuard guard(*this);
  const Token& tag = current();
  if (tag.kind != TokenKind::kName)
    return unexpected("a tag name");
  if (guard.too_deep()) {
    return fail(tag.at, fmt::format("blocks nested deeper than {} levels", DepthGuard::kMaxDepth),
                ErrorCode::kTooLarge);
  }
  const bool outer_soft = std::exchange(soft_, tag.text == "if" || (soft_ && tag.text == "set"));
  Outcome<Statement*> out = failed();
  if (tag.text == "for")
    out = parse_for();
  else if (tag.text == "if")
    out = parse_if();
  else if (tag.text == "set")
    out = parse_set();
  else if (tag.text == "macro")
    out = parse_macro();
  else if (tag.text == "call")
    out = parse_call_block();
  else if (tag.text == "filter")
    out = parse_filter_block();
  else if (tag.text == "with")
    out = parse_with();
  else if (tag.text == "generation")
    out = parse_scope("generation");
  else if (tag.text == "print")
    out = parse_print();
  else if (tag.text == "break")
    out = parse_loop_control(StatementKind::kBreak);
  else if (tag.text == "continue")
    out = parse_loop_control(StatementKind::kContinue);
  else
    JINJA_CHECK(unknown_tag(tag, end_tags, opened_by));
  soft_ = outer_soft;
  return out;
}

Outcome<Statement*> Parser::parse_for() {
  Statement* out = make_statement(StatementKind::kFor, advance().at);
  JINJA_TRY(out->target, parse_target(false, "in"));
  JINJA_CHECK(expect_name("in"));
  JINJA_TRY(out->value, parse_tuple(false, "recursive", false));
  if (skip_name("if")) {
    JINJA_TRY(out->condition, parse_expression());
  }
  out->recursive = skip_name("recursive");
  ++loops_;
  JINJA_TRY(out->body, parse_block({"endfor", "else"}, "for", false));
  --loops_;
  if (advance().text == "else") {
    JINJA_TRY(out->other, parse_block({"endfor"}, "for", true));
  }
  return out;
}

Outcome<Statement*> Parser::parse_if() {
  Statement* out = make_statement(StatementKind::kIf, current().at);
  std::string_view tag = "if";
  while (tag != "endif") {
    advance();
    if (tag == "else") {
      JINJA_TRY(out->other, parse_block({"endif"}, "if", true));
      break;
    }
    Statement::Branch branch;
    JINJA_TRY(branch.condition, parse_tuple(false, "", false));
    JINJA_TRY(branch.body, parse_block({"elif", "else", "endif"}, "if", false));
    out->branches.push_back(std::move(branch));
    tag = current().text;
    if (tag == "endif")
      advance();
  }
  return out;
}

Outcome<Statement*> Parser::parse_set() {
  Statement* out = make_statement(StatementKind::kSet, advance().at);
  JINJA_TRY(out->target, parse_target(true, ""));
  if (skip_operator("=")) {
    JINJA_TRY(out->value, parse_tuple(true, "", false));
    return out;
  }
  out->kind = StatementKind::kSetBlock;
  JINJA_TRY(out->value, parse_filter_chain(nullptr, false));
  JINJA_TRY(out->body, parse_block({"endset"}, "set", true));
  return out;
}

Done Parser::parse_signature(Macro& macro) {
  JINJA_CHECK(expect_operator("("));
  while (!is_operator(")")) {
    if (!macro.parameters.empty()) {
      JINJA_CHECK(expect_operator(","));
    }
    const Position at = current().at;
    JINJA_TRY(const std::string_view name, expect_any_name());
    Expr* fallback = nullptr;
    if (skip_operator("=")) {
      JINJA_TRY(fallback, parse_expression());
    } else if (!macro.parameters.empty() && macro.parameters.back().fallback != nullptr) {
      return fail(at, "non-default argument follows default argument");
    }
    macro.parameters.push_back({ast_.intern(name), name, fallback});
  }
  return expect_operator(")");
}

Outcome<Parser::Body> Parser::parse_macro_body(Macro& macro, std::string_view tag,
                                               std::string_view end_tag) {
  Macro* outer = std::exchange(macro_, &macro);
  const int outer_loops = std::exchange(loops_, 0);
  JINJA_TRY(Body body, parse_block({end_tag}, tag, true));
  macro_ = outer;
  loops_ = outer_loops;
  if (outer != nullptr) {
    outer->uses_caller = outer->uses_caller || macro.uses_caller;
    outer->uses_varargs = outer->uses_varargs || macro.uses_varargs;
    outer->uses_kwargs = outer->uses_kwargs || macro.uses_kwargs;
  }
  for (const Macro::Parameter& parameter : macro.parameters) {
    if (parameter.name == "varargs")
      macro.uses_varargs = false;
    if (parameter.name == "kwargs")
      macro.uses_kwargs = false;
  }
  return body;
}

Outcome<Statement*> Parser::parse_macro() {
  Statement* out = make_statement(StatementKind::kMacro, advance().at);
  out->macro = &ast_.macros.emplace_back();
  out->macro->at = out->at;
  JINJA_TRY(out->macro->name, expect_any_name());
  out->symbol = ast_.intern(out->macro->name);
  JINJA_CHECK(parse_signature(*out->macro));
  JINJA_TRY(out->macro->body, parse_macro_body(*out->macro, "macro", "endmacro"));
  return out;
}

Outcome<Statement*> Parser::parse_call_block() {
  Statement* out = make_statement(StatementKind::kCallBlock, advance().at);
  out->macro = &ast_.macros.emplace_back();
  out->macro->at = out->at;
  out->macro->name = "caller";
  if (is_operator("(")) {
    JINJA_CHECK(parse_signature(*out->macro));
  }
  const Position at = current().at;
  JINJA_TRY(out->value, parse_expression());
  if (out->value->kind != ExprKind::kCall)
    return fail(at, "expected call");
  JINJA_TRY(out->macro->body, parse_macro_body(*out->macro, "call", "endcall"));
  return out;
}

Outcome<Statement*> Parser::parse_filter_block() {
  Statement* out = make_statement(StatementKind::kFilter, advance().at);
  JINJA_TRY(out->value, parse_filter_chain(nullptr, true));
  JINJA_TRY(out->body, parse_block({"endfilter"}, "filter", true));
  return out;
}

Outcome<Statement*> Parser::parse_with() {
  Statement* out = make_statement(StatementKind::kWith, advance().at);
  while (current().kind != TokenKind::kBlockEnd) {
    if (!out->assignments.empty()) {
      JINJA_CHECK(expect_operator(","));
    }
    JINJA_TRY(Target * target, parse_target(false, ""));
    JINJA_CHECK(expect_operator("="));
    JINJA_TRY(Expr * value, parse_expression());
    out->assignments.emplace_back(target, value);
  }
  JINJA_TRY(out->body, parse_block({"endwith"}, "with", true));
  return out;
}

Outcome<Statement*> Parser::parse_scope(std::string_view tag) {
  Statement* out = make_statement(StatementKind::kScope, advance().at);
  const int outer_loops = std::exchange(loops_, 0);
  JINJA_TRY(out->body, parse_block({"endgeneration"}, tag, true));
  loops_ = outer_loops;
  return out;
}

Outcome<Statement*> Parser::parse_print() {
  Statement* out = make_statement(StatementKind::kPrint, advance().at);
  JINJA_TRY(out->value, make(ExprKind::kConcat, out->at));
  while (current().kind != TokenKind::kBlockEnd) {
    if (!out->value->items.empty()) {
      JINJA_CHECK(expect_operator(","));
    }
    JINJA_TRY(Expr * item, parse_expression());
    JINJA_CHECK(add_item(out->value, item));
  }
  return out;
}

Outcome<Statement*> Parser::parse_loop_control(StatementKind kind) {
  const Token& token = advance();
  if (loops_ == 0)
    return fail(token.at, fmt::format("'{}' outside a for loop", token.text));
  return make_statement(kind, token.at);
}

Outcome<Target*> Parser::parse_single_target(bool with_namespace, std::string_view end) {
  const DepthGuard guard(*this);
  const Position at = current().at;
  if (guard.too_deep())
    return fail(at, "assignment nested too deeply", ErrorCode::kTooLarge);
  if (skip_operator("(")) {
    JINJA_TRY(Target * inner, parse_target(with_namespace, end));
    JINJA_CHECK(expect_operator(")"));
    return inner;
  }
  if (current().kind != TokenKind::kName)
    return unexpected("a name to assign to");
  const std::string_view name = advance().text;
  constexpr std::array<std::string_view, 6> kConstants = {"true",  "True", "false",
                                                          "False", "none", "None"};
  if (std::find(kConstants.begin(), kConstants.end(), name) != kConstants.end()) {
    return fail(at, fmt::format("can't assign to '{}'", name));
  }
  if (name == "loop" && (end == "in" || loops_ > 0)) {
    return fail(at, "Can't assign to special loop variable in for-loop target");
  }
  Target* out = &ast_.targets.emplace_back();
  out->at = at;
  out->symbol = ast_.intern(name);
  if (with_namespace && skip_operator(".")) {
    JINJA_TRY(out->attribute, expect_any_name());
  }
  return out;
}

Outcome<Target*> Parser::parse_target(bool with_namespace, std::string_view end) {
  const Position at = current().at;
  JINJA_TRY(Target * first, parse_single_target(with_namespace, end));
  if (!is_operator(","))
    return first;
  Target* tuple = &ast_.targets.emplace_back();
  tuple->at = at;
  tuple->is_tuple = true;
  tuple->items.push_back(first);
  while (skip_operator(",")) {
    if (is_operator("=") || is_operator(")") || (!end.empty() && is_name(end)))
      break;
    JINJA_TRY(Target * next, parse_single_target(with_namespace, end));
    tuple->items.push_back(next);
  }
  return tuple;
}

Status Parser::run() {
  auto body = parse_body({}, "");
  if (body && !unknown_.empty()) {
    body = fail(unknown_[0].at, unknown_[0].message, ErrorCode::kUnsupported);
  }
  if (!body)
    return tl::unexpected<Error>(std::move(error_));
  ast_.body = std::move(*body);
  return {};
}

Result<std::unique_ptr<Ast>> parse_template(std::string_view source, const std::string& where) {
  if (source.size() > kMaxSourceBytes) {
    return pinhole::fail(ErrorCode::kTooLarge,
                         fmt::format("the chat template has {} bytes, at most {} are accepted",
                                     source.size(), kMaxSourceBytes),
                         where);
  }
  auto ast = std::make_unique<Ast>();
  ast->where = where;
  ast->source = normalize_source(source);
  PINHOLE_TRY(std::vector<Token> tokens, tokenize(*ast));
  PINHOLE_CHECK(Parser(*ast, std::move(tokens)).run());
  return ast;
}

} // namespace pinhole::jinja
