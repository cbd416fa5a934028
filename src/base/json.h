// JSON of untrusted origin: parsed without exceptions, bounded in depth, order kept.
#pragma once

#include "base/result.h"

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace pinhole {

using Json = nlohmann::ordered_json;

// Parses `text`; nesting deeper than 128 is an error. `where` names the file in errors.
Result<Json> parse_json(std::string_view text, const std::string& where);

// Reads and parses a file of at most `max_bytes`.
Result<Json> read_json_file(const std::string& path, uint64_t max_bytes = 64u << 20);

// Typed look-ups: an error says which key, what was found and what was expected.
Result<int64_t> json_int(const Json& object, std::string_view key, const std::string& where);
Result<double> json_double(const Json& object, std::string_view key, const std::string& where);
Result<std::string> json_string(const Json& object, std::string_view key, const std::string& where);

// The same with a default for a key that is absent or null; a wrong type is still an error.
Result<int64_t> json_int_or(const Json& object, std::string_view key, int64_t fallback,
                            const std::string& where);
Result<double> json_double_or(const Json& object, std::string_view key, double fallback,
                              const std::string& where);
Result<bool> json_bool_or(const Json& object, std::string_view key, bool fallback,
                          const std::string& where);

// The member `key` when object is an object that has it and it is not null, else nullptr.
const Json* json_find(const Json& object, std::string_view key);

} // namespace pinhole
