// What holds for any text: round trips, whole characters, no forged special tokens, bounded time.
#include "text/tokenizer.h"

#include "tokenizer_fixtures.h"

#include <chrono>
#include <gmock/gmock.h>
#include <random>

namespace pinhole {
namespace {

using ::testing::ElementsAre;
using testing::vocabulary;

std::string random_bytes(std::mt19937& random, size_t length) {
  std::string out(length, '\0');
  for (char& c : out)
    c = static_cast<char>(random());
  return out;
}

// Letters, digits, spaces, marks and symbols of many scripts, in short runs; sometimes markup.
std::string random_text(std::mt19937& random) {
  static const std::vector<std::pair<uint32_t, uint32_t>> ranges = {
      {'a', 'z'},       {'A', 'Z'},       {'0', '9'},         {' ', '/'},        {9, 13},
      {0xA0, 0x24F},    {0x300, 0x330},   {0x400, 0x44F},     {0x900, 0x97F},    {0x2000, 0x2044},
      {0x4E00, 0x4FFF}, {0xAC00, 0xACFF}, {0x1F300, 0x1F64F}, {0x1D400, 0x1D4FF}};
  static const std::vector<std::string> markup = {"<|im_start|>", "<|im_end|>", "<s>", "</s>",
                                                  "<|eot_id|>",   "<unk>",      "'s",  " the"};
  std::string out;
  const size_t runs = 1 + random() % 12;
  for (size_t run = 0; run < runs; ++run) {
    if (random() % 6 == 0) {
      out += markup[random() % markup.size()];
      continue;
    }
    const auto [low, high] = ranges[random() % ranges.size()];
    for (size_t i = 1 + random() % 6; i > 0; --i) {
      const uint32_t c = low + static_cast<uint32_t>(random() % (high - low + 1));
      if (c < 0x80) {
        out += static_cast<char>(c);
      } else if (c < 0x800) {
        out += {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
      } else if (c < 0x10000) {
        out += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
                static_cast<char>(0x80 | (c & 63))};
      } else {
        out += {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
                static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
      }
    }
  }
  return out;
}

TEST(TokenizerProperties, DecodeUndoesEncode) {
  REQUIRE_GOLDEN();
  std::mt19937 random(20240607);
  for (const char* name : {"qwen2", "llama-bpe", "llama-bpe.tokenizer.json", "llama-spm"}) {
    const Tokenizer& tokenizer = vocabulary(name);
    for (int i = 0; i < 400; ++i) {
      const std::string text =
          i % 2 == 0 ? random_text(random) : random_bytes(random, random() % 60);
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, false), false), text) << name;
    }
  }
}

TEST(TokenizerProperties, TextNeverBecomesASpecialTokenUnlessParsed) {
  REQUIRE_GOLDEN();
  std::mt19937 random(7);
  for (const char* name :
       {"qwen2", "qwen2.tokenizer.json", "llama-bpe", "llama-bpe.tokenizer.json", "llama-spm"}) {
    const Tokenizer& tokenizer = vocabulary(name);
    std::vector<std::string> specials;
    for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
      if (tokenizer.is_special(id))
        specials.emplace_back(tokenizer.piece(id));
    }
    ASSERT_GE(specials.size(), 3u);
    for (const std::string& special : specials) {
      const std::string text = random_text(random) + special + random_text(random);
      for (const TokenId id : tokenizer.encode(text, false)) {
        EXPECT_FALSE(tokenizer.is_special(id)) << name << " " << text;
      }
      EXPECT_EQ(tokenizer.encode(special, true), std::vector{*tokenizer.find(special)});
    }
  }
}

bool is_valid_utf8(std::string_view text) {
  return !Json(std::string(text)).dump(-1, ' ', false, Json::error_handler_t::replace).empty() &&
         [&] {
           try {
             (void)Json(std::string(text)).dump();
             return true;
           } catch (const nlohmann::json::exception&) {
             return false;
           }
         }();
}

TEST(StreamDecoder, GivesWholeCharacters) {
  REQUIRE_GOLDEN();
  std::mt19937 random(11);
  for (const char* name : {"qwen2", "llama-spm"}) {
    const Tokenizer& tokenizer = vocabulary(name);
    for (int i = 0; i < 200; ++i) {
      const std::string text = random_text(random);
      StreamDecoder decoder(tokenizer);
      std::string joined;
      for (const TokenId id : tokenizer.encode(text, false)) {
        const std::string part = decoder.push(id);
        EXPECT_TRUE(is_valid_utf8(part));
        joined += part;
      }
      EXPECT_EQ(joined + decoder.finish(), text) << name;
    }
  }
}

