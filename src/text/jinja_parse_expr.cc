// Expressions of the Jinja grammar, lowest precedence first.

#include "text/jinja_builtins.h"
#include "text/jinja_parser_impl.h"

#include <array>
#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

constexpr uint16_t kMaxNodeDepth = 400; // levels of the tree; the interpreter recurses through them

struct OperatorName {
  std::string_view text;
  Operator op;
};
constexpr std::array<OperatorName, 6> kComparisons = {{{"==", Operator::kEqual},
                                                       {"!=", Operator::kNotEqual},
                                                       {"<=", Operator::kLessEqual},
                                                       {">=", Operator::kGreaterEqual},
                                                       {"<", Operator::kLess},
                                                       {">", Operator::kGreater}}};
constexpr std::array<OperatorName, 4> kProducts = {{{"*", Operator::kMultiply},
                                                    {"/", Operator::kDivide},
                                                    {"//", Operator::kFloorDivide},
                                                    {"%", Operator::kModulo}}};

template <size_t N>
const OperatorName* find_operator(const std::array<OperatorName, N>& names, const Token& token) {
  if (token.kind != TokenKind::kOperator)
    return nullptr;
  for (const OperatorName& name : names) {
    if (name.text == token.text)
      return &name;
  }
  return nullptr;
}

} // namespace

Done Parser::deepen(Expr* parent, const Expr* child) {
  if (child == nullptr || child->depth < parent->depth)
    return {};
  if (child->depth >= kMaxNodeDepth) {
    return fail(child->at, fmt::format("the expression has more than {} levels", kMaxNodeDepth),
                ErrorCode::kTooLarge);
  }
  parent->depth = static_cast<uint16_t>(child->depth + 1);
  return {};
}

Outcome<Expr*> Parser::make(ExprKind kind, Position at, std::initializer_list<Expr*> children) {
  Expr* node = &ast_.expressions.emplace_back();
  node->kind = kind;
  node->at = at;
  size_t count = 0;
  for (Expr* child : children) {
    JINJA_CHECK(deepen(node, child));
    (count == 0 ? node->first : count == 1 ? node->second : node->third) = child;
    ++count;
  }
  return node;
}

Done Parser::add_item(Expr* parent, Expr* item) {
  parent->items.push_back(item);
  return deepen(parent, item);
}

Outcome<Expr*> Parser::parse_expression(bool with_conditional) {
  const DepthGuard guard(*this);
  if (guard.too_deep()) {
    return fail(current().at, fmt::format("nested deeper than {} levels", DepthGuard::kMaxDepth),
                ErrorCode::kTooLarge);
  }
  return with_conditional ? parse_conditional() : parse_or();
}

Outcome<Expr*> Parser::parse_conditional() {
  const bool outer_soft = soft_;
  const size_t unknown_before = unknown_.size();
  JINJA_TRY(Expr * node, parse_or());
  while (is_name("if")) {
    const Position at = advance().at;
    unknown_.resize(unknown_before);
    soft_ = true;
    JINJA_TRY(Expr * condition, parse_or());
    Expr* otherwise = nullptr;
    if (skip_name("else")) {
      JINJA_TRY(otherwise, parse_expression());
    }
    soft_ = outer_soft;
    JINJA_TRY(node, make(ExprKind::kConditional, at, {condition, node, otherwise}));
  }
  return node;
}

Outcome<Expr*> Parser::parse_or() {
  JINJA_TRY(Expr * node, parse_and());
  while (is_name("or")) {
    const Position at = advance().at;
    JINJA_TRY(Expr * right, parse_and());
    JINJA_TRY(node, make(ExprKind::kOr, at, {node, right}));
  }
  return node;
}

Outcome<Expr*> Parser::parse_and() {
  JINJA_TRY(Expr * node, parse_not());
  while (is_name("and")) {
    const Position at = advance().at;
    JINJA_TRY(Expr * right, parse_not());
    JINJA_TRY(node, make(ExprKind::kAnd, at, {node, right}));
  }
  return node;
}

Outcome<Expr*> Parser::parse_not() {
  std::vector<Position> nots;
  while (is_name("not"))
    nots.push_back(advance().at);
  JINJA_TRY(Expr * node, parse_compare());
  for (; !nots.empty(); nots.pop_back()) {
    JINJA_TRY(node, make(ExprKind::kNot, nots.back(), {node}));
  }
  return node;
}

