// Filters of text, numbers and single values, and the table of all filters.

#include "text/jinja_builtins.h"
#include "text/jinja_text.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

// soft_str: the text of any value, Markup kept.
struct Text {
  std::string_view text;
  bool safe = false;
};
Outcome<Text> soft_text(Interpreter& in, const Value& value) {
  JINJA_TRY(const std::string_view text, in.text_of(value));
  JINJA_CHECK(in.work(text.size()));
  return Text{text, value.is_safe()};
}

template <std::string (*Map)(std::string_view)>
Outcome<Value> map_text(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_CHECK((bind<0>(in, "filter", arguments, {})));
  JINJA_TRY(const Text text, soft_text(in, self));
  JINJA_CHECK(in.need(text.text.size() * 3));
  return in.string(Map(text.text), text.safe);
}

Outcome<Value> filter_title(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_CHECK((bind<0>(in, "title", arguments, {})));
  JINJA_TRY(const Text text, soft_text(in, self));
  JINJA_CHECK(in.need(text.text.size() * 3));
  std::string out;
  size_t begin = 0; // of the current word; words end at spaces, '-', '(', '{', '[' and '<'
  const auto flush = [&](size_t end) {
    if (end <= begin)
      return;
    const std::string_view word = text.text.substr(begin, end - begin);
    const size_t first = code_point_at(word, 0).size_bytes;
    out += to_upper(word.substr(0, first));
    out += to_lower(word.substr(first));
    begin = end;
  };
  for (size_t at = 0; at < text.text.size();) {
    const CodePoint cp = code_point_at(text.text, at);
    if (is_space(cp.value) || (cp.value < 0x80 && std::string_view("-({[<").find(static_cast<char>(
                                                      cp.value)) != std::string_view::npos)) {
      flush(at);
      out += text.text.substr(at, cp.size_bytes);
      begin = at + cp.size_bytes;
    }
    at += cp.size_bytes;
  }
  flush(text.text.size());
  return in.string(std::move(out), text.safe);
}

Outcome<Value> filter_trim(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "trim", arguments, {"chars"})));
  JINJA_TRY(const Text text, soft_text(in, self));
  std::optional<std::string_view> chars;
  if (is_given(args[0])) {
    JINJA_TRY(chars, string_argument(in, "strip", *args[0]));
    JINJA_CHECK(in.step(text.text.size() * chars->size() / 64));
  }
  return Value::string(strip(text.text, chars, Side::kBoth), text.safe);
}

Outcome<Value> filter_string(Interpreter& in, const Value& self, Arguments&) {
  if (self.is_string())
    return self;
  JINJA_TRY(const std::string_view text, in.text_of(self));
  return Value::string(text);
}

Outcome<Value> filter_safe(Interpreter& in, const Value& self, Arguments&) {
  JINJA_TRY(const std::string_view text, in.text_of(self));
  return Value::string(text, true);
}

Outcome<Value> filter_escape(Interpreter& in, const Value& self, Arguments&) {
  if (self.is_safe())
    return self;
  JINJA_TRY(const Text text, soft_text(in, self));
  JINJA_CHECK(in.need(text.text.size() * 5));
  return in.string(escape_html(text.text), true);
}

Outcome<Value> filter_force_escape(Interpreter& in, const Value& self, Arguments&) {
  JINJA_TRY(const Text text, soft_text(in, self));
  JINJA_CHECK(in.need(text.text.size() * 5));
  return in.string(escape_html(text.text), true);
}

Outcome<Value> filter_replace(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<3>(in, "replace", arguments, {"old", "new", "count"}, 2)));
  JINJA_TRY(const Text text, soft_text(in, self));
  JINJA_TRY(const std::string_view from, in.text_of(*args[0]));
  JINJA_TRY(const std::string_view to, in.text_of(*args[1]));
  JINJA_TRY(const int64_t count, int_or(in, is_given(args[2]) ? args[2] : nullptr, -1));
  return replace_text(in, text.text, from, to, count, false);
}

