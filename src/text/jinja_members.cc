// Attributes, items and slices, looked up as Jinja's sandbox does: value.name tries the attribute,
// then the item; value['name'] the item, then the attribute.

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_text.h"

#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

bool is_dunder(std::string_view name) {
  return name.size() > 4 && name.substr(0, 2) == "__" && name.substr(name.size() - 2) == "__";
}

std::optional<int64_t> loop_number(const Loop& loop, std::string_view name) {
  const auto index0 = static_cast<int64_t>(loop.index0);
  const auto length = static_cast<int64_t>(loop.items.size());
  if (name == "index")
    return index0 + 1;
  if (name == "index0")
    return index0;
  if (name == "revindex")
    return length - index0;
  if (name == "revindex0")
    return length - index0 - 1;
  if (name == "length")
    return length;
  if (name == "depth")
    return loop.depth0 + 1;
  if (name == "depth0")
    return loop.depth0;
  return std::nullopt;
}

std::optional<Value> loop_attribute(Interpreter& in, const Value& value, std::string_view name) {
  const Loop& loop = value.loop();
  if (const auto number = loop_number(loop, name))
    return Value::integer(*number);
  const bool last = loop.index0 + 1 >= loop.items.size();
  if (name == "first")
    return Value::boolean(loop.index0 == 0);
  if (name == "last")
    return Value::boolean(last);
  if (name == "previtem") {
    return loop.index0 == 0 ? in.absent("there is no previous item") : loop.items[loop.index0 - 1];
  }
  if (name == "nextitem") {
    return last ? in.absent("there is no next item") : loop.items[loop.index0 + 1];
  }
  return std::nullopt;
}

// Attributes that are neither methods nor items.
std::optional<Value> plain_attribute(Interpreter& in, const Value& value, std::string_view name) {
  switch (value.kind()) {
  case Kind::kLoop:
    return loop_attribute(in, value, name);
  case Kind::kNamespace:
    if (const Value* found = value.dict().find_text(name))
      return *found;
    return std::nullopt;
  case Kind::kSequence:
    if (value.sequence().type == Sequence::Type::kGroup) {
      if (name == "grouper")
        return value.sequence().items[0];
      if (name == "list")
        return value.sequence().items[1];
    }
    return std::nullopt;
  case Kind::kCallable: {
    const Callable& callable = value.callable();
    if (callable.macro == nullptr)
      return std::nullopt;
    if (name == "name")
      return Value::string(callable.macro->name);
    if (name == "caller")
      return Value::boolean(callable.macro->uses_caller);
    if (name == "catch_kwargs")
      return Value::boolean(callable.macro->uses_kwargs);
    if (name == "catch_varargs")
      return Value::boolean(callable.macro->uses_varargs);
    if (name == "arguments") {
      std::vector<Value> names;
      for (const auto& parameter : callable.macro->parameters) {
        names.push_back(Value::string(parameter.name));
      }
      return in.sequence(Sequence::Type::kTuple, std::move(names));
    }
    return std::nullopt;
  }
  case Kind::kCycler:
    if (name == "current")
      return value.cycler().items[value.cycler().position];
    return std::nullopt;
  case Kind::kRange:
    if (name == "start")
      return Value::integer(value.range().start);
    if (name == "stop")
      return Value::integer(value.range().stop);
    if (name == "step")
      return Value::integer(value.range().step);
    return std::nullopt;
  case Kind::kBool:
  case Kind::kInt:
    if (name == "real" || name == "numerator")
      return Value::integer(value.as_int());
    if (name == "imag")
      return Value::integer(0);
    if (name == "denominator")
      return Value::integer(1);
    return std::nullopt;
  default:
    return std::nullopt;
  }
}

