// Grammars for the tests: whether a text is one of a grammar's, a vocabulary of real tokens, and a
// validator of JSON Schema that shares nothing with the compiler.
#pragma once

#include "text/grammar/matcher.h"
#include "tokenizer_fixtures.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <regex>

namespace pinhole::testing {

inline Grammar must_compile(Result<Grammar> grammar) {
  if (!grammar)
    throw std::runtime_error(grammar.error().text());
  return std::move(*grammar);
}
inline Json parsed(const std::string& text) { return parse_json(text, "test").value(); }
inline Grammar schema_grammar(const std::string& schema) {
  return must_compile(Grammar::from_json_schema(parsed(schema)));
}
inline std::string problem(const Result<Grammar>& grammar) {
  return grammar ? std::string() : grammar.error().text();
}

// Byte by byte, without a vocabulary.
class Acceptor {
 public:
  explicit Acceptor(const Grammar& grammar)
      : machine_(grammar.program()), start_(machine_.start()) {}
  bool accepts(std::string_view text) {
    const auto state = run(text);
    return state != grammar::StateMachine::kDead && machine_.accepts(state);
  }
  bool begins(std::string_view text) { return run(text) != grammar::StateMachine::kDead; }

 private:
  grammar::StateMachine::State run(std::string_view text) {
    auto state = start_;
    for (size_t i = 0; i < text.size() && state != grammar::StateMachine::kDead; ++i)
      state = machine_.step(state, static_cast<uint8_t>(text[i]));
    return state;
  }
  grammar::StateMachine machine_;
  grammar::StateMachine::State start_;
};

inline const Tokenizer& bundled_tokenizer() {
  static const Tokenizer tokenizer = must(
      load_gguf(std::string(PINHOLE_SOURCE_DIR) + "/models/pinhole-mini/pinhole-mini-f16.gguf"));
  return tokenizer;
}

inline bool is_set(std::span<const uint64_t> mask, TokenId id) {
  const auto i = static_cast<size_t>(id);
  return i / 64 < mask.size() && ((mask[i / 64] >> (i % 64)) & 1) != 0;
}

// Characters of valid UTF-8.
inline int64_t length_of(const std::string& text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
}

// The specification, keyword by keyword.
inline bool valid(const Json& schema, const Json& value, const Json& root) {
  if (schema.is_boolean())
    return schema.get<bool>();
  const auto has = [&](const char* key) { return schema.contains(key); };
  const auto is_type = [&](const std::string& type) {
    return type == "null"      ? value.is_null()
           : type == "boolean" ? value.is_boolean()
           : type == "integer" ? value.is_number_integer()
           : type == "number"  ? value.is_number()
           : type == "string"  ? value.is_string()
           : type == "array"   ? value.is_array()
                               : value.is_object();
  };
  const auto count_valid = [&](const char* key) {
    return std::count_if(schema[key].begin(), schema[key].end(),
                         [&](const Json& one) { return valid(one, value, root); });
  };
  if (has("$ref")) {
    const std::string ref =
        std::regex_replace(schema["$ref"].get<std::string>().substr(1), std::regex("%25"), "%");
    if (!valid(root.at(Json::json_pointer(ref)), value, root))
      return false;
  }
  if (has("type")) {
    const Json types = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
    if (std::none_of(types.begin(), types.end(),
                     [&](const Json& type) { return is_type(type.get<std::string>()); }))
      return false;
  }
  if (has("const") && value != schema["const"])
    return false;
  if (has("enum") &&
      std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end())
    return false;
  if (has("anyOf") && count_valid("anyOf") == 0)
    return false;
  if (has("oneOf") && count_valid("oneOf") != 1)
    return false;
  if (has("allOf") && count_valid("allOf") != static_cast<std::ptrdiff_t>(schema["allOf"].size()))
    return false;
  if (value.is_number()) {
    const auto number = value.get<double>();
    if ((has("minimum") && number < schema["minimum"].get<double>()) ||
        (has("maximum") && number > schema["maximum"].get<double>()) ||
        (has("exclusiveMinimum") && number <= schema["exclusiveMinimum"].get<double>()) ||
        (has("exclusiveMaximum") && number >= schema["exclusiveMaximum"].get<double>()))
      return false;
  }
  if (value.is_string()) {
    const auto text = value.get<std::string>();
    if ((has("minLength") && length_of(text) < schema["minLength"].get<int64_t>()) ||
        (has("maxLength") && length_of(text) > schema["maxLength"].get<int64_t>()) ||
        (has("pattern") &&
         !std::regex_search(text, std::regex(schema["pattern"].get<std::string>()))))
      return false;
  }
  if (value.is_array()) {
    const size_t first = has("prefixItems") ? schema["prefixItems"].size() : 0;
    if ((has("minItems") && value.size() < schema["minItems"].get<size_t>()) ||
        (has("maxItems") && value.size() > schema["maxItems"].get<size_t>()))
      return false;
    for (size_t i = 0; i < value.size(); ++i) {
      if (i < first ? !valid(schema["prefixItems"][i], value[i], root)
                    : has("items") && !valid(schema["items"], value[i], root))
        return false;
    }
  }
  if (value.is_object()) {
    for (const auto& [name, member] : value.items()) {
      if (has("properties") && schema["properties"].contains(name)) {
        if (!valid(schema["properties"][name], member, root))
          return false;
      } else if (has("additionalProperties") &&
                 !valid(schema["additionalProperties"], member, root)) {
        return false;
      }
    }
    if (has("required")) {
      for (const Json& name : schema["required"]) {
        if (!value.contains(name.get<std::string>()))
          return false;
      }
    }
  }
  return true;
}

} // namespace pinhole::testing
