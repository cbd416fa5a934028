#include "text/jinja_text.h"

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <utf8proc.h>

namespace pinhole::jinja {

namespace {

constexpr uint32_t kInvalidBase = 0xDC00; // + byte
constexpr uint32_t kFinalSigma = 0x3C2;
constexpr uint32_t kSmallSigma = 0x3C3;
constexpr uint32_t kCapitalSigma = 0x3A3;

bool continuation(std::string_view text, size_t at) {
  return at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80;
}

uint32_t low6(std::string_view text, size_t at) { return static_cast<uint8_t>(text[at]) & 0x3F; }

utf8proc_category_t category(uint32_t code_point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
}

bool is_letter(uint32_t code_point) {
  const auto kind = category(code_point);
  return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL ||
         kind == UTF8PROC_CATEGORY_LT || kind == UTF8PROC_CATEGORY_LM ||
         kind == UTF8PROC_CATEGORY_LO;
}

bool is_number(uint32_t code_point) {
  const auto kind = category(code_point);
  return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL ||
         kind == UTF8PROC_CATEGORY_NO;
}

// str.isdigit: decimal digits and superscript, subscript and circled digits.
bool is_digit(uint32_t cp) {
  if (category(cp) == UTF8PROC_CATEGORY_ND)
    return true;
  return cp == 0xB2 || cp == 0xB3 || cp == 0xB9 || cp == 0x2070 || (cp >= 0x2074 && cp <= 0x2079) ||
         (cp >= 0x2080 && cp <= 0x2089) || (cp >= 0x2460 && cp <= 0x2468) ||
         (cp >= 0x2474 && cp <= 0x247C) || (cp >= 0x2488 && cp <= 0x2490) || cp == 0x24EA ||
         (cp >= 0x24F5 && cp <= 0x24FD) || cp == 0x24FF || (cp >= 0x2776 && cp <= 0x277E) ||
         (cp >= 0x2780 && cp <= 0x2788) || (cp >= 0x278A && cp <= 0x2792);
}

uint32_t simple_upper(uint32_t cp) {
  return static_cast<uint32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(cp)));
}
uint32_t simple_lower(uint32_t cp) {
  return static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(cp)));
}
uint32_t simple_title(uint32_t cp) {
  return static_cast<uint32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(cp)));
}

bool is_upper_char(uint32_t cp) { return simple_lower(cp) != cp && simple_title(cp) == cp; }
bool is_lower_char(uint32_t cp) {
  return category(cp) == UTF8PROC_CATEGORY_LL || cp == 0xAA || cp == 0xBA ||
         (category(cp) != UTF8PROC_CATEGORY_LT && simple_upper(cp) != cp);
}
bool is_cased(uint32_t cp) {
  return is_upper_char(cp) || is_lower_char(cp) || category(cp) == UTF8PROC_CATEGORY_LT;
}

// Upper-case forms of more than one code point (SpecialCasing.txt): those of living scripts.
struct SpecialUpper {
  uint32_t from;
  const char* upper;
  const char* title;
};
constexpr std::array<SpecialUpper, 10> kSpecialUpper = {{
    {0xDF, "SS", "Ss"},
    {0x149, "\u02BCN", "\u02BCN"},
    {0x1F0, "J\u030C", "J\u030C"},
    {0x587, "\u0535\u0552", "\u0535\u0582"},
    {0xFB00, "FF", "Ff"},
    {0xFB01, "FI", "Fi"},
    {0xFB02, "FL", "Fl"},
    {0xFB03, "FFI", "Ffi"},
    {0xFB04, "FFL", "Ffl"},
    {0xFB05, "ST", "St"},
}};

void append_upper(std::string& out, uint32_t cp, bool title) {
  if (cp < 0x80) {
    out.push_back(static_cast<char>(cp >= 'a' && cp <= 'z' ? cp - 32 : cp));
    return;
  }
  for (const auto& special : kSpecialUpper) {
    if (special.from == cp) {
      out += title ? special.title : special.upper;
      return;
    }
  }
  append_code_point(out, title ? simple_title(cp) : simple_upper(cp));
}

// Final sigma (Unicode 3.13): after a cased letter and not before one.
bool final_sigma(std::string_view text, size_t at, size_t next) {
  bool before = false;
  while (at > 0) {
    const size_t previous = code_point_before(text, at);
    const uint32_t cp = code_point_at(text, previous).value;
    at = previous;
    if (category(cp) == UTF8PROC_CATEGORY_MN || cp == '\'')
      continue;
    before = is_cased(cp);
    break;
  }
  if (!before)
    return false;
  while (next < text.size()) {
    const CodePoint cp = code_point_at(text, next);
    next += cp.size_bytes;
    if (category(cp.value) == UTF8PROC_CATEGORY_MN || cp.value == '\'')
      continue;
    return !is_cased(cp.value);
  }
  return true;
}