// The attribute `name` of Python's object, if it has one.
Outcome<std::optional<Value>> python_attribute(Interpreter& in, const Value& value,
                                               std::string_view name) {
  using Found = std::optional<Value>;
  if (const Found plain = plain_attribute(in, value, name))
    return plain;
  if (const NamedFunction* method = find_method(value, name)) {
    if (method->run == nullptr) {
      return in.fail(fmt::format("the method '{}' of {} is not supported", name, type_name(value)),
                     ErrorCode::kUnsupported);
    }
    return Found(in.bound_method(value, method));
  }
  if (is_dunder(name) && !value.is(Kind::kNamespace)) {
    return in.fail(
        fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, type_name(value)),
        ErrorCode::kUnsupported);
  }
  return Found();
}

// Bounds of a slice as Python clips them.
struct Slice {
  int64_t start = 0, stop = 0, step = 1;
  int64_t count = 0;
};

Outcome<Slice> clip_slice(Interpreter& in, const Value& start, const Value& stop, const Value& step,
                          int64_t length) {
  for (const Value* bound : {&start, &stop, &step}) {
    if (!bound->is_none() && !bound->is_integral()) {
      return in.fail("slice indices must be integers or None or have an __index__ method");
    }
  }
  Slice out;
  if (!step.is_none())
    out.step = step.as_int();
  if (out.step == 0)
    return in.fail("slice step cannot be zero");
  out.step = std::max<int64_t>(out.step, -INT64_MAX);
  const bool backwards = out.step < 0;
  const int64_t lowest = backwards ? -1 : 0;
  const int64_t highest = backwards ? length - 1 : length;
  const auto clip = [&](const Value& bound, int64_t fallback) {
    if (bound.is_none())
      return fallback;
    const int64_t index = bound.as_int();
    return std::clamp(index < 0 ? index + length : index, lowest, highest);
  };
  out.start = clip(start, backwards ? highest : lowest);
  out.stop = clip(stop, backwards ? lowest : highest);
  if (backwards && out.start > out.stop)
    out.count = (out.start - out.stop - 1) / -out.step + 1;
  if (!backwards && out.stop > out.start)
    out.count = (out.stop - out.start - 1) / out.step + 1;
  return out;
}

Outcome<Value> slice_text(Interpreter& in, const Value& value, const Slice& slice) {
  const std::string_view text = value.text();
  if (slice.count == 0)
    return Value::string({}, value.is_safe());
  if (slice.step == 1) {
    const size_t begin = byte_offset(text, slice.start);
    const size_t size = byte_offset(text.substr(begin), slice.count);
    return Value::string(text.substr(begin, size), value.is_safe());
  }
  JINJA_CHECK(in.need(text.size() * sizeof(size_t)));
  JINJA_CHECK(in.work(text.size() * sizeof(size_t)));
  std::vector<size_t> starts;
  starts.reserve(text.size());
  for (size_t at = 0; at < text.size(); at += code_point_at(text, at).size_bytes) {
    starts.push_back(at);
  }
  std::string out;
  for (int64_t i = 0; i < slice.count; ++i) {
    const size_t at = starts[static_cast<size_t>(slice.start + i * slice.step)];
    out += text.substr(at, code_point_at(text, at).size_bytes);
  }
  return in.string(std::move(out), value.is_safe());
}

} // namespace

Value Interpreter::bound_method(const Value& self, const NamedFunction* method) {
  auto* callable = heap_.make<Callable>();
  callable->self = self;
  callable->function = method;
  return Value::object(Kind::kCallable, callable);
}

Outcome<Value> Interpreter::attribute(const Value& value, std::string_view name) {
  if (value.is_undefined())
    return fail_undefined(value);
  // Items of a dict are what templates ask for most: first, unless a method has that name.
  if (value.is(Kind::kDict) && find_method(value, name) == nullptr && !is_dunder(name)) {
    JINJA_CHECK(step(value.dict().index.empty() ? value.dict().entries.size() / 8 : 0));
    if (const Value* found = value.dict().find_text(name))
      return *found;
    return absent_member(value, Value::string(name));
  }
  JINJA_TRY(const std::optional<Value> found, python_attribute(*this, value, name));
  return found ? *found : absent_member(value, Value::string(name));
}

