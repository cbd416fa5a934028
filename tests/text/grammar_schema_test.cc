// JSON schemas: what the specification allows and forbids, document by document.
#include "grammar_fixtures.h"
#include "text/utf8.h"

#include <chrono>
#include <functional>

namespace pinhole {
namespace {

using testing::Acceptor;
using testing::parsed;
using testing::problem;
using testing::schema_grammar;

struct Sample {
  const char* schema;
  std::vector<const char*> good, bad;
};

const Sample kSamples[] = {
    {"true",
     {"null", "true", "0", "-1.5e3", "\"\"", "[]", "{}", R"({"a":[1,{"b":null}], "c": "d"})"},
     {"", "nul", "01", "-", "1.", ".5", "\"", "[1,]", "{\"a\"}", "{,}", " 1", "1 ", "[1,  2]",
      "[ 1]", "+1", "NaN", "1e", "'a'"}},
    {R"({"type":"null"})", {"null"}, {"true", "0", "Null"}},
    {R"({"type":"boolean"})", {"true", "false"}, {"null", "True", "truefalse"}},
    {R"({"type":"integer"})",
     {"0", "7", "-7", "123456789012345678", "9223372036854775807"},
     {"-0", "00", "07", "1.5", "1e3", "", "-", "--1", "9223372036854775808"}},
    {R"({"type":"number"})",
     {"0", "-0.5", "3.14", "1e9", "-2.5E-3", "12345678901234"},
     {"01", ".5", "5.", "1e", "+1", "0x1", "1e999"}},
    {R"({"type":"string"})",
     {"\"\"", "\"a b\"", "\"\\n\\u00e9\\\"\"", "\"é漢😀\"", "\"\\ud83d\\ude00\""},
     {"\"", "\"\n\"", "\"\\x\"", "\"\\u12\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\xC3\"", "\"\t\""}},
    {R"({"type":["integer","null"]})", {"null", "5"}, {"\"5\"", "1.5"}},
    {R"({"enum":["a","b/c",1,null,[1,2],{"x":true}]})",
     {"\"a\"", "\"b/c\"", "1", "null", "[1,2]", "{\"x\":true}"},
     {"\"b\"", "2", "[1]", "{}"}},
    {R"({"const":"é\n\"x\""})", {R"("é\n\"x\"")"}, {"\"é\"", "null"}},
    {R"({"type":"string","enum":["a",1]})", {"\"a\""}, {"1"}},
    {R"({"type":"string","minLength":2,"maxLength":3})",
     {"\"ab\"", "\"é漢😀\"", "\"\\n\\\\\"", "\"\\ud83d\\ude00x\""},
     {"\"\"", "\"a\"", "\"é\"", "\"abcd\"", "\"é漢😀a\"", "\"\\ud83d\\ude00\""}},
    {R"({"type":"string","pattern":"^[\"\\\\\\n]$"})",
     {R"("\"")", R"("\\")", R"("\n")"},
     {R"("a")", R"(""")", R"("\\\\")"}},
    {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},
         "required":["a"]})",
     {R"({"a":1})", R"({"a": 1, "b": "x"})", R"({"a":1,"b":"x"})"},
     {"{}", R"({"b":"x"})", R"({"b":"x","a":1})", R"({"a":1,"c":2})", R"({"a":1,})", R"({"a":  1})",
      R"({"a" :1})", R"({ "a":1})", R"({"a":1,"a":1})"}},
    {R"({"properties":{"a":true,"b":true,"c":true}})",
     {"{}", R"({"a":1})", R"({"b":1})", R"({"c":1})", R"({"a":1,"c":[]})", R"({"b":1,"c":2})",
      R"({"a":1,"b":2,"c":3})"},
     {R"({"c":1,"a":2})", R"({,"b":1})", R"({"a":1 "b":2})", "[]"}},
    {R"({"type":"object","properties":{"a":true,"b":true,"c":true},"required":["b"]})",
     {R"({"b":1})", R"({"a":0,"b":1})", R"({"b":1,"c":2})", R"({"a":0,"b":1,"c":2})"},
     {"{}", R"({"a":0})", R"({"a":0,"c":1})"}},
    {R"({"type":"object","properties":{"a/b":{"type":"null"},"c\"d":{"type":"null"}},
         "required":["a/b","c\"d"],"additionalProperties":false})",
     {R"({"a/b":null,"c\"d":null})"},
     {R"({"a/b":null})"}},
    {R"({"type":"object","required":["z"]})", {R"({"z":1})"}, {"{}", R"({"y":1})"}},
    {R"({"type":"object","additionalProperties":{"type":"integer"}})",
     {"{}", R"({"a":1})", R"({"":1,"é": 2})"},
     {R"({"a":"b"})", R"({"a":1,})", R"({a:1})"}},
    {R"({"type":"object"})", {"{}", R"({"a":{"b":[{}]}})"}, {"[]", "{"}},
    {R"({"type":"object","properties":{}})", {"{}"}, {R"({"a":1})"}},
    {R"({"type":"object","additionalProperties":false})", {"{}"}, {R"({"a":1})"}},
    {R"({"type":"array","items":{"type":"integer"}})",
     {"[]", "[1]", "[1,2]", "[1, 2, 3]"},
     {"[,]", "[1,]", "[\"1\"]", "[1 2]", "1"}},
    {R"({"items":{"type":"null"},"minItems":1,"maxItems":3})",
     {"[null]", "[null,null]", "[null,null,null]"},
     {"[]", "[null,null,null,null]", "[1]"}},
    {R"({"type":"array","items":{"type":"null"},"minItems":2})",
     {"[null,null]", "[null,null,null,null,null]"},
     {"[]", "[null]"}},
    {R"({"type":"array","maxItems":0})", {"[]"}, {"[1]"}},
    {R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":false})",
     {"[]", "[1]", "[1,\"a\"]"},
     {"[\"a\"]", "[1,2]", "[1,\"a\",3]"}},
    {R"({"type":"array","prefixItems":[{"type":"integer"}],"items":{"type":"null"},"minItems":2})",
     {"[1,null]", "[1,null,null]"},
     {"[1]", "[]", "[null,null]", "[1,1]"}},
    {R"({"anyOf":[{"type":"integer"},{"type":"string","maxLength":1}]})",
     {"5", "\"a\""},
     {"\"ab\"", "null"}},
    {R"({"oneOf":[{"type":"object","properties":{"kind":{"const":"a"},"x":{"type":"integer"}},
                   "required":["kind","x"]},
                  {"type":"object","properties":{"kind":{"const":"b"},"y":{"type":"null"}},
                   "required":["kind"]}]})",
     {R"({"kind":"a","x":1})", R"({"kind":"b"})", R"({"kind":"b","y":null})"},
     {R"({"kind":"a"})", R"({"kind":"b","x":1})", R"({"kind":"c"})"}},
    {R"({"type":"object","properties":{"a":{"type":"integer","minimum":0}},
         "allOf":[{"properties":{"a":{"maximum":9},"b":{"const":1}},"required":["b"]},
                  {"required":["a"]}]})",
     {R"({"a":9,"b":1})"},
     {R"({"a":10,"b":1})", R"({"a":-1,"b":1})", R"({"a":1})", R"({"b":1})"}},
    {R"({"type":"object","properties":{"a":true,"b":true},
         "anyOf":[{"required":["a"]},{"required":["b"]}]})",
     {R"({"a":1})", R"({"b":1})", R"({"a":1,"b":1})"},
     {"{}"}},
    {R"({"$defs":{"n":{"type":"object","properties":{"v":{"type":"integer"},
          "next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["v","next"]}},
         "$ref":"#/$defs/n"})",
     {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":{"v":3,"next":null}}})"},
     {R"({"v":1})", R"({"v":1,"next":{"v":2}})", "null"}},
    {R"({"type":"array","items":{"$ref":"#"}})", {"[]", "[[],[[]]]"}, {"[1]", "[[]", "{}"}},
    {R"({"definitions":{"a/b%c":{"type":"null"}},"$ref":"#/definitions/a~1b%25c"})",
     {"null"},
     {"1"}},
    {R"({"$defs":{"p":{"type":"integer","minimum":1}},"$ref":"#/$defs/p","maximum":3,
         "description":"beside a reference"})",
     {"1", "3"},
     {"0", "4"}},
    {R"({"type":"string","format":"uuid"})",
     {"\"123e4567-e89b-12d3-a456-426614174000\""},
     {"\"123e4567e89b12d3a456426614174000\"", "\"\""}},
    {R"({"type":"string","format":"ipv4"})",
     {"\"0.0.0.0\"", "\"255.199.99.10\""},
     {"\"256.1.1.1\"", "\"1.1.1\"", "\"01.1.1.1\""}},
    {R"({"type":"string","format":"email"})",
     {"\"a.b@c.de\""},
     {"\"a@\"", "\"@b.c\"", "\"a b@c.d\""}},
    {R"({"type":"string","format":"time"})",
     {"\"23:59:59Z\"", "\"00:00:00.25+01:30\""},
     {"\"24:00:00Z\"", "\"12:00\"", "\"12:00:00\""}},
    {R"({"type":"string","format":"date-time"})",
     {"\"2024-02-29T12:00:00Z\""},
     {"\"2023-02-29T12:00:00Z\"", "\"2024-02-29\"", "\"2024-02-29 12:00:00Z\""}},
    {R"({"title":"t","description":"d","default":1,"examples":[1],"$schema":"s","$comment":"c",
         "$id":"i","deprecated":true,"x-own":{"not":1},"type":"null"})",
     {"null"},
     {"1"}},
};

