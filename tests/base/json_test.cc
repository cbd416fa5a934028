// JSON of untrusted origin: bounded depth, errors that name the place, the key, what stood there
// and what was expected.
#include "base/json.h"

#include "support/temp_dir.h"

#include <gmock/gmock.h>

namespace pinhole {
namespace {

using ::testing::HasSubstr;

Json parsed(std::string_view text) {
  auto json = parse_json(text, "test.json");
  EXPECT_TRUE(json) << (json ? "" : json.error().text());
  return json ? *json : Json();
}

std::string repeated(std::string_view text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i)
    out += text;
  return out;
}

TEST(Json, NestingIsBounded) {
  EXPECT_TRUE(parse_json(repeated("[", 128) + repeated("]", 128), "deep"));
  for (const auto& [open, close] : {std::pair("[", "]"), std::pair("{\"a\":", "}")}) {
    for (const size_t depth : {size_t{129}, size_t{100'000}, size_t{3'000'000}}) {
      const auto json = parse_json(repeated(open, depth) + "1" + repeated(close, depth), "deep");
      ASSERT_FALSE(json);
      EXPECT_EQ(json.error().code, ErrorCode::kInvalidInput);
      EXPECT_THAT(json.error().text(), HasSubstr("128"));
      EXPECT_THAT(json.error().text(), HasSubstr("deep"));
    }
  }
  // Never closed, and closed more often than opened.
  EXPECT_FALSE(parse_json(repeated("[", 100'000), "deep"));
  EXPECT_FALSE(parse_json(repeated("]", 100) + repeated("[", 200), "deep"));
}

TEST(Json, BracketsInsideStringsAreNoDepth) {
  const std::string brackets = repeated("[{", 500);
  EXPECT_EQ(parsed("\"" + brackets + "\\\"" + brackets + "\""), brackets + "\"" + brackets);
}

TEST(Json, BrokenTextNamesFileAndPlace) {
  for (const char* text : {"", "{", "{\"a\":}", "[1,]", "{\"a\" 1}", "\"open", "nul", "1 2",
                           "{\"a\":1}}", "\"\\ud800\"", "\"\xff\"", "01", "+1", "NaN", "'a'"}) {
    const auto json = parse_json(text, "conf/config.json");
    ASSERT_FALSE(json) << text;
    EXPECT_THAT(json.error().text(), HasSubstr("conf/config.json")) << text;
    EXPECT_THAT(json.error().text(), HasSubstr("column")) << text;
  }
}

TEST(Json, KeepsOrderAndTheLastOfDuplicates) {
  // As Python's json module, which the reference implementations read with.
  const Json json = parsed(R"({"z": 1, "a": 2, "m": 3, "a": 4})");
  EXPECT_EQ(json.dump(), R"({"z":1,"a":4,"m":3})");
}

TEST(Json, IntegersAreRead) {
  const Json json = parsed(R"({"a": 7, "b": -3, "c": 2.0, "d": 1e3, "e": 9223372036854775807,
                               "f": -9223372036854775808, "g": -0.0})");
  const auto get = [&](const char* key) { return json_int(json, key, "w").value(); };
  EXPECT_EQ(get("a"), 7);
  EXPECT_EQ(get("b"), -3);
  EXPECT_EQ(get("c"), 2);
  EXPECT_EQ(get("d"), 1000);
  EXPECT_EQ(get("e"), INT64_MAX);
  EXPECT_EQ(get("f"), INT64_MIN);
  EXPECT_EQ(get("g"), 0);
}

TEST(Json, WrongTypesAreNamed) {
  const Json json = parsed(R"({"s": "twelve", "f": 2.5, "b": true, "l": [1], "o": {"k": 1},
                               "big": 9223372036854775808, "huge": 1e300, "n": null, "i": 5})");
  const auto expect_int_error = [&](const char* key, const char* found) {
    const auto value = json_int(json, key, "config.json");
    ASSERT_FALSE(value) << key;
    EXPECT_EQ(value.error().code, ErrorCode::kInvalidInput) << key;
    EXPECT_THAT(value.error().text(), HasSubstr("config.json")) << key;
    EXPECT_THAT(value.error().text(), HasSubstr(std::string("'") + key + "'"));
    EXPECT_THAT(value.error().text(), HasSubstr(found));
    EXPECT_THAT(value.error().text(), HasSubstr("integer"));
    EXPECT_FALSE(json_int_or(json, key, 1, "config.json")) << key;
  };
  expect_int_error("s", "twelve");
  expect_int_error("f", "2.5");
  expect_int_error("b", "true");
  expect_int_error("l", "[1]");
  expect_int_error("o", "{\"k\":1}");
  expect_int_error("big", "9223372036854775808");
  expect_int_error("huge", "1e+300");

  for (const char* key : {"s", "b", "l", "o"}) {
    EXPECT_FALSE(json_double(json, key, "w")) << key;
    EXPECT_FALSE(json_double_or(json, key, 1, "w")) << key;
  }
  for (const char* key : {"f", "b", "l", "o", "i"})
    EXPECT_FALSE(json_string(json, key, "w")) << key;
  for (const char* key : {"s", "f", "l", "o", "i"})
    EXPECT_FALSE(json_bool_or(json, key, true, "w")) << key;
  EXPECT_DOUBLE_EQ(*json_double(json, "i", "w"), 5);
  EXPECT_DOUBLE_EQ(*json_double(json, "f", "w"), 2.5);
  EXPECT_EQ(*json_string(json, "s", "w"), "twelve");
  EXPECT_EQ(*json_bool_or(json, "b", false, "w"), true);
}

TEST(Json, MissingAndNullTakeTheDefault) {
  const Json json = parsed(R"({"n": null})");
  for (const char* key : {"n", "absent"}) {
    EXPECT_EQ(*json_int_or(json, key, 42, "w"), 42);
    EXPECT_DOUBLE_EQ(*json_double_or(json, key, 0.5, "w"), 0.5);
    EXPECT_EQ(*json_bool_or(json, key, true, "w"), true);
    EXPECT_EQ(json_find(json, key), nullptr);
    for (const Error& error :
         {json_int(json, key, "w").error(), json_double(json, key, "w").error(),
          json_string(json, key, "w").error()}) {
      EXPECT_EQ(error.code, ErrorCode::kNotFound);
      EXPECT_THAT(error.text(), HasSubstr(key));
    }
  }
  // Not an object at all: nothing is found, nothing throws.
  for (const char* text : {"[]", "1", "\"a\"", "null"}) {
    EXPECT_EQ(json_find(parsed(text), "a"), nullptr);
    EXPECT_FALSE(json_int(parsed(text), "a", "w"));
  }
}

TEST(Json, LongValuesAreCutInMessages) {
  Json json;
  json["a"] = std::string(100'000, 'x');
  const auto value = json_int(json, "a", "w");
  ASSERT_FALSE(value);
  EXPECT_LT(value.error().text().size(), 300u);
}

TEST(Json, FilesAreBoundedAndNamed) {
  const testing::TempDir folder;
  const std::string path = folder.write("a.json", R"({"a": [1, 2]})");
  EXPECT_EQ(read_json_file(path)->dump(), R"({"a":[1,2]})");
  EXPECT_TRUE(read_json_file(path, 13));
  for (const auto& json :
       {read_json_file(path, 12), read_json_file(folder.file("none.json")),
        read_json_file(folder.path()), read_json_file(folder.write("b.json", "{\"a\": ["))}) {
    ASSERT_FALSE(json);
    EXPECT_THAT(json.error().text(), HasSubstr(folder.path()));
  }
}

} // namespace
} // namespace pinhole
