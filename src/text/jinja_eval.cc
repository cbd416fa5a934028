// Expressions.

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"

#include <fmt/format.h>

namespace pinhole::jinja {

Outcome<Value> Interpreter::eval(const Expr& expr) {
  const DepthGuard guard(*this);
  if (guard.too_deep() || !heap_.step()) {
    at_ = expr.at;
    if (guard.too_deep())
      JINJA_CHECK(too_deep());
    JINJA_CHECK(step(0));
  }
  switch (expr.kind) {
  case ExprKind::kConstant:
    return expr.constant;
  case ExprKind::kName:
    return eval_name(expr);
  case ExprKind::kAttribute: {
    JINJA_TRY(const Value object, eval(*expr.first));
    at_ = expr.at;
    return attribute(object, expr.name);
  }
  case ExprKind::kAnd:
  case ExprKind::kOr: {
    JINJA_TRY(const Value left, eval(*expr.first));
    if (is_true(left) != (expr.kind == ExprKind::kAnd))
      return left;
    return eval(*expr.second);
  }
  case ExprKind::kNot: {
    JINJA_TRY(const Value operand, eval(*expr.first));
    return Value::boolean(!is_true(operand));
  }
  default:
    return eval_node(expr);
  }
}

Outcome<Value> Interpreter::eval_node(const Expr& expr) {
  switch (expr.kind) {
  case ExprKind::kList:
    return eval_items(expr, Sequence::Type::kList);
  case ExprKind::kTuple:
    return eval_items(expr, Sequence::Type::kTuple);
  case ExprKind::kDict:
    return eval_dict(expr);
  case ExprKind::kConcat:
    return eval_concat(expr);
  case ExprKind::kCompare:
    return eval_compare(expr);
  case ExprKind::kConditional:
    return eval_conditional(expr);
  case ExprKind::kSlice:
    return eval_slice(expr);
  case ExprKind::kCall:
    return eval_call(expr);
  case ExprKind::kFilter:
  case ExprKind::kTest:
    return eval_filter_or_test(expr);
  case ExprKind::kItem: {
    JINJA_TRY(const Value object, eval(*expr.first));
    JINJA_TRY(const Value key, eval(*expr.second));
    at_ = expr.at;
    return item(object, key);
  }
  case ExprKind::kBinary: {
    JINJA_TRY(const Value left, eval(*expr.first));
    JINJA_TRY(const Value right, eval(*expr.second));
    at_ = expr.at;
    return binary(expr.op, left, right);
  }
  case ExprKind::kNegate: {
    JINJA_TRY(const Value operand, eval(*expr.first));
    at_ = expr.at;
    return negate(operand);
  }
  case ExprKind::kPlus: {
    JINJA_TRY(const Value operand, eval(*expr.first));
    at_ = expr.at;
    if (operand.is_undefined())
      return fail_undefined(operand);
    if (!operand.is_number()) {
      return fail(fmt::format("bad operand type for unary +: '{}'", type_name(operand)));
    }
    return operand.is(Kind::kBool) ? Value::integer(operand.as_int()) : operand;
  }
  default:
    return fail("the expression cannot be evaluated", ErrorCode::kUnsupported);
  }
}

Outcome<Value> Interpreter::eval_name(const Expr& expr) {
  for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    if (const Value* value = scope->find(expr.symbol))
      return *value;
  }
  return absent_name(expr.name);
}

Outcome<Value> Interpreter::eval_items(const Expr& expr, Sequence::Type type) {
  std::vector<Value> items;
  items.reserve(expr.items.size());
  for (const Expr* child : expr.items) {
    JINJA_TRY(const Value value, eval(*child));
    items.push_back(value);
  }
  return sequence(type, std::move(items));
}

Outcome<Value> Interpreter::eval_dict(const Expr& expr) {
  auto* dict = heap_.make<Dict>();
  for (size_t i = 0; i + 1 < expr.items.size(); i += 2) {
    JINJA_TRY(const Value key, eval(*expr.items[i]));
    JINJA_TRY(const Value value, eval(*expr.items[i + 1]));
    at_ = expr.items[i]->at;
    JINJA_CHECK(set_key(*dict, key, value));
  }
  return Value::object(Kind::kDict, dict);
}

Outcome<Value> Interpreter::eval_concat(const Expr& expr) {
  std::string text;
  for (const Expr* child : expr.items) {
    JINJA_TRY(const Value value, eval(*child));
    at_ = expr.at;
    JINJA_CHECK(append_text(text, value));
  }
  return string(std::move(text));
}

