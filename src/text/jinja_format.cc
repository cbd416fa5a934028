// Text formatting of Python: "%s" % values, and str.format.
//
// Source: Python 3 library reference, "printf-style String Formatting" and "Format String Syntax".

#include "text/jinja_builtins.h"
#include "text/jinja_text.h"

#include <cmath>
#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxPrecision = 400;

// A conversion: %[flags][width][.precision]type, or
// [[fill]align][sign][#][0][width][,][.precision]type
struct Spec {
  std::string_view fill = " "; // one code point
  char align = '\0';           // '<' '>' '^' '='
  char sign = '-';             // '-' '+' ' '
  char group = '\0';           // ',' or '_'
  bool alternate = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = '\0';
};

std::string pad(const Spec& spec, std::string sign, std::string body, char default_align) {
  const int64_t missing = spec.width - count_code_points(body) - static_cast<int64_t>(sign.size());
  const char align = spec.align == '\0' ? default_align : spec.align;
  if (missing <= 0)
    return sign + body;
  std::string before;
  std::string after;
  const int64_t left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  for (int64_t i = 0; i < missing; ++i)
    (i < left ? before : after) += spec.fill;
  if (align == '=')
    return sign + before + body;
  return before + sign + body + after;
}

std::string grouped(const std::string& digits, char group) {
  if (group == '\0')
    return digits;
  const size_t end = digits.find_first_not_of("0123456789");
  std::string out = end == std::string::npos ? "" : digits.substr(end);
  const std::string whole = digits.substr(0, end);
  std::string front;
  for (size_t i = 0; i < whole.size(); ++i) {
    if (i > 0 && (whole.size() - i) % 3 == 0)
      front.push_back(group);
    front.push_back(whole[i]);
  }
  return front + out;
}

std::string sign_text(const Spec& spec, bool negative) {
  if (negative)
    return "-";
  return spec.sign == '-' ? "" : std::string(1, spec.sign);
}

std::string format_integer(const Spec& spec, int64_t value) {
  const uint64_t magnitude =
      value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  std::string digits;
  std::string prefix;
  switch (spec.type) {
  case 'x':
    digits = fmt::format("{:x}", magnitude);
    prefix = "0x";
    break;
  case 'X':
    digits = fmt::format("{:X}", magnitude);
    prefix = "0X";
    break;
  case 'o':
    digits = fmt::format("{:o}", magnitude);
    prefix = "0o";
    break;
  case 'b':
    digits = fmt::format("{:b}", magnitude);
    prefix = "0b";
    break;
  default:
    digits = grouped(std::to_string(magnitude), spec.group);
  }
  if (static_cast<int64_t>(digits.size()) < spec.precision)
    digits.insert(0, static_cast<size_t>(spec.precision) - digits.size(), '0');
  std::string sign = sign_text(spec, value < 0);
  if (spec.alternate)
    sign += prefix;
  return pad(spec, std::move(sign), std::move(digits), '>');
}

std::string format_float(const Spec& spec, double value) {
  const double magnitude = std::abs(value);
  const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
  std::string digits;
  if (!std::isfinite(value)) {
    digits = std::isnan(value) ? "nan" : "inf";
    if (spec.type >= 'A' && spec.type <= 'Z')
      digits = to_upper(digits);
  } else {
    switch (spec.type) {
    case 'e':
      digits = fmt::format("{:.{}e}", magnitude, precision);
      break;
    case 'E':
      digits = fmt::format("{:.{}E}", magnitude, precision);
      break;
    case 'g':
      digits = fmt::format("{:.{}g}", magnitude, std::max(precision, 1));
      break;
    case 'G':
      digits = fmt::format("{:.{}G}", magnitude, std::max(precision, 1));
      break;
    case '%':
      digits = fmt::format("{:.{}f}%", magnitude * 100, precision);
      break;
    case '\0':
      digits = spec.precision < 0 ? float_repr(magnitude)
                                  : fmt::format("{:.{}g}", magnitude, std::max(precision, 1));
      if (digits.find_first_of(".en") == std::string::npos)
        digits += ".0";
      break;
    default:
      digits = fmt::format("{:.{}f}", magnitude, precision);
    }
    digits = grouped(digits, spec.group);
  }
  return pad(spec, sign_text(spec, std::signbit(value) && !std::isnan(value)), digits, '>');
}

std::string format_text(const Spec& spec, std::string_view text) {
  if (spec.precision >= 0)
    text = text.substr(0, byte_offset(text, spec.precision));
  return pad(spec, "", std::string(text), '<');
}

// Reads decimal digits at `at`; a number beyond `limit` becomes limit + 1.
int64_t read_number(std::string_view text, size_t& at, int64_t limit) {
  int64_t out = 0;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
    out = std::min(out * 10 + (text[at] - '0'), limit + 1);
  }
  return out;
}

