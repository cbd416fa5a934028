// Masks over the tokens of real vocabularies: what they allow is exactly what the bytes of each
// token allow, and whatever is chosen from them is valid in the end.
#include "grammar_fixtures.h"
#include "text/utf8.h"

#include <random>

namespace pinhole {
namespace {

using grammar::StateMachine;
using testing::bundled_tokenizer;
using testing::is_set;
using testing::must_compile;
using testing::parsed;
using testing::schema_grammar;

std::vector<TokenId> ends_of(const Tokenizer& tokenizer) {
  return tokenizer.eos() ? std::vector<TokenId>{*tokenizer.eos()} : std::vector<TokenId>{};
}

const char* const kSchemas[] = {
    "true",
    R"({"type":"object"})",
    R"({"type":"integer","minimum":-37,"maximum":1234})",
    R"({"type":"number","exclusiveMinimum":-0.5,"maximum":12.25})",
    R"({"type":"string","minLength":3,"maxLength":5})",
    R"x({"type":"string","pattern":"^([A-Z]|é|漢|😀){2,4}-\\d+$","maxLength":12})x",
    R"({"enum":["é","漢字","😀","a,b",1.5,-7,null,{"a":[1,2]}]})",
    R"({"type":"object","properties":{"merchant":{"type":"string","maxLength":20},
        "date":{"type":"string","pattern":"^\\d{4}-\\d{2}-\\d{2}$"},
        "total":{"type":"number","minimum":0,"maximum":99999.99},
        "currency":{"enum":["EUR","USD","¥"]},
        "items":{"type":"array","maxItems":4,"items":{"type":"object",
          "properties":{"name":{"type":"string","maxLength":10},"count":{"type":"integer","minimum":1,
          "maximum":99}},"required":["name"]}}},
        "required":["merchant","total","items"]})",
    R"({"type":"array","minItems":2,"maxItems":5,"items":{"type":["integer","null","boolean"]}})",
    R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":{"const":0}})",
    R"({"oneOf":[{"type":"integer","minimum":10},{"type":"string","maxLength":2},{"type":"null"}]})",
    R"({"$defs":{"tree":{"type":"object","properties":{"value":{"type":"integer"},
        "children":{"type":"array","items":{"$ref":"#/$defs/tree"},"maxItems":3}},
        "required":["value"]}},"$ref":"#/$defs/tree"})",
    R"({"type":"object","additionalProperties":{"type":"integer","minimum":0}})",
    R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},
        {"properties":{"b":{"type":"boolean"}}}],"required":["b"]})",
    R"({"type":"object","properties":{"n":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"required":["n"]})",
};

// A random walk: any allowed token, after a while those that close things first.
std::string walk(const Grammar& grammar, const Tokenizer& tokenizer, const TokenPieces& pieces,
                 std::mt19937& random) {
  GrammarMatcher matcher(grammar, pieces);
  std::string text;
  std::vector<TokenId> allowed, closing;
  for (int step = 0; step < 3000; ++step) {
    const auto mask = matcher.allowed();
    allowed.clear();
    closing.clear();
    bool may_end = false;
    for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
      if (!is_set(mask, id))
        continue;
      if (tokenizer.eos() == id) {
        may_end = true;
        continue;
      }
      EXPECT_FALSE(tokenizer.is_special(id)) << id;
      allowed.push_back(id);
      const std::string_view piece = tokenizer.piece(id);
      if (piece.find_first_of("\"]}") != std::string_view::npos || piece == "null" || piece == "n")
        closing.push_back(id);
    }
    EXPECT_EQ(may_end, matcher.can_end());
    EXPECT_EQ(allowed.empty(), !matcher.can_continue());
    if (may_end && (allowed.empty() || step > 40 || random() % 4 == 0))
      return text;
    if (allowed.empty()) {
      ADD_FAILURE() << "a dead end: " << text;
      return text;
    }
    const auto& from = step > 40 && !closing.empty() ? closing : allowed;
    const TokenId id = from[random() % from.size()];
    EXPECT_TRUE(matcher.accept(id));
    text += tokenizer.piece(id);
  }
  ADD_FAILURE() << "no end: " << text;
  return text;
}