void append_lower(std::string& out, std::string_view text, size_t at, CodePoint cp) {
  if (cp.value < 0x80) {
    out.push_back(static_cast<char>(cp.value >= 'A' && cp.value <= 'Z' ? cp.value + 32 : cp.value));
  } else if (cp.value == kCapitalSigma) {
    append_code_point(out, final_sigma(text, at, at + cp.size_bytes) ? kFinalSigma : kSmallSigma);
  } else if (cp.value == 0x130) { // I with dot above
    out += "i\u0307";
  } else {
    append_code_point(out, simple_lower(cp.value));
  }
}

template <class F> void for_each(std::string_view text, F&& visit) {
  for (size_t at = 0; at < text.size();) {
    const CodePoint cp = code_point_at(text, at);
    visit(at, cp);
    at += cp.size_bytes;
  }
}

bool printable(uint32_t cp) {
  switch (category(cp)) {
  case UTF8PROC_CATEGORY_CC:
  case UTF8PROC_CATEGORY_CF:
  case UTF8PROC_CATEGORY_CS:
  case UTF8PROC_CATEGORY_CO:
  case UTF8PROC_CATEGORY_CN:
  case UTF8PROC_CATEGORY_ZL:
  case UTF8PROC_CATEGORY_ZP:
    return false;
  case UTF8PROC_CATEGORY_ZS:
    return cp == ' ';
  default:
    return true;
  }
}

// Removes the underscores that Python allows between digits; nullopt when one is elsewhere.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out.push_back(text[i]);
      continue;
    }
    const bool inside = i > 0 && i + 1 < text.size() && std::isxdigit(uint8_t(text[i - 1])) != 0 &&
                        std::isxdigit(uint8_t(text[i + 1])) != 0;
    if (!inside)
      return std::nullopt;
  }
  return out;
}

} // namespace

CodePoint code_point_at(std::string_view text, size_t at) {
  const auto first = static_cast<uint8_t>(text[at]);
  if (first < 0x80)
    return {first, 1};
  if (first >= 0xC2 && first <= 0xDF && continuation(text, at + 1)) {
    return {(first & 0x1Fu) << 6 | low6(text, at + 1), 2};
  }
  if ((first & 0xF0) == 0xE0 && continuation(text, at + 1) && continuation(text, at + 2)) {
    const uint32_t value = (first & 0xFu) << 12 | low6(text, at + 1) << 6 | low6(text, at + 2);
    if (value >= 0x800 && (value < 0xD800 || value > 0xDFFF))
      return {value, 3};
  }
  if ((first & 0xF8) == 0xF0 && continuation(text, at + 1) && continuation(text, at + 2) &&
      continuation(text, at + 3)) {
    const uint32_t value = (first & 7u) << 18 | low6(text, at + 1) << 12 | low6(text, at + 2) << 6 |
                           low6(text, at + 3);
    if (value >= 0x10000 && value <= 0x10FFFF)
      return {value, 4};
  }
  return {kInvalidBase + first, 1};
}

size_t code_point_before(std::string_view text, size_t end) {
  for (size_t size = 1; size <= 4 && size <= end; ++size) {
    const size_t at = end - size;
    if ((static_cast<uint8_t>(text[at]) & 0xC0) == 0x80)
      continue;
    return code_point_at(text, at).size_bytes == size ? at : end - 1;
  }
  return end - 1;
}

int64_t count_code_points(std::string_view text) {
  int64_t count = 0;
  for_each(text, [&](size_t, CodePoint) { ++count; });
  return count;
}

size_t byte_offset(std::string_view text, int64_t index) {
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index)
    at += code_point_at(text, at).size_bytes;
  return at;
}