Done check_sizes(Interpreter& in, const Spec& spec) {
  if (spec.width > kMaxWidth || spec.precision > kMaxPrecision) {
    return in.fail(fmt::format("width or precision of a format is too large (at most {} and {})",
                               kMaxWidth, kMaxPrecision),
                   ErrorCode::kTooLarge);
  }
  return {};
}

Outcome<int64_t> integer_for(Interpreter& in, const Value& value, char type) {
  if (value.is_integral())
    return value.as_int();
  if (value.is(Kind::kFloat) && type != 'x' && type != 'X' && type != 'o') {
    if (std::isfinite(value.as_double()) && std::abs(value.as_double()) < 9.2e18) {
      return static_cast<int64_t>(value.as_double());
    }
  }
  if (value.is_undefined())
    return in.fail_undefined(value);
  return in.fail(
      fmt::format("%{} format: a real number is required, not {}", type, type_name(value)));
}

class PercentFormatter {
 public:
  PercentFormatter(Interpreter& in, std::string_view format, const Value& values)
      : in_(in), format_(format), values_(values),
        is_tuple_(values.is(Kind::kSequence) && values.sequence().is_tuple()) {}

  Outcome<std::string> run() {
    std::string out;
    size_t at = 0;
    while (at < format_.size()) {
      const size_t mark = std::min(format_.find('%', at), format_.size());
      out += format_.substr(at, mark - at);
      JINJA_CHECK(in_.need(out.size()));
      if (mark == format_.size())
        break;
      at = mark + 1;
      JINJA_CHECK(conversion(at, out));
    }
    // What has items counts as a mapping, which need not be used up.
    const bool is_mapping = !is_tuple_ && (values_.is_undefined() || values_.is(Kind::kDict) ||
                                           values_.is(Kind::kRange) || values_.is(Kind::kSequence));
    const bool used =
        is_tuple_ ? next_ >= values_.sequence().items.size() : next_ > 0 || is_mapping;
    if (!used)
      return in_.fail("not all arguments converted during string formatting");
    return out;
  }

 private:
  Outcome<Value> next_value() {
    if (!is_tuple_) {
      if (next_++ > 0)
        return in_.fail("not enough arguments for format string");
      return values_;
    }
    if (next_ >= values_.sequence().items.size()) {
      return in_.fail("not enough arguments for format string");
    }
    return values_.sequence().items[next_++];
  }

  Outcome<int64_t> number_or_star(size_t& at, int64_t limit) {
    if (at < format_.size() && format_[at] == '*') {
      ++at;
      JINJA_TRY(const Value value, next_value());
      return int_or(in_, &value, 0);
    }
    return read_number(format_, at, limit);
  }

  Done conversion(size_t& at, std::string& out) {
    JINJA_CHECK(in_.step());
    Spec spec;
    std::optional<Value> named;
    if (at < format_.size() && format_[at] == '(') {
      const size_t close = format_.find(')', at);
      if (close == std::string_view::npos)
        return in_.fail("incomplete format key");
      if (!values_.is(Kind::kDict))
        return in_.fail("format requires a mapping");
      const std::string_view key = format_.substr(at + 1, close - at - 1);
      const Value* found = values_.dict().find_text(key);
      if (found == nullptr)
        return in_.fail(repr(key));
      named = *found;
      at = close + 1;
    }
    bool zero = false;
    for (; at < format_.size(); ++at) {
      const char c = format_[at];
      if (c == '-')
        spec.align = '<';
      else if (c == '+')
        spec.sign = '+';
      else if (c == ' ' && spec.sign != '+')
        spec.sign = ' ';
      else if (c == '0')
        zero = true;
      else if (c == '#')
        spec.alternate = true;
      else if (c != ' ')
        break;
    }
    JINJA_TRY(spec.width, number_or_star(at, kMaxWidth));
    if (spec.width < 0) {
      spec.align = '<';
      spec.width = spec.width == INT64_MIN ? INT64_MAX : -spec.width;
    }
    if (at < format_.size() && format_[at] == '.') {
      ++at;
      JINJA_TRY(spec.precision, number_or_star(at, kMaxPrecision));
      spec.precision = std::max<int64_t>(spec.precision, 0);
    }
    while (at < format_.size() &&
           (format_[at] == 'l' || format_[at] == 'h' || format_[at] == 'L')) {
      ++at;
    }
    if (at >= format_.size())
      return in_.fail("incomplete format");
    const char type = format_[at++];
    if (type == '%') {
      out.push_back('%');
      return {};
    }
    JINJA_CHECK(check_sizes(in_, spec));
    if (std::string_view("sradiuxXoeEfFgGc").find(type) == std::string_view::npos) {
      return in_.fail(fmt::format("unsupported format character '{}' (0x{:x}) at index {}", type,
                                  static_cast<uint8_t>(type), at - 1));
    }
    Value value;
    if (named) {
      value = *named;
    } else {
      JINJA_TRY(value, next_value());
    }
    if (zero && spec.align == '\0' && type != 's' && type != 'r' && type != 'a' && type != 'c') {
      spec.fill = "0";
      spec.align = '=';
    } else if (spec.align == '\0') {
      spec.align = '>';
    }
    return convert(spec, type, value, out);
  }

