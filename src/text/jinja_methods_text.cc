// Methods of str, as Python 3 defines them.

#include "text/jinja_builtins.h"
#include "text/jinja_text.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

Value part(const Value& self, std::string_view text) { return Value::string(text, self.is_safe()); }

template <std::string (*Map)(std::string_view)>
Outcome<Value> map_method(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_CHECK((bind<0>(in, "str", arguments, {})));
  JINJA_CHECK(in.need(self.text().size() * 3));
  return in.string(Map(self.text()), self.is_safe());
}

template <Side Where>
Outcome<Value> strip_method(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "strip", arguments, {"chars"})));
  std::optional<std::string_view> chars;
  if (is_given(args[0])) {
    JINJA_TRY(chars, string_argument(in, "strip", *args[0]));
    JINJA_CHECK(in.step(self.text().size() * chars->size() / 64));
  }
  JINJA_CHECK(in.work(self.text().size()));
  return part(self, strip(self.text(), chars, Where));
}

Outcome<Value> split_on_space(Interpreter& in, const Value& self, int64_t max, bool from_right) {
  std::vector<Value> out;
  std::string_view rest = self.text();
  while (true) {
    rest = strip(rest, std::nullopt, from_right ? Side::kRight : Side::kLeft);
    if (rest.empty())
      break;
    JINJA_CHECK(in.step());
    if (max >= 0 && static_cast<int64_t>(out.size()) == max) {
      out.push_back(part(self, rest));
      break;
    }
    if (from_right) {
      size_t begin = rest.size();
      while (begin > 0 && !is_space(code_point_at(rest, code_point_before(rest, begin)).value)) {
        begin = code_point_before(rest, begin);
      }
      out.push_back(part(self, rest.substr(begin)));
      rest = rest.substr(0, begin);
    } else {
      size_t end = 0;
      while (end < rest.size() && !is_space(code_point_at(rest, end).value)) {
        end += code_point_at(rest, end).size_bytes;
      }
      out.push_back(part(self, rest.substr(0, end)));
      rest = rest.substr(end);
    }
  }
  if (from_right)
    std::reverse(out.begin(), out.end());
  return in.list(std::move(out));
}

Outcome<Value> split(Interpreter& in, const Value& self, Arguments& arguments, bool from_right) {
  JINJA_TRY(const auto args, (bind<2>(in, "split", arguments, {"sep", "maxsplit"})));
  JINJA_TRY(const int64_t max, int_or(in, args[1], -1));
  JINJA_CHECK(in.work(self.text().size()));
  if (!is_given(args[0]))
    return split_on_space(in, self, max, from_right);
  JINJA_TRY(const std::string_view separator, string_argument(in, "split", *args[0]));
  if (separator.empty())
    return in.fail("empty separator");
  std::vector<Value> out;
  std::string_view rest = self.text();
  while (max < 0 || static_cast<int64_t>(out.size()) < max) {
    const size_t at = from_right ? rest.rfind(separator) : rest.find(separator);
    if (at == std::string_view::npos)
      break;
    JINJA_CHECK(in.step());
    out.push_back(part(self, from_right ? rest.substr(at + separator.size()) : rest.substr(0, at)));
    rest = from_right ? rest.substr(0, at) : rest.substr(at + separator.size());
  }
  out.push_back(part(self, rest));
  if (from_right)
    std::reverse(out.begin(), out.end());
  return in.list(std::move(out));
}
Outcome<Value> method_split(Interpreter& in, const Value& self, Arguments& arguments) {
  return split(in, self, arguments, false);
}
Outcome<Value> method_rsplit(Interpreter& in, const Value& self, Arguments& arguments) {
  return split(in, self, arguments, true);
}

Outcome<Value> method_splitlines(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "splitlines", arguments, {"keepends"})));
  JINJA_CHECK(in.work(self.text().size()));
  std::vector<Value> out;
  for (const std::string_view line : split_lines(self.text(), bool_or(args[0], false))) {
    JINJA_CHECK(in.step());
    out.push_back(part(self, line));
  }
  return in.list(std::move(out));
}

template <bool FromRight>
Outcome<Value> method_partition(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "partition", arguments, {"sep"}, 1)));
  JINJA_TRY(const std::string_view separator, string_argument(in, "partition", *args[0]));
  if (separator.empty())
    return in.fail("empty separator");
  JINJA_CHECK(in.work(self.text().size()));
  const std::string_view text = self.text();
  const size_t at = FromRight ? text.rfind(separator) : text.find(separator);
  std::vector<Value> out(3, part(self, ""));
  if (at == std::string_view::npos) {
    out[FromRight ? 2 : 0] = self;
  } else {
    out[0] = part(self, text.substr(0, at));
    out[1] = part(self, text.substr(at, separator.size()));
    out[2] = part(self, text.substr(at + separator.size()));
  }
  return in.sequence(Sequence::Type::kTuple, std::move(out));
}