// a < b < c: each operand is evaluated once, and no further than the first false comparison.
Outcome<Value> Interpreter::eval_compare(const Expr& expr) {
  JINJA_TRY(Value left, eval(*expr.first));
  for (size_t i = 0; i < expr.items.size(); ++i) {
    JINJA_TRY(const Value right, eval(*expr.items[i]));
    at_ = expr.at;
    bool holds = false;
    const Operator op = expr.operators[i];
    if (op == Operator::kIn || op == Operator::kNotIn) {
      JINJA_TRY(holds, contains(right, left));
      holds = holds == (op == Operator::kIn);
    } else {
      JINJA_TRY(holds, compare(op, left, right));
    }
    if (!holds)
      return Value::boolean(false);
    left = right;
  }
  return Value::boolean(true);
}

Outcome<Value> Interpreter::eval_conditional(const Expr& expr) {
  JINJA_TRY(const Value condition, eval(*expr.first));
  if (is_true(condition))
    return eval(*expr.second);
  if (expr.third != nullptr)
    return eval(*expr.third);
  return absent("the inline if-expression evaluated to false and no else section was defined.");
}

Outcome<Value> Interpreter::eval_slice(const Expr& expr) {
  JINJA_TRY(const Value object, eval(*expr.first));
  Value bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    bounds[i] = Value::none();
    if (expr.items[i] != nullptr) {
      JINJA_TRY(bounds[i], eval(*expr.items[i]));
    }
  }
  at_ = expr.at;
  return slice(object, bounds[0], bounds[1], bounds[2]);
}

Done Interpreter::eval_arguments(const CallArguments* call, Arguments& out) {
  if (call == nullptr)
    return {};
  out.positional.reserve(call->positional.size());
  for (const Expr* argument : call->positional) {
    JINJA_TRY(const Value value, eval(*argument));
    out.positional.push_back(value);
  }
  for (const auto& [name, argument] : call->named) {
    JINJA_TRY(const Value value, eval(*argument));
    for (const auto& given : out.named) {
      if (given.first == name)
        return fail(fmt::format("keyword argument repeated: {}", name));
    }
    out.named.emplace_back(name, value);
  }
  if (call->star != nullptr) {
    JINJA_TRY(const Value values, eval(*call->star));
    JINJA_TRY(const std::vector<Value> items, iterate(values));
    out.positional.insert(out.positional.end(), items.begin(), items.end());
  }
  if (call->double_star != nullptr) {
    JINJA_TRY(const Value mapping, eval(*call->double_star));
    if (mapping.is_undefined())
      return fail_undefined(mapping);
    if (!mapping.is(Kind::kDict)) {
      return fail(fmt::format("argument after ** must be a mapping, not {}", type_name(mapping)));
    }
    for (const auto& [key, value] : mapping.dict().entries) {
      if (!key.is_string())
        return fail("keywords must be strings");
      out.named.emplace_back(key.text(), value);
    }
  }
  return {};
}

Outcome<Value> Interpreter::eval_call(const Expr& expr) {
  const Expr& callee = *expr.first;
  Arguments arguments;
  if (callee.kind == ExprKind::kAttribute) { // a method call needs no bound method
    JINJA_TRY(const Value self, eval(*callee.first));
    const NamedFunction* method = find_method(self, callee.name);
    if (method != nullptr && method->run != nullptr) {
      JINJA_CHECK(eval_arguments(expr.arguments, arguments));
      at_ = callee.at;
      return method->run(*this, self, arguments);
    }
    at_ = callee.at;
    JINJA_TRY(const Value function, attribute(self, callee.name));
    JINJA_CHECK(eval_arguments(expr.arguments, arguments));
    at_ = callee.at;
    return call(function, arguments);
  }
  JINJA_TRY(const Value function, eval(callee));
  JINJA_CHECK(eval_arguments(expr.arguments, arguments));
  at_ = callee.at;
  return call(function, arguments);
}

Outcome<Value> Interpreter::eval_filter_or_test(const Expr& expr) {
  const bool is_filter = expr.kind == ExprKind::kFilter;
  Value input;
  if (expr.first != nullptr) {
    JINJA_TRY(input, eval(*expr.first));
  } else {
    input = *block_input_;
  }
  Arguments arguments;
  JINJA_CHECK(eval_arguments(expr.arguments, arguments));
  at_ = expr.at;
  if (expr.function == nullptr) {
    return fail(fmt::format("No {} named '{}' found.", is_filter ? "filter" : "test", expr.name),
                ErrorCode::kUnsupported);
  }
  return expr.function->run(*this, input, arguments);
}

Outcome<Value> Interpreter::apply_filters(const Expr& expr, const Value& input) {
  const Value* outer = std::exchange(block_input_, &input);
  auto out = eval(expr);
  block_input_ = outer;
  return out;
}

} // namespace pinhole::jinja