Outcome<Value> filter_center(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "center", arguments, {"width"})));
  JINJA_TRY(const Text text, soft_text(in, self));
  JINJA_TRY(const int64_t width, int_or(in, args[0], 80));
  return pad_text(in, Value::string(text.text, text.safe), width, " ", 0);
}

Outcome<Value> filter_indent(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<3>(in, "indent", arguments, {"width", "first", "blank"})));
  if (self.is_undefined())
    return in.fail_undefined(self);
  if (!self.is_string()) {
    return in.fail(
        fmt::format("unsupported operand type(s) for +=: '{}' and 'str'", type_name(self)));
  }
  std::string indention;
  if (args[0] != nullptr && args[0]->is_string()) {
    indention = args[0]->text();
  } else {
    JINJA_TRY(const int64_t width, int_or(in, args[0], 4));
    JINJA_CHECK(in.need(static_cast<uint64_t>(std::max<int64_t>(width, 0))));
    indention.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  }
  const bool blank = bool_or(args[2], false);
  JINJA_CHECK(in.work(self.text().size()));
  const std::vector<std::string_view> lines = split_lines(self.text(), false);
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(lines.size() + 2, indention.size() + 1, &bytes))
    bytes = UINT64_MAX / 2;
  JINJA_CHECK(in.need(bytes + self.text().size()));
  std::string out = bool_or(args[1], false) ? indention : "";
  const bool ends_with_break =
      self.text().empty() ||
      is_line_break(
          code_point_at(self.text(), code_point_before(self.text(), self.text().size())).value);
  const size_t count = lines.size() + (ends_with_break ? 1 : 0); // the filter adds a line end first
  for (size_t i = 0; i < count; ++i) {
    const std::string_view line = i < lines.size() ? lines[i] : std::string_view();
    if (i > 0) {
      out.push_back('\n');
      if (blank || !line.empty())
        out += indention;
    }
    out += line;
  }
  return in.string(std::move(out), self.is_safe());
}

Outcome<Value> filter_truncate(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args,
            (bind<4>(in, "truncate", arguments, {"length", "killwords", "end", "leeway"})));
  JINJA_TRY(const int64_t size, in.length(self));
  JINJA_TRY(const int64_t length, int_or(in, args[0], 255));
  JINJA_TRY(const int64_t leeway, int_or(in, is_given(args[3]) ? args[3] : nullptr, 5));
  std::string_view end = "...";
  if (args[2] != nullptr) {
    JINJA_TRY(end, string_argument(in, "truncate", *args[2]));
  }
  const int64_t end_size = count_code_points(end);
  if (length < end_size) {
    return in.fail(fmt::format("expected length >= {}, got {}", end_size, length));
  }
  if (leeway < 0)
    return in.fail(fmt::format("expected leeway >= 0, got {}", leeway));
  if (size - leeway <= length)
    return self;
  if (!self.is_string())
    return in.fail(fmt::format("truncate() cannot shorten a {}", type_name(self)));
  std::string_view kept = self.text().substr(0, byte_offset(self.text(), length - end_size));
  if (!bool_or(args[1], false))
    kept = kept.substr(0, kept.rfind(' '));
  return in.string(std::string(kept) + std::string(end), self.is_safe());
}

Outcome<Value> filter_wordcount(Interpreter& in, const Value& self, Arguments&) {
  JINJA_TRY(const Text text, soft_text(in, self));
  int64_t words = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.text.size();) {
    const CodePoint cp = code_point_at(text.text, at);
    const bool word = is_word(cp.value);
    if (word && !in_word)
      ++words;
    in_word = word;
    at += cp.size_bytes;
  }
  return Value::integer(words);
}