// The part of self that optional start and end arguments leave, with the offset of its start.
struct Window {
  std::string_view text;
  int64_t start = 0; // code points before it
  bool valid = true; // false: start lies behind the end
};
Outcome<Window> window(Interpreter& in, const Value& self, const Value* start, const Value* end) {
  if (start == nullptr && end == nullptr)
    return Window{self.text()};
  JINJA_CHECK(in.work(self.text().size()));
  const int64_t size = count_code_points(self.text());
  JINJA_TRY(int64_t from, int_or(in, is_given(start) ? start : nullptr, 0));
  JINJA_TRY(int64_t to, int_or(in, is_given(end) ? end : nullptr, size));
  if (from < 0)
    from = std::max<int64_t>(from + size, 0);
  if (to < 0)
    to = std::max<int64_t>(to + size, 0);
  to = std::min(to, size);
  if (from > to)
    return Window{{}, from, false};
  const size_t begin = byte_offset(self.text(), from);
  const size_t bytes = byte_offset(self.text().substr(begin), to - from);
  return Window{self.text().substr(begin, bytes), from, true};
}

template <bool AtEnd>
Outcome<Value> method_starts_or_ends(Interpreter& in, const Value& self, Arguments& arguments) {
  const char* name = AtEnd ? "endswith" : "startswith";
  JINJA_TRY(const auto args, (bind<3>(in, name, arguments, {"prefix", "start", "end"}, 1)));
  JINJA_TRY(const Window part, window(in, self, args[1], args[2]));
  const auto matches = [&](std::string_view affix) {
    if (!part.valid || affix.size() > part.text.size())
      return false;
    return AtEnd ? part.text.substr(part.text.size() - affix.size()) == affix
                 : part.text.substr(0, affix.size()) == affix;
  };
  if (args[0]->is(Kind::kSequence) && args[0]->sequence().is_tuple()) {
    for (const Value& affix : args[0]->sequence().items) {
      JINJA_TRY(const std::string_view text, string_argument(in, name, affix));
      JINJA_CHECK(in.work(text.size()));
      if (matches(text))
        return Value::boolean(true);
    }
    return Value::boolean(false);
  }
  if (args[0]->is_undefined())
    return in.fail_undefined(*args[0]);
  if (!args[0]->is_string()) {
    return in.fail(fmt::format("{} first arg must be str or a tuple of str, not {}", name,
                               type_name(*args[0])));
  }
  JINJA_CHECK(in.work(args[0]->text().size()));
  return Value::boolean(matches(args[0]->text()));
}

template <bool FromRight, bool MustBeThere>
Outcome<Value> method_find(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<3>(in, "find", arguments, {"sub", "start", "end"}, 1)));
  JINJA_TRY(const std::string_view needle, string_argument(in, "find", *args[0]));
  JINJA_TRY(const Window part, window(in, self, args[1], args[2]));
  JINJA_CHECK(in.work(part.text.size() + needle.size()));
  const size_t at = !part.valid ? std::string_view::npos
                    : FromRight ? part.text.rfind(needle)
                                : part.text.find(needle);
  if (at == std::string_view::npos) {
    if (MustBeThere)
      return in.fail("substring not found");
    return Value::integer(-1);
  }
  return Value::integer(part.start + count_code_points(part.text.substr(0, at)));
}

Outcome<Value> method_count(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<3>(in, "count", arguments, {"sub", "start", "end"}, 1)));
  JINJA_TRY(const std::string_view needle, string_argument(in, "count", *args[0]));
  JINJA_TRY(const Window part, window(in, self, args[1], args[2]));
  JINJA_CHECK(in.work(part.text.size() + needle.size()));
  if (!part.valid)
    return Value::integer(0);
  if (needle.empty())
    return Value::integer(count_code_points(part.text) + 1);
  int64_t count = 0;
  for (size_t at = part.text.find(needle); at != std::string_view::npos;
       at = part.text.find(needle, at + needle.size())) {
    ++count;
  }
  return Value::integer(count);
}

