// Operators of Python on template values.

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_text.h"

#include <cmath>
#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

constexpr int kMaxCompareDepth = 200;

const char* symbol_of(Operator op) {
  switch (op) {
  case Operator::kAdd:
    return "+";
  case Operator::kSubtract:
    return "-";
  case Operator::kMultiply:
    return "*";
  case Operator::kDivide:
    return "/";
  case Operator::kFloorDivide:
    return "//";
  case Operator::kModulo:
    return "%";
  case Operator::kPower:
    return "** or pow()";
  case Operator::kLess:
    return "<";
  case Operator::kLessEqual:
    return "<=";
  case Operator::kGreater:
    return ">";
  case Operator::kGreaterEqual:
    return ">=";
  default:
    return "==";
  }
}

template <class T> bool ordered(Operator op, const T& left, const T& right) {
  switch (op) {
  case Operator::kLess:
    return left < right;
  case Operator::kLessEqual:
    return left <= right;
  case Operator::kGreater:
    return left > right;
  default:
    return left >= right;
  }
}

// Floor division and remainder with the sign of the divisor; right != 0 and no overflow.
int64_t floor_divide(int64_t left, int64_t right) {
  const int64_t quotient = left / right;
  return left % right != 0 && (left < 0) != (right < 0) ? quotient - 1 : quotient;
}
int64_t floor_modulo(int64_t left, int64_t right) {
  if (right == -1)
    return 0;
  const int64_t rest = left % right;
  return rest != 0 && (rest < 0) != (right < 0) ? rest + right : rest;
}
double floor_modulo(double left, double right) {
  const double rest = std::fmod(left, right);
  if (rest == 0)
    return std::copysign(0.0, right);
  return (rest < 0) != (right < 0) ? rest + right : rest;
}

bool is_hashable(Interpreter& in, const Value& value, int depth = 0) {
  if (!in.step())
    return false;
  if (value.is(Kind::kDict))
    return false;
  if (!value.is(Kind::kSequence))
    return true;
  const Sequence& sequence = value.sequence();
  if (!sequence.is_tuple())
    return sequence.type == Sequence::Type::kValues || sequence.type == Sequence::Type::kGenerator;
  for (const Value& item : sequence.items) {
    if (depth > kMaxCompareDepth || !is_hashable(in, item, depth + 1))
      return false;
  }
  return true;
}

std::optional<int64_t> checked_power(int64_t base, int64_t exponent) {
  int64_t out = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(out, base, &out))
      return std::nullopt;
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base))
      return std::nullopt;
  }
  return out;
}

Outcome<Value> integer_binary(Interpreter& in, Operator op, int64_t left, int64_t right) {
  int64_t out = 0;
  bool overflow = false;
  switch (op) {
  case Operator::kAdd:
    overflow = __builtin_add_overflow(left, right, &out);
    break;
  case Operator::kSubtract:
    overflow = __builtin_sub_overflow(left, right, &out);
    break;
  case Operator::kMultiply:
    overflow = __builtin_mul_overflow(left, right, &out);
    break;
  case Operator::kDivide:
    if (right == 0)
      return in.fail("division by zero");
    return Value::number(static_cast<double>(left) / static_cast<double>(right));
  case Operator::kFloorDivide:
    if (right == 0)
      return in.fail("integer division or modulo by zero");
    overflow = left == INT64_MIN && right == -1;
    if (!overflow)
      out = floor_divide(left, right);
    break;
  case Operator::kModulo:
    if (right == 0)
      return in.fail("integer modulo by zero");
    out = floor_modulo(left, right);
    break;
  default: {
    if (right < 0) {
      if (left == 0)
        return in.fail("0.0 cannot be raised to a negative power");
      return Value::number(std::pow(static_cast<double>(left), static_cast<double>(right)));
    }
    const bool small = left >= -1 && left <= 1; // any exponent
    const auto power = small ? checked_power(left, right % 2 == 0 ? (right > 0 ? 2 : 0) : 1)
                             : checked_power(left, right);
    overflow = !power;
    out = power.value_or(0);
  }
  }
  if (overflow) {
    return in.fail(fmt::format("{} {} {} does not fit into 64 bits", left, symbol_of(op), right),
                   ErrorCode::kTooLarge);
  }
  return Value::integer(out);
}