TEST(GrammarMask, RandomAnswersAreValid) {
  const Tokenizer& tokenizer = bundled_tokenizer();
  const TokenPieces pieces(tokenizer, ends_of(tokenizer));
  std::mt19937 random(1);
  for (const char* text : kSchemas) {
    SCOPED_TRACE(text);
    const Json schema = parsed(text);
    const Grammar grammar = schema_grammar(text);
    for (int i = 0; i < 60; ++i) {
      const std::string answer = walk(grammar, tokenizer, pieces, random);
      ASSERT_TRUE(Json::accept(answer)) << answer;
      ASSERT_TRUE(testing::valid(schema, Json::parse(answer), schema)) << answer;
    }
  }
}

TEST(GrammarMask, RandomAnswersOfARegexMatch) {
  const Tokenizer& tokenizer = bundled_tokenizer();
  const TokenPieces pieces(tokenizer, ends_of(tokenizer));
  std::mt19937 random(2);
  for (const char* pattern : {"[0-9]{1,3}", "(yes|no|maybe)(, (yes|no)){0,3}", "[A-Z]{2}\\d{4}",
                              "-?(0|[1-9][0-9]*)\\.[0-9]{2}", "(\\w+ ){2}\\w+"}) {
    const Grammar grammar = must_compile(Grammar::from_regex(pattern));
    for (int i = 0; i < 40; ++i) {
      const std::string answer = walk(grammar, tokenizer, pieces, random);
      ASSERT_TRUE(std::regex_match(answer, std::regex(pattern))) << pattern << ": " << answer;
    }
  }
}

// Every token, against a walk of its bytes alone; after several beginnings, within characters too.
void expect_exact_masks(const Tokenizer& tokenizer, const Grammar& grammar,
                        std::initializer_list<std::string_view> beginnings) {
  const std::vector<TokenId> ends = ends_of(tokenizer);
  const TokenPieces pieces(tokenizer, ends);
  StateMachine machine(grammar.program());
  for (const std::string_view beginning : beginnings) {
    SCOPED_TRACE(beginning);
    GrammarMatcher matcher(grammar, pieces);
    ASSERT_TRUE(matcher.accept(beginning));
    auto state = machine.start();
    for (const char byte : beginning)
      state = machine.step(state, static_cast<uint8_t>(byte));
    for (int again = 0; again < 2; ++again) { // made, then kept
      const auto mask = matcher.allowed();
      int64_t allowed = 0;
      for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
        bool expected = tokenizer.eos() == id
                            ? machine.accepts(state)
                            : !tokenizer.is_special(id) && !tokenizer.piece(id).empty();
        if (expected && tokenizer.eos() != id) {
          auto at = state;
          for (const char byte : tokenizer.piece(id)) {
            at = machine.step(at, static_cast<uint8_t>(byte));
            if (at == StateMachine::kDead)
              break;
          }
          expected = at != StateMachine::kDead;
        }
        allowed += expected;
        ASSERT_EQ(is_set(mask, id), expected) << id << " '" << tokenizer.piece(id) << "'";
      }
      EXPECT_GT(allowed, 0);
    }
  }
}

constexpr const char* kReceipt =
    R"({"type":"object","properties":{"shop":{"type":"string"},"sum":{"type":"integer",
        "minimum":5,"maximum":1200},"é":{"type":"null"}},"required":["shop","sum"]})";

TEST(GrammarMask, EveryTokenIsJudgedByItsBytes) {
  const auto beginnings = {std::string_view(),
                           std::string_view("{\"sh"),
                           std::string_view("{\"shop\": \"a \xC3"),
                           std::string_view("{\"shop\":\"\xF0\x9F\x98"),
                           std::string_view("{\"shop\":\"\\ud83d"),
                           std::string_view("{\"shop\":\"x\",\"sum\":1"),
                           std::string_view("{\"shop\":\"x\",\"sum\":12, \"\xC3"),
                           std::string_view("{\"shop\":\"x\",\"sum\":12,\"\xC3\xA9\":null}")};
  expect_exact_masks(bundled_tokenizer(), schema_grammar(kReceipt), beginnings);
  expect_exact_masks(bundled_tokenizer(), must_compile(Grammar::from_regex("[^]*")),
                     {"", "\xE6\xBC", "\xE6\xBC\xA2"});
}