Outcome<Expr*> Parser::parse_compare() {
  JINJA_TRY(Expr * first, parse_sum());
  Expr* node = nullptr;
  while (true) {
    const Position at = current().at;
    Operator op = Operator::kIn;
    if (const OperatorName* comparison = find_operator(kComparisons, current())) {
      op = comparison->op;
      advance();
    } else if (is_name("in")) {
      advance();
    } else if (is_name("not") && is_name(ahead(), "in")) {
      op = Operator::kNotIn;
      advance();
      advance();
    } else {
      return node == nullptr ? first : node;
    }
    if (node == nullptr) {
      JINJA_TRY(node, make(ExprKind::kCompare, at, {first}));
    }
    JINJA_TRY(Expr * right, parse_sum());
    node->operators.push_back(op);
    JINJA_CHECK(add_item(node, right));
  }
}

Outcome<Expr*> Parser::parse_sum() {
  JINJA_TRY(Expr * node, parse_concat());
  while (is_operator("+") || is_operator("-")) {
    const Operator op = current().text == "+" ? Operator::kAdd : Operator::kSubtract;
    const Position at = advance().at;
    JINJA_TRY(Expr * right, parse_concat());
    JINJA_TRY(node, make(ExprKind::kBinary, at, {node, right}));
    node->op = op;
  }
  return node;
}

Outcome<Expr*> Parser::parse_concat() {
  JINJA_TRY(Expr * first, parse_product());
  if (!is_operator("~"))
    return first;
  JINJA_TRY(Expr * node, make(ExprKind::kConcat, current().at));
  JINJA_CHECK(add_item(node, first));
  while (skip_operator("~")) {
    JINJA_TRY(Expr * next, parse_product());
    JINJA_CHECK(add_item(node, next));
  }
  return node;
}

Outcome<Expr*> Parser::parse_product() {
  JINJA_TRY(Expr * node, parse_power());
  while (const OperatorName* product = find_operator(kProducts, current())) {
    const Position at = advance().at;
    JINJA_TRY(Expr * right, parse_power());
    JINJA_TRY(node, make(ExprKind::kBinary, at, {node, right}));
    node->op = product->op;
  }
  return node;
}

Outcome<Expr*> Parser::parse_power() {
  JINJA_TRY(Expr * node, parse_unary());
  while (is_operator("**")) {
    const Position at = advance().at;
    JINJA_TRY(Expr * right, parse_unary());
    JINJA_TRY(node, make(ExprKind::kBinary, at, {node, right}));
    node->op = Operator::kPower;
  }
  return node;
}

Outcome<Expr*> Parser::parse_unary(bool with_filter) {
  const DepthGuard guard(*this);
  if (guard.too_deep()) {
    return fail(current().at, fmt::format("nested deeper than {} levels", DepthGuard::kMaxDepth),
                ErrorCode::kTooLarge);
  }
  Expr* node = nullptr;
  if (is_operator("-") || is_operator("+")) {
    const ExprKind kind = current().text == "-" ? ExprKind::kNegate : ExprKind::kPlus;
    const Position at = advance().at;
    JINJA_TRY(Expr * operand, parse_unary(false));
    JINJA_TRY(node, make(kind, at, {operand}));
  } else {
    JINJA_TRY(node, parse_primary());
  }
  JINJA_TRY(node, parse_postfix(node));
  return with_filter ? parse_filters_and_tests(node) : Outcome<Expr*>(node);
}

Outcome<Expr*> Parser::parse_primary() {
  const Token& token = current();
  switch (token.kind) {
  case TokenKind::kName:
    return parse_name();
  case TokenKind::kString: {
    std::string_view text = token.text;
    advance();
    if (current().kind == TokenKind::kString) { // adjacent literals are one
      std::string joined(text);
      while (current().kind == TokenKind::kString)
        joined += advance().text;
      text = ast_.strings.emplace_back(std::move(joined));
    }
    JINJA_TRY(Expr * node, make(ExprKind::kConstant, token.at));
    node->constant = Value::string(text);
    return node;
  }
  case TokenKind::kInteger:
  case TokenKind::kFloat: {
    advance();
    JINJA_TRY(Expr * node, make(ExprKind::kConstant, token.at));
    node->constant = token.kind == TokenKind::kInteger ? Value::integer(token.integer)
                                                       : Value::number(token.number);
    return node;
  }
  case TokenKind::kOperator:
    if (token.text == "(") {
      advance();
      JINJA_TRY(Expr * node, parse_tuple(true, "", true));
      JINJA_CHECK(expect_operator(")"));
      return node;
    }
    if (token.text == "[")
      return parse_list();
    if (token.text == "{")
      return parse_dict();
    break;
  default:
    break;
  }
  return unexpected("an expression");
}