TEST(StreamDecoder, ReplacesWhatCannotBecomeValid) {
  REQUIRE_GOLDEN();
  const Tokenizer& tokenizer = vocabulary("llama-spm"); // one token per byte: <0x00> is 3
  const auto push = [&](StreamDecoder& decoder, uint8_t byte) { return decoder.push(3 + byte); };
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(push(decoder, 'a'), "a");
  EXPECT_EQ(push(decoder, 0xE2), "");
  EXPECT_EQ(push(decoder, 0x82), "");
  EXPECT_EQ(push(decoder, 0xAC), "€");
  EXPECT_EQ(push(decoder, 0xF0), "");
  EXPECT_EQ(push(decoder, 0x9F), "");
  EXPECT_EQ(push(decoder, 'b'), "\uFFFDb"); // one for the cut character
  EXPECT_EQ(push(decoder, 0x80), "\uFFFD"); // nothing begins so
  EXPECT_EQ(push(decoder, 0xC0), "\uFFFD");
  EXPECT_EQ(push(decoder, 0xED), "");
  EXPECT_EQ(push(decoder, 0xA0), "\uFFFD\uFFFD"); // a surrogate
  EXPECT_EQ(push(decoder, 0xE2), "");
  EXPECT_EQ(decoder.push(2), ""); // </s> gives nothing and breaks nothing
  EXPECT_EQ(decoder.finish(), "\uFFFD");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, DropsTheSpaceThatTheEncoderPutFirst) {
  REQUIRE_GOLDEN();
  const Tokenizer& tokenizer = vocabulary("llama-spm");
  StreamDecoder decoder(tokenizer);
  std::string out = decoder.push(1); // <s>
  for (const TokenId id : tokenizer.encode("Hello  world", false))
    out += decoder.push(id);
  EXPECT_EQ(out, "Hello  world");
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{1, 15043}, true), "Hello");
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{1, 15043}, false), "<s> Hello");
}

TEST(Tokenizer, PiecesAndIds) {
  REQUIRE_GOLDEN();
  const Tokenizer& qwen = vocabulary("qwen2");
  EXPECT_EQ(qwen.vocab_size(), 151936);
  EXPECT_EQ(qwen.find("<|im_end|>"), 151645);
  EXPECT_EQ(qwen.find("Ġthe"), 279);
  EXPECT_EQ(qwen.piece(279), " the");
  EXPECT_EQ(qwen.find("no such token"), std::nullopt);
  EXPECT_EQ(qwen.find(""), std::nullopt);
  EXPECT_EQ(qwen.piece(-1), "");
  EXPECT_EQ(qwen.piece(151936), "");
  EXPECT_EQ(qwen.piece(151935), ""); // a padding row: no text
  EXPECT_TRUE(qwen.is_special(151645));
  EXPECT_FALSE(qwen.is_special(151667)); // <think>: part of the text
  EXPECT_FALSE(qwen.is_special(1 << 30));
  EXPECT_EQ(qwen.eos(), 151645);
  EXPECT_FALSE(qwen.adds_bos());
  const Tokenizer& json = vocabulary("qwen2.tokenizer.json");
  EXPECT_EQ(json.vocab_size(), 151669);
  EXPECT_EQ(json.find("Ġthe"), 279);
  EXPECT_EQ(json.piece(279), " the");
  EXPECT_EQ(json.piece(151936), "");
  const Tokenizer& spm = vocabulary("llama-spm");
  EXPECT_EQ(spm.find("▁Hello"), 15043);
  EXPECT_EQ(spm.piece(15043), " Hello");
  EXPECT_EQ(spm.piece(13), "\n"); // <0x0A>
  EXPECT_EQ(spm.bos(), 1);
  EXPECT_TRUE(spm.is_special(0)); // <unk>
}

TEST(Tokenizer, AddsBosWhereItsSettingsSaySo) {
  REQUIRE_GOLDEN();
  for (const char* name : {"llama-bpe", "llama-bpe.tokenizer.json"}) {
    const Tokenizer& tokenizer = vocabulary(name);
    EXPECT_TRUE(tokenizer.adds_bos());
    EXPECT_THAT(tokenizer.encode("Hello", false, true), ElementsAre(128000, 9906)) << name;
    EXPECT_THAT(tokenizer.encode("", false, true), ElementsAre(128000)) << name;
    EXPECT_THAT(tokenizer.encode("Hello", false, false), ElementsAre(9906)) << name;
  }
  EXPECT_THAT(vocabulary("llama-spm").encode("Hello", false, true), ElementsAre(1, 15043));
  EXPECT_THAT(vocabulary("llama-spm").encode("", false, false), ElementsAre());
}

// A megabyte of anything takes about a second at most; the limit allows for sanitizers.
class Megabyte : public ::testing::TestWithParam<const char*> {};

TEST_P(Megabyte, IsEncodedInTime) {
  REQUIRE_GOLDEN();
  const Tokenizer& tokenizer = vocabulary(GetParam());
  std::mt19937 random(5);
  std::string letters, marks = "e";
  while (letters.size() < 1'000'000)
    letters += static_cast<char>('a' + random() % 26);
  while (marks.size() < 1'000'000)
    marks += "\u0301\u0323"; // out of canonical order
  for (const std::string& text :
       {std::string(1'000'000, 'a'), std::string(1'000'000, ' '), std::string(1'000'000, '\n'),
        std::string(1'000'000, '<'), random_bytes(random, 1'000'000), letters, marks}) {
    const auto start = std::chrono::steady_clock::now();
    const std::vector<TokenId> ids = tokenizer.encode(text, true);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_LT(seconds.count(), 30);
    EXPECT_FALSE(ids.empty());
  }
}

INSTANTIATE_TEST_SUITE_P(All, Megabyte,
                         ::testing::Values("qwen2", "qwen2.tokenizer.json", "llama-spm"));

} // namespace
} // namespace pinhole