Outcome<Value> method_replace(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<3>(in, "replace", arguments, {"old", "new", "count"}, 2)));
  JINJA_TRY(const std::string_view from, string_argument(in, "replace", *args[0]));
  JINJA_TRY(std::string_view to, string_argument(in, "replace", *args[1]));
  JINJA_TRY(const int64_t count, int_or(in, args[2], -1));
  std::string escaped;
  if (self.is_safe() && !args[1]->is_safe()) {
    escaped = escape_html(to);
    to = escaped;
  }
  return replace_text(in, self.text(), from, to, count, self.is_safe());
}

Outcome<Value> method_join(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "join", arguments, {"iterable"}, 1)));
  JINJA_TRY(const std::vector<Value> items, in.iterate(*args[0]));
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].is_string())
      continue;
    if (items[i].is_undefined())
      return in.fail_undefined(items[i]);
    return in.fail(
        fmt::format("sequence item {}: expected str instance, {} found", i, type_name(items[i])));
  }
  return join_text(in, self.text(), items, self.is_safe());
}

template <bool AtEnd>
Outcome<Value> method_remove_affix(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "removeprefix", arguments, {"affix"}, 1)));
  JINJA_TRY(const std::string_view affix, string_argument(in, "removeprefix", *args[0]));
  const std::string_view text = self.text();
  if (affix.size() > text.size())
    return self;
  const size_t rest = text.size() - affix.size();
  if (AtEnd)
    return text.substr(rest) == affix ? part(self, text.substr(0, rest)) : self;
  return text.substr(0, affix.size()) == affix ? part(self, text.substr(affix.size())) : self;
}

template <int SideOfText>
Outcome<Value> method_pad(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<2>(in, "center", arguments, {"width", "fillchar"}, 1)));
  JINJA_TRY(const int64_t width, int_or(in, args[0], 0));
  std::string_view fill = " ";
  if (args[1] != nullptr) {
    JINJA_TRY(fill, string_argument(in, "center", *args[1]));
    if (count_code_points(fill) != 1) {
      return in.fail("The fill character must be exactly one character long");
    }
  }
  return pad_text(in, self, width, fill, SideOfText);
}

Outcome<Value> method_zfill(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "zfill", arguments, {"width"}, 1)));
  JINJA_TRY(const int64_t width, int_or(in, args[0], 0));
  std::string_view text = self.text();
  const bool sign = !text.empty() && (text[0] == '+' || text[0] == '-');
  if (sign)
    text.remove_prefix(1);
  JINJA_TRY(const Value digits, pad_text(in, Value::string(text),
                                         sign ? std::max<int64_t>(width, 1) - 1 : width, "0", 1));
  return sign ? in.string(self.text()[0] + std::string(digits.text())) : Outcome<Value>(digits);
}

Outcome<Value> method_expandtabs(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<1>(in, "expandtabs", arguments, {"tabsize"})));
  JINJA_TRY(const int64_t size, int_or(in, args[0], 8));
  std::string out;
  int64_t column = 0;
  for (size_t at = 0; at < self.text().size();) {
    const CodePoint cp = code_point_at(self.text(), at);
    if (cp.value == '\t') {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      JINJA_CHECK(in.need(out.size() + static_cast<uint64_t>(spaces)));
      out.append(static_cast<size_t>(spaces), ' ');
      column += spaces;
    } else {
      out += self.text().substr(at, cp.size_bytes);
      column = cp.value == '\n' || cp.value == '\r' ? 0 : column + 1;
    }
    at += cp.size_bytes;
  }
  return in.string(std::move(out), self.is_safe());
}

template <CharClass Class>
Outcome<Value> method_is_class(Interpreter& in, const Value& self, Arguments&) {
  JINJA_CHECK(in.work(self.text().size()));
  return Value::boolean(all_of_class(self.text(), Class));
}
template <bool (*Holds)(std::string_view)>
Outcome<Value> method_is(Interpreter& in, const Value& self, Arguments&) {
  JINJA_CHECK(in.work(self.text().size()));
  return Value::boolean(Holds(self.text()));
}