TEST(GrammarSchema, SamplesAreAcceptedOrRefused) {
  for (const Sample& sample : kSamples) {
    SCOPED_TRACE(sample.schema);
    const Json schema = parsed(sample.schema);
    Acceptor grammar(schema_grammar(sample.schema));
    for (const char* text : sample.good) {
      EXPECT_TRUE(grammar.accepts(text)) << text;
      ASSERT_TRUE(Json::accept(text)) << text;
      EXPECT_TRUE(testing::valid(schema, Json::parse(text), schema)) << text;
    }
    for (const char* text : sample.bad)
      EXPECT_FALSE(grammar.accepts(text)) << text;
  }
}

// --- numbers ---

std::string bound(const char* key, int64_t value) { return fmt::format(R"("{}":{})", key, value); }

TEST(GrammarSchema, IntegersWithinEveryPairOfBounds) {
  constexpr int64_t kBounds[] = {-120, -110, -101, -100, -99, -11, -10, -9,  -1,  0,
                                 1,    2,    9,    10,   11,  99,  100, 101, 119, 120};
  for (const int64_t low : kBounds) {
    for (const int64_t high : kBounds) {
      for (const bool open_low : {false, true}) {
        for (const bool open_high : {false, true}) {
          const std::string text =
              fmt::format(R"({{"type":"integer",{},{}}})",
                          bound(open_low ? "exclusiveMinimum" : "minimum", low),
                          bound(open_high ? "exclusiveMaximum" : "maximum", high));
          const auto inside = [&](int64_t v) {
            return (open_low ? v > low : v >= low) && (open_high ? v < high : v <= high);
          };
          bool any = false;
          for (int64_t v = -120; v <= 120; ++v)
            any = any || inside(v);
          const auto compiled = Grammar::from_json_schema(parsed(text));
          ASSERT_EQ(compiled.has_value(), any) << text;
          if (!any)
            continue;
          Acceptor grammar(*compiled);
          for (int64_t v = -1300; v <= 1300; ++v)
            ASSERT_EQ(grammar.accepts(std::to_string(v)), inside(v)) << text << " " << v;
          for (const char* other : {"-0", "00", "01", "-01", "1.0", "1e1", "", "-"})
            ASSERT_FALSE(grammar.accepts(other)) << text << " " << other;
        }
      }
    }
  }
}