Outcome<Value> float_binary(Interpreter& in, Operator op, double left, double right) {
  switch (op) {
  case Operator::kAdd:
    return Value::number(left + right);
  case Operator::kSubtract:
    return Value::number(left - right);
  case Operator::kMultiply:
    return Value::number(left * right);
  case Operator::kDivide:
    if (right == 0)
      return in.fail("float division by zero");
    return Value::number(left / right);
  case Operator::kFloorDivide:
    if (right == 0)
      return in.fail("float floor division by zero");
    return Value::number(std::round((left - floor_modulo(left, right)) / right));
  case Operator::kModulo:
    if (right == 0)
      return in.fail("float modulo");
    return Value::number(floor_modulo(left, right));
  default: {
    if (left == 0 && right < 0)
      return in.fail("0.0 cannot be raised to a negative power");
    const double out = std::pow(left, right);
    if (std::isnan(out) && !std::isnan(left) && !std::isnan(right)) {
      return in.fail("complex numbers are not supported", ErrorCode::kUnsupported);
    }
    if (std::isinf(out) && !std::isinf(left) && !std::isinf(right)) {
      return in.fail("(34, 'Numerical result out of range')", ErrorCode::kTooLarge);
    }
    return Value::number(out);
  }
  }
}

Outcome<Value> repeat(Interpreter& in, const Value& value, int64_t count) {
  const auto times = static_cast<uint64_t>(std::max<int64_t>(count, 0));
  const bool is_text = value.is_string();
  const uint64_t unit =
      is_text ? value.text().size() : value.sequence().items.size() * sizeof(Value);
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(unit, times, &bytes))
    bytes = UINT64_MAX;
  JINJA_CHECK(in.need(bytes));
  if (is_text) {
    std::string text;
    text.reserve(bytes);
    for (uint64_t i = 0; i < times && unit > 0; ++i)
      text += value.text();
    return in.string(std::move(text), value.is_safe());
  }
  std::vector<Value> items;
  const auto& from = value.sequence().items;
  for (uint64_t i = 0; i < times && unit > 0; ++i)
    items.insert(items.end(), from.begin(), from.end());
  return in.sequence(value.sequence().type, std::move(items));
}

bool is_list_like(const Value& value) {
  return value.is(Kind::kSequence) && value.sequence().is_indexable();
}

} // namespace

Outcome<bool> Interpreter::equals(const Value& left, const Value& right, int depth) {
  JINJA_CHECK(step());
  if (depth > kMaxCompareDepth) {
    return fail(fmt::format("compared values are nested deeper than {} levels", kMaxCompareDepth),
                ErrorCode::kTooLarge);
  }
  if (left.is_number() && right.is_number()) {
    if (left.is_integral() && right.is_integral())
      return left.as_int() == right.as_int();
    return left.as_double() == right.as_double();
  }
  if (left.kind() != right.kind())
    return false;
  switch (left.kind()) {
  case Kind::kUndefined:
  case Kind::kNone:
    return true;
  case Kind::kString:
    if (left.text().size() != right.text().size())
      return false;
    JINJA_CHECK(work(left.text().size()));
    return left.text() == right.text();
  case Kind::kSequence: {
    if (left.object() == right.object())
      return true;
    const Sequence& a = left.sequence();
    const Sequence& b = right.sequence();
    const bool comparable =
        (a.type == Sequence::Type::kList && b.type == a.type) || (a.is_tuple() && b.is_tuple());
    if (!comparable || a.items.size() != b.items.size())
      return false;
    for (size_t i = 0; i < a.items.size(); ++i) {
      JINJA_TRY(const bool same, equals(a.items[i], b.items[i], depth + 1));
      if (!same)
        return false;
    }
    return true;
  }
  case Kind::kDict: {
    if (left.object() == right.object())
      return true;
    if (left.dict().entries.size() != right.dict().entries.size())
      return false;
    for (const auto& [key, value] : left.dict().entries) {
      JINJA_TRY(const Value* other, find_key(right.dict(), key));
      if (other == nullptr)
        return false;
      JINJA_TRY(const bool same, equals(value, *other, depth + 1));
      if (!same)
        return false;
    }
    return true;
  }
  case Kind::kRange: {
    const Range& a = left.range();
    const Range& b = right.range();
    if (a.size() != b.size())
      return false;
    if (a.size() == 0)
      return true;
    return a.start == b.start && (a.size() == 1 || a.step == b.step);
  }
  default:
    return left.object() == right.object();
  }
}

