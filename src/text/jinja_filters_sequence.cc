// Filters of sequences and mappings.

#include "text/jinja_builtins.h"
#include "text/jinja_text.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

Value generator(Interpreter& in, std::vector<Value> items) {
  return in.sequence(Sequence::Type::kGenerator, std::move(items));
}

// "a.b.0" as the keys to follow; a number or none stands for itself.
Outcome<std::vector<Value>> attribute_path(Interpreter& in, const Value& attribute) {
  std::vector<Value> out;
  if (attribute.is_none())
    return out;
  if (!attribute.is_string()) {
    out.push_back(attribute);
    return out;
  }
  std::string_view rest = attribute.text();
  JINJA_CHECK(in.work(rest.size() * 16));
  while (true) {
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    const auto number =
        all_of_class(part, CharClass::kDigit) ? parse_python_int(part) : std::nullopt;
    out.push_back(number ? Value::integer(*number) : Value::string(part));
    if (dot == std::string_view::npos)
      return out;
    rest.remove_prefix(dot + 1);
  }
}

Outcome<Value> follow(Interpreter& in, Value value, const std::vector<Value>& path,
                      const Value* fallback = nullptr) {
  for (const Value& key : path) {
    JINJA_CHECK(in.step());
    JINJA_TRY(value, in.item(value, key));
    if (value.is_undefined() && fallback != nullptr)
      value = *fallback;
  }
  return value;
}

Outcome<Value> ignore_case(Interpreter& in, const Value& value) {
  if (!value.is_string())
    return value;
  JINJA_CHECK(in.work(value.text().size()));
  return in.string(to_lower(value.text()));
}

struct Keyed {
  Value key;
  Value value;
};

// Stable sort by key; the first comparison that Python refuses is the error.
Done sort_by_key(Interpreter& in, std::vector<Keyed>& items, bool reverse) {
  bool good = true;
  const auto before = [&](const Keyed& left, const Keyed& right) {
    if (!good)
      return false;
    const auto less = reverse ? in.compare(Operator::kLess, right.key, left.key)
                              : in.compare(Operator::kLess, left.key, right.key);
    good = static_cast<bool>(less);
    return good && *less;
  };
  std::stable_sort(items.begin(), items.end(), before);
  if (!good)
    return failed();
  return {};
}

std::vector<Value> values_of(std::vector<Keyed>& items) {
  std::vector<Value> out;
  out.reserve(items.size());
  for (const Keyed& item : items)
    out.push_back(item.value);
  return out;
}

Outcome<Value> filter_length(Interpreter& in, const Value& self, Arguments&) {
  JINJA_TRY(const int64_t length, in.length(self));
  return Value::integer(length);
}

Outcome<Value> filter_list(Interpreter& in, const Value& self, Arguments&) {
  JINJA_TRY(std::vector<Value> items, in.iterate(self));
  return in.list(std::move(items));
}

Outcome<Value> filter_first(Interpreter& in, const Value& self, Arguments&) {
  if (self.is(Kind::kSequence)) {
    Sequence& sequence = self.sequence();
    if (sequence.next >= sequence.items.size()) {
      return in.absent("No first item, sequence was empty.");
    }
    const Value out = sequence.items[sequence.next];
    if (sequence.type == Sequence::Type::kGenerator)
      ++sequence.next;
    return out;
  }
  if (self.is_string() && !self.text().empty()) {
    return Value::string(self.text().substr(0, code_point_at(self.text(), 0).size_bytes));
  }
  JINJA_TRY(const std::vector<Value> items, in.iterate(self));
  if (items.empty())
    return in.absent("No first item, sequence was empty.");
  return items.front();
}

Outcome<Value> filter_last(Interpreter& in, const Value& self, Arguments&) {
  if (self.is(Kind::kSequence) && self.sequence().type == Sequence::Type::kGenerator) {
    return in.fail("'generator' object is not reversible");
  }
  if (self.is_string() && !self.text().empty()) {
    return Value::string(self.text().substr(code_point_before(self.text(), self.text().size())));
  }
  if (self.is(Kind::kSequence) && !self.sequence().items.empty())
    return self.sequence().items.back();
  JINJA_TRY(const std::vector<Value> items, in.iterate(self));
  if (items.empty())
    return in.absent("No last item, sequence was empty.");
  return items.back();
}

Outcome<Value> filter_join(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<2>(in, "join", arguments, {"d", "attribute"})));
  JINJA_TRY(std::vector<Value> items, in.iterate(self));
  if (is_given(args[1])) {
    JINJA_TRY(const std::vector<Value> path, attribute_path(in, *args[1]));
    for (Value& item : items) {
      JINJA_TRY(item, follow(in, item, path));
    }
  }
  std::string_view separator;
  if (args[0] != nullptr) {
    JINJA_TRY(separator, in.text_of(*args[0]));
  }
  return join_text(in, separator, items, false);
}