constexpr NamedFunction kStringMethods[] = {
    {"capitalize", map_method<capitalize>},
    {"casefold", map_method<to_lower>},
    {"center", method_pad<0>},
    {"count", method_count},
    {"encode", nullptr},
    {"endswith", method_starts_or_ends<true>},
    {"expandtabs", method_expandtabs},
    {"find", method_find<false, false>},
    {"format", format_braces},
    {"format_map", nullptr},
    {"index", method_find<false, true>},
    {"isalnum", method_is_class<CharClass::kAlnum>},
    {"isalpha", method_is_class<CharClass::kAlpha>},
    {"isascii", method_is_class<CharClass::kAscii>},
    {"isdecimal", method_is_class<CharClass::kDecimal>},
    {"isdigit", method_is_class<CharClass::kDigit>},
    {"isidentifier", method_is<is_identifier>},
    {"islower", method_is<is_lower>},
    {"isnumeric", method_is_class<CharClass::kNumeric>},
    {"isprintable", nullptr},
    {"isspace", method_is_class<CharClass::kSpace>},
    {"istitle", method_is<is_title>},
    {"isupper", method_is<is_upper>},
    {"join", method_join},
    {"ljust", method_pad<-1>},
    {"lower", map_method<to_lower>},
    {"lstrip", strip_method<Side::kLeft>},
    {"maketrans", nullptr},
    {"partition", method_partition<false>},
    {"removeprefix", method_remove_affix<false>},
    {"removesuffix", method_remove_affix<true>},
    {"replace", method_replace},
    {"rfind", method_find<true, false>},
    {"rindex", method_find<true, true>},
    {"rjust", method_pad<1>},
    {"rpartition", method_partition<true>},
    {"rsplit", method_rsplit},
    {"rstrip", strip_method<Side::kRight>},
    {"split", method_split},
    {"splitlines", method_splitlines},
    {"startswith", method_starts_or_ends<false>},
    {"strip", strip_method<Side::kBoth>},
    {"swapcase", map_method<swap_case>},
    {"title", map_method<to_title>},
    {"translate", nullptr},
    {"upper", map_method<to_upper>},
    {"zfill", method_zfill},
};

} // namespace

const NamedFunction* find_string_method(std::string_view name) {
  const auto* end = std::end(kStringMethods);
  const auto* found = std::lower_bound(
      std::begin(kStringMethods), end, name,
      [](const NamedFunction& method, std::string_view wanted) { return method.name < wanted; });
  return found != end && found->name == name ? found : nullptr;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> out;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const CodePoint cp = code_point_at(text, at);
    size_t next = at + cp.size_bytes;
    if (is_line_break(cp.value)) {
      if (cp.value == '\r' && next < text.size() && text[next] == '\n')
        ++next;
      out.push_back(text.substr(begin, (keep_ends ? next : at) - begin));
      begin = next;
    }
    at = next;
  }
  if (begin < text.size())
    out.push_back(text.substr(begin));
  return out;
}

Outcome<Value> replace_text(Interpreter& in, std::string_view text, std::string_view from,
                            std::string_view to, int64_t max_count, bool safe) {
  JINJA_CHECK(in.work(text.size() + from.size()));
  std::string out;
  size_t begin = 0;
  size_t search = 0; // an empty `from` matches before every character and at the end
  while (max_count != 0) {
    const size_t at = text.find(from, search);
    if (at == std::string_view::npos)
      break;
    JINJA_CHECK(in.need(out.size() + (at - begin) + to.size()));
    out += text.substr(begin, at - begin);
    out += to;
    begin = at + from.size();
    if (max_count > 0)
      --max_count;
    search = begin;
    if (from.empty()) {
      if (at >= text.size())
        break;
      search = at + code_point_at(text, at).size_bytes;
    }
  }
  out += text.substr(begin);
  return in.string(std::move(out), safe);
}

Outcome<Value> join_text(Interpreter& in, std::string_view separator,
                         const std::vector<Value>& items, bool safe) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0)
      out += separator;
    if (safe && items[i].is_string() && !items[i].is_safe())
      out += escape_html(items[i].text());
    else
      JINJA_CHECK(in.append_text(out, items[i]));
    JINJA_CHECK(in.need(out.size() + separator.size()));
  }
  return in.string(std::move(out), safe);
}

Outcome<Value> pad_text(Interpreter& in, const Value& self, int64_t width, std::string_view fill,
                        int side) {
  JINJA_TRY(const int64_t size, in.length(self));
  if (width <= size)
    return self;
  const int64_t total = width - size;
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<uint64_t>(total), fill.size(), &bytes))
    bytes = UINT64_MAX;
  JINJA_CHECK(in.need(bytes));
  // str.center puts the odd character on the left when the width is odd.
  const int64_t left = side < 0 ? 0 : side > 0 ? total : total / 2 + (total & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i)
    out += fill;
  out += self.text();
  for (int64_t i = left; i < total; ++i)
    out += fill;
  return in.string(std::move(out), self.is_safe());
}

} // namespace pinhole::jinja