Outcome<Expr*> Parser::parse_name() {
  const Token& token = advance();
  const std::string_view text = token.text;
  JINJA_TRY(Expr * node, make(ExprKind::kConstant, token.at));
  if (text == "true" || text == "True" || text == "false" || text == "False") {
    node->constant = Value::boolean(text == "true" || text == "True");
  } else if (text == "none" || text == "None") {
    node->constant = Value::none();
  } else {
    node->kind = ExprKind::kName;
    node->name = text;
    node->symbol = ast_.intern(text);
    if (macro_ != nullptr) {
      macro_->uses_caller = macro_->uses_caller || text == "caller";
      macro_->uses_varargs = macro_->uses_varargs || text == "varargs";
      macro_->uses_kwargs = macro_->uses_kwargs || text == "kwargs";
    }
  }
  return node;
}

bool Parser::at_tuple_end(std::string_view end) const {
  return current().kind == TokenKind::kVariableEnd || current().kind == TokenKind::kBlockEnd ||
         is_operator(")") || (!end.empty() && is_name(end));
}

Outcome<Expr*> Parser::parse_tuple(bool with_conditional, std::string_view end,
                                   bool in_parentheses) {
  const Position at = current().at;
  Expr* first = nullptr;
  Expr* tuple = nullptr;
  if (!at_tuple_end(end)) {
    JINJA_TRY(first, parse_expression(with_conditional));
  }
  while (first != nullptr && is_operator(",")) {
    advance();
    if (tuple == nullptr) {
      JINJA_TRY(tuple, make(ExprKind::kTuple, at));
      JINJA_CHECK(add_item(tuple, first));
    }
    if (at_tuple_end(end))
      break;
    JINJA_TRY(Expr * item, parse_expression(with_conditional));
    JINJA_CHECK(add_item(tuple, item));
  }
  if (tuple != nullptr)
    return tuple;
  if (first != nullptr)
    return first;
  if (!in_parentheses)
    return unexpected("an expression");
  return make(ExprKind::kTuple, at);
}

Outcome<Expr*> Parser::parse_list() {
  JINJA_TRY(Expr * node, make(ExprKind::kList, advance().at));
  while (!is_operator("]")) {
    if (!node->items.empty()) {
      JINJA_CHECK(expect_operator(","));
      if (is_operator("]"))
        break;
    }
    JINJA_TRY(Expr * item, parse_expression());
    JINJA_CHECK(add_item(node, item));
  }
  JINJA_CHECK(expect_operator("]"));
  return node;
}

Outcome<Expr*> Parser::parse_dict() {
  JINJA_TRY(Expr * node, make(ExprKind::kDict, advance().at));
  while (!is_operator("}")) {
    if (!node->items.empty()) {
      JINJA_CHECK(expect_operator(","));
      if (is_operator("}"))
        break;
    }
    JINJA_TRY(Expr * key, parse_expression());
    JINJA_CHECK(expect_operator(":"));
    JINJA_TRY(Expr * value, parse_expression());
    JINJA_CHECK(add_item(node, key));
    JINJA_CHECK(add_item(node, value));
  }
  JINJA_CHECK(expect_operator("}"));
  return node;
}

Outcome<Expr*> Parser::parse_postfix(Expr* node) {
  while (true) {
    if (is_operator(".") || is_operator("[")) {
      JINJA_TRY(node, parse_subscript(node));
    } else if (is_operator("(")) {
      JINJA_TRY(node, parse_call(node));
    } else {
      return node;
    }
  }
}

Outcome<Expr*> Parser::parse_subscript(Expr* node) {
  if (is_operator("["))
    return parse_subscribed(node);
  advance();
  const Token& token = advance();
  if (token.kind == TokenKind::kName) {
    JINJA_TRY(Expr * out, make(ExprKind::kAttribute, token.at, {node}));
    out->name = token.text;
    return out;
  }
  if (token.kind != TokenKind::kInteger) {
    return fail(token.at, "expected a name or a number after '.'");
  }
  JINJA_TRY(Expr * index, make(ExprKind::kConstant, token.at));
  index->constant = Value::integer(token.integer);
  return make(ExprKind::kItem, token.at, {node, index});
}

Outcome<Expr*> Parser::parse_subscribed(Expr* node) {
  const Position at = advance().at;
  Expr* index = nullptr;
  if (!is_operator(":")) {
    JINJA_TRY(index, parse_expression());
  }
  if (is_operator(":"))
    return parse_slice(node, index);
  if (is_operator(",")) {
    JINJA_TRY(Expr * tuple, make(ExprKind::kTuple, at));
    JINJA_CHECK(add_item(tuple, index));
    while (skip_operator(",")) {
      JINJA_TRY(Expr * item, parse_expression());
      JINJA_CHECK(add_item(tuple, item));
    }
    index = tuple;
  }
  JINJA_CHECK(expect_operator("]"));
  return make(ExprKind::kItem, at, {node, index});
}