Outcome<Value> filter_format(Interpreter& in, const Value& self, Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    return in.fail("can't handle positional and keyword arguments at the same time");
  }
  JINJA_TRY(const Text text, soft_text(in, self));
  Value values;
  if (!arguments.named.empty()) {
    auto* dict = in.heap().make<Dict>();
    for (const auto& [name, value] : arguments.named)
      dict->append(Value::string(name), value);
    values = Value::object(Kind::kDict, dict);
  } else {
    values = in.sequence(Sequence::Type::kTuple, std::move(arguments.positional));
  }
  return format_percent(in, Value::string(text.text, text.safe), values);
}

Outcome<Value> filter_urlencode(Interpreter& in, const Value& self, Arguments&) {
  const auto quote = [&](std::string_view text, bool for_query) {
    std::string out;
    for (const char c : text) {
      const auto byte = static_cast<uint8_t>(c);
      if ((byte < 0x80 && std::isalnum(byte) != 0) || c == '_' || c == '.' || c == '-' ||
          c == '~' || (c == '/' && !for_query)) {
        out.push_back(c);
      } else if (c == ' ' && for_query) {
        out.push_back('+');
      } else {
        out += fmt::format("%{:02X}", byte);
      }
    }
    return out;
  };
  if (!self.is(Kind::kDict) && !self.is(Kind::kSequence)) {
    JINJA_TRY(const Text text, soft_text(in, self));
    JINJA_CHECK(in.need(text.text.size() * 3));
    return in.string(quote(text.text, false));
  }
  JINJA_TRY(std::vector<Value> pairs, in.iterate(self));
  std::string out;
  for (const Value& item : pairs) {
    std::vector<Value> pair = {item};
    if (self.is(Kind::kDict)) {
      JINJA_TRY(const Value value, in.item(self, item));
      pair.push_back(value);
    } else {
      JINJA_TRY(pair, in.iterate(item));
    }
    if (pair.size() != 2)
      return in.fail(fmt::format("urlencode needs pairs, not {} values", pair.size()));
    JINJA_TRY(const Text name, soft_text(in, pair[0]));
    JINJA_TRY(const Text text, soft_text(in, pair[1]));
    JINJA_CHECK(in.need(out.size() + (name.text.size() + text.text.size()) * 3));
    if (!out.empty())
      out.push_back('&');
    out += quote(name.text, true);
    out.push_back('=');
    out += quote(text.text, true);
  }
  return in.string(std::move(out));
}

Outcome<Value> filter_default(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<2>(in, "default", arguments, {"default_value", "boolean"})));
  const bool use = self.is_undefined() || (bool_or(args[1], false) && !is_true(self));
  if (!use)
    return self;
  return args[0] == nullptr ? Value::string("") : *args[0];
}

// int(float): none for infinities and nan, which Python refuses.
Outcome<std::optional<int64_t>> truncated(Interpreter& in, double number) {
  if (!std::isfinite(number))
    return std::optional<int64_t>();
  if (std::abs(number) >= 9.2e18) {
    return in.fail(fmt::format("int: {} does not fit into 64 bits", float_repr(number)),
                   ErrorCode::kTooLarge);
  }
  return std::optional<int64_t>(static_cast<int64_t>(number));
}

Outcome<Value> filter_int(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<2>(in, "int", arguments, {"default", "base"})));
  JINJA_TRY(const int64_t base, int_or(in, args[1], 10));
  const Value fallback = args[0] == nullptr ? Value::integer(0) : *args[0];
  if (self.is_undefined())
    return in.fail_undefined(self);
  if (self.is_integral())
    return Value::integer(self.as_int());
  std::optional<int64_t> out;
  if (self.is_string()) {
    if (base >= 0 && base <= 36)
      out = parse_python_int(self.text(), static_cast<int>(base));
    if (!out) {
      if (const auto number = parse_python_float(self.text())) {
        JINJA_TRY(out, truncated(in, *number));
      }
    }
  } else if (self.is(Kind::kFloat)) {
    JINJA_TRY(out, truncated(in, self.as_double()));
  }
  return out ? Value::integer(*out) : fallback;
}

