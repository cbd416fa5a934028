// Models of sliding and full layers whose pictures see themselves whole: the same logits however
// the tokens arrive, with prompts several times as long as the window.
#include "fixture.h"

#include <gmock/gmock.h>

namespace pinhole {
namespace {

using testing::copy_of;
using testing::Described;
using testing::encode;
using testing::FakePicture;
using ::testing::HasSubstr;
using testing::kernel_choice;
using testing::max_difference;
using testing::random_prompt;
using testing::shape_of;
using testing::take;
using testing::text_token;

constexpr int64_t kTokens = 16; // of a picture; the window is 12

class Sliding : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_GOLDEN();
    described_ = Described::open(testing::golden("gemma3/tiny"));
    picture_ = std::make_unique<FakePicture>(model(), 8, 8, 1);
  }
  const Model& model() const { return described_->model; }
  std::unique_ptr<Session> session(int64_t chunk, int64_t context = 160) const {
    return take(
        Session::create(model(), {shape_of(context, chunk, 64, 2 * kTokens), kernel_choice(true)}));
  }
  // `before` text tokens, the picture, `after` text tokens.
  std::vector<PromptToken> prompt_with(Session& s, size_t before, size_t after) const {
    const auto encoded = encode(s, *picture_);
    EXPECT_EQ(encoded.tokens, kTokens);
    std::vector<PromptToken> out = random_prompt(model(), before, 5);
    for (int32_t t = 0; t < encoded.tokens; ++t) {
      PromptToken token = text_token(1, out.size());
      token.feature_row = encoded.first_row + t;
      token.picture_key = 7;
      out.push_back(token);
    }
    for (const PromptToken& token : random_prompt(model(), after, 6))
      out.push_back(text_token(token.id, out.size()));
    return out;
  }
  std::vector<float> whole(size_t before, size_t after) const {
    const auto fresh = session(160);
    return copy_of(take(fresh->prefill(prompt_with(*fresh, before, after))));
  }

  std::unique_ptr<Described> described_;
  std::unique_ptr<FakePicture> picture_;
};

constexpr float kClose = 2e-5f;

TEST_F(Sliding, ChunksDoNotCutPictures) {
  const std::vector<float> want = whole(21, 70);
  for (const int64_t chunk : {1, 16, 17, 24, 40, 90}) {
    const auto chunked = session(chunk);
    EXPECT_GE(chunked->plan().shape.chunk_tokens, kTokens);
    const auto logits = copy_of(take(chunked->prefill(prompt_with(*chunked, 21, 70))));
    EXPECT_LE(max_difference(logits, want), kClose) << chunk;
  }
}

TEST_F(Sliding, StepsContinueFarBeyondTheWindow) {
  const auto stepped = session(20);
  const auto prompt = prompt_with(*stepped, 9, 80);
  take(stepped->prefill(std::span(prompt).first(9 + kTokens)));
  std::vector<float> last;
  for (size_t i = 9 + kTokens; i < prompt.size(); ++i)
    last = copy_of(take(stepped->step(prompt[i])));
  EXPECT_LE(max_difference(last, whole(9, 80)), kClose);
}

TEST_F(Sliding, TruncatingInsideAPictureForgetsAllOfIt) {
  const auto cut = session(20);
  const auto prompt = prompt_with(*cut, 9, 10);
  take(cut->prefill(prompt));
  cut->truncate(9 + kTokens / 2);
  EXPECT_EQ(cut->length(), 9);
  int64_t reused = -1;
  const auto logits = copy_of(take(cut->prefill(prompt, nullptr, &reused)));
  EXPECT_EQ(reused, 9);
  EXPECT_LE(max_difference(logits, whole(9, 10)), kClose);
}

TEST_F(Sliding, PromptsThatEndInsideAPictureShareOnlyWhatIsBeforeIt) {
  const auto shared = session(20);
  const auto prompt = prompt_with(*shared, 9, 10);
  take(shared->prefill(prompt));
  auto other = prompt;
  other.resize(9 + kTokens / 2);
  other.push_back(text_token(3, other.size()));
  int64_t reused = -1;
  const auto logits = copy_of(take(shared->prefill(other, nullptr, &reused)));
  EXPECT_EQ(reused, 9);
  const auto fresh = session(20);
  encode(*fresh, *picture_);
  EXPECT_LE(max_difference(logits, copy_of(take(fresh->prefill(other)))), kClose);
}

