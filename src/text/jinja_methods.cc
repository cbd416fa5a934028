// Methods of lists, tuples, dicts, loops, cyclers and numbers.
//
// transformers' sandbox refuses the methods that change a list or dict. They are allowed here: a
// rendering works on values of its own, and templates written for other engines use them.

#include "text/jinja_builtins.h"
#include "text/jinja_text.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <span>

namespace pinhole::jinja {

namespace {

std::vector<Value>& items_of(const Value& self) { return self.sequence().items; }

Outcome<Value> list_append(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "append", arguments, {"object"}, 1)));
  JINJA_CHECK(in.need(2 * sizeof(Value)));
  in.heap().take(2 * sizeof(Value));
  items_of(self).push_back(*args[0]);
  return Value::none();
}

Outcome<Value> list_extend(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "extend", arguments, {"iterable"}, 1)));
  JINJA_TRY(const std::vector<Value> more, in.iterate(*args[0]));
  in.heap().take(more.size() * sizeof(Value));
  items_of(self).insert(items_of(self).end(), more.begin(), more.end());
  return Value::none();
}

// A position as list.insert and slices clip it.
Outcome<int64_t> clipped(Interpreter& in, const Value* value, int64_t fallback, int64_t size) {
  JINJA_TRY(const int64_t index, int_or(in, value, fallback));
  return std::clamp<int64_t>(index < 0 ? index + size : index, 0, size);
}

Outcome<Value> list_insert(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<2>(in, "insert", arguments, {"index", "object"}, 2)));
  auto& items = items_of(self);
  JINJA_TRY(const int64_t at, clipped(in, args[0], 0, static_cast<int64_t>(items.size())));
  JINJA_CHECK(in.need(2 * sizeof(Value)));
  JINJA_CHECK(in.step(1 + items.size() / 4));
  in.heap().take(2 * sizeof(Value));
  items.insert(items.begin() + at, *args[1]);
  return Value::none();
}

Outcome<Value> list_pop(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "pop", arguments, {"index"})));
  auto& items = items_of(self);
  if (items.empty())
    return in.fail("pop from empty list");
  const auto size = static_cast<int64_t>(items.size());
  JINJA_TRY(int64_t index, int_or(in, args[0], -1));
  if (index < 0)
    index += size;
  if (index < 0 || index >= size)
    return in.fail("pop index out of range");
  JINJA_CHECK(in.step(1 + items.size() / 4));
  const Value out = items[static_cast<size_t>(index)];
  items.erase(items.begin() + index);
  return out;
}

Outcome<Value> list_clear(Interpreter&, const Value& self, Arguments&) {
  items_of(self).clear();
  return Value::none();
}

Outcome<Value> list_reverse(Interpreter& in, const Value& self, Arguments&) {
  JINJA_CHECK(in.step(1 + items_of(self).size() / 16));
  std::reverse(items_of(self).begin(), items_of(self).end());
  return Value::none();
}

Outcome<Value> list_copy(Interpreter& in, const Value& self, Arguments&) {
  JINJA_TRY(std::vector<Value> items, in.iterate(self));
  return in.list(std::move(items));
}

Outcome<Value> list_index(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<3>(in, "index", arguments, {"value", "start", "stop"}, 1)));
  const auto& items = items_of(self);
  const auto size = static_cast<int64_t>(items.size());
  JINJA_TRY(const int64_t start, clipped(in, args[1], 0, size));
  JINJA_TRY(const int64_t stop, clipped(in, args[2], size, size));
  for (int64_t i = start; i < stop; ++i) {
    JINJA_TRY(const bool same, in.equals(items[static_cast<size_t>(i)], *args[0]));
    if (same)
      return Value::integer(i);
  }
  return in.fail(fmt::format("{} is not in list", in.short_repr(*args[0])));
}

Outcome<Value> list_count(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "count", arguments, {"value"}, 1)));
  int64_t count = 0;
  for (const Value& item : items_of(self)) {
    JINJA_TRY(const bool same, in.equals(item, *args[0]));
    count += same ? 1 : 0;
  }
  return Value::integer(count);
}