Outcome<Value> filter_float(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "float", arguments, {"default"})));
  if (self.is_undefined())
    return in.fail_undefined(self);
  if (self.is_number())
    return Value::number(self.as_double());
  if (self.is_string()) {
    if (const auto number = parse_python_float(self.text()))
      return Value::number(*number);
  }
  return args[0] == nullptr ? Value::number(0) : *args[0];
}

Outcome<Value> filter_abs(Interpreter& in, const Value& self, Arguments&) {
  if (self.is(Kind::kFloat))
    return Value::number(std::abs(self.as_double()));
  if (self.is_integral())
    return self.as_int() < 0 ? in.negate(self) : Value::integer(self.as_int());
  if (self.is_undefined())
    return in.fail_undefined(self);
  return in.fail(fmt::format("bad operand type for abs(): '{}'", type_name(self)));
}

// round(): half to even on the decimal digits of the exact binary value.
Outcome<Value> filter_round(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<2>(in, "round", arguments, {"precision", "method"})));
  JINJA_TRY(const int64_t precision, int_or(in, args[0], 0));
  std::string_view method = "common";
  if (args[1] != nullptr) {
    JINJA_TRY(method, string_argument(in, "round", *args[1]));
  }
  if (method != "common" && method != "ceil" && method != "floor") {
    return in.fail("method must be common, ceil or floor");
  }
  if (self.is_undefined())
    return in.fail_undefined(self);
  if (!self.is_number()) {
    return in.fail(fmt::format("type {} doesn't define __round__ method", type_name(self)));
  }
  if (method == "common") {
    if (self.is_integral() && precision >= 0)
      return Value::integer(self.as_int());
    const double number = self.as_double();
    double out = number;
    if (precision >= 0 && precision < 320 && std::isfinite(number)) {
      out = std::strtod(fmt::format("{:.{}f}", number, precision).c_str(), nullptr);
    } else if (precision < 0) {
      const double scale = std::pow(10.0, static_cast<double>(-precision));
      out = std::isfinite(scale) ? std::nearbyint(number / scale) * scale : 0;
    }
    if (self.is_integral())
      return Value::integer(static_cast<int64_t>(out));
    return Value::number(out);
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = self.as_double() * scale;
  return Value::number((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Outcome<Value> filter_attr(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "attr", arguments, {"name"}, 1)));
  JINJA_TRY(const std::string_view name, string_argument(in, "attr", *args[0]));
  if (self.is(Kind::kDict)) { // attributes only, not items
    if (const NamedFunction* method = find_method(self, name))
      return in.bound_method(self, method);
    return in.absent_member(self, *args[0]);
  }
  return in.attribute(self, name);
}

constexpr NamedFunction kTextFilters[] = {
    {"abs", filter_abs},
    {"attr", filter_attr},
    {"capitalize", map_text<capitalize>},
    {"center", filter_center},
    {"d", filter_default},
    {"default", filter_default},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"float", filter_float},
    {"forceescape", filter_force_escape},
    {"format", filter_format},
    {"indent", filter_indent},
    {"int", filter_int},
    {"lower", map_text<to_lower>},
    {"replace", filter_replace},
    {"round", filter_round},
    {"safe", filter_safe},
    {"string", filter_string},
    {"title", filter_title},
    {"tojson", to_json},
    {"trim", filter_trim},
    {"truncate", filter_truncate},
    {"upper", map_text<to_upper>},
    {"urlencode", filter_urlencode},
    {"wordcount", filter_wordcount},
};

} // namespace

const NamedFunction* find_filter(std::string_view name) {
  for (const NamedFunction& filter : kTextFilters) {
    if (filter.name == name)
      return &filter;
  }
  for (size_t i = 0; i < kNumSequenceFilters; ++i) {
    if (kSequenceFilters[i].name == name)
      return &kSequenceFilters[i];
  }
  return nullptr;
}

} // namespace pinhole::jinja
