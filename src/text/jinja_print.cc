// str() and repr() of values, undefined values and their messages.

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_text.h"

#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

constexpr int kMaxPrintDepth = 200;

std::string function_repr(const Callable& callable) {
  if (callable.macro != nullptr)
    return fmt::format("<Macro '{}'>", callable.macro->name);
  if (callable.self.is_undefined())
    return fmt::format("<function {}>", callable.function->name);
  return fmt::format("<built-in method {} of {} object>", callable.function->name,
                     type_name(callable.self));
}

} // namespace

Outcome<std::string_view> Interpreter::text_of(const Value& value) {
  if (value.is_string())
    return value.text();
  std::string text;
  JINJA_CHECK(append_text(text, value));
  JINJA_TRY(const Value kept, string(std::move(text)));
  return kept.text();
}

Done Interpreter::append_text(std::string& out, const Value& value) {
  switch (value.kind()) {
  case Kind::kUndefined:
    return {};
  case Kind::kString:
    JINJA_CHECK(need(out.size() + value.text().size()));
    out += value.text();
    return {};
  default:
    return append_repr(out, value);
  }
}

Done Interpreter::append_repr(std::string& out, const Value& value, int depth) {
  JINJA_CHECK(step());
  if (depth > kMaxPrintDepth) {
    return fail(fmt::format("a value is nested deeper than {} levels", kMaxPrintDepth),
                ErrorCode::kTooLarge);
  }
  switch (value.kind()) {
  case Kind::kUndefined:
    out += "Undefined";
    break;
  case Kind::kNone:
    out += "None";
    break;
  case Kind::kBool:
    out += value.as_bool() ? "True" : "False";
    break;
  case Kind::kInt:
    out += std::to_string(value.as_int());
    break;
  case Kind::kFloat:
    out += float_repr(value.as_double());
    break;
  case Kind::kString:
    if (value.is_safe())
      out += "Markup(";
    jinja::append_repr(out, value.text());
    if (value.is_safe())
      out += ")";
    break;
  case Kind::kSequence: {
    const Sequence& sequence = value.sequence();
    const bool is_view = !sequence.is_indexable();
    if (sequence.type == Sequence::Type::kGenerator) {
      out += "<generator object>";
      break;
    }
    if (is_view)
      out += fmt::format("{}(", type_name(value));
    out += sequence.is_tuple() ? "(" : "[";
    for (size_t i = 0; i < sequence.items.size(); ++i) {
      if (i > 0)
        out += ", ";
      JINJA_CHECK(append_repr(out, sequence.items[i], depth + 1));
    }
    if (sequence.is_tuple() && sequence.items.size() == 1)
      out += ",";
    out += sequence.is_tuple() ? ")" : "]";
    if (is_view)
      out += ")";
    break;
  }
  case Kind::kDict:
  case Kind::kNamespace: {
    if (value.is(Kind::kNamespace))
      out += "<Namespace ";
    out += "{";
    const auto& entries = value.dict().entries;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0)
        out += ", ";
      JINJA_CHECK(append_repr(out, entries[i].first, depth + 1));
      out += ": ";
      JINJA_CHECK(append_repr(out, entries[i].second, depth + 1));
    }
    out += value.is(Kind::kNamespace) ? "}>" : "}";
    break;
  }
  case Kind::kRange: {
    const Range& range = value.range();
    out += fmt::format("range({}, {}", range.start, range.stop);
    out += range.step == 1 ? ")" : fmt::format(", {})", range.step);
    break;
  }
  case Kind::kCallable:
    out += function_repr(value.callable());
    break;
  case Kind::kLoop:
    out += fmt::format("<LoopContext {}/{}>", value.loop().index0 + 1, value.loop().items.size());
    break;
  case Kind::kCycler:
    out += "<Cycler>";
    break;
  case Kind::kJoiner:
    out += "<Joiner>";
    break;
  }
  return need(out.size());
}

std::string Interpreter::short_repr(const Value& value) {
  switch (value.kind()) {
  case Kind::kString: {
    constexpr size_t kMaxShown = 60;
    if (value.text().size() <= kMaxShown)
      return repr(value.text());
    return repr(value.text().substr(0, byte_offset(value.text(), kMaxShown))) + "...";
  }
  case Kind::kNone:
    return "None";
  case Kind::kBool:
    return value.as_bool() ? "True" : "False";
  case Kind::kInt:
    return std::to_string(value.as_int());
  case Kind::kFloat:
    return float_repr(value.as_double());
  default:
    return fmt::format("<{} object>", type_name(value));
  }
}

Value Interpreter::absent(std::string_view hint) {
  auto* absence = heap_.make<Absence>();
  absence->hint = hint;
  return Value::object(Kind::kUndefined, absence);
}

Value Interpreter::absent_name(std::string_view name) {
  auto* absence = heap_.make<Absence>();
  absence->name = Value::string(name);
  return Value::object(Kind::kUndefined, absence);
}

Value Interpreter::absent_member(const Value& owner, const Value& name) {
  auto* absence = heap_.make<Absence>();
  absence->has_owner = true;
  absence->owner = owner;
  absence->name = name;
  return Value::object(Kind::kUndefined, absence);
}

std::string Interpreter::undefined_message(const Value& value) const {
  const Absence* absence = value.absence();
  if (absence == nullptr)
    return "the value is undefined";
  if (!absence->hint.empty())
    return std::string(absence->hint);
  auto* self = const_cast<Interpreter*>(this); // short_repr changes nothing
  if (!absence->has_owner)
    return fmt::format("{} is undefined", self->short_repr(absence->name));
  std::string owner = "None";
  if (!absence->owner.is_none())
    owner = fmt::format("{} object", type_name(absence->owner));
  if (absence->owner.is(Kind::kNamespace))
    owner = "jinja2.utils.Namespace object";
  if (!absence->name.is_string()) {
    return fmt::format("{} has no element {}", owner, self->short_repr(absence->name));
  }
  return fmt::format("'{}' has no attribute {}", owner, self->short_repr(absence->name));
}

tl::unexpected<Failed> Interpreter::fail_undefined(const Value& value) {
  std::string hint;
  const Absence* absence = value.absence();
  if (absence != nullptr && !absence->has_owner && absence->name.is_string() &&
      absence->name.text() == "strftime_now") {
    hint = "pass today's date as 'strftime_now' in the context";
  }
  return fail(undefined_message(value), ErrorCode::kInvalidInput, std::move(hint));
}

} // namespace pinhole::jinja