Outcome<bool> Interpreter::compare(Operator op, const Value& left, const Value& right, int depth) {
  if (op == Operator::kEqual || op == Operator::kNotEqual) {
    JINJA_TRY(const bool same, equals(left, right));
    return same == (op == Operator::kEqual);
  }
  JINJA_CHECK(step());
  if (left.is_integral() && right.is_integral())
    return ordered(op, left.as_int(), right.as_int());
  if (left.is_number() && right.is_number())
    return ordered(op, left.as_double(), right.as_double());
  if (left.is_string() && right.is_string()) { // bytes of UTF-8 order as code points do
    JINJA_CHECK(work(std::min(left.text().size(), right.text().size())));
    return ordered(op, left.text(), right.text());
  }
  if (left.is_undefined())
    return fail_undefined(left);
  if (right.is_undefined())
    return fail_undefined(right);
  if (is_list_like(left) && is_list_like(right) &&
      left.sequence().is_tuple() == right.sequence().is_tuple() && depth < kMaxCompareDepth) {
    const auto& a = left.sequence().items;
    const auto& b = right.sequence().items;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      JINJA_TRY(const bool same, equals(a[i], b[i], depth + 1));
      if (!same)
        return compare(op, a[i], b[i], depth + 1);
    }
    return ordered(op, a.size(), b.size());
  }
  return fail(fmt::format("'{}' not supported between instances of '{}' and '{}'", symbol_of(op),
                          type_name(left), type_name(right)));
}

Outcome<bool> Interpreter::contains(const Value& container, const Value& item) {
  switch (container.kind()) {
  case Kind::kUndefined:
    return false;
  case Kind::kString:
    if (item.is_undefined())
      return fail_undefined(item);
    if (!item.is_string()) {
      return fail(
          fmt::format("'in <string>' requires string as left operand, not {}", type_name(item)));
    }
    JINJA_CHECK(work(container.text().size() + item.text().size()));
    return container.text().find(item.text()) != std::string_view::npos;
  case Kind::kDict: {
    JINJA_TRY(const Value* value, find_key(container.dict(), item));
    return value != nullptr;
  }
  case Kind::kRange: {
    if (!item.is_number())
      return false;
    const Range& range = container.range();
    const double position =
        (item.as_double() - static_cast<double>(range.start)) / static_cast<double>(range.step);
    return position == std::floor(position) && position >= 0 &&
           position < static_cast<double>(range.size());
  }
  case Kind::kSequence: {
    Sequence& sequence = container.sequence();
    for (size_t i = sequence.next; i < sequence.items.size(); ++i) {
      if (sequence.type == Sequence::Type::kGenerator)
        sequence.next = i + 1;
      JINJA_TRY(const bool same, equals(sequence.items[i], item));
      if (same)
        return true;
    }
    return false;
  }
  default:
    return fail(fmt::format("argument of type '{}' is not iterable", type_name(container)));
  }
}

Outcome<Value> Interpreter::add(const Value& left, const Value& right) {
  if (left.is_string() && right.is_string()) {
    const bool safe = left.is_safe() || right.is_safe();
    std::string text;
    JINJA_CHECK(need(left.text().size() + right.text().size()));
    text.reserve(left.text().size() + right.text().size());
    const auto append = [&](const Value& part) { // Markup escapes what it is joined with
      if (safe && !part.is_safe())
        text += escape_html(part.text());
      else
        text += part.text();
    };
    append(left);
    append(right);
    return string(std::move(text), safe);
  }
  if (left.is_undefined())
    return fail_undefined(left);
  if (right.is_undefined())
    return fail_undefined(right);
  if (is_list_like(left)) {
    const Sequence& a = left.sequence();
    if (is_list_like(right) && a.is_tuple() == right.sequence().is_tuple()) {
      const auto& b = right.sequence().items;
      JINJA_CHECK(need((a.items.size() + b.size()) * sizeof(Value)));
      JINJA_CHECK(step((a.items.size() + b.size()) / 16));
      std::vector<Value> items;
      items.reserve(a.items.size() + b.size());
      items.insert(items.end(), a.items.begin(), a.items.end());
      items.insert(items.end(), b.begin(), b.end());
      return sequence(a.is_tuple() ? Sequence::Type::kTuple : Sequence::Type::kList,
                      std::move(items));
    }
    return fail(fmt::format("can only concatenate {0} (not \"{1}\") to {0}", type_name(left),
                            type_name(right)));
  }
  if (left.is_string()) {
    return fail(fmt::format("can only concatenate str (not \"{}\") to str", type_name(right)));
  }
  return fail(fmt::format("unsupported operand type(s) for +: '{}' and '{}'", type_name(left),
                          type_name(right)));
}