Outcome<Value> list_remove(Interpreter& in, const Value& self, Arguments& arguments) {
  Arguments copy = arguments;
  JINJA_TRY(const Value index, list_index(in, self, copy));
  items_of(self).erase(items_of(self).begin() + index.as_int());
  return Value::none();
}

Outcome<Value> dict_view(Interpreter& in, const Value& self, Sequence::Type type) {
  const auto& entries = self.dict().entries;
  JINJA_CHECK(in.need(entries.size() * sizeof(Value)));
  std::vector<Value> items;
  items.reserve(entries.size());
  for (const auto& [key, value] : entries) {
    if (type == Sequence::Type::kKeys)
      items.push_back(key);
    else if (type == Sequence::Type::kValues)
      items.push_back(value);
    else
      items.push_back(in.sequence(Sequence::Type::kTuple, {key, value}));
  }
  JINJA_CHECK(in.step(1 + entries.size() / 4));
  return in.sequence(type, std::move(items));
}
Outcome<Value> dict_keys(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_CHECK((bind<0>(in, "keys", arguments, {})));
  return dict_view(in, self, Sequence::Type::kKeys);
}
Outcome<Value> dict_values(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_CHECK((bind<0>(in, "values", arguments, {})));
  return dict_view(in, self, Sequence::Type::kValues);
}
Outcome<Value> dict_items(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_CHECK((bind<0>(in, "items", arguments, {})));
  return dict_view(in, self, Sequence::Type::kItems);
}

Outcome<Value> dict_get(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<2>(in, "get", arguments, {"key", "default"}, 1)));
  JINJA_TRY(const Value* found, in.find_key(self.dict(), *args[0]));
  if (found != nullptr)
    return *found;
  return args[1] == nullptr ? Value::none() : *args[1];
}

Outcome<Value> dict_setdefault(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<2>(in, "setdefault", arguments, {"key", "default"}, 1)));
  JINJA_TRY(const Value* found, in.find_key(self.dict(), *args[0]));
  if (found != nullptr)
    return *found;
  const Value value = args[1] == nullptr ? Value::none() : *args[1];
  JINJA_CHECK(in.set_key(self.dict(), *args[0], value));
  return value;
}

// dict.update and dict(): pairs from a mapping or an iterable of pairs, then keywords.
Done update_dict(Interpreter& in, Dict& dict, const Arguments& arguments) {
  if (arguments.positional.size() > 1) {
    return in.fail(
        fmt::format("dict expected at most 1 argument, got {}", arguments.positional.size()));
  }
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional[0];
    if (from.is(Kind::kDict) || from.is(Kind::kNamespace)) {
      const auto entries = from.dict().entries; // a copy: it may be the same dict
      for (const auto& [key, value] : entries)
        JINJA_CHECK(in.set_key(dict, key, value));
    } else {
      JINJA_TRY(const std::vector<Value> pairs, in.iterate(from));
      for (size_t i = 0; i < pairs.size(); ++i) {
        JINJA_TRY(const std::vector<Value> pair, in.iterate(pairs[i]));
        if (pair.size() != 2) {
          return in.fail(
              fmt::format("dictionary update sequence element #{} has length {}; 2 is required", i,
                          pair.size()));
        }
        JINJA_CHECK(in.set_key(dict, pair[0], pair[1]));
      }
    }
  }
  for (const auto& [name, value] : arguments.named) {
    JINJA_CHECK(in.set_key(dict, Value::string(name), value));
  }
  return {};
}

Outcome<Value> dict_update(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_CHECK(update_dict(in, self.dict(), arguments));
  return Value::none();
}

Outcome<Value> dict_copy(Interpreter& in, const Value& self, Arguments&) {
  auto* dict = in.heap().make<Dict>();
  for (const auto& [key, value] : self.dict().entries)
    JINJA_CHECK(in.set_key(*dict, key, value));
  return Value::object(Kind::kDict, dict);
}

