// Regular expressions and choices: held against std::regex on every short text, and against Unicode
// on every code point.
#include "grammar_fixtures.h"
#include "text/utf8.h"

#include <functional>

namespace pinhole {
namespace {

using testing::Acceptor;
using testing::must_compile;
using testing::problem;

Grammar regex(std::string_view pattern) { return must_compile(Grammar::from_regex(pattern)); }

// All texts of at most `length` letters.
std::vector<std::string> texts_over(const std::string& letters, size_t length) {
  std::vector<std::string> out{""};
  for (size_t begin = 0, n = 0; n < length; ++n) {
    const size_t end = out.size();
    for (size_t i = begin; i < end; ++i) {
      for (const char c : letters)
        out.push_back(out[i] + c);
    }
    begin = end;
  }
  return out;
}

const char* const kPatterns[] = {"",
                                 "a",
                                 "ab|b1",
                                 "a*",
                                 "a+b?",
                                 "(a|b)*1",
                                 "(?:ab){2}",
                                 "(ab){1,2}",
                                 "a{2,}",
                                 "a{0}b",
                                 "a{0,3}b{2,3}",
                                 "(a*)*",
                                 "(a*b*)*1",
                                 "(a|)+",
                                 "(a?){3}",
                                 "(|a){2,}b",
                                 "((a?b)|1)*",
                                 "[ab]+[^ab]",
                                 "[a-b]?[\\d-]*",
                                 "[^1-]*",
                                 "[^\\w]*",
                                 "\\d\\D",
                                 "\\w+\\W",
                                 "\\s*a",
                                 "a*?b",
                                 "a+?",
                                 ".{2}",
                                 "a.b|.",
                                 "[\\-1]+",
                                 "(a|b){2}-(1|b){0,2}",
                                 "\\x61\\u0062",
                                 "(a(b(1)?)?)?"};

TEST(GrammarRegex, AcceptsWhatStdRegexMatches) {
  const auto texts = texts_over("ab1-", 5);
  for (const char* pattern : kPatterns) {
    SCOPED_TRACE(pattern);
    Acceptor grammar(regex(pattern));
    const std::regex reference(pattern);
    for (const std::string& text : texts)
      ASSERT_EQ(grammar.accepts(text), std::regex_match(text, reference)) << "'" << text << "'";
  }
}

// JSON Schema's pattern matches anywhere; anchors hold it to the ends.
TEST(GrammarRegex, PatternsOfSchemasAreSearched) {
  const auto texts = texts_over("ab1-", 4);
  std::vector<std::string> patterns(std::begin(kPatterns), std::end(kPatterns));
  for (const char* pattern :
       {"^a", "1$", "^a|b$", "^(a|b)+$", "^$", "^ab?$|^1", "^", "$", "a$|^1-"})
    patterns.emplace_back(pattern);
  for (const std::string& pattern : patterns) {
    SCOPED_TRACE(pattern);
    const Json schema{{"type", "string"}, {"pattern", pattern}};
    Acceptor grammar(must_compile(Grammar::from_json_schema(schema)));
    const std::regex reference(pattern);
    for (const std::string& text : texts) {
      ASSERT_EQ(grammar.accepts('"' + text + '"'), std::regex_search(text, reference))
          << "'" << text << "'";
    }
  }
}

TEST(GrammarRegex, PatternsHaveTheirLengthToo) {
  const auto texts = texts_over("ab", 6);
  for (const int64_t min : {0, 1, 3}) {
    for (const int64_t max : {-1, 0, 2, 5}) {
      Json schema{{"type", "string"}, {"pattern", "^(ab|a)*b?$"}, {"minLength", min}};
      if (max >= 0)
        schema["maxLength"] = max;
      const auto compiled = Grammar::from_json_schema(schema);
      ASSERT_EQ(compiled.has_value(), max < 0 || min <= max) << problem(compiled);
      if (!compiled)
        continue;
      Acceptor grammar(*compiled);
      for (const std::string& text : texts)
        ASSERT_EQ(grammar.accepts('"' + text + '"'), testing::valid(schema, Json(text), schema));
    }
  }
}

TEST(GrammarRegex, ClassesHoldExactlyTheirCodePoints) {
  struct {
    const char* pattern;
    std::function<bool(uint32_t)> holds;
  } const cases[] = {
      {"[\\u0080-\\uABCD]", [](uint32_t c) { return c >= 0x80 && c <= 0xABCD; }},
      {"[\\u{7f}-\\u{10ffff}]", [](uint32_t c) { return c >= 0x7F; }},
      {"[^\\u{800}-\\u{1F600}]", [](uint32_t c) { return c < 0x800 || c > 0x1F600; }},
      {"[é漢😀]", [](uint32_t c) { return c == 0xE9 || c == 0x6F22 || c == 0x1F600; }},
      {"\\ud83d\\ude00", [](uint32_t c) { return c == 0x1F600; }},
      {".", [](uint32_t c) { return c != '\n' && c != '\r' && c != 0x2028 && c != 0x2029; }},
      {"[^]", [](uint32_t) { return true; }},
      {"\\S",
       [](uint32_t c) { // WhiteSpace and LineTerminator: ECMA-262, 12.2 and 12.3
         return !((c >= 9 && c <= 13) || c == 32 || c == 0xA0 || c == 0xFEFF || c == 0x1680 ||
                  (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
                  c == 0x205F || c == 0x3000);
       }},
  };
  for (const auto& one : cases) {
    SCOPED_TRACE(one.pattern);
    Acceptor grammar(regex(one.pattern));
    for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
      if (c == 0xD800)
        c = 0xE000;
      std::string text;
      utf8_append(text, c);
      ASSERT_EQ(grammar.accepts(text), one.holds(c)) << std::hex << c;
    }
  }
}

// Whatever may stand anywhere is still UTF-8, and no part of it is a dead end.
TEST(GrammarRegex, BytesAreThoseOfUtf8) {
  Acceptor grammar(regex("[^]"));
  for (uint32_t bytes = 0; bytes < 0x1000000; bytes += 7) {
    const std::string text{static_cast<char>(bytes >> 16), static_cast<char>(bytes >> 8),
                           static_cast<char>(bytes)};
    for (const size_t length : {1, 2, 3}) {
      const std::string_view part(text.data(), length);
      ASSERT_EQ(grammar.accepts(part), utf8_sequence(part, 0) == length) << bytes;
      ASSERT_EQ(grammar.begins(part),
                utf8_sequence(part, 0) == length || utf8_incomplete_suffix(part) == length)
          << bytes;
    }
  }
}

TEST(GrammarRegex, WhatIsNotSupportedNamesItsPlace) {
  const struct {
    const char *pattern, *place, *what;
  } cases[] = {
      {"a(?=b)", "byte 1 ", "lookaround"},
      {"a(?!b)", "byte 1 ", "lookaround"},
      {"(?<=a)b", "byte 0 ", "lookaround"},
      {"(a)\\1", "byte 3 ", "backreference"},
      {"(?<n>a)\\k<n>", "byte 7 ", "backref"},
      {"\\bword", "byte 0 ", "boundar"},
      {"é\\p{L}", "byte 2 ", "propert"},
      {"a++", "byte 2 ", "possessive"},
      {"(?i)a", "byte 0 ", "group"},
      {"a(b", "byte 1 ", "'('"},
      {"a)b", "byte 1 ", "')'"},
      {"[ab", "byte 0 ", "'['"},
      {"*a", "byte 0 ", "nothing to repeat"},
      {"a|{2}", "byte 2 ", "nothing to repeat"},
      {"a**", "byte 2 ", "nothing to repeat"},
      {"a{3,2}", "byte 1 ", "order"},
      {"[b-a]", "byte 2 ", "order"},
      {"a^b", "byte 1 ", "start"},
      {"(a$)b", "byte 2 ", "end"},
      {"a\\", "byte 1 ", "backslash"},
      {"\\u12", "byte 0 ", "hexadecimal"},
      {"\\ud800", "byte 0 ", "surrogate"},
      {"\\q", "byte 0 ", "\\q"},
      {"a{99999}", "byte 1 ", "10000"},
      {"a\xFF", "byte 1 ", "UTF-8"},
  };
  for (const auto& one : cases) {
    const std::string text = problem(Grammar::from_regex(one.pattern));
    EXPECT_NE(text.find(one.place), std::string::npos) << one.pattern << ": " << text;
    EXPECT_NE(text.find(one.what), std::string::npos) << one.pattern << ": " << text;
  }
  EXPECT_NE(problem(Grammar::from_regex("[]")), ""); // nothing matches
}

TEST(GrammarRegex, LargeOnesAreRefusedAtOnce) {
  for (const char* pattern : {"(((a{1000}){1000}){1000}){1000}", "((((a|b){9999})?){9999}){9999}",
                              "(((((|){9999}){9999}){9999}a){9999}){9999}"}) {
    const auto grammar = Grammar::from_regex(pattern);
    ASSERT_FALSE(grammar) << pattern;
    EXPECT_EQ(grammar.error().code, ErrorCode::kTooLarge);
  }
  const auto deep = Grammar::from_regex(std::string(5000, '(') + std::string(5000, ')'));
  ASSERT_FALSE(deep);
  EXPECT_EQ(deep.error().code, ErrorCode::kTooLarge);
  EXPECT_FALSE(Grammar::from_regex(std::string(1 << 20, 'a')));
}

// Two to the power of thirty-one states, if all of them were made.
TEST(GrammarRegex, ManyStatesAreForgottenAndMadeAgain) {
  const TokenPieces pieces(testing::bundled_tokenizer(), {});
  GrammarMatcher matcher(regex("(a|b)*a(a|b){30}"), pieces);
  std::string text;
  uint32_t random = 1;
  for (int i = 0; i < 300000; ++i) {
    random = random * 1664525 + 1013904223;
    text += (random >> 30) % 2 == 0 ? 'a' : 'b';
    ASSERT_TRUE(matcher.accept(std::string_view(text).substr(text.size() - 1)));
    ASSERT_EQ(matcher.can_end(), text.size() > 30 && text[text.size() - 31] == 'a') << i;
  }
  EXPECT_FALSE(matcher.accept("c"));
}

// --- choices ---

TEST(GrammarChoices, AreTakenWhole) {
  const std::vector<std::string> choices{"yes", "no", "yesterday", "not sure",        "no",
                                         "é",   "ê",  "漢字",      "\xF0\x9F\x98\x80"};
  Acceptor grammar(must_compile(Grammar::from_choices(choices)));
  for (const std::string& choice : choices) {
    EXPECT_TRUE(grammar.accepts(choice));
    for (size_t i = 0; i < choice.size(); ++i)
      EXPECT_TRUE(grammar.begins(choice.substr(0, i)));
    EXPECT_FALSE(grammar.begins(choice + "!"));
  }
  for (const char* other : {"", "ye", "yest", "not", "No", " yes", "\xC3", "漢"})
    EXPECT_FALSE(grammar.accepts(other)) << other;
}

TEST(GrammarChoices, MustBeText) {
  EXPECT_NE(problem(Grammar::from_choices({})), "");
  EXPECT_NE(problem(Grammar::from_choices(std::vector<std::string>{"", ""})), "");
  EXPECT_NE(problem(Grammar::from_choices(std::vector<std::string>{"a", "\xC3"})).find("UTF-8"),
            std::string::npos);
  std::vector<std::string> many;
  for (size_t i = 0; i < 20000; ++i)
    many.push_back(fmt::format("choice number {}", i));
  Acceptor grammar(must_compile(Grammar::from_choices(many)));
  EXPECT_TRUE(grammar.accepts("choice number 19999"));
  EXPECT_FALSE(grammar.accepts("choice number 20000"));
  many.assign(1, std::string((1 << 20) + 1, 'a'));
  EXPECT_NE(problem(Grammar::from_choices(many)), "");
}

} // namespace
} // namespace pinhole