void append_code_point(std::string& out, uint32_t value) {
  if (value >= kInvalidBase + 0x80 && value <= kInvalidBase + 0xFF) {
    out.push_back(static_cast<char>(value - kInvalidBase));
  } else if (value < 0x80) {
    out.push_back(static_cast<char>(value));
  } else if (value < 0x800) {
    out.push_back(static_cast<char>(0xC0 | value >> 6));
    out.push_back(static_cast<char>(0x80 | (value & 0x3F)));
  } else if (value < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | value >> 12));
    out.push_back(static_cast<char>(0x80 | (value >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (value & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | value >> 18));
    out.push_back(static_cast<char>(0x80 | (value >> 12 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (value >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (value & 0x3F)));
  }
}

bool is_space(uint32_t cp) {
  if (cp < 0x80)
    return cp == ' ' || (cp >= 9 && cp <= 13) || (cp >= 0x1C && cp <= 0x1F);
  return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) ||
         cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool is_word(uint32_t cp) {
  if (cp < 0x80)
    return std::isalnum(static_cast<int>(cp)) != 0 || cp == '_';
  return is_letter(cp) || is_number(cp);
}

bool is_name_start(uint32_t cp) {
  if (cp < 0x80)
    return std::isalpha(static_cast<int>(cp)) != 0 || cp == '_';
  return is_letter(cp) || category(cp) == UTF8PROC_CATEGORY_NL;
}

bool is_line_break(uint32_t cp) {
  return (cp >= 10 && cp <= 13) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 ||
         cp == 0x2029;
}

std::string_view strip(std::string_view text, std::optional<std::string_view> chars, Side side) {
  const auto strips = [&](size_t at, uint32_t size) {
    if (!chars)
      return is_space(code_point_at(text, at).value);
    const std::string_view one = text.substr(at, size);
    for (size_t i = 0; i < chars->size();) {
      const uint32_t length = code_point_at(*chars, i).size_bytes;
      if (chars->substr(i, length) == one)
        return true;
      i += length;
    }
    return false;
  };
  size_t begin = 0;
  size_t end = text.size();
  if (side != Side::kRight) {
    while (begin < end) {
      const uint32_t size = code_point_at(text, begin).size_bytes;
      if (!strips(begin, size))
        break;
      begin += size;
    }
  }
  if (side != Side::kLeft) {
    while (end > begin) {
      const size_t at = code_point_before(text, end);
      if (!strips(at, static_cast<uint32_t>(end - at)))
        break;
      end = at;
    }
  }
  return text.substr(begin, end - begin);
}

std::string to_upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each(text, [&](size_t, CodePoint cp) { append_upper(out, cp.value, false); });
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each(text, [&](size_t at, CodePoint cp) { append_lower(out, text, at, cp); });
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  for_each(text, [&](size_t at, CodePoint cp) {
    if (at == 0)
      append_upper(out, cp.value, true);
    else
      append_lower(out, text, at, cp);
  });
  return out;
}

std::string to_title(std::string_view text) {
  std::string out;
  bool in_word = false;
  for_each(text, [&](size_t at, CodePoint cp) {
    if (in_word)
      append_lower(out, text, at, cp);
    else
      append_upper(out, cp.value, true);
    in_word = is_cased(cp.value);
  });
  return out;
}

std::string swap_case(std::string_view text) {
  std::string out;
  for_each(text, [&](size_t at, CodePoint cp) {
    if (is_upper_char(cp.value))
      append_lower(out, text, at, cp);
    else if (is_lower_char(cp.value))
      append_upper(out, cp.value, false);
    else
      append_code_point(out, cp.value);
  });
  return out;
}

bool all_of_class(std::string_view text, CharClass char_class) {
  bool all = char_class == CharClass::kAscii || !text.empty();
  for_each(text, [&](size_t, CodePoint point) {
    const uint32_t cp = point.value;
    switch (char_class) {
    case CharClass::kAlpha:
      all = all && is_letter(cp);
      break;
    case CharClass::kDigit:
      all = all && is_digit(cp);
      break;
    case CharClass::kDecimal:
      all = all && category(cp) == UTF8PROC_CATEGORY_ND;
      break;
    case CharClass::kNumeric:
      all = all && is_number(cp);
      break;
    case CharClass::kAlnum:
      all = all && (is_letter(cp) || is_number(cp));
      break;
    case CharClass::kSpace:
      all = all && is_space(cp);
      break;
    case CharClass::kAscii:
      all = all && cp < 0x80;
      break;
    }
  });
  return all;
}

bool is_upper(std::string_view text) {
  bool any = false;
  bool other = false;
  for_each(text, [&](size_t, CodePoint cp) {
    any = any || is_upper_char(cp.value);
    other = other || is_lower_char(cp.value) || category(cp.value) == UTF8PROC_CATEGORY_LT;
  });
  return any && !other;
}

bool is_lower(std::string_view text) {
  bool any = false;
  bool other = false;
  for_each(text, [&](size_t, CodePoint cp) {
    any = any || is_lower_char(cp.value);
    other = other || is_upper_char(cp.value) || category(cp.value) == UTF8PROC_CATEGORY_LT;
  });
  return any && !other;
}

bool is_title(std::string_view text) {
  bool any = false;
  bool wrong = false;
  bool in_word = false;
  for_each(text, [&](size_t, CodePoint cp) {
    const bool upper = is_upper_char(cp.value) || category(cp.value) == UTF8PROC_CATEGORY_LT;
    const bool lower = is_lower_char(cp.value);
    wrong = wrong || (upper && in_word) || (lower && !in_word);
    any = any || upper || lower;
    in_word = upper || lower;
  });
  return any && !wrong;
}

bool is_identifier(std::string_view text) {
  bool good = !text.empty() && is_name_start(code_point_at(text, 0).value);
  for_each(text, [&](size_t, CodePoint cp) {
    const auto kind = category(cp.value);
    good = good && (is_name_start(cp.value) || kind == UTF8PROC_CATEGORY_ND ||
                    kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_MC ||
                    kind == UTF8PROC_CATEGORY_PC);
  });
  return good;
}

std::string float_repr(double number) {
  if (std::isnan(number))
    return "nan";
  if (std::isinf(number))
    return number < 0 ? "-inf" : "inf";
  std::array<char, 40> buffer;
  const auto done = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number,
                                  std::chars_format::scientific);
  const std::string_view text(buffer.data(), static_cast<size_t>(done.ptr - buffer.data()));
  const size_t mark = text.find('e');
  int exponent = 0;
  const size_t digits_at = mark + (text[mark + 1] == '+' ? 2 : 1);
  std::from_chars(text.data() + digits_at, text.data() + text.size(), exponent);
  const bool negative = text[0] == '-';
  std::string digits;
  for (const char c : text.substr(0, mark)) {
    if (c >= '0' && c <= '9')
      digits.push_back(c);
  }
  std::string out = negative ? "-" : "";
  if (exponent < -4 || exponent >= 16) { // float_repr_style 'r': scientific outside 1e-4 .. 1e16
    out += digits[0];
    if (digits.size() > 1) {
      out += '.';
      out.append(digits, 1);
    }
    return out + fmt::format("e{}{:02d}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0)
    return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole)
    return out + digits + std::string(whole - digits.size(), '0') + ".0";
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

void append_repr(std::string& out, std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  out.push_back(quote);
  for_each(text, [&](size_t at, CodePoint cp) {
    const uint32_t value = cp.value;
    if (value == static_cast<uint8_t>(quote) || value == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(value));
    } else if (value == '\n') {
      out += "\\n";
    } else if (value == '\r') {
      out += "\\r";
    } else if (value == '\t') {
      out += "\\t";
    } else if (value >= 0x20 && value < 0x7F) {
      out.push_back(static_cast<char>(value));
    } else if (value >= 0x80 && printable(value)) {
      out += text.substr(at, cp.size_bytes);
    } else if (value < 0x100) {
      out += fmt::format("\\x{:02x}", value);
    } else if (value < 0x10000) {
      out += fmt::format("\\u{:04x}", value);
    } else {
      out += fmt::format("\\U{:08x}", value);
    }
  });
  out.push_back(quote);
}

std::string repr(std::string_view text) {
  std::string out;
  append_repr(out, text);
  return out;
}

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
    case '&':
      out += "&amp;";
      break;
    case '<':
      out += "&lt;";
      break;
    case '>':
      out += "&gt;";
      break;
    case '"':
      out += "&#34;";
      break;
    case '\'':
      out += "&#39;";
      break;
    default:
      out.push_back(c);
    }
  }
  return out;
}