TEST(GrammarSchema, IntegersWithOneBound) {
  for (const int64_t edge : {-1000, -37, -1, 0, 1, 42, 999}) {
    Acceptor from(
        schema_grammar(fmt::format(R"({{"type":"integer",{}}})", bound("minimum", edge))));
    Acceptor to(schema_grammar(fmt::format(R"({{"type":"integer",{}}})", bound("maximum", edge))));
    for (int64_t v = -2000; v <= 2000; ++v) {
      ASSERT_EQ(from.accepts(std::to_string(v)), v >= edge) << v;
      ASSERT_EQ(to.accepts(std::to_string(v)), v <= edge) << v;
    }
  }
  Acceptor halves(schema_grammar(R"({"type":"integer","minimum":-1.5,"exclusiveMaximum":2.5})"));
  for (int v = -4; v <= 4; ++v)
    EXPECT_EQ(halves.accepts(std::to_string(v)), v >= -1 && v <= 2) << v;
  Acceptor large(schema_grammar(R"({"type":"integer","minimum":9223372036854775807})"));
  EXPECT_TRUE(large.accepts("9223372036854775807"));
  EXPECT_FALSE(large.accepts("9223372036854775806"));
  Acceptor wide(schema_grammar(R"({"type":"integer","maximum":18446744073709551615})"));
  EXPECT_TRUE(wide.accepts("18446744073709551615"));
  EXPECT_FALSE(wide.accepts("18446744073709551616"));
}