TEST_F(Sliding, PrefixesAreReusedAtEveryLength) {
  const auto shared = session(20);
  const auto prompt = prompt_with(*shared, 9, 90);
  take(shared->prefill(prompt));
  const auto last = static_cast<int32_t>(model().vocab_size - 1);
  for (const size_t common :
       {size_t{110}, size_t{100}, size_t{96}, size_t{60}, size_t{30}, size_t{5}}) {
    auto other = prompt;
    other.resize(common);
    for (int i = 0; i < 3; ++i)
      other.push_back(text_token(last - i, other.size()));
    int64_t reused = -1;
    const auto logits = copy_of(take(shared->prefill(other, nullptr, &reused)));
    EXPECT_LE(reused, static_cast<int64_t>(common));
    const auto fresh = session(20);
    encode(*fresh, *picture_);
    EXPECT_LE(max_difference(logits, copy_of(take(fresh->prefill(other)))), kClose) << common;
    take(shared->prefill(prompt));
  }
}

// Long enough that the caches of sliding layers run out of rows more than once.
TEST_F(Sliding, LongPromptsAndStepsOutgrowTheCacheOfSlidingLayers) {
  const int64_t context = 1300;
  const auto at_once = session(context, context);
  const auto prompt = prompt_with(*at_once, 700, 500);
  const auto want = copy_of(take(at_once->prefill(prompt)));
  EXPECT_EQ(at_once->plan().kv_cache_bytes,
            context * kv_bytes_per_token(model().cache, kernels::KvType::kF32));
  for (const int64_t chunk : {20, 37, 300}) {
    const auto chunked = session(chunk, context);
    EXPECT_LT(chunked->plan().kv_cache_bytes, at_once->plan().kv_cache_bytes * 2 / 3);
    prompt_with(*chunked, 1, 0);
    EXPECT_LE(max_difference(copy_of(take(chunked->prefill(prompt))), want), kClose) << chunk;
  }
  const auto stepped = session(20, context);
  prompt_with(*stepped, 1, 0);
  take(stepped->prefill(std::span(prompt).first(750)));
  std::vector<float> last;
  for (size_t i = 750; i < prompt.size(); ++i)
    last = copy_of(take(stepped->step(prompt[i])));
  EXPECT_LE(max_difference(last, want), kClose);
}

TEST_F(Sliding, WhatTheWindowsStillReachIsReusedAndTheRestReadAnew) {
  const int64_t context = 1300;
  const auto shared = session(64, context);
  const auto prompt = prompt_with(*shared, 700, 500);
  const auto total = static_cast<int64_t>(prompt.size());
  take(shared->prefill(prompt));
  const auto last = static_cast<int32_t>(model().vocab_size - 1);
  const auto change_at = [&](int64_t common) {
    auto other = prompt;
    other.resize(static_cast<size_t>(common));
    for (int i = 0; i < 3; ++i)
      other.push_back(text_token(last - i, other.size()));
    int64_t reused = -1;
    const auto logits = copy_of(take(shared->prefill(other, nullptr, &reused)));
    const auto fresh = session(64, context);
    encode(*fresh, *picture_);
    EXPECT_LE(max_difference(logits, copy_of(take(fresh->prefill(other)))), kClose) << common;
    return reused;
  };
  EXPECT_EQ(change_at(total - 200), total - 200);
  EXPECT_EQ(change_at(total - 230), total - 230);
  EXPECT_EQ(change_at(300), 0);   // far behind every window
  EXPECT_EQ(change_at(100), 100); // nothing has left the short cache yet
  take(shared->prefill(prompt));
  shared->truncate(total - 2);
  EXPECT_EQ(shared->length(), total - 2);
  shared->truncate(200);
  EXPECT_EQ(shared->length(), 0);
}

TEST_F(Sliding, APictureInPartsIsRefused) {
  const auto any = session(20);
  const auto prompt = prompt_with(*any, 3, 0);
  take(any->prefill(std::span(prompt).first(3 + kTokens)));
  const auto refused = any->step(prompt.back());
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text(), HasSubstr("in parts"));
}

} // namespace
} // namespace pinhole