Outcome<Value> Interpreter::item(const Value& value, const Value& key) {
  switch (value.kind()) {
  case Kind::kUndefined:
    return fail_undefined(value);
  case Kind::kDict: {
    // Jinja takes Python's TypeError for an unhashable key as a missing item.
    if (key.is(Kind::kDict) ||
        (key.is(Kind::kSequence) && key.sequence().type == Sequence::Type::kList))
      return absent_member(value, key);
    JINJA_TRY(const Value* found, find_key(value.dict(), key));
    if (found != nullptr)
      return *found;
    break;
  }
  case Kind::kSequence: {
    const auto& items = value.sequence().items;
    if (!key.is_integral() || !value.sequence().is_indexable())
      break;
    const auto length = static_cast<int64_t>(items.size());
    const int64_t index = key.as_int() < 0 ? key.as_int() + length : key.as_int();
    if (index >= 0 && index < length)
      return items[static_cast<size_t>(index)];
    break;
  }
  case Kind::kString: {
    if (!key.is_integral())
      break;
    const std::string_view text = value.text();
    JINJA_CHECK(work(text.size()));
    int64_t index = key.as_int();
    if (index < 0)
      index += count_code_points(text);
    if (index < 0)
      break;
    const size_t at = byte_offset(text, index);
    if (at >= text.size())
      break;
    return Value::string(text.substr(at, code_point_at(text, at).size_bytes), value.is_safe());
  }
  case Kind::kRange: {
    if (!key.is_integral())
      break;
    const int64_t length = value.range().size();
    const int64_t index = key.as_int() < 0 ? key.as_int() + length : key.as_int();
    if (index >= 0 && index < length)
      return Value::integer(value.range().at(index));
    break;
  }
  default:
    break;
  }
  if (key.is_string()) {
    JINJA_TRY(const std::optional<Value> found, python_attribute(*this, value, key.text()));
    if (found)
      return *found;
  }
  return absent_member(value, key);
}

Outcome<Value> Interpreter::slice(const Value& value, const Value& start, const Value& stop,
                                  const Value& step) {
  if (value.is_undefined())
    return fail_undefined(value);
  if (value.is(Kind::kDict))
    return fail("unhashable type: 'slice'");
  const bool indexable = value.is_string() || value.is(Kind::kRange) ||
                         (value.is(Kind::kSequence) && value.sequence().is_indexable());
  if (!indexable)
    return fail(fmt::format("'{}' object is not subscriptable", type_name(value)));
  JINJA_TRY(const int64_t size, length(value));
  JINJA_TRY(const Slice bounds, clip_slice(*this, start, stop, step, size));
  if (value.is_string())
    return slice_text(*this, value, bounds);
  if (value.is(Kind::kRange)) {
    const Range& from = value.range();
    auto* range = heap_.make<Range>();
    range->start = from.at(bounds.start);
    range->step = from.step * (bounds.count > 1 ? bounds.step : 1);
    range->stop = from.at(bounds.stop);
    if (bounds.count <= 1)
      range->stop = range->start + (bounds.count == 1 ? range->step : 0);
    return Value::object(Kind::kRange, range);
  }
  JINJA_CHECK(need(static_cast<uint64_t>(bounds.count) * sizeof(Value)));
  JINJA_CHECK(this->step(static_cast<uint64_t>(bounds.count) / 16));
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(bounds.count));
  for (int64_t i = 0; i < bounds.count; ++i) {
    items.push_back(value.sequence().items[static_cast<size_t>(bounds.start + i * bounds.step)]);
  }
  return sequence(value.sequence().is_tuple() ? Sequence::Type::kTuple : Sequence::Type::kList,
                  std::move(items));
}

} // namespace pinhole::jinja