// In hundredths, so that the expectation is integer arithmetic.
TEST(GrammarSchema, NumbersWithinEveryPairOfBounds) {
  constexpr int kBounds[] = {-1025, -1000, -250, -100, -25, -1,   0,   1,
                             10,    25,    100,  150,  999, 1000, 1099};
  const auto decimal = [](int hundredths) {
    return fmt::format("{}{}.{:02}", hundredths < 0 ? "-" : "", std::abs(hundredths) / 100,
                       std::abs(hundredths) % 100);
  };
  for (const int low : kBounds) {
    for (const int high : kBounds) {
      for (const bool open_low : {false, true}) {
        for (const bool open_high : {false, true}) {
          const std::string text = fmt::format(
              R"({{"type":"number","{}":{},"{}":{}}})", open_low ? "exclusiveMinimum" : "minimum",
              decimal(low), open_high ? "exclusiveMaximum" : "maximum", decimal(high));
          const auto compiled = Grammar::from_json_schema(parsed(text));
          const bool open = open_low || open_high;
          ASSERT_EQ(compiled.has_value(), low < high || (low == high && !open)) << text;
          if (!compiled)
            continue;
          Acceptor grammar(*compiled);
          for (int v = -1200; v <= 1200; ++v) {
            const bool inside =
                (open_low ? v > low : v >= low) && (open_high ? v < high : v <= high);
            ASSERT_EQ(grammar.accepts(decimal(v)), inside) << text << " " << v;
            ASSERT_EQ(grammar.accepts(decimal(v) + "00"), inside) << text << " " << v;
            if (v % 100 == 0) {
              ASSERT_EQ(grammar.accepts(std::to_string(v / 100)), inside) << text << " " << v;
            }
          }
        }
      }
    }
  }
}

TEST(GrammarSchema, NumbersAreOnTheRightSideOfABoundAsDoubles) {
  Acceptor above(schema_grammar(R"({"type":"number","exclusiveMinimum":0.1})"));
  EXPECT_TRUE(above.accepts("0.11"));
  EXPECT_FALSE(above.accepts("0.1"));
  EXPECT_FALSE(above.accepts("0.10"));
  EXPECT_FALSE(above.accepts("0.1000000000000000001")); // as a double it is 0.1
  Acceptor tiny(schema_grammar(R"({"type":"number","minimum":1e-7,"maximum":2.5e3})"));
  EXPECT_TRUE(tiny.accepts("0.0000001"));
  EXPECT_FALSE(tiny.accepts("0.00000009"));
  EXPECT_TRUE(tiny.accepts("2500.0"));
  EXPECT_FALSE(tiny.accepts("2500.1"));
}