Outcome<Expr*> Parser::parse_slice(Expr* node, Expr* start) {
  JINJA_TRY(Expr * slice, make(ExprKind::kSlice, current().at, {node}));
  slice->items.assign(3, nullptr);
  slice->items[0] = start;
  JINJA_CHECK(deepen(slice, start));
  for (size_t i = 1; i < 3 && skip_operator(":"); ++i) {
    if (is_operator(":") || is_operator("]"))
      continue;
    JINJA_TRY(slice->items[i], parse_expression());
    JINJA_CHECK(deepen(slice, slice->items[i]));
  }
  JINJA_CHECK(expect_operator("]"));
  return slice;
}

Outcome<Expr*> Parser::parse_filters_and_tests(Expr* node) {
  while (true) {
    if (is_operator("|")) {
      advance();
      JINJA_TRY(node, parse_filter(node));
    } else if (is_name("is")) {
      JINJA_TRY(node, parse_test(node));
    } else if (is_operator("(")) {
      JINJA_TRY(node, parse_call(node));
    } else {
      return node;
    }
  }
}

Outcome<Expr*> Parser::parse_filter(Expr* node) {
  const Position at = current().at;
  JINJA_TRY(const std::string_view name, expect_any_name());
  JINJA_TRY(Expr * out, make(ExprKind::kFilter, at, {node}));
  out->name = name;
  out->function = find_filter(name);
  if (out->function == nullptr)
    note_unknown(at, "filter", name);
  if (is_operator("(")) {
    JINJA_TRY(out->arguments, parse_arguments(out));
  }
  return out;
}

Outcome<Expr*> Parser::parse_filter_chain(Expr* node, bool first_is_inline) {
  if (first_is_inline) {
    JINJA_TRY(node, parse_filter(node));
  }
  while (skip_operator("|")) {
    JINJA_TRY(node, parse_filter(node));
  }
  return node;
}

Outcome<Expr*> Parser::parse_test(Expr* node) {
  advance();
  const bool negated = skip_name("not");
  const Position at = current().at;
  JINJA_TRY(const std::string_view name, expect_any_name());
  JINJA_TRY(Expr * out, make(ExprKind::kTest, at, {node}));
  out->name = name;
  out->function = find_test(name);
  if (out->function == nullptr)
    note_unknown(at, "test", name);
  const Token& token = current();
  if (is_operator("(")) {
    JINJA_TRY(out->arguments, parse_arguments(out));
  } else if (is_name("is")) {
    return fail(token.at, "You cannot chain multiple tests with is");
  } else if ((token.kind == TokenKind::kName && !is_name("else") && !is_name("or") &&
              !is_name("and")) ||
             token.kind == TokenKind::kString || token.kind == TokenKind::kInteger ||
             token.kind == TokenKind::kFloat || is_operator("[") || is_operator("{")) {
    // "x is divisibleby 3", and as in Jinja "x is defined if y" takes `if` for an argument.
    JINJA_TRY(Expr * argument, parse_primary());
    JINJA_TRY(argument, parse_postfix(argument));
    out->arguments = &ast_.calls.emplace_back();
    out->arguments->positional.push_back(argument);
    JINJA_CHECK(deepen(out, argument));
  }
  return negated ? make(ExprKind::kNot, at, {out}) : Outcome<Expr*>(out);
}

Outcome<Expr*> Parser::parse_call(Expr* node) {
  JINJA_TRY(Expr * out, make(ExprKind::kCall, current().at, {node}));
  JINJA_TRY(out->arguments, parse_arguments(out));
  return out;
}

Outcome<CallArguments*> Parser::parse_arguments(Expr* owner) {
  CallArguments* out = &ast_.calls.emplace_back();
  const Position at = current().at;
  JINJA_CHECK(expect_operator("("));
  bool first = true;
  while (!is_operator(")")) {
    if (!first) {
      JINJA_CHECK(expect_operator(","));
      if (is_operator(")"))
        break;
    }
    first = false;
    const bool star = is_operator("*");
    const bool double_star = is_operator("**");
    const bool named = current().kind == TokenKind::kName && is_operator(ahead(), "=");
    if (out->double_star != nullptr || (out->star != nullptr && !named && !double_star) ||
        (!star && !double_star && !named && !out->named.empty())) {
      return fail(at, "invalid syntax for function call expression");
    }
    std::string_view name;
    if (star || double_star)
      advance();
    if (named) {
      name = advance().text;
      advance();
    }
    JINJA_TRY(Expr * value, parse_expression());
    JINJA_CHECK(deepen(owner, value));
    if (star)
      out->star = value;
    else if (double_star)
      out->double_star = value;
    else if (named)
      out->named.emplace_back(name, value);
    else
      out->positional.push_back(value);
  }
  JINJA_CHECK(expect_operator(")"));
  return out;
}

} // namespace pinhole::jinja