  Done convert(Spec& spec, char type, const Value& value, std::string& out) {
    std::string text;
    switch (type) {
    case 's':
    case 'r':
    case 'a':
      if (type == 's')
        JINJA_CHECK(in_.append_text(text, value));
      else
        JINJA_CHECK(in_.append_repr(text, value));
      out += format_text(spec, text);
      return {};
    case 'c': {
      if (value.is_string() && count_code_points(value.text()) == 1) {
        text = value.text();
      } else if (value.is_integral() && value.as_int() >= 0 && value.as_int() <= 0x10FFFF) {
        append_code_point(text, static_cast<uint32_t>(value.as_int()));
      } else {
        return in_.fail("%c requires int or char");
      }
      spec.precision = -1;
      out += format_text(spec, text);
      return {};
    }
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o': {
      JINJA_TRY(const int64_t number, integer_for(in_, value, type));
      spec.type = type == 'i' || type == 'u' ? 'd' : type;
      out += format_integer(spec, number);
      return {};
    }
    default:
      if (value.is_undefined())
        return in_.fail_undefined(value);
      if (!value.is_number()) {
        return in_.fail(fmt::format("must be real number, not {}", type_name(value)));
      }
      spec.type = type;
      out += format_float(spec, value.as_double());
      return {};
    }
  }

  Interpreter& in_;
  std::string_view format_;
  const Value& values_;
  bool is_tuple_;
  size_t next_ = 0;
};

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& in, Arguments& arguments) : in_(in), arguments_(arguments) {}

  Done run(std::string_view format, std::string& out, int depth) {
    if (depth > 1)
      return in_.fail("Max string recursion exceeded");
    for (size_t at = 0; at < format.size();) {
      const char c = format[at++];
      if (c != '{' && c != '}') {
        out.push_back(c);
      } else if (at < format.size() && format[at] == c) {
        out.push_back(c);
        ++at;
      } else if (c == '}') {
        return in_.fail("Single '}' encountered in format string");
      } else {
        const size_t end = field_end(format, at);
        if (end == std::string_view::npos)
          return in_.fail("expected '}' before end of string");
        JINJA_CHECK(field(format.substr(at, end - at), out, depth));
        at = end + 1;
      }
    }
    return in_.need(out.size());
  }

 private:
  static size_t field_end(std::string_view format, size_t at) {
    int level = 1;
    for (; at < format.size(); ++at) {
      if (format[at] == '{')
        ++level;
      if (format[at] == '}' && --level == 0)
        return at;
    }
    return std::string_view::npos;
  }

  Done field(std::string_view text, std::string& out, int depth) {
    JINJA_CHECK(in_.step());
    const size_t name_end = std::min(text.find_first_of("!:"), text.size());
    JINJA_TRY(Value value, lookup(text.substr(0, name_end)));
    std::string_view rest = text.substr(name_end);
    std::string converted;
    if (!rest.empty() && rest[0] == '!') {
      if (rest.size() < 2 || (rest.size() > 2 && rest[2] != ':')) {
        return in_.fail("expected ':' after conversion specifier");
      }
      if (rest[1] == 'r' || rest[1] == 'a')
        JINJA_CHECK(in_.append_repr(converted, value));
      else if (rest[1] == 's')
        JINJA_CHECK(in_.append_text(converted, value));
      else
        return in_.fail(fmt::format("Unknown conversion specifier {}", rest[1]));
      value = Value::string(converted);
      rest.remove_prefix(2);
    }
    std::string spec;
    if (!rest.empty())
      JINJA_CHECK(run(rest.substr(1), spec, depth + 1));
    return append(value, spec, out);
  }

  Outcome<Value> lookup(std::string_view path) {
    const size_t end = std::min(path.find_first_of(".["), path.size());
    const std::string_view first = path.substr(0, end);
    Value value;
    if (first.empty() || all_of_class(first, CharClass::kDigit)) {
      size_t index = next_;
      if (first.empty())
        ++next_;
      else
        index = static_cast<size_t>(parse_python_int(first).value_or(INT64_MAX));
      if (index >= arguments_.positional.size()) {
        return in_.fail(
            fmt::format("Replacement index {} out of range for positional args tuple", index));
      }
      value = arguments_.positional[index];
    } else {
      bool found = false;
      for (const auto& [name, given] : arguments_.named) {
        if (name != first)
          continue;
        value = given;
        found = true;
      }
      if (!found)
        return in_.fail(repr(first));
    }
    path.remove_prefix(end);
    while (!path.empty()) {
      JINJA_CHECK(in_.step());
      if (path[0] == '.') {
        const size_t stop = std::min(path.find_first_of(".[", 1), path.size());
        JINJA_TRY(value, in_.attribute(value, path.substr(1, stop - 1)));
        path.remove_prefix(stop);
      } else {
        const size_t close = path.find(']');
        if (path[0] != '[' || close == std::string_view::npos) {
          return in_.fail("Missing ']' in format string");
        }
        const std::string_view key = path.substr(1, close - 1);
        const auto index = parse_python_int(key);
        JINJA_TRY(value, in_.item(value, index ? Value::integer(*index) : Value::string(key)));
        path.remove_prefix(close + 1);
      }
    }
    return value;
  }

  Outcome<Spec> parse_spec(std::string_view text, const Value& value) {
    Spec spec;
    size_t at = 0;
    const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
    if (!text.empty()) {
      const size_t first = code_point_at(text, 0).size_bytes;
      if (first < text.size() && is_align(text[first])) {
        spec.fill = text.substr(0, first);
        spec.align = text[first];
        at = first + 1;
      } else if (is_align(text[0])) {
        spec.align = text[0];
        at = 1;
      }
    }
    if (at < text.size() && (text[at] == '+' || text[at] == '-' || text[at] == ' ')) {
      spec.sign = text[at++];
    }
    if (at < text.size() && text[at] == '#') {
      spec.alternate = true;
      ++at;
    }
    if (at < text.size() && text[at] == '0') {
      if (spec.align == '\0' && value.is_number()) {
        spec.align = '=';
        spec.fill = "0";
      }
      ++at;
    }
    spec.width = read_number(text, at, kMaxWidth);
    if (at < text.size() && (text[at] == ',' || text[at] == '_'))
      spec.group = text[at++];
    if (at < text.size() && text[at] == '.') {
      ++at;
      spec.precision = read_number(text, at, kMaxPrecision);
    }
    if (at < text.size())
      spec.type = text[at++];
    if (at < text.size())
      return in_.fail("Invalid format specifier");
    JINJA_CHECK(check_sizes(in_, spec));
    return spec;
  }

  Done append(const Value& value, std::string_view format, std::string& out) {
    if (format.empty())
      return in_.append_text(out, value);
    JINJA_TRY(Spec spec, parse_spec(format, value));
    const std::string_view float_types = "eEfFgG%";
    const bool as_float =
        spec.type != '\0' && float_types.find(spec.type) != std::string_view::npos;
    if (value.is(Kind::kFloat) || (value.is_integral() && as_float)) {
      if (spec.type != '\0' && !as_float)
        return unknown_code(spec, value);
      out += format_float(spec, value.as_double());
      return {};
    }
    if (value.is_integral() && !(value.is(Kind::kBool) && spec.type == '\0')) {
      if (spec.type != '\0' &&
          std::string_view("dxXobn").find(spec.type) == std::string_view::npos) {
        return unknown_code(spec, value);
      }
      out += format_integer(spec, value.as_int());
      return {};
    }
    if (!value.is_string() && !value.is(Kind::kBool)) {
      return in_.fail(
          fmt::format("unsupported format string passed to {}.__format__", type_name(value)));
    }
    if (spec.type != '\0' && spec.type != 's')
      return unknown_code(spec, value);
    JINJA_TRY(const std::string_view text, in_.text_of(value));
    out += format_text(spec, text);
    return {};
  }

  Done unknown_code(const Spec& spec, const Value& value) {
    return in_.fail(fmt::format("Unknown format code '{}' for object of type '{}'", spec.type,
                                type_name(value)));
  }

  Interpreter& in_;
  Arguments& arguments_;
  size_t next_ = 0;
};

} // namespace

Outcome<Value> format_percent(Interpreter& in, const Value& format, const Value& values) {
  JINJA_CHECK(in.work(format.text().size()));
  JINJA_TRY(std::string text, PercentFormatter(in, format.text(), values).run());
  return in.string(std::move(text), format.is_safe());
}

Outcome<Value> format_braces(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_CHECK(in.work(self.text().size()));
  std::string text;
  JINJA_CHECK(BraceFormatter(in, arguments).run(self.text(), text, 0));
  return in.string(std::move(text), self.is_safe());
}

} // namespace pinhole::jinja
