#include "text/jinja_lexer.h"

#include "text/jinja_text.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

constexpr std::array<std::string_view, 7> kLongOperators = {"//", "**", "==", "!=", ">=", "<=", ""};
constexpr std::string_view kOperatorChars = "+-/*%~[](){}<>=.:|,;";

class Lexer {
 public:
  explicit Lexer(Ast& ast) : ast_(ast), source_(ast.source) {}

  Result<std::vector<Token>> run() {
    while (pos_ < source_.size()) {
      const size_t tag = find_tag(pos_);
      if (tag == std::string_view::npos) {
        add_text(source_.substr(pos_));
        break;
      }
      switch (source_[tag + 1]) {
      case '{':
        PINHOLE_CHECK(variable(tag));
        break;
      case '#':
        PINHOLE_CHECK(comment(tag));
        break;
      default:
        PINHOLE_CHECK(block(tag));
        break;
      }
    }
    add({TokenKind::kEnd, static_cast<Position>(source_.size())});
    return std::move(tokens_);
  }

 private:
  tl::unexpected<Error> fail(size_t at, std::string message,
                             ErrorCode code = ErrorCode::kInvalidInput) const {
    return pinhole::fail(code, std::move(message),
                         describe_position(ast_, static_cast<Position>(at)));
  }

  void add(const Token& token) { tokens_.push_back(token); }

  size_t find_tag(size_t from) const {
    for (size_t at = source_.find('{', from); at != std::string_view::npos;
         at = source_.find('{', at + 1)) {
      if (at + 1 >= source_.size())
        return std::string_view::npos;
      const char c = source_[at + 1];
      if (c == '{' || c == '%' || c == '#')
        return at;
    }
    return std::string_view::npos;
  }

  void add_text(std::string_view text) {
    if (!text.empty()) {
      const auto at = static_cast<Position>(text.data() - source_.data());
      add({TokenKind::kText, at, text});
    }
  }

  char sign_after(size_t at) const {
    return at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : '\0';
  }

  // Text from pos_ up to the tag, less what the tag's sign or lstrip_blocks takes away.
  void add_text_before(size_t tag, char sign, bool is_block) {
    std::string_view text = source_.substr(pos_, tag - pos_);
    if (sign == '-') {
      text = strip(text, std::nullopt, Side::kRight);
    } else if (sign != '+' && is_block) {
      const size_t line_end = text.rfind('\n');
      const size_t line = line_end == std::string_view::npos ? 0 : line_end + 1;
      if ((line > 0 || line_starting_) &&
          strip(text.substr(line), std::nullopt, Side::kLeft).empty()) {
        text = text.substr(0, line);
      }
    }
    add_text(text);
  }

  size_t skip_space(size_t at) const {
    while (at < source_.size()) {
      const CodePoint cp = code_point_at(source_, at);
      if (!is_space(cp.value))
        break;
      at += cp.size_bytes;
    }
    return at;
  }

  bool starts_with(size_t at, std::string_view text) const {
    return source_.substr(at, text.size()) == text;
  }

  // The end of a tag at `at` ("-%}", "+%}", "%}"), as the offset behind it and the white space that
  // it takes along; npos when there is none. Variables have no '+' form and keep their line end.
  size_t match_end(size_t at, std::string_view close, bool is_block) const {
    if (starts_with(at, close)) {
      at += close.size();
      return is_block && at < source_.size() && source_[at] == '\n' ? at + 1 : at;
    }
    const char sign = sign_after(at);
    if (sign == '\0' || !starts_with(at + 1, close))
      return std::string_view::npos;
    if (sign == '-')
      return skip_space(at + 1 + close.size());
    return is_block ? at + 1 + close.size() : std::string_view::npos;
  }

  void go_to(size_t pos) {
    line_starting_ = pos > 0 && source_[pos - 1] == '\n';
    pos_ = pos;
  }

  Status comment(size_t tag) {
    const char sign = sign_after(tag + 2);
    add_text_before(tag, sign, true);
    const size_t close = source_.find("#}", tag + 2 + (sign != '\0' ? 1 : 0));
    if (close == std::string_view::npos)
      return fail(tag, "the comment has no end: expected '#}'");
    const bool has_sign = close > tag + 2 && sign_after(close - 1) != '\0' &&
                          close - 1 >= tag + 2 + (sign != '\0' ? 1 : 0);
    go_to(match_end(has_sign ? close - 1 : close, "#}", true));
    return {};
  }

  // "{% raw %}": the offset behind it, or npos when the block is another one.
  size_t match_raw(size_t tag, char sign) const {
    size_t at = skip_space(tag + 2 + (sign != '\0' ? 1 : 0));
    if (!starts_with(at, "raw"))
      return std::string_view::npos;
    at = skip_space(at + 3);
    if (starts_with(at, "-%}"))
      return skip_space(at + 3);
    return starts_with(at, "%}") ? at + 2 : std::string_view::npos;
  }