Outcome<Value> dict_pop(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<2>(in, "pop", arguments, {"key", "default"}, 1)));
  Dict& dict = self.dict();
  JINJA_CHECK(in.step(1 + dict.entries.size()));
  JINJA_TRY(const Value* found, in.find_key(dict, *args[0]));
  if (found == nullptr) {
    if (args[1] != nullptr)
      return *args[1];
    return in.fail(in.short_repr(*args[0]));
  }
  const Value out = *found;
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (&dict.entries[i].second != found)
      continue;
    dict.erase(i);
    break;
  }
  return out;
}

Outcome<Value> dict_clear(Interpreter&, const Value& self, Arguments&) {
  self.dict().entries.clear();
  self.dict().index.clear();
  return Value::none();
}

Outcome<Value> loop_cycle(Interpreter& in, const Value& self, Arguments& arguments) {
  if (arguments.positional.empty())
    return in.fail("no items for cycling given");
  return arguments.positional[self.loop().index0 % arguments.positional.size()];
}

Outcome<Value> loop_changed(Interpreter& in, const Value& self, Arguments& arguments) {
  Loop& loop = self.loop();
  bool same = loop.last_changed && loop.last_changed->size() == arguments.positional.size();
  for (size_t i = 0; same && i < arguments.positional.size(); ++i) {
    JINJA_TRY(same, in.equals((*loop.last_changed)[i], arguments.positional[i]));
  }
  if (!same)
    loop.last_changed = arguments.positional;
  return Value::boolean(!same);
}

Outcome<Value> cycler_next(Interpreter&, const Value& self, Arguments&) {
  Cycler& cycler = self.cycler();
  const Value out = cycler.items[cycler.position];
  cycler.position = (cycler.position + 1) % cycler.items.size();
  return out;
}
Outcome<Value> cycler_reset(Interpreter&, const Value& self, Arguments&) {
  self.cycler().position = 0;
  return Value::none();
}

Outcome<Value> float_is_integer(Interpreter&, const Value& self, Arguments&) {
  const double number = self.as_double();
  return Value::boolean(std::isfinite(number) && number == std::floor(number));
}
Outcome<Value> int_bit_length(Interpreter&, const Value& self, Arguments&) {
  const int64_t number = self.as_int();
  uint64_t magnitude =
      number < 0 ? 0 - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
  int64_t bits = 0;
  for (; magnitude != 0; magnitude >>= 1)
    ++bits;
  return Value::integer(bits);
}

constexpr NamedFunction kListMethods[] = {
    {"append", list_append},   {"clear", list_clear},   {"copy", list_copy},
    {"count", list_count},     {"extend", list_extend}, {"index", list_index},
    {"insert", list_insert},   {"pop", list_pop},       {"remove", list_remove},
    {"reverse", list_reverse}, {"sort", nullptr},
};
constexpr NamedFunction kTupleMethods[] = {{"count", list_count}, {"index", list_index}};
constexpr NamedFunction kDictMethods[] = {
    {"clear", dict_clear},   {"copy", dict_copy},     {"fromkeys", nullptr},
    {"get", dict_get},       {"items", dict_items},   {"keys", dict_keys},
    {"pop", dict_pop},       {"popitem", nullptr},    {"setdefault", dict_setdefault},
    {"update", dict_update}, {"values", dict_values},
};
constexpr NamedFunction kLoopMethods[] = {{"changed", loop_changed}, {"cycle", loop_cycle}};
constexpr NamedFunction kCyclerMethods[] = {{"next", cycler_next}, {"reset", cycler_reset}};
constexpr NamedFunction kFloatMethods[] = {{"is_integer", float_is_integer}};
constexpr NamedFunction kIntMethods[] = {{"bit_length", int_bit_length}};

const NamedFunction* find_in(std::span<const NamedFunction> methods, std::string_view name) {
  for (const NamedFunction& method : methods) {
    if (method.name == name)
      return &method;
  }
  return nullptr;
}

