// The tojson filter: json.dumps as transformers calls it (ensure_ascii off by default).

#include "text/jinja_builtins.h"
#include "text/jinja_text.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace pinhole::jinja {

namespace {

constexpr int kMaxJsonDepth = 200;

class JsonWriter {
 public:
  explicit JsonWriter(Interpreter& in) : in_(in) {}

  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;
  std::string_view item_separator = ", ";
  std::string_view key_separator = ": ";
  std::string out;

  Done write(const Value& value, int depth = 0) {
    JINJA_CHECK(in_.step());
    JINJA_CHECK(in_.need(out.size()));
    if (depth > kMaxJsonDepth) {
      return in_.fail(fmt::format("tojson: a value is nested deeper than {} levels", kMaxJsonDepth),
                      ErrorCode::kTooLarge);
    }
    switch (value.kind()) {
    case Kind::kNone:
      out += "null";
      return {};
    case Kind::kBool:
      out += value.as_bool() ? "true" : "false";
      return {};
    case Kind::kInt:
      out += std::to_string(value.as_int());
      return {};
    case Kind::kFloat:
      out += number(value.as_double());
      return {};
    case Kind::kString:
      return write_string(value.text());
    case Kind::kSequence:
      if (!value.sequence().is_indexable())
        break;
      return write_list(value.sequence().items, depth);
    case Kind::kDict:
      return write_dict(value.dict(), depth);
    default:
      break;
    }
    return in_.fail(fmt::format("Object of type {} is not JSON serializable", type_name(value)));
  }

 private:
  static std::string number(double value) {
    if (std::isnan(value))
      return "NaN";
    if (std::isinf(value))
      return value < 0 ? "-Infinity" : "Infinity";
    return float_repr(value);
  }

  Done write_string(std::string_view text) {
    JINJA_CHECK(in_.need(out.size() + text.size()));
    out.push_back('"');
    for (size_t at = 0; at < text.size();) {
      const auto c = static_cast<uint8_t>(text[at]);
      if (c >= 0x80) {
        const CodePoint cp = code_point_at(text, at);
        if (ensure_ascii)
          escape_unicode(cp.value);
        else
          out += text.substr(at, cp.size_bytes);
        at += cp.size_bytes;
        continue;
      }
      switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\b':
        out += "\\b";
        break;
      default:
        if (c < 0x20 || (c == 0x7F && ensure_ascii))
          out += fmt::format("\\u{:04x}", c);
        else
          out.push_back(static_cast<char>(c));
      }
      ++at;
    }
    out.push_back('"');
    return {};
  }

  void escape_unicode(uint32_t code) {
    if (code < 0x10000) {
      out += fmt::format("\\u{:04x}", code);
    } else {
      code -= 0x10000;
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF));
    }
  }

  Done new_line(int depth) {
    if (!indent)
      return {};
    JINJA_CHECK(in_.need(out.size() + indent->size() * static_cast<size_t>(depth)));
    out.push_back('\n');
    for (int i = 0; i < depth; ++i)
      out += *indent;
    return {};
  }

  Done write_list(const std::vector<Value>& items, int depth) {
    out.push_back('[');
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0)
        out += item_separator;
      JINJA_CHECK(new_line(depth + 1));
      JINJA_CHECK(write(items[i], depth + 1));
    }
    if (!items.empty())
      JINJA_CHECK(new_line(depth));
    out.push_back(']');
    return {};
  }

  Done write_key(const Value& key) {
    switch (key.kind()) {
    case Kind::kString:
      return write_string(key.text());
    case Kind::kNone:
      out += "\"null\"";
      return {};
    case Kind::kBool:
      out += key.as_bool() ? "\"true\"" : "\"false\"";
      return {};
    case Kind::kInt:
      out += fmt::format("\"{}\"", key.as_int());
      return {};
    case Kind::kFloat:
      out += fmt::format("\"{}\"", number(key.as_double()));
      return {};
    default:
      return in_.fail(
          fmt::format("keys must be str, int, float, bool or None, not {}", type_name(key)));
    }
  }

  Done write_dict(const Dict& dict, int depth) {
    std::vector<std::pair<Value, Value>> sorted;
    if (sort_keys) {
      sorted = dict.entries;
      bool good = true;
      std::stable_sort(sorted.begin(), sorted.end(), [&](const auto& left, const auto& right) {
        if (!good)
          return false;
        const auto less = in_.compare(Operator::kLess, left.first, right.first);
        good = static_cast<bool>(less);
        return good && *less;
      });
      if (!good)
        return failed();
    }
    const auto& entries = sort_keys ? sorted : dict.entries;
    out.push_back('{');
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0)
        out += item_separator;
      JINJA_CHECK(new_line(depth + 1));
      JINJA_CHECK(write_key(entries[i].first));
      out += key_separator;
      JINJA_CHECK(write(entries[i].second, depth + 1));
    }
    if (!entries.empty())
      JINJA_CHECK(new_line(depth));
    out.push_back('}');
    return {};
  }

  Interpreter& in_;
};

} // namespace

Outcome<Value> to_json(Interpreter& in, const Value& self, Arguments& arguments) {
  JINJA_TRY(const auto args, (bind<4>(in, "tojson", arguments,
                                      {"ensure_ascii", "indent", "separators", "sort_keys"})));
  JsonWriter writer(in);
  writer.ensure_ascii = bool_or(args[0], false);
  writer.sort_keys = bool_or(args[3], false);
  if (is_given(args[1])) {
    writer.item_separator = ",";
    if (args[1]->is_string()) {
      writer.indent = std::string(args[1]->text());
    } else {
      JINJA_TRY(const int64_t width, int_or(in, args[1], 0));
      JINJA_CHECK(in.need(static_cast<uint64_t>(std::max<int64_t>(width, 0))));
      writer.indent = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
  }
  if (is_given(args[2])) {
    JINJA_TRY(const std::vector<Value> separators, in.iterate(*args[2]));
    if (separators.size() != 2)
      return in.fail("tojson: separators must be a pair of strings");
    JINJA_TRY(writer.item_separator, string_argument(in, "tojson", separators[0]));
    JINJA_TRY(writer.key_separator, string_argument(in, "tojson", separators[1]));
  }
  JINJA_CHECK(writer.write(self));
  return in.string(std::move(writer.out));
}

} // namespace pinhole::jinja