Outcome<Value> filter_reverse(Interpreter& in, const Value& self, Arguments&) {
  if (self.is_string()) {
    return in.slice(self, Value::none(), Value::none(), Value::integer(-1));
  }
  const bool is_generator =
      self.is(Kind::kSequence) && self.sequence().type == Sequence::Type::kGenerator;
  JINJA_TRY(std::vector<Value> items, in.iterate(self));
  std::reverse(items.begin(), items.end());
  return is_generator ? in.list(std::move(items)) : generator(in, std::move(items));
}

Outcome<Value> filter_items(Interpreter& in, const Value& self, Arguments&) {
  if (self.is_undefined())
    return generator(in, {});
  if (!self.is(Kind::kDict))
    return in.fail("Can only get item pairs from a mapping.");
  std::vector<Value> pairs;
  for (const auto& [key, value] : self.dict().entries) {
    JINJA_CHECK(in.step());
    pairs.push_back(in.sequence(Sequence::Type::kTuple, {key, value}));
  }
  return generator(in, std::move(pairs));
}

Outcome<Value> filter_dictsort(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args,
            (bind<3>(in, "dictsort", arguments, {"case_sensitive", "by", "reverse"})));
  if (self.is_undefined())
    return in.fail_undefined(self);
  if (!self.is(Kind::kDict)) {
    return in.fail(fmt::format("'{}' object has no attribute 'items'", type_name(self)));
  }
  std::string_view by = "key";
  if (args[1] != nullptr && args[1]->is_string())
    by = args[1]->text();
  if (by != "key" && by != "value") {
    return in.fail("You can only sort by either \"key\" or \"value\"");
  }
  std::vector<Keyed> items;
  for (const auto& [key, value] : self.dict().entries) {
    JINJA_CHECK(in.step());
    Value sort_key = by == "key" ? key : value;
    if (!bool_or(args[0], false)) {
      JINJA_TRY(sort_key, ignore_case(in, sort_key));
    }
    items.push_back({sort_key, in.sequence(Sequence::Type::kTuple, {key, value})});
  }
  JINJA_CHECK(sort_by_key(in, items, bool_or(args[2], false)));
  return in.list(values_of(items));
}

// Sort keys: one attribute's value, or with "a,b" a list of several.
// `as_list`: also a single key is in a list, whose comparison asks for equality first.
Outcome<std::vector<Keyed>> keyed(Interpreter& in, const Value& self, const Value* attribute,
                                  bool case_sensitive, bool as_list = false) {
  JINJA_TRY(const std::vector<Value> items, in.iterate(self));
  std::vector<std::vector<Value>> paths;
  if (attribute != nullptr && attribute->is_string()) {
    std::string_view rest = attribute->text();
    while (true) {
      const size_t comma = rest.find(',');
      JINJA_TRY(std::vector<Value> path, attribute_path(in, Value::string(rest.substr(0, comma))));
      paths.push_back(std::move(path));
      if (comma == std::string_view::npos)
        break;
      rest.remove_prefix(comma + 1);
    }
  } else {
    JINJA_TRY(std::vector<Value> path,
              attribute_path(in, attribute == nullptr ? Value::none() : *attribute));
    paths.push_back(std::move(path));
  }
  std::vector<Keyed> out;
  out.reserve(items.size());
  for (const Value& item : items) {
    std::vector<Value> keys;
    for (const auto& path : paths) {
      JINJA_TRY(Value key, follow(in, item, path));
      if (!case_sensitive) {
        JINJA_TRY(key, ignore_case(in, key));
      }
      keys.push_back(key);
    }
    const Value key = keys.size() == 1 && !as_list ? keys[0] : in.list(std::move(keys));
    out.push_back({key, item});
  }
  return out;
}

Outcome<Value> filter_sort(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args,
            (bind<3>(in, "sort", arguments, {"reverse", "case_sensitive", "attribute"})));
  JINJA_TRY(std::vector<Keyed> items, keyed(in, self, args[2], bool_or(args[1], false), true));
  JINJA_CHECK(sort_by_key(in, items, bool_or(args[0], false)));
  return in.list(values_of(items));
}