Outcome<Value> Interpreter::binary(Operator op, const Value& left, const Value& right) {
  if (left.is_integral() && right.is_integral()) {
    return integer_binary(*this, op, left.as_int(), right.as_int());
  }
  if (left.is_number() && right.is_number()) {
    return float_binary(*this, op, left.as_double(), right.as_double());
  }
  if (op == Operator::kAdd)
    return add(left, right);
  if (op == Operator::kModulo && left.is_string())
    return format_percent(*this, left, right);
  if (left.is_undefined())
    return fail_undefined(left);
  if (right.is_undefined())
    return fail_undefined(right);
  if (op == Operator::kMultiply) {
    if ((left.is_string() || is_list_like(left)) && right.is_integral()) {
      return repeat(*this, left, right.as_int());
    }
    if ((right.is_string() || is_list_like(right)) && left.is_integral()) {
      return repeat(*this, right, left.as_int());
    }
    if (left.is_string() || is_list_like(left)) {
      return fail(fmt::format("can't multiply sequence by non-int of type '{}'", type_name(right)));
    }
  }
  return fail(fmt::format("unsupported operand type(s) for {}: '{}' and '{}'", symbol_of(op),
                          type_name(left), type_name(right)));
}

Outcome<Value> Interpreter::negate(const Value& value) {
  if (value.is(Kind::kFloat))
    return Value::number(-value.as_double());
  if (value.is_integral())
    return integer_binary(*this, Operator::kSubtract, 0, value.as_int());
  if (value.is_undefined())
    return fail_undefined(value);
  return fail(fmt::format("bad operand type for unary -: '{}'", type_name(value)));
}

Outcome<std::vector<Value>> Interpreter::iterate(const Value& value) {
  std::vector<Value> out;
  const auto reserve = [&](uint64_t count) -> Done {
    JINJA_CHECK(need(count * sizeof(Value)));
    JINJA_CHECK(step(count / 16));
    heap_.take(count * sizeof(Value));
    out.reserve(count);
    return {};
  };
  switch (value.kind()) {
  case Kind::kUndefined:
    break;
  case Kind::kSequence: {
    Sequence& sequence = value.sequence();
    const size_t first = sequence.next;
    JINJA_CHECK(reserve(sequence.items.size() - first));
    out.assign(sequence.items.begin() + static_cast<ptrdiff_t>(first), sequence.items.end());
    if (sequence.type == Sequence::Type::kGenerator)
      sequence.next = sequence.items.size();
    break;
  }
  case Kind::kDict:
    JINJA_CHECK(reserve(value.dict().entries.size()));
    for (const auto& entry : value.dict().entries)
      out.push_back(entry.first);
    break;
  case Kind::kString: {
    const std::string_view text = value.text();
    JINJA_CHECK(reserve(text.size()));
    for (size_t at = 0; at < text.size();) {
      const uint32_t size = code_point_at(text, at).size_bytes;
      out.push_back(Value::string(text.substr(at, size)));
      at += size;
    }
    break;
  }
  case Kind::kRange: {
    const Range& range = value.range();
    JINJA_CHECK(reserve(static_cast<uint64_t>(range.size())));
    for (int64_t i = 0; i < range.size(); ++i)
      out.push_back(Value::integer(range.at(i)));
    break;
  }
  default:
    return fail(fmt::format("'{}' object is not iterable", type_name(value)));
  }
  return out;
}

Outcome<int64_t> Interpreter::length(const Value& value) {
  switch (value.kind()) {
  case Kind::kUndefined:
    return 0;
  case Kind::kString:
    JINJA_CHECK(work(value.text().size()));
    return count_code_points(value.text());
  case Kind::kSequence:
    if (value.sequence().type == Sequence::Type::kGenerator)
      break;
    return static_cast<int64_t>(value.sequence().items.size());
  case Kind::kDict:
    return static_cast<int64_t>(value.dict().entries.size());
  case Kind::kRange:
    return value.range().size();
  case Kind::kLoop:
    return static_cast<int64_t>(value.loop().items.size());
  default:
    break;
  }
  return fail(fmt::format("object of type '{}' has no len()", type_name(value)));
}

Outcome<Value*> Interpreter::find_key(Dict& dict, const Value& key) {
  if (key.is_string()) {
    JINJA_CHECK(step(dict.index.empty() ? dict.entries.size() / 8 : 0));
    return dict.find_text(key.text());
  }
  if (!is_hashable(*this, key))
    return fail(fmt::format("unhashable type: '{}'", type_name(key)));
  for (auto& [name, value] : dict.entries) {
    JINJA_TRY(const bool same, equals(name, key));
    if (same)
      return &value;
  }
  return nullptr;
}

Done Interpreter::set_key(Dict& dict, const Value& key, const Value& value) {
  JINJA_TRY(Value * existing, find_key(dict, key));
  if (existing != nullptr) {
    *existing = value;
    return {};
  }
  JINJA_CHECK(need(sizeof(Value) * 4));
  heap_.take(sizeof(Value) * 4);
  dict.append(key, value);
  return {};
}

} // namespace pinhole::jinja
