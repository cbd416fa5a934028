// Stop strings in streamed text, however the text is cut into pieces.
#include "answer/answerer.h"

#include <gtest/gtest.h>
#include <random>

namespace pinhole {
namespace {

struct Filtered {
  std::string text;
  bool stopped = false;
};

Filtered filter(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopFilter f(stops);
  Filtered out;
  for (const std::string& piece : pieces)
    out.text += f.push(piece);
  out.stopped = f.stopped();
  out.text += f.finish();
  return out;
}

// All ways to cut `text`, up to 12 characters.
std::vector<std::vector<std::string>> all_cuts(const std::string& text) {
  std::vector<std::vector<std::string>> out;
  for (uint32_t mask = 0; mask < 1u << (text.size() - 1); ++mask) {
    std::vector<std::string> pieces(1);
    for (size_t i = 0; i < text.size(); ++i) {
      pieces.back() += text[i];
      if (mask >> i & 1)
        pieces.emplace_back();
    }
    out.push_back(std::move(pieces));
  }
  return out;
}

void expect_for_all_cuts(const std::vector<std::string>& stops, const std::string& text,
                         const std::string& want, bool stopped) {
  for (const auto& pieces : all_cuts(text)) {
    const Filtered got = filter(stops, pieces);
    ASSERT_EQ(got.text, want) << "in " << pieces.size() << " pieces";
    ASSERT_EQ(got.stopped, stopped);
  }
}

TEST(StopFilter, WithoutStopsTextPassesAtOnce) {
  const std::vector<std::string> none;
  StopFilter f(none);
  EXPECT_EQ(f.push("abc"), "abc");
  EXPECT_EQ(f.push(""), "");
  EXPECT_EQ(f.finish(), "");
  EXPECT_FALSE(f.stopped());
}

TEST(StopFilter, EndsBeforeTheStop) {
  expect_for_all_cuts({"STOP"}, "ab STOP cd", "ab ", true);
  expect_for_all_cuts({"STOP"}, "STOP", "", true);
  expect_for_all_cuts({"STOP"}, "abSTO", "abSTO", false);
  expect_for_all_cuts({"\n"}, "a\nb\nc", "a", true);
}

TEST(StopFilter, BeginningsThatOverlapThemselves) {
  expect_for_all_cuts({"aab"}, "aaab", "a", true);
  expect_for_all_cuts({"abab"}, "abcababab", "abc", true);
  expect_for_all_cuts({"aaa"}, "aabaab", "aabaab", false);
  expect_for_all_cuts({"ababc"}, "abababc", "ab", true);
}

TEST(StopFilter, SeveralStopsShareBeginnings) {
  expect_for_all_cuts({"###", "##x"}, "a##y##x", "a##y", true);
  expect_for_all_cuts({"User:", "Usher"}, "an Usher", "an ", true);
  expect_for_all_cuts({"abcd", "cdx"}, "abcdx", "", true);
  expect_for_all_cuts({"abce", "cdx"}, "abcdx", "ab", true);
}

TEST(StopFilter, EmptyStopsMeanNothing) {
  expect_for_all_cuts({""}, "abc", "abc", false);
  expect_for_all_cuts({"", "c"}, "abcd", "ab", true);
}

TEST(StopFilter, NothingComesAfterTheStop) {
  const std::vector<std::string> stops{"X"};
  StopFilter f(stops);
  EXPECT_EQ(f.push("aXb"), "a");
  EXPECT_TRUE(f.stopped());
  EXPECT_EQ(f.push("more"), "");
  EXPECT_EQ(f.push("X"), "");
  EXPECT_EQ(f.finish(), "");
}

TEST(StopFilter, HoldsBackNoMoreThanAStopCouldNeed) {
  const std::vector<std::string> stops{"<end>"};
  StopFilter f(stops);
  EXPECT_EQ(f.push("hello"), "hello");
  EXPECT_EQ(f.push(" <e"), " ");
  EXPECT_EQ(f.push("x"), "<ex");
  EXPECT_EQ(f.push("<en"), "");
  EXPECT_EQ(f.finish(), "<en");
}

TEST(StopFilter, RandomTextAgainstAPlainSearch) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 3000; ++trial) {
    // One stop: of several, a longer one may begin before a shorter one that is complete first.
    std::string stop;
    for (size_t i = 0; i < 1 + random() % 4; ++i)
      stop += static_cast<char>('a' + random() % 2);
    std::string text;
    for (size_t i = 0; i < random() % 40; ++i)
      text += static_cast<char>('a' + random() % 2);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t n = 1 + random() % 5;
      pieces.push_back(text.substr(at, n));
      at += n;
    }
    const Filtered got = filter({stop}, pieces);
    ASSERT_EQ(got.text, text.substr(0, text.find(stop))) << text << " stop " << stop;
    ASSERT_EQ(got.stopped, text.find(stop) != std::string::npos);
  }
}

} // namespace
} // namespace pinhole