Outcome<Value> extreme(Interpreter& in, const Value& self, Arguments& arguments, Operator better) {
  JINJA_TRY(const auto args, (bind<2>(in, "min", arguments, {"case_sensitive", "attribute"})));
  JINJA_TRY(const std::vector<Keyed> items, keyed(in, self, args[1], bool_or(args[0], false)));
  if (items.empty())
    return in.absent("No aggregated item, sequence was empty.");
  const Keyed* best = &items[0];
  for (const Keyed& item : items) {
    if (&item == best)
      continue;
    JINJA_TRY(const bool wins, in.compare(better, item.key, best->key));
    if (wins)
      best = &item;
  }
  return best->value;
}
Outcome<Value> filter_min(Interpreter& in, const Value& self, Arguments& arguments) {
  return extreme(in, self, arguments, Operator::kLess);
}
Outcome<Value> filter_max(Interpreter& in, const Value& self, Arguments& arguments) {
  return extreme(in, self, arguments, Operator::kGreater);
}

Outcome<Value> filter_unique(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<2>(in, "unique", arguments, {"case_sensitive", "attribute"})));
  JINJA_TRY(const std::vector<Keyed> items, keyed(in, self, args[1], bool_or(args[0], false)));
  Dict seen;
  std::vector<Value> out;
  for (const Keyed& item : items) {
    JINJA_TRY(const Value* known, in.find_key(seen, item.key));
    if (known != nullptr)
      continue;
    JINJA_CHECK(in.set_key(seen, item.key, Value::none()));
    out.push_back(item.value);
  }
  return generator(in, std::move(out));
}

Outcome<Value> filter_sum(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<2>(in, "sum", arguments, {"attribute", "start"})));
  JINJA_TRY(const std::vector<Value> items, in.iterate(self));
  JINJA_TRY(const std::vector<Value> path,
            attribute_path(in, args[0] == nullptr ? Value::none() : *args[0]));
  Value total = args[1] == nullptr ? Value::integer(0) : *args[1];
  if (total.is_string())
    return in.fail("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : items) {
    JINJA_TRY(const Value value, follow(in, item, path));
    JINJA_CHECK(in.step());
    JINJA_TRY(total, in.binary(Operator::kAdd, total, value));
  }
  return total;
}

Outcome<Value> filter_map(Interpreter& in, const Value& self, Arguments& arguments) {
  if (!is_true(self))
    return generator(in, {});
  std::vector<Value> out;
  if (arguments.positional.empty()) {
    const Value* attribute = nullptr;
    const Value* fallback = nullptr;
    for (const auto& [name, value] : arguments.named) {
      if (name == "attribute")
        attribute = &value;
      else if (name == "default")
        fallback = value.is_none() ? nullptr : &value;
      else
        return in.fail(fmt::format("Unexpected keyword argument '{}'", name));
    }
    if (attribute == nullptr)
      return in.fail("map requires a filter argument");
    JINJA_TRY(const std::vector<Value> path, attribute_path(in, *attribute));
    JINJA_TRY(out, in.iterate(self));
    for (Value& item : out) {
      JINJA_TRY(item, follow(in, item, path, fallback));
    }
    return generator(in, std::move(out));
  }
  JINJA_TRY(const std::string_view name, string_argument(in, "map", arguments.positional[0]));
  const NamedFunction* filter = find_filter(name);
  if (filter == nullptr) {
    return in.fail(fmt::format("No filter named '{}'.", name), ErrorCode::kUnsupported);
  }
  arguments.positional.erase(arguments.positional.begin());
  JINJA_TRY(out, in.iterate(self));
  for (Value& item : out) {
    Arguments copy = arguments;
    JINJA_CHECK(in.step());
    JINJA_TRY(item, filter->run(in, item, copy));
  }
  return generator(in, std::move(out));
}

// select, reject, selectattr, rejectattr: items whose (attribute's) test gives `wanted`.
Outcome<Value> choose(Interpreter& in, const Value& self, Arguments& arguments, bool wanted,
                      bool by_attribute) {
  if (!is_true(self))
    return generator(in, {});
  std::vector<Value> path;
  auto& given = arguments.positional;
  if (by_attribute) {
    if (given.empty())
      return in.fail("Missing parameter for attribute name");
    JINJA_TRY(path, attribute_path(in, given[0]));
    given.erase(given.begin());
  }
  const NamedFunction* test = nullptr;
  if (!given.empty()) {
    JINJA_TRY(const std::string_view name, string_argument(in, "select", given[0]));
    test = find_test(name);
    if (test == nullptr) {
      return in.fail(fmt::format("No test named '{}'.", name), ErrorCode::kUnsupported);
    }
    given.erase(given.begin());
  }
  JINJA_TRY(const std::vector<Value> items, in.iterate(self));
  std::vector<Value> out;
  for (const Value& item : items) {
    JINJA_CHECK(in.step());
    JINJA_TRY(Value value, follow(in, item, path));
    if (test != nullptr) {
      Arguments copy = arguments;
      JINJA_TRY(value, test->run(in, value, copy));
    }
    if (is_true(value) == wanted)
      out.push_back(item);
  }
  return generator(in, std::move(out));
}
template <bool Wanted, bool ByAttribute>
Outcome<Value> filter_choose(Interpreter& in, const Value& self, Arguments& arguments) {
  return choose(in, self, arguments, Wanted, ByAttribute);
}