std::optional<int64_t> parse_python_int(std::string_view text, int base) {
  text = strip(text, std::nullopt, Side::kBoth);
  bool negative = false;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  if (text.size() > 2 && text[0] == '0') {
    const char letter = static_cast<char>(text[1] | 0x20);
    const int prefix_base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (prefix_base != 0 && (base == 0 || base == prefix_base)) {
      base = prefix_base;
      text.remove_prefix(text[2] == '_' ? 3 : 2);
    }
  }
  if (base == 0)
    base = 10;
  if (base < 2 || base > 36)
    return std::nullopt;
  const auto digits = without_underscores(text);
  if (!digits || digits->empty() || (*digits)[0] == '-')
    return std::nullopt;
  const std::string signed_digits = (negative ? "-" : "") + *digits;
  int64_t value = 0;
  const char* end = signed_digits.data() + signed_digits.size();
  const auto done = std::from_chars(signed_digits.data(), end, value, base);
  if (done.ec != std::errc() || done.ptr != end)
    return std::nullopt;
  return value;
}

std::optional<double> parse_python_float(std::string_view text) {
  text = strip(text, std::nullopt, Side::kBoth);
  bool negative = false;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  const std::string word = to_lower(text);
  double value = 0;
  if (word == "inf" || word == "infinity") {
    value = INFINITY;
  } else if (word == "nan") {
    value = NAN;
  } else {
    const auto digits = without_underscores(text);
    if (!digits || digits->empty())
      return std::nullopt;
    if (std::isdigit(uint8_t((*digits)[0])) == 0 && (*digits)[0] != '.')
      return std::nullopt;
    const char* end = digits->data() + digits->size();
    const auto done = std::from_chars(digits->data(), end, value);
    if (done.ptr != end || done.ec == std::errc::invalid_argument)
      return std::nullopt;
    if (done.ec == std::errc::result_out_of_range)
      value = std::strtod(digits->c_str(), nullptr);
  }
  return negative ? -value : value;
}

} // namespace pinhole::jinja