Outcome<Value> global_range(Interpreter& in, const Value&, Arguments& arguments) {
  constexpr int64_t kMaxRange = 100'000;          // jinja2.sandbox.MAX_RANGE
  constexpr int64_t kMaxBound = int64_t{1} << 61; // keeps the arithmetic on bounds in 64 bits
  JINJA_TRY(const auto args, (bind<3>(in, "range", arguments, {"start", "stop", "step"}, 1)));
  auto* range = in.heap().make<Range>();
  JINJA_TRY(const int64_t first, int_or(in, args[0], 0));
  JINJA_TRY(range->stop, int_or(in, args[1], first));
  JINJA_TRY(range->step, int_or(in, args[2], 1));
  range->start = args[1] == nullptr ? 0 : first;
  if (range->step == 0)
    return in.fail("range() arg 3 must not be zero");
  for (const int64_t bound : {range->start, range->stop, range->step}) {
    if (bound > kMaxBound || bound < -kMaxBound) {
      return in.fail(fmt::format("range() argument {} is too large", bound), ErrorCode::kTooLarge);
    }
  }
  if (range->size() > kMaxRange) {
    return in.fail(fmt::format("Range too big. The sandbox blocks ranges larger than MAX_RANGE "
                               "({}).",
                               kMaxRange),
                   ErrorCode::kTooLarge);
  }
  return Value::object(Kind::kRange, range);
}

Outcome<Value> global_dict(Interpreter& in, const Value&, Arguments& arguments) {
  auto* dict = in.heap().make<Dict>();
  JINJA_CHECK(update_dict(in, *dict, arguments));
  return Value::object(Kind::kDict, dict);
}

Outcome<Value> global_namespace(Interpreter& in, const Value&, Arguments& arguments) {
  auto* dict = in.heap().make<Dict>();
  JINJA_CHECK(update_dict(in, *dict, arguments));
  return Value::object(Kind::kNamespace, dict);
}

Outcome<Value> global_cycler(Interpreter& in, const Value&, Arguments& arguments) {
  if (arguments.positional.empty())
    return in.fail("at least one item has to be provided");
  auto* cycler = in.heap().make<Cycler>();
  cycler->items = std::move(arguments.positional);
  return Value::object(Kind::kCycler, cycler);
}

Outcome<Value> global_joiner(Interpreter& in, const Value&, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "joiner", arguments, {"sep"})));
  auto* joiner = in.heap().make<Joiner>();
  joiner->separator = args[0] == nullptr ? Value::string(", ") : *args[0];
  return Value::object(Kind::kJoiner, joiner);
}

Outcome<Value> global_raise_exception(Interpreter& in, const Value&, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "raise_exception", arguments, {"message"}, 1)));
  JINJA_TRY(const std::string_view message, in.text_of(*args[0]));
  return in.fail(std::string(message));
}

Outcome<Value> global_strftime_now(Interpreter& in, const Value&, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "strftime_now", arguments, {"format"}, 1)));
  JINJA_TRY(const std::string_view format, string_argument(in, "strftime", *args[0]));
  return format_time(in, in.now(), format);
}

Outcome<Value> global_lipsum(Interpreter& in, const Value&, Arguments&) {
  return in.fail("the function 'lipsum' is not supported", ErrorCode::kUnsupported);
}

constexpr NamedFunction kGlobals[] = {
    {"cycler", global_cycler},       {"dict", global_dict},
    {"joiner", global_joiner},       {"lipsum", global_lipsum},
    {"namespace", global_namespace}, {"raise_exception", global_raise_exception},
    {"range", global_range},         {"strftime_now", global_strftime_now},
};

} // namespace

const NamedFunction* find_global(std::string_view name) { return find_in(kGlobals, name); }

const NamedFunction* find_method(const Value& self, std::string_view name) {
  switch (self.kind()) {
  case Kind::kString:
    return find_string_method(name);
  case Kind::kSequence:
    if (self.sequence().type == Sequence::Type::kList)
      return find_in(kListMethods, name);
    return self.sequence().is_tuple() ? find_in(kTupleMethods, name) : nullptr;
  case Kind::kDict:
    return find_in(kDictMethods, name);
  case Kind::kLoop:
    return find_in(kLoopMethods, name);
  case Kind::kCycler:
    return find_in(kCyclerMethods, name);
  case Kind::kFloat:
    return find_in(kFloatMethods, name);
  case Kind::kBool:
  case Kind::kInt:
    return find_in(kIntMethods, name);
  default:
    return nullptr;
  }
}

} // namespace pinhole::jinja