Outcome<Value> filter_batch(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<2>(in, "batch", arguments, {"linecount", "fill_with"}, 1)));
  JINJA_TRY(const int64_t size, int_or(in, args[0], 0));
  JINJA_TRY(const std::vector<Value> items, in.iterate(self));
  std::vector<Value> rows;
  std::vector<Value> row;
  for (const Value& item : items) {
    JINJA_CHECK(in.step());
    if (static_cast<int64_t>(row.size()) == size)
      rows.push_back(in.list(std::exchange(row, {})));
    row.push_back(item);
  }
  if (!row.empty()) {
    const int64_t missing = size - static_cast<int64_t>(row.size());
    if (is_given(args[1]) && missing > 0) {
      JINJA_CHECK(
          in.need(static_cast<uint64_t>(std::min<int64_t>(missing, 1 << 30)) * sizeof(Value)));
      row.insert(row.end(), static_cast<size_t>(missing), *args[1]);
    }
    rows.push_back(in.list(std::move(row)));
  }
  return generator(in, std::move(rows));
}

Outcome<Value> filter_slice(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<2>(in, "slice", arguments, {"slices", "fill_with"}, 1)));
  JINJA_TRY(const int64_t slices, int_or(in, args[0], 0));
  JINJA_TRY(const std::vector<Value> items, in.iterate(self));
  if (slices == 0)
    return in.fail("integer division or modulo by zero");
  std::vector<Value> out;
  const auto length = static_cast<int64_t>(items.size());
  const int64_t each = length / std::max<int64_t>(slices, 1);
  const int64_t longer = length % std::max<int64_t>(slices, 1);
  int64_t next = 0;
  for (int64_t i = 0; i < slices; ++i) {
    JINJA_CHECK(in.step());
    const int64_t count = each + (i < longer ? 1 : 0);
    std::vector<Value> column(items.begin() + next, items.begin() + next + count);
    if (is_given(args[1]) && i >= longer)
      column.push_back(*args[1]);
    next += count;
    out.push_back(in.list(std::move(column)));
  }
  return generator(in, std::move(out));
}

Outcome<Value> filter_groupby(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args,
            (bind<3>(in, "groupby", arguments, {"attribute", "default", "case_sensitive"}, 1)));
  JINJA_TRY(const std::vector<Value> path, attribute_path(in, *args[0]));
  JINJA_TRY(const std::vector<Value> all, in.iterate(self));
  const Value* fallback = is_given(args[1]) ? args[1] : nullptr;
  std::vector<Keyed> items;
  for (const Value& item : all) {
    JINJA_TRY(Value key, follow(in, item, path, fallback));
    if (!bool_or(args[2], false)) {
      JINJA_TRY(key, ignore_case(in, key));
    }
    items.push_back({key, item});
  }
  JINJA_CHECK(sort_by_key(in, items, false));
  std::vector<Value> groups;
  for (size_t i = 0; i < items.size();) {
    std::vector<Value> members;
    const size_t first = i;
    bool same = true;
    while (i < items.size() && same) {
      members.push_back(items[i].value);
      if (++i < items.size()) {
        JINJA_TRY(same, in.equals(items[i].key, items[first].key));
      }
    }
    JINJA_TRY(const Value grouper, follow(in, items[first].value, path, fallback));
    groups.push_back(in.sequence(Sequence::Type::kGroup, {grouper, in.list(std::move(members))}));
  }
  return in.list(std::move(groups));
}

} // namespace

const NamedFunction kSequenceFilters[] = {
    {"batch", filter_batch},
    {"count", filter_length},
    {"dictsort", filter_dictsort},
    {"first", filter_first},
    {"groupby", filter_groupby},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"map", filter_map},
    {"max", filter_max},
    {"min", filter_min},
    {"reject", filter_choose<false, false>},
    {"rejectattr", filter_choose<false, true>},
    {"reverse", filter_reverse},
    {"select", filter_choose<true, false>},
    {"selectattr", filter_choose<true, true>},
    {"slice", filter_slice},
    {"sort", filter_sort},
    {"sum", filter_sum},
    {"unique", filter_unique},
};
const size_t kNumSequenceFilters = std::size(kSequenceFilters);

} // namespace pinhole::jinja