  Status raw(size_t tag, size_t body) {
    go_to(body);
    for (size_t end = source_.find("{%", body); end != std::string_view::npos;
         end = source_.find("{%", end + 1)) {
      const char sign = sign_after(end + 2);
      size_t at = skip_space(end + 2 + (sign != '\0' ? 1 : 0));
      if (!starts_with(at, "endraw"))
        continue;
      at = match_end(skip_space(at + 6), "%}", true);
      if (at == std::string_view::npos)
        continue;
      add_text_before(end, sign, true);
      go_to(at);
      return {};
    }
    return fail(tag, "the raw block has no end: expected '{% endraw %}'");
  }

  Status block(size_t tag) {
    const char sign = sign_after(tag + 2);
    add_text_before(tag, sign, true);
    const size_t raw_body = match_raw(tag, sign);
    if (raw_body != std::string_view::npos)
      return raw(tag, raw_body);
    add({TokenKind::kBlockBegin, static_cast<Position>(tag)});
    return inside(tag, tag + 2 + (sign != '\0' ? 1 : 0), "%}", true);
  }

  Status variable(size_t tag) {
    const char sign = sign_after(tag + 2);
    add_text_before(tag, sign, false);
    add({TokenKind::kVariableBegin, static_cast<Position>(tag)});
    return inside(tag, tag + 2 + (sign != '\0' ? 1 : 0), "}}", false);
  }

  // The tokens of a tag, up to its end. Brackets must pair, and an end inside them is none.
  Status inside(size_t tag, size_t at, std::string_view close, bool is_block) {
    std::string brackets; // closing brackets that are due
    while (true) {
      at = skip_space(at);
      if (at >= source_.size()) {
        return fail(tag, fmt::format("the tag has no end: expected '{}'", close));
      }
      if (brackets.empty()) {
        const size_t end = match_end(at, close, is_block);
        if (end != std::string_view::npos) {
          add({is_block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd,
               static_cast<Position>(at)});
          go_to(end);
          return {};
        }
      }
      const CodePoint cp = code_point_at(source_, at);
      if (cp.value >= '0' && cp.value <= '9') {
        PINHOLE_TRY(at, number(at));
      } else if (is_word(cp.value)) {
        PINHOLE_TRY(at, name(at));
      } else if (cp.value == '\'' || cp.value == '"') {
        PINHOLE_TRY(at, string(at));
      } else {
        PINHOLE_TRY(at, operator_at(at, brackets));
      }
    }
  }

  Result<size_t> operator_at(size_t at, std::string& brackets) {
    size_t size = 0;
    for (const std::string_view op : kLongOperators) {
      if (!op.empty() && starts_with(at, op))
        size = 2;
    }
    const char c = source_[at];
    if (size == 0 && kOperatorChars.find(c) != std::string_view::npos)
      size = 1;
    if (size == 0) {
      const CodePoint cp = code_point_at(source_, at);
      return fail(at,
                  fmt::format("unexpected character {}", repr(source_.substr(at, cp.size_bytes))));
    }
    if (size == 1) {
      if (c == '(')
        brackets.push_back(')');
      if (c == '[')
        brackets.push_back(']');
      if (c == '{')
        brackets.push_back('}');
      if (c == ')' || c == ']' || c == '}') {
        if (brackets.empty())
          return fail(at, fmt::format("unexpected '{}'", c));
        if (brackets.back() != c) {
          return fail(at, fmt::format("unexpected '{}', expected '{}'", c, brackets.back()));
        }
        brackets.pop_back();
      }
    }
    add({TokenKind::kOperator, static_cast<Position>(at), source_.substr(at, size)});
    return at + size;
  }

  Result<size_t> name(size_t at) {
    size_t end = at;
    while (end < source_.size()) {
      const CodePoint cp = code_point_at(source_, end);
      if (!is_word(cp.value))
        break;
      end += cp.size_bytes;
    }
    const std::string_view text = source_.substr(at, end - at);
    if (!is_identifier(text))
      return fail(at, fmt::format("'{}' is not a valid name", text));
    add({TokenKind::kName, static_cast<Position>(at), text});
    return end;
  }

  bool digit_at(size_t at) const {
    return at < source_.size() && source_[at] >= '0' && source_[at] <= '9';
  }

  // Digits with single underscores between them: the offset behind, or `at` when there are none.
  size_t skip_digits(size_t at) const {
    while (digit_at(at))
      at += at + 1 < source_.size() && source_[at + 1] == '_' && digit_at(at + 2) ? 2 : 1;
    return at;
  }

  Result<size_t> number(size_t at) {
    const auto position = static_cast<Position>(at);
    size_t end = skip_digits(at);
    bool is_float = false;
    const bool after_dot = at > 0 && source_[at - 1] == '.';
    if (!after_dot && end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
      end = skip_digits(end + 1);
      is_float = true;
    }
    if (!after_dot && end < source_.size() && (source_[end] | 0x20) == 'e') {
      const size_t exponent = end + 1 + (sign_after(end + 1) != '\0' ? 1 : 0);
      if (digit_at(exponent)) {
        end = skip_digits(exponent);
        is_float = true;
      }
    }
    if (is_float) {
      const auto value = parse_python_float(source_.substr(at, end - at));
      if (!value)
        return fail(at, "not a valid number");
      add({TokenKind::kFloat, position, {}, 0, *value});
      return end;
    }
    int base = 10;
    if (source_[at] == '0' && at + 2 < source_.size()) {
      const char letter = static_cast<char>(source_[at + 1] | 0x20);
      base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
      if (base != 10) {
        end = at + 2;
        while (end < source_.size() &&
               (std::isxdigit(uint8_t(source_[end])) != 0 || source_[end] == '_')) {
          ++end;
        }
      }
    }
    const std::string_view text = source_.substr(at, end - at);
    const auto value = parse_python_int(text, base);
    if (!value) {
      return fail(at, fmt::format("{} is not an integer of 64 bits", text), ErrorCode::kTooLarge);
    }
    add({TokenKind::kInteger, position, text, *value});
    return end;
  }