// --- strings ---

TEST(GrammarSchema, StringsHoldWhatJsonAllows) {
  Acceptor grammar(schema_grammar(R"({"type":"string"})"));
  const auto same = [&](const std::string& text) {
    return grammar.accepts(text) == Json::accept(text);
  };
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c == 0xD800)
      c = 0xE000;
    std::string text = "\"";
    utf8_append(text, c);
    ASSERT_TRUE(same(text + "\"")) << std::hex << c;
  }
  for (int c = 0; c < 256; ++c)
    ASSERT_TRUE(same(std::string("\"\\") + static_cast<char>(c) + "\"")) << c;
  for (uint32_t c = 0; c <= 0xFFFF; ++c) {
    ASSERT_TRUE(same(fmt::format("\"\\u{:04x}\"", c))) << std::hex << c;
    ASSERT_TRUE(same(fmt::format("\"\\ud83d\\u{:04X}\"", c))) << std::hex << c;
    ASSERT_TRUE(same(fmt::format("\"\\u{:04X}\\udE00\"", c))) << std::hex << c;
  }
}

TEST(GrammarSchema, DatesAreThoseOfTheCalendar) {
  Acceptor grammar(schema_grammar(R"({"type":"string","format":"date"})"));
  for (const int year : {1600, 1700, 1900, 1999, 2000, 2004, 2023, 2024, 2100}) {
    for (unsigned month = 0; month <= 13; ++month) {
      for (unsigned day = 0; day <= 32; ++day) {
        const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(month),
                                               std::chrono::day(day)};
        ASSERT_EQ(grammar.accepts(fmt::format("\"{:04}-{:02}-{:02}\"", year, month, day)),
                  date.ok())
            << year << " " << month << " " << day;
      }
    }
  }
}

// --- what is refused ---

