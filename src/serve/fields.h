// The members of a request's JSON object: typed, bounded, and none overlooked.
#pragma once

#include "base/json.h"
#include "serve/api_error.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole::serve {

class Fields {
 public:
  // `object` outlives this. `prefix` stands before names in errors, as in "options.".
  explicit Fields(const Json& object, std::string prefix = {})
      : object_(object), prefix_(std::move(prefix)) {}

  // A member that is there and not null. Asking makes it known.
  const Json* find(std::string_view key);
  // Nothing when it is not there; a wrong type or a value outside of [low, high] is an error.
  ApiResult<std::optional<int64_t>> integer(std::string_view key, int64_t low, int64_t high);
  ApiResult<std::optional<double>> number(std::string_view key, double low, double high);
  ApiResult<std::optional<bool>> boolean(std::string_view key);
  ApiResult<std::optional<std::string>> text(std::string_view key);
  ApiResult<std::string> required_text(std::string_view key);
  // A text, or a list of them.
  ApiResult<std::vector<std::string>> texts(std::string_view key, size_t max_count);

  // Members that change nothing here.
  void ignore(std::initializer_list<std::string_view> keys);
  // Members that say something that is not done here: an error when they are there, unless they
  // have the value that means nothing.
  ApiResult<void> reject(std::string_view key, std::string_view why,
                         const std::vector<Json>& harmless = {});
  // An error that names the members that nobody asked for.
  ApiResult<void> finish() const;

  std::string name(std::string_view key) const { return prefix_ + std::string(key); }

 private:
  const Json& object_;
  std::string prefix_;
  std::vector<std::string> known_;
};

// The request's body as an object.
ApiResult<Json> parse_body(std::string_view body);
// As it appears in errors, cut to a few characters.
std::string shown(const Json& value);
std::string dump(const Json& value);

} // namespace pinhole::serve
