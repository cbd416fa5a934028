#include "base/json.h"

#include "base/mapped_file.h"

#include <cmath>
#include <fmt/format.h>

namespace pinhole {

namespace {

constexpr int kMaxDepth = 128;

// Depth of nesting outside strings, before the recursive parser sees the text.
bool deeper_than(std::string_view text, int max_depth) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > max_depth)
        return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

tl::unexpected<Error> wrong_type(std::string_view key, const Json& value, const char* expected,
                                 const std::string& where) {
  std::string shown = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (shown.size() > 60)
    shown = shown.substr(0, 60) + "…";
  return fail(ErrorCode::kInvalidInput,
              fmt::format("'{}' is {}, expected {}", key, shown, expected), where);
}

Result<const Json*> required(const Json& object, std::string_view key, const std::string& where) {
  const Json* value = json_find(object, key);
  if (value == nullptr) {
    return fail(ErrorCode::kNotFound, fmt::format("key '{}' is missing", key), where);
  }
  return value;
}

Result<int64_t> to_int(const Json& value, std::string_view key, const std::string& where) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) {
    return wrong_type(key, value, "a 64-bit integer", where);
  }
  if (value.is_number_integer())
    return value.get<int64_t>();
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (std::floor(number) == number && std::abs(number) < 9e15) {
      return static_cast<int64_t>(number);
    }
  }
  return wrong_type(key, value, "an integer", where);
}

} // namespace

Result<Json> parse_json(std::string_view text, const std::string& where) {
  if (deeper_than(text, kMaxDepth)) {
    return fail(ErrorCode::kInvalidInput, fmt::format("JSON nested deeper than {}", kMaxDepth),
                where);
  }
  try { // the parser's own message has the line and column, so it is worth an exception
    return Json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorCode::kInvalidInput, fmt::format("not valid JSON: {}", error.what()), where);
  }
}

Result<Json> read_json_file(const std::string& path, uint64_t max_bytes) {
  PINHOLE_TRY(const std::string text, read_text_file(path, max_bytes));
  return parse_json(text, path);
}

const Json* json_find(const Json& object, std::string_view key) {
  if (!object.is_object())
    return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

Result<int64_t> json_int(const Json& object, std::string_view key, const std::string& where) {
  PINHOLE_TRY(const Json* value, required(object, key, where));
  return to_int(*value, key, where);
}

Result<double> json_double(const Json& object, std::string_view key, const std::string& where) {
  PINHOLE_TRY(const Json* value, required(object, key, where));
  if (!value->is_number())
    return wrong_type(key, *value, "a number", where);
  return value->get<double>();
}

Result<std::string> json_string(const Json& object, std::string_view key,
                                const std::string& where) {
  PINHOLE_TRY(const Json* value, required(object, key, where));
  if (!value->is_string())
    return wrong_type(key, *value, "a string", where);
  return value->get<std::string>();
}

Result<int64_t> json_int_or(const Json& object, std::string_view key, int64_t fallback,
                            const std::string& where) {
  const Json* value = json_find(object, key);
  if (value == nullptr)
    return fallback;
  return to_int(*value, key, where);
}

Result<double> json_double_or(const Json& object, std::string_view key, double fallback,
                              const std::string& where) {
  const Json* value = json_find(object, key);
  if (value == nullptr)
    return fallback;
  if (!value->is_number())
    return wrong_type(key, *value, "a number", where);
  return value->get<double>();
}

Result<bool> json_bool_or(const Json& object, std::string_view key, bool fallback,
                          const std::string& where) {
  const Json* value = json_find(object, key);
  if (value == nullptr)
    return fallback;
  if (!value->is_boolean())
    return wrong_type(key, *value, "true or false", where);
  return value->get<bool>();
}

} // namespace pinhole