TEST(GrammarSchema, ErrorsNameKeywordAndPlace) {
  const struct {
    const char *schema, *place, *what;
  } cases[] = {
      {"5", "schema, #", "not a schema"},
      {R"({"properties":{"a":{"not":{}}}})", "#/properties/a", "'not'"},
      {R"({"items":{"multipleOf":3}})", "#/items", "'multipleOf'"},
      {R"({"type":"array","uniqueItems":true})", "#", "'uniqueItems'"},
      {R"({"patternProperties":{"a":{}}})", "#", "'patternProperties'"},
      {R"({"if":{},"then":{}})", "#", "'if'"},
      {R"({"type":"text"})", "#/type", "text"},
      {R"({"enum":5})", "#", "'enum'"},
      {R"({"$ref":"#/$defs/a"})", "#/$ref", "points at nothing"},
      {R"({"$ref":"https://example.org/a.json"})", "#/$ref", "example.org"},
      {R"({"type":"string","minLength":-1})", "#/minLength", "-1"},
      {R"({"type":"string","minLength":1.5})", "#/minLength", "1.5"},
      {R"({"type":"string","minLength":20000})", "#/minLength", "10000"},
      {R"x({"type":"string","pattern":"(?=a)"})x", "#/pattern", "lookaround"},
      {R"({"type":"string","pattern":7})", "#/pattern", "7"},
      {R"({"type":"string","format":"iri"})", "#/format", "iri"},
      {R"({"type":"string","format":"date","pattern":"a"})", "#", "'format'"},
      {R"({"type":"integer","minimum":"1"})", "#/minimum", "1"},
      {R"({"type":"integer","minimum":0,"exclusiveMinimum":true})", "#/exclusiveMinimum", "true"},
      {R"({"properties":[]})", "#/properties", "[]"},
      {R"({"properties":{"a/b":5}})", "#/properties/a~1b", "5"},
      {R"({"required":"a"})", "#/required", "a"},
      {R"({"items":[{}]})", "#/items", "prefixItems"},
      {R"({"anyOf":[]})", "#/anyOf", "[]"},
      {R"({"anyOf":[{"type":"null"},{"contains":{}}]})", "#/anyOf/1", "'contains'"},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", "#/oneOf", "0 and 1"},
      {R"({"oneOf":[{"type":"object","properties":{"a":{}}},{"type":"object","properties":{"b":{}}}]})",
       "#/oneOf", "anyOf"},
      {R"({"allOf":[{"type":"string","pattern":"a"},{"pattern":"b"}]})", "#", "'pattern'"},
      {R"({"enum":["a"],"minLength":3})", "#", "'minLength'"},
      {"false", "schema", "no text"},
      {R"({"type":"integer","minimum":3,"maximum":2})", "schema", "no text"},
      {R"({"allOf":[{"type":"string"},{"type":"null"}]})", "schema", "no text"},
      {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})", "schema",
       "no text"},
      {R"({"$ref":"#"})", "schema", "no text"},
  };
  for (const auto& one : cases) {
    const std::string text = problem(Grammar::from_json_schema(parsed(one.schema)));
    EXPECT_NE(text.find(one.place), std::string::npos) << one.schema << ": " << text;
    EXPECT_NE(text.find(one.what), std::string::npos) << one.schema << ": " << text;
  }
}

// A value that cannot be is left out where the schema does without it.
TEST(GrammarSchema, ImpossibleMembersAreLeftOut) {
  Acceptor grammar(schema_grammar(
      R"({"type":"object","properties":{"a":{"type":"null"},"b":{"$ref":"#/$defs/never"}},
          "$defs":{"never":{"type":"array","items":{"$ref":"#/$defs/never"},"minItems":1}}})"));
  EXPECT_TRUE(grammar.accepts("{}"));
  EXPECT_TRUE(grammar.accepts(R"({"a":null})"));
  EXPECT_FALSE(grammar.begins(R"({"b)"));
  EXPECT_FALSE(grammar.begins(R"({"a":null,)"));
}

// Nesting ends at a depth from which everything can still be closed.
TEST(GrammarSchema, DepthIsBoundedWithoutDeadEnds) {
  Acceptor grammar(schema_grammar(
      R"({"type":"object","properties":{"a":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},
          "required":["a"]})"));
  std::string open, close = "null";
  int depth = 0;
  for (; grammar.begins(open + "{\"a\":{"); ++depth) {
    open += "{\"a\":";
    close += "}";
    ASSERT_LT(depth, 500);
    ASSERT_TRUE(grammar.accepts(open + close)) << depth;
  }
  EXPECT_GT(depth, 30);
  EXPECT_TRUE(parse_json(open + close, "test"));
}

TEST(GrammarSchema, SchemasThatGrowAreRefused) {
  Json laughs = {{"$ref", "#/$defs/a0"}};
  for (int i = 0; i < 40; ++i) {
    const Json next = {{"$ref", fmt::format("#/$defs/a{}", i + 1)}};
    laughs["$defs"][fmt::format("a{}", i)] = {{"allOf", {next, next}}};
  }
  laughs["$defs"]["a40"] = {{"type", "string"}};
  EXPECT_NE(problem(Grammar::from_json_schema(laughs)), "");
  Json loop = parsed(R"({"$defs":{"a":{"allOf":[{"$ref":"#/$defs/a"}]}},"$ref":"#/$defs/a"})");
  EXPECT_NE(problem(Grammar::from_json_schema(loop)), "");
  Json wide = {{"type", "object"}};
  for (int i = 0; i < 100; ++i)
    wide["properties"][fmt::format("p{}", i)] = {{"type", "string"}, {"maxLength", 9000 + i}};
  const auto grammar = Grammar::from_json_schema(wide);
  ASSERT_FALSE(grammar);
  EXPECT_EQ(grammar.error().code, ErrorCode::kTooLarge);
}

} // namespace
} // namespace pinhole