  Result<size_t> string(size_t at) {
    const char quote = source_[at];
    size_t end = at + 1;
    bool escaped = false;
    while (end < source_.size() && source_[end] != quote) {
      if (source_[end] == '\\') {
        escaped = true;
        ++end;
      }
      ++end;
    }
    if (end >= source_.size())
      return fail(at, fmt::format("the string has no end: expected {}", quote));
    std::string_view value = source_.substr(at + 1, end - at - 1);
    if (escaped) {
      PINHOLE_TRY(std::string decoded, unescape(value, at + 1));
      value = ast_.strings.emplace_back(std::move(decoded));
    }
    add({TokenKind::kString, static_cast<Position>(at), value});
    return end + 1;
  }

  // Python's unicode-escape; an unknown escape stays as it is.
  Result<std::string> unescape(std::string_view text, size_t offset) const {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\') {
        out.push_back(text[i]);
        continue;
      }
      const char c = text[++i];
      switch (c) {
      case '\n':
        break;
      case 'n':
        out.push_back('\n');
        break;
      case 't':
        out.push_back('\t');
        break;
      case 'r':
        out.push_back('\r');
        break;
      case 'a':
        out.push_back('\a');
        break;
      case 'b':
        out.push_back('\b');
        break;
      case 'f':
        out.push_back('\f');
        break;
      case 'v':
        out.push_back('\v');
        break;
      case '\\':
      case '\'':
      case '"':
        out.push_back(c);
        break;
      case 'x':
      case 'u':
      case 'U': {
        const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        const auto value = hex(text, i + 1, digits);
        if (!value || *value > 0x10FFFF) {
          return fail(offset + i - 1,
                      fmt::format("'\\{}' needs {} hexadecimal digits of a character", c, digits));
        }
        i += digits;
        uint32_t code = *value;
        if (code >= 0xD800 && code <= 0xDBFF && i + 6 < text.size() && text[i + 1] == '\\' &&
            text[i + 2] == 'u') { // a pair of surrogates stands for one character
          const auto low = hex(text, i + 3, 4);
          if (low && *low >= 0xDC00 && *low <= 0xDFFF) {
            code = 0x10000 + ((code - 0xD800) << 10) + (*low - 0xDC00);
            i += 6;
          }
        }
        if (code >= 0xD800 && code <= 0xDFFF) {
          return fail(offset + i, "a lone surrogate is not a character");
        }
        append_code_point(out, code);
        break;
      }
      case 'N':
        return fail(offset + i - 1, "character names (\\N{...}) are not supported",
                    ErrorCode::kUnsupported);
      default:
        if (c >= '0' && c <= '7') {
          uint32_t value = 0;
          const size_t last = i + 3;
          for (; i < last && i < text.size() && text[i] >= '0' && text[i] <= '7'; ++i) {
            value = value * 8 + static_cast<uint32_t>(text[i] - '0');
          }
          --i;
          append_code_point(out, value);
        } else {
          out.push_back('\\');
          out.push_back(c);
        }
      }
    }
    return out;
  }

  static std::optional<uint32_t> hex(std::string_view text, size_t at, size_t digits) {
    if (at + digits > text.size())
      return std::nullopt;
    uint32_t value = 0;
    const char* end = text.data() + at + digits;
    const auto done = std::from_chars(text.data() + at, end, value, 16);
    if (done.ec != std::errc() || done.ptr != end)
      return std::nullopt;
    return value;
  }

  Ast& ast_;
  std::string_view source_;
  std::vector<Token> tokens_;
  size_t pos_ = 0;
  bool line_starting_ = true; // the tag before pos_ ended with a line end
};

} // namespace

std::string normalize_source(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n')
        ++i;
      out.push_back('\n');
    } else {
      out.push_back(source[i]);
    }
  }
  if (!out.empty() && out.back() == '\n')
    out.pop_back();
  return out;
}

Result<std::vector<Token>> tokenize(Ast& ast) { return Lexer(ast).run(); }

std::string describe_position(const Ast& ast, Position at) {
  const std::string_view before = std::string_view(ast.source).substr(0, at);
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const size_t line_end = before.rfind('\n');
  const auto column =
      count_code_points(line_end == std::string_view::npos ? before : before.substr(line_end + 1));
  return fmt::format("{}, line {}, column {}", ast.where, line, column + 1);
}

} // namespace pinhole::jinja
