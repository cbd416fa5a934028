// The bundled model answers its samples as its reference did: the same prompt, the same logits, the
// same tokens. samples.jsonl was recorded with transformers.
#include "answer/answerer.h"

#include "base/thread_pool.h"
#include "kernels/select.h"
#include "support/golden.h"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <numeric>
#include <sstream>

namespace pinhole {
namespace {

using testing::take;

const std::string& folder() {
  static const std::string path = testing::source_path("models/pinhole-mini");
  return path;
}

const LoadedModel& bundled() {
  static const auto loaded = take(load_model(folder() + "/pinhole-mini-f16.gguf"));
  return *loaded;
}

// The plan's allowance for the vocabulary is what loading the model takes for it.
TEST(BundledModel, ThePlanCountsTheVocabularyThatLoadingBuilds) {
  EXPECT_EQ(measure_vocabulary(bundled().files.text), bundled().model.vocabulary_bytes);
  EXPECT_GT(bundled().model.vocabulary_bytes, 768 * 20); // tokens, each with a text and a slot
}

std::vector<Json> samples() {
  std::vector<Json> out;
  std::istringstream lines(testing::read_file(folder() + "/samples.jsonl"));
  for (std::string line; std::getline(lines, line);)
    out.push_back(take(parse_json(line, "samples.jsonl")));
  return out;
}

Picture open_sample(const Json& sample) {
  const std::string path = folder() + "/" + sample["image"].get<std::string>();
  return take(open_picture(testing::read_file(path), path, *bundled().model.pictures, {}));
}

std::vector<ChatTurn> turns_of(const Json& sample) {
  return {{"user", sample["question"].get<std::string>(), {0}}};
}

KernelChoice kernel_choice(bool exact) {
  return {take(kernels::select()), exact, std::min(2, usable_cores()),
          exact ? kernels::KvType::kF32 : kernels::KvType::kF16};
}

TEST(BundledModel, PromptIdsAreTheReferences) {
  int checked = 0;
  for (const Json& sample : samples()) {
    if (sample["prompt_ids"].is_null())
      continue;
    std::vector<Picture> pictures;
    pictures.push_back(open_sample(sample));
    EXPECT_EQ(take(count_prompt(bundled(), turns_of(sample), pictures)),
              sample["prompt_ids"].get<std::vector<TokenId>>())
        << sample["question"];
    ++checked;
  }
  EXPECT_GE(checked, 60);
}

// Prompt and answer token by token, feeding the reference's own tokens: one tie does not decide the
// rest of an answer.
TEST(BundledModel, LogitsAndTokensAreTheReferences) {
  constexpr float kMaxLogitError = 1e-2f;
  const LoadedModel& loaded = bundled();
  const PictureSpec& spec = *loaded.model.pictures;
  float worst = 0;
  int tokens = 0;
  int ties = 0;
  for (const Json& sample : samples()) {
    SCOPED_TRACE(sample["image"].get<std::string>() + " " + sample["question"].get<std::string>());
    std::vector<Picture> pictures;
    pictures.push_back(open_sample(sample));
    Picture& picture = pictures.front();
    const auto ids = take(count_prompt(loaded, turns_of(sample), pictures));
    const std::vector<PatchGrid> grids{picture.grid};
    Prompt prompt = take(place_pictures(loaded, ids, grids));
    const auto want = sample["output_ids"].get<std::vector<TokenId>>();
    RunShape shape;
    shape.context_tokens = static_cast<int64_t>(ids.size() + want.size());
    shape.max_patches = picture.grid.patches();
    shape.feature_tokens = picture.tokens;
    const auto session = take(Session::create(loaded.model, {shape, kernel_choice(true)}));
    const Image image = take(decode_for_model(picture, spec, {}));
    const auto encoded =
        take(session->encode(*picture.digest, picture.grid,
                             [&](int64_t begin, int64_t end, float* out) {
                               write_patches(image, patch_layout(spec), begin, end, out);
                             },
                             {}));
    const std::vector<PlacedPicture> placed{{encoded.first_row, *picture.digest}};
    bind_pictures(prompt, loaded.image_token_id, grids, placed);

    std::span<const float> logits = take(session->prefill(prompt.tokens));
    for (const Json& pair : sample["first_logits_top5"]) {
      const float error = std::abs(logits[pair[0].get<size_t>()] - pair[1].get<float>());
      worst = std::max(worst, error);
      EXPECT_LE(error, kMaxLogitError) << "token " << pair[0];
    }
    const auto top = std::max_element(logits.begin(), logits.end()) - logits.begin();
    EXPECT_EQ(top, sample["first_logits_top5"][0][0].get<int64_t>());
    int32_t position = prompt.next_position;
    for (size_t i = 0; i < want.size(); ++i) {
      const auto best = std::max_element(logits.begin(), logits.end());
      const float margin = *best - logits[static_cast<size_t>(want[i])];
      ties += margin > 0;
      ++tokens;
      EXPECT_LE(margin, 4 * kMaxLogitError)
          << "step " << i << " gives " << best - logits.begin() << ", expected " << want[i];
      if (i + 1 < want.size())
        logits = take(session->step({want[i], {position, position, position}}));
      ++position;
    }
  }
  std::printf("%d tokens, %d ties, largest difference of a recorded logit %.2g\n", tokens, ties,
              static_cast<double>(worst));
  EXPECT_GE(tokens, 500);
  EXPECT_LE(ties, tokens / 100);
}

// As people run it: int8 or bf16 arithmetic, an f16 cache.
TEST(BundledModel, AnswersAreTheReferencesInNormalMode) {
  const LoadedModel& loaded = bundled();
  const auto all = samples();
  int same = 0;
  for (const Json& sample : all) {
    std::vector<Picture> pictures;
    pictures.push_back(open_sample(sample));
    const auto want = sample["output_ids"].get<std::vector<TokenId>>();
    Answerer::Limits limits;
    limits.context_tokens = 512;
    const auto answerer = take(Answerer::create(loaded, limits, pictures, kernel_choice(false)));
    AnswerOptions options;
    options.max_new_tokens = static_cast<int64_t>(want.size()) + 8;
    std::string streamed;
    const auto on_text = [&](std::string_view text) { streamed += text; };
    const auto on_progress = [](std::string_view, int64_t, int64_t) {};
    const Answer answer =
        take(answerer->answer(turns_of(sample), pictures, options, {}, {on_text, on_progress}));
    EXPECT_EQ(streamed, answer.text);
    EXPECT_EQ(answer.finish, FinishReason::kStop);
    EXPECT_EQ(answer.picture_tokens, pictures.front().tokens);
    const bool equal = answer.text == sample["answer"].get<std::string>();
    if (!equal) {
      std::printf("%s: '%s', the reference's is '%s'\n", sample["image"].get<std::string>().c_str(),
                  answer.text.c_str(), sample["answer"].get<std::string>().c_str());
    }
    same += equal;
  }
  std::printf("%d of %zu answers are the same\n", same, all.size());
  // 99 %, and one of this few.
  EXPECT_GE(same, static_cast<int>(std::floor(0.99 * static_cast<double>(all.size()))));
}

// --- conversations ---

struct Asked {
  Answer answer;
  std::string streamed;
};

Asked ask(Answerer& answerer, std::span<const ChatTurn> turns, std::span<Picture> pictures,
          const AnswerOptions& options = {}) {
  Asked out;
  const auto on_text = [&](std::string_view text) { out.streamed += text; };
  const auto on_progress = [](std::string_view, int64_t, int64_t) {};
  out.answer = take(answerer.answer(turns, pictures, options, {}, {on_text, on_progress}));
  return out;
}

class Conversation : public ::testing::Test {
 protected:
  Conversation() : sample_(samples().front()) {
    pictures_.push_back(open_sample(sample_));
    Answerer::Limits limits;
    limits.context_tokens = 400;
    answerer_ = take(Answerer::create(bundled(), limits, pictures_, kernel_choice(true)));
  }
  Json sample_;
  std::vector<Picture> pictures_;
  std::unique_ptr<Answerer> answerer_;
};

TEST_F(Conversation, SecondQuestionReusesPictureAndPrefix) {
  std::vector<ChatTurn> turns = turns_of(sample_);
  const Answer first = ask(*answerer_, turns, pictures_).answer;
  EXPECT_EQ(first.encoded_pictures, 1);
  EXPECT_EQ(first.reused_tokens, 0);
  turns.push_back({"assistant", first.text, {}});
  turns.push_back({"user", "List all boxes.", {}});
  const Answer second = ask(*answerer_, turns, pictures_).answer;
  EXPECT_EQ(second.encoded_pictures, 0);
  EXPECT_GE(second.reused_tokens, first.prompt_tokens);
  EXPECT_EQ(second.timings.encode, 0);
  // The same as a conversation that was not there before.
  std::vector<Picture> again;
  again.push_back(open_sample(sample_));
  Answerer::Limits limits;
  limits.context_tokens = 400;
  const auto fresh = take(Answerer::create(bundled(), limits, again, kernel_choice(true)));
  EXPECT_EQ(ask(*fresh, turns, again).answer.ids, second.ids);
}

TEST_F(Conversation, StopStringsEndTheAnswer) {
  const std::vector<ChatTurn> turns{{"user", "List all boxes.", {0}}};
  const Asked whole = ask(*answerer_, turns, pictures_);
  ASSERT_NE(whole.answer.text.find("\n4"), std::string::npos);
  AnswerOptions options;
  options.stop = {"\n4"};
  const Asked cut = ask(*answerer_, turns, pictures_, options);
  EXPECT_EQ(cut.answer.text, whole.answer.text.substr(0, whole.answer.text.find("\n4")));
  EXPECT_EQ(cut.streamed, cut.answer.text);
  EXPECT_EQ(cut.answer.finish, FinishReason::kStop);
  EXPECT_LT(cut.answer.generated_tokens, whole.answer.generated_tokens);
}

TEST_F(Conversation, GrammarsHoldTheAnswer) {
  const std::vector<ChatTurn> turns = turns_of(sample_);
  const std::string free = ask(*answerer_, turns, pictures_).answer.text;
  AnswerOptions options;
  options.grammar = take(Grammar::from_choices(std::vector<std::string>{"zebra", free}));
  Asked asked = ask(*answerer_, turns, pictures_, options);
  EXPECT_EQ(asked.answer.text, free); // what it says anyway is allowed
  EXPECT_EQ(asked.streamed, free);
  options.grammar = take(Grammar::from_choices(std::vector<std::string>{" zebra", " gnu"}));
  options.ignore_eos = true;
  asked = ask(*answerer_, turns, pictures_, options);
  EXPECT_TRUE(asked.answer.text == " zebra" || asked.answer.text == " gnu") << asked.answer.text;
  EXPECT_EQ(asked.streamed, asked.answer.text);
  EXPECT_EQ(asked.answer.finish, FinishReason::kStop);
  EXPECT_EQ(asked.answer.generated_tokens, static_cast<int64_t>(asked.answer.ids.size()));
  // Without one again: nothing of it is left.
  EXPECT_EQ(ask(*answerer_, turns, pictures_).answer.text, free);
}

TEST_F(Conversation, LengthAndContextEndIt) {
  const std::vector<ChatTurn> turns{{"user", "List all boxes.", {0}}};
  AnswerOptions options;
  options.max_new_tokens = 5;
  const Answer five = ask(*answerer_, turns, pictures_, options).answer;
  EXPECT_EQ(five.finish, FinishReason::kLength);
  EXPECT_EQ(five.generated_tokens, 5);
  EXPECT_EQ(five.ids.size(), 5u);
  options = {};
  options.ignore_eos = true;
  options.max_new_tokens = 1000;
  const Answer full = ask(*answerer_, turns, pictures_, options).answer;
  EXPECT_EQ(full.finish, FinishReason::kContext);
  // The last token needs no place of its own: nothing comes after it.
  EXPECT_EQ(full.prompt_tokens + full.generated_tokens, 401);
}

TEST_F(Conversation, PromptsBeyondTheContextAreRefusedWithBothCounts) {
  std::string question = "a";
  for (int i = 0; i < 500; ++i)
    question += " b c";
  const std::vector<ChatTurn> turns{{"user", question, {0}}};
  const auto count = take(count_prompt(bundled(), turns, pictures_)).size();
  const auto nothing = [](std::string_view) {};
  const auto no_progress = [](std::string_view, int64_t, int64_t) {};
  const auto refused = answerer_->answer(turns, pictures_, {}, {}, {nothing, no_progress});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge);
  EXPECT_NE(refused.error().text().find(std::to_string(count)), std::string::npos);
  EXPECT_NE(refused.error().text().find("400"), std::string::npos);
}

TEST_F(Conversation, CancellingInTheMiddleLeavesItUsable) {
  const std::vector<ChatTurn> turns{{"user", "List all boxes.", {0}}};
  const Answer whole = ask(*answerer_, turns, pictures_).answer;
  std::atomic<bool> cancel{false};
  int pieces = 0;
  const auto on_text = [&](std::string_view) { cancel = ++pieces == 3; };
  const auto no_progress = [](std::string_view, int64_t, int64_t) {};
  const auto cancelled =
      answerer_->answer(turns, pictures_, {}, {}, {on_text, no_progress}, &cancel);
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(ask(*answerer_, turns, pictures_).answer.ids, whole.ids);
}

} // namespace
} // namespace pinhole
