#include "swap/toml_node.h"

#include "file/printable.h"

#include <algorithm>
#include <fmt/format.h>

// toml++ 3.3 asserts what some texts do not keep ("[!"), and without assertions takes it for
// granted. Here an assertion that fails ends the parsing, in every kind of build.
namespace {
struct TomlAssertion {};
} // namespace
#undef NDEBUG
#define TOML_ASSERT(expression)                                                                    \
  do {                                                                                             \
    if (!(expression))                                                                             \
      throw TomlAssertion{};                                                                       \
  } while (false)
#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#define TOML_MAX_NESTED_VALUES 16
#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wterminate" // in accessors, which are called as they must be
#endif
#include <toml++/toml.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

namespace pinhole {

namespace {

// toml++ 3.3 does not bound the parts of a dotted key, and frees its tables recursively. A key has
// one line: 16 nested values of keys with 129 parts are 2064 levels.
constexpr int kMaxDotsPerLine = 128;

Status check_dots(std::string_view text, const std::string& file) {
  int line = 1, dots = 0;
  for (const char c : text) {
    dots += c == '.';
    if (dots > kMaxDotsPerLine) {
      return fail(ErrorCode::kTooLarge,
                  fmt::format("more than {} dots in one line, expected a key of a few parts",
                              kMaxDotsPerLine),
                  fmt::format("{}, line {}", file, line));
    }
    if (c == '\n') {
      ++line;
      dots = 0;
    }
  }
  return {};
}

// toml++ 3.3 does not expect other than ASCII outside strings and comments, or where a string goes
// on after a backslash at the end of a line; nor does TOML in the first case.
Status check_ascii(std::string_view text, const std::string& file) {
  char quote = 0; // of the string that is open
  bool is_long = false, in_comment = false, is_continued = false;
  int line = 1;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool is_space = c == ' ' || c == '\t' || c == '\r' || c == '\n';
    if (static_cast<unsigned char>(c) >= 0x80 && !in_comment && (quote == 0 || is_continued)) {
      return fail(ErrorCode::kInvalidInput,
                  "not TOML: a character that is not ASCII, expected those only in strings and "
                  "comments",
                  fmt::format("{}, line {}", file, line));
    }
    is_continued = is_continued && is_space;
    const std::string tripled(3, quote != 0 ? quote : c);
    if (c == '\n') {
      ++line;
      in_comment = false;
      quote = is_long ? quote : 0;
    } else if (in_comment) {
      continue;
    } else if (quote == 0) {
      in_comment = c == '#';
      if (c == '"' || c == '\'') {
        quote = c;
        is_long = text.substr(i, 3) == tripled;
        i += is_long ? 2 : 0;
      }
    } else if (c == '\\' && quote == '"') {
      const char next = i + 1 < text.size() ? text[i + 1] : ' ';
      is_continued = next == ' ' || next == '\t' || next == '\r' || next == '\n';
      i += is_continued ? 0 : 1;
    } else if (c == quote && (!is_long || text.substr(i, 3) == tripled)) {
      i += is_long ? 2 : 0;
      for (int more = 0; is_long && more < 2 && i + 1 < text.size() && text[i + 1] == quote; ++more)
        ++i;
      quote = 0;
      is_long = false;
    }
  }
  return {};
}

TomlNode converted(const toml::node& node) {
  TomlNode out;
  out.line = static_cast<int>(node.source().begin.line);
  if (const toml::table* table = node.as_table()) {
    for (const auto& [key, value] : *table)
      out.members.push_back({std::string(key.str()), converted(value)});
  } else if (const toml::array* array = node.as_array()) {
    out.kind = TomlNode::Kind::kArray;
    for (const toml::node& item : *array)
      out.items.push_back(converted(item));
  } else if (const auto* text = node.as_string()) {
    out.kind = TomlNode::Kind::kText;
    out.text = text->get();
  } else if (const auto* integer = node.as_integer()) {
    out.kind = TomlNode::Kind::kInteger;
    out.integer = integer->get();
  } else if (const auto* number = node.as_floating_point()) {
    out.kind = TomlNode::Kind::kFloat;
    out.number = number->get();
  } else if (const auto* boolean = node.as_boolean()) {
    out.kind = TomlNode::Kind::kBool;
    out.boolean = boolean->get();
  } else {
    out.kind = TomlNode::Kind::kTime;
  }
  return out;
}

} // namespace

const TomlNode* TomlNode::find(std::string_view key) const {
  for (const auto& [name, node] : members) {
    if (name == key)
      return &node;
  }
  return nullptr;
}

std::string TomlNode::shown() const {
  switch (kind) {
  case Kind::kTable:
    return "a table";
  case Kind::kArray:
    return "a list";
  case Kind::kText:
    return printable(text);
  case Kind::kInteger:
    return std::to_string(integer);
  case Kind::kFloat:
    return fmt::format("{}", number);
  case Kind::kBool:
    return boolean ? "true" : "false";
  case Kind::kTime:
    break;
  }
  return "a date or time";
}

Result<TomlNode> parse_toml(std::string_view text, const std::string& file) {
  if (text.size() > kMaxTomlBytes) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("{} bytes, expected at most {}", text.size(), kMaxTomlBytes), file);
  }
  PINHOLE_CHECK(check_dots(text, file));
  PINHOLE_CHECK(check_ascii(text, file));
  try {
    const toml::parse_result parsed = toml::parse(text);
    if (parsed)
      return converted(parsed.table());
    const toml::parse_error& error = parsed.error();
    return fail(ErrorCode::kInvalidInput,
                fmt::format("not TOML: {}", printable(error.description(), 300)),
                fmt::format("{}, line {}, column {}", file, error.source().begin.line,
                            error.source().begin.column));
  } catch (const TomlAssertion&) {
    return fail(ErrorCode::kInvalidInput, "not TOML: a key is missing, or is no key", file);
  }
}

} // namespace pinhole
