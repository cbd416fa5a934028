#include "serve/fields.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace pinhole::serve {

namespace {

tl::unexpected<ApiError> wrong(const std::string& name, const Json& value,
                               const std::string& expected) {
  return refuse(400, fmt::format("'{}' is {}, expected {}", name, shown(value), expected), name,
                "invalid_value");
}

} // namespace

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string shown(const Json& value) {
  if (value.is_object() || value.is_array())
    return value.is_object() ? "an object" : "a list";
  std::string text = dump(value);
  if (text.size() > 60) {
    size_t cut = 60;
    while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80)
      --cut;
    text = text.substr(0, cut) + "...";
  }
  return text;
}

ApiResult<Json> parse_body(std::string_view body) {
  if (body.empty())
    return refuse(400, "the body is empty, expected a JSON object");
  auto json = parse_json(body, "the body");
  if (!json)
    return tl::unexpected<ApiError>(to_api_error(json.error()));
  if (!json->is_object())
    return refuse(400, fmt::format("the body is {}, expected a JSON object", shown(*json)));
  return std::move(*json);
}

const Json* Fields::find(std::string_view key) {
  known_.emplace_back(key);
  return json_find(object_, key);
}

ApiResult<std::optional<int64_t>> Fields::integer(std::string_view key, int64_t low, int64_t high) {
  const Json* value = find(key);
  if (value == nullptr)
    return std::nullopt;
  const std::string expected = fmt::format("an integer from {} to {}", low, high);
  if (!value->is_number())
    return wrong(name(key), *value, expected);
  const double number = value->get<double>();
  const bool is_small = std::abs(number) < 9e18;
  if (!is_small || std::floor(number) != number)
    return wrong(name(key), *value, expected);
  const auto integer =
      value->is_number_float() ? static_cast<int64_t>(number) : value->get<int64_t>();
  if (integer < low || integer > high)
    return wrong(name(key), *value, expected);
  return integer;
}

ApiResult<std::optional<double>> Fields::number(std::string_view key, double low, double high) {
  const Json* value = find(key);
  if (value == nullptr)
    return std::nullopt;
  if (!value->is_number() || !(value->get<double>() >= low && value->get<double>() <= high))
    return wrong(name(key), *value, fmt::format("a number from {} to {}", low, high));
  return value->get<double>();
}

ApiResult<std::optional<bool>> Fields::boolean(std::string_view key) {
  const Json* value = find(key);
  if (value == nullptr)
    return std::nullopt;
  if (!value->is_boolean())
    return wrong(name(key), *value, "true or false");
  return value->get<bool>();
}

ApiResult<std::optional<std::string>> Fields::text(std::string_view key) {
  const Json* value = find(key);
  if (value == nullptr)
    return std::nullopt;
  if (!value->is_string())
    return wrong(name(key), *value, "a text");
  return value->get<std::string>();
}

ApiResult<std::string> Fields::required_text(std::string_view key) {
  PINHOLE_API(auto value, text(key));
  if (!value)
    return refuse(400, fmt::format("'{}' is missing", name(key)), name(key), "missing");
  return std::move(*value);
}

ApiResult<std::vector<std::string>> Fields::texts(std::string_view key, size_t max_count) {
  const Json* value = find(key);
  std::vector<std::string> out;
  if (value == nullptr)
    return out;
  if (value->is_string()) {
    out.push_back(value->get<std::string>());
    return out;
  }
  const bool all_texts =
      value->is_array() && std::all_of(value->begin(), value->end(),
                                       [](const Json& entry) { return entry.is_string(); });
  if (!all_texts)
    return wrong(name(key), *value, "a text or a list of texts");
  if (value->size() > max_count)
    return refuse(400,
                  fmt::format("'{}' has {} texts, at most {} are accepted", name(key),
                              value->size(), max_count),
                  name(key), "invalid_value");
  for (const Json& entry : *value)
    out.push_back(entry.get<std::string>());
  return out;
}

void Fields::ignore(std::initializer_list<std::string_view> keys) {
  known_.insert(known_.end(), keys.begin(), keys.end());
}

ApiResult<void> Fields::reject(std::string_view key, std::string_view why,
                               const std::vector<Json>& harmless) {
  const Json* value = find(key);
  if (value == nullptr || std::find(harmless.begin(), harmless.end(), *value) != harmless.end())
    return {};
  return refuse(400, fmt::format("'{}' is not supported: {}", name(key), why), name(key),
                "unsupported_parameter");
}

ApiResult<void> Fields::finish() const {
  for (const auto& [key, value] : object_.items()) {
    if (!value.is_null() && std::find(known_.begin(), known_.end(), key) == known_.end()) {
      const std::string shown_key = name(key).substr(0, 100);
      return refuse(400, fmt::format("'{}' is not known here", shown_key), shown_key,
                    "unknown_parameter");
    }
  }
  return {};
}

} // namespace pinhole::serve