TEST(GrammarMask, LargeVocabulariesToo) {
  REQUIRE_GOLDEN();
  for (const char* name : {"qwen2", "llama-spm"}) {
    SCOPED_TRACE(name);
    expect_exact_masks(testing::vocabulary(name), schema_grammar(kReceipt),
                       {"", "{\"shop\":\"a", "{\"shop\":\"x\",\"sum\":1", "{\"shop\":\"\xF0\x9F"});
  }
}

// A document that the tokenizer cuts into tokens of its own is accepted token by token.
TEST(GrammarMask, EncodedDocumentsAreAccepted) {
  const Tokenizer& tokenizer = bundled_tokenizer();
  const TokenPieces pieces(tokenizer, ends_of(tokenizer));
  const struct {
    const char *schema, *good, *bad;
  } cases[] = {
      {kReceipt, R"({"shop": "Café 漢字 😀 \"1\"", "sum": 1200, "é": null})",
       R"({"shop": "Café", "sum": 1201})"},
      {R"({"type":"integer","minimum":100,"maximum":250})", "250", "251"},
      {R"({"enum":["漢字","😀","😃"]})", "\"😃\"", "\"😄\""},
      {R"({"type":"string","maxLength":3})", "\"漢é😀\"", "\"漢é😀!\""},
  };
  for (const auto& one : cases) {
    const Grammar grammar = schema_grammar(one.schema);
    for (const bool good : {true, false}) {
      GrammarMatcher matcher(grammar, pieces);
      bool accepted = true;
      for (const TokenId id : tokenizer.encode(good ? one.good : one.bad, false)) {
        const bool allowed = is_set(matcher.allowed(), id);
        accepted = matcher.accept(id);
        EXPECT_EQ(allowed, accepted);
        if (!accepted)
          break;
      }
      EXPECT_EQ(accepted && matcher.can_end(), good) << (good ? one.good : one.bad);
    }
  }
}

// The mask lets a character be spelled in any way that the vocabulary has, byte by byte too.
TEST(GrammarMask, CharactersMayBeSplitOverTokens) {
  const Tokenizer& tokenizer = bundled_tokenizer();
  const TokenPieces pieces(tokenizer, ends_of(tokenizer));
  std::array<TokenId, 256> byte_tokens{};
  byte_tokens.fill(-1);
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.piece(id).size() == 1 && !tokenizer.is_special(id))
      byte_tokens[static_cast<uint8_t>(tokenizer.piece(id)[0])] = id;
  }
  const std::vector<std::string> choices{"é", "漢", "😀", "😃"};
  for (const std::string& choice : choices) {
    GrammarMatcher matcher(must_compile(Grammar::from_choices(choices)), pieces);
    for (const char byte : choice) {
      EXPECT_FALSE(matcher.can_end());
      const TokenId id = byte_tokens[static_cast<uint8_t>(byte)];
      ASSERT_GE(id, 0) << "the vocabulary has no token of one byte " << int{byte};
      ASSERT_TRUE(is_set(matcher.allowed(), id));
      ASSERT_TRUE(matcher.accept(id));
    }
    EXPECT_TRUE(matcher.can_end());
    EXPECT_FALSE(matcher.can_continue());
  }
}

TEST(GrammarMask, TokensWithoutALogitAreNotThere) {
  const Tokenizer& tokenizer = bundled_tokenizer();
  const TokenPieces pieces(tokenizer, {}, 100);
  GrammarMatcher matcher(must_compile(Grammar::from_regex("[^]*")), pieces);
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id)
    EXPECT_EQ(is_set(matcher.allowed(), id), id < 100 && !tokenizer.is_special(id)) << id;
}

TEST(GrammarMask, RefusedTokensChangeNothing) {
  const Tokenizer& tokenizer = bundled_tokenizer();
  const TokenPieces pieces(tokenizer, ends_of(tokenizer));
  GrammarMatcher matcher(must_compile(Grammar::from_choices(std::vector<std::string>{"ab", "b"})),
                         pieces);
  const auto id = [&](const char* text) { return tokenizer.find(text).value(); };
  for (const TokenId other :
       {id("c"), *tokenizer.eos(), TokenId{-1}, static_cast<TokenId>(tokenizer.vocab_size())})
    EXPECT_FALSE(matcher.accept(other));
  EXPECT_TRUE(matcher.accept(id("a")));
  EXPECT_FALSE(matcher.accept(id("a")));
  EXPECT_TRUE(matcher.accept(id("b")));
  EXPECT_TRUE(matcher.can_end());
}

} // namespace
} // namespace pinhole
