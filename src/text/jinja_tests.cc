// Tests ("value is name").

#include "text/jinja_builtins.h"
#include "text/jinja_text.h"

#include <cmath>
#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

template <bool (*Holds)(const Value&)>
Outcome<Value> simple(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_CHECK((bind<0>(in, "test", arguments, {})));
  return Value::boolean(Holds(self));
}

bool is_defined(const Value& value) { return !value.is_undefined(); }
bool is_undefined(const Value& value) { return value.is_undefined(); }
bool is_none(const Value& value) { return value.is_none(); }
bool is_boolean(const Value& value) { return value.is(Kind::kBool); }
bool is_exactly_true(const Value& value) { return value.is(Kind::kBool) && value.as_bool(); }
bool is_exactly_false(const Value& value) { return value.is(Kind::kBool) && !value.as_bool(); }
bool is_integer(const Value& value) { return value.is(Kind::kInt); }
bool is_float(const Value& value) { return value.is(Kind::kFloat); }
bool is_number(const Value& value) { return value.is_number(); }
bool is_string(const Value& value) { return value.is_string(); }
bool is_mapping(const Value& value) { return value.is(Kind::kDict); }
bool is_escaped(const Value& value) { return value.is_safe(); }
bool is_callable(const Value& value) {
  return value.is(Kind::kCallable) || value.is(Kind::kLoop) || value.is(Kind::kJoiner) ||
         value.is_undefined(); // Undefined defines __call__
}
bool is_sequence(const Value& value) { // has a length and items
  return value.is_undefined() || value.is_string() || value.is(Kind::kDict) ||
         value.is(Kind::kRange) || (value.is(Kind::kSequence) && value.sequence().is_indexable());
}
bool is_iterable(const Value& value) {
  return value.is_undefined() || value.is_string() || value.is(Kind::kDict) ||
         value.is(Kind::kRange) || value.is(Kind::kSequence) || value.is(Kind::kLoop);
}

template <bool (*Holds)(std::string_view)>
Outcome<Value> text_test(Interpreter& in, const Value& self, Arguments&) {
  JINJA_TRY(const std::string_view text, in.text_of(self));
  JINJA_CHECK(in.work(text.size()));
  return Value::boolean(Holds(text));
}

Outcome<Value> remainder_is(Interpreter& in, const Value& self, const Value& divisor,
                            int64_t expected) {
  JINJA_TRY(const Value rest, in.binary(Operator::kModulo, self, divisor));
  JINJA_TRY(const bool same, in.equals(rest, Value::integer(expected)));
  return Value::boolean(same);
}
Outcome<Value> test_odd(Interpreter& in, const Value& self, Arguments&) {
  return remainder_is(in, self, Value::integer(2), 1);
}
Outcome<Value> test_even(Interpreter& in, const Value& self, Arguments&) {
  return remainder_is(in, self, Value::integer(2), 0);
}
Outcome<Value> test_divisible_by(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "test_divisibleby", arguments, {"num"}, 1)));
  return remainder_is(in, self, *args[0], 0);
}

template <Operator Op>
Outcome<Value> comparison(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "test", arguments, {"other"}, 1)));
  JINJA_TRY(const bool holds, in.compare(Op, self, *args[0]));
  return Value::boolean(holds);
}

Outcome<Value> test_in(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "test_in", arguments, {"seq"}, 1)));
  JINJA_TRY(const bool holds, in.contains(*args[0], self));
  return Value::boolean(holds);
}

Outcome<Value> test_same_as(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "test_sameas", arguments, {"other"}, 1)));
  const Value& other = *args[0];
  if (self.kind() != other.kind())
    return Value::boolean(false);
  switch (self.kind()) {
  case Kind::kNone:
    return Value::boolean(true);
  case Kind::kBool:
  case Kind::kInt:
    return Value::boolean(self.as_int() == other.as_int());
  case Kind::kFloat:
    return Value::boolean(self.as_double() == other.as_double());
  case Kind::kString:
    return Value::boolean(self.text() == other.text());
  default:
    return Value::boolean(self.object() == other.object());
  }
}

template <const NamedFunction* (*Find)(std::string_view)>
Outcome<Value> test_exists(Interpreter&, const Value& self, Arguments&) {
  return Value::boolean(self.is_string() && Find(self.text()) != nullptr);
}

constexpr NamedFunction kTests[] = {
    {"!=", comparison<Operator::kNotEqual>},
    {"<", comparison<Operator::kLess>},
    {"<=", comparison<Operator::kLessEqual>},
    {"==", comparison<Operator::kEqual>},
    {">", comparison<Operator::kGreater>},
    {">=", comparison<Operator::kGreaterEqual>},
    {"boolean", simple<is_boolean>},
    {"callable", simple<is_callable>},
    {"defined", simple<is_defined>},
    {"divisibleby", test_divisible_by},
    {"eq", comparison<Operator::kEqual>},
    {"equalto", comparison<Operator::kEqual>},
    {"escaped", simple<is_escaped>},
    {"even", test_even},
    {"false", simple<is_exactly_false>},
    {"filter", test_exists<find_filter>},
    {"float", simple<is_float>},
    {"ge", comparison<Operator::kGreaterEqual>},
    {"greaterthan", comparison<Operator::kGreater>},
    {"gt", comparison<Operator::kGreater>},
    {"in", test_in},
    {"integer", simple<is_integer>},
    {"iterable", simple<is_iterable>},
    {"le", comparison<Operator::kLessEqual>},
    {"lessthan", comparison<Operator::kLess>},
    {"lower", text_test<is_lower>},
    {"lt", comparison<Operator::kLess>},
    {"mapping", simple<is_mapping>},
    {"ne", comparison<Operator::kNotEqual>},
    {"none", simple<is_none>},
    {"number", simple<is_number>},
    {"odd", test_odd},
    {"sameas", test_same_as},
    {"sequence", simple<is_sequence>},
    {"string", simple<is_string>},
    {"test", test_exists<find_test>},
    {"true", simple<is_exactly_true>},
    {"undefined", simple<is_undefined>},
    {"upper", text_test<is_upper>},
};

} // namespace

const NamedFunction* find_test(std::string_view name) {
  for (const NamedFunction& test : kTests) {
    if (test.name == name)
      return &test;
  }
  return nullptr;
}

} // namespace pinhole::jinja
