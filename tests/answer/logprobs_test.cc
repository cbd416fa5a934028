// Log-probabilities of an answer's tokens: the softmax of what the model says, before anything is
// done to it; against numbers that can be worked out by hand, and the bundled model's reference.
#include "answer/logprobs.h"

#include "answer/answerer.h"
#include "kernels/select.h"
#include "support/golden.h"

#include <cmath>
#include <sstream>

namespace pinhole {
namespace {

using testing::take;

const LoadedModel& bundled() {
  static const auto loaded =
      take(load_model(testing::source_path("models/pinhole-mini/pinhole-mini-f16.gguf")));
  return *loaded;
}

TEST(Logprobs, OfNumbersWorkedOutByHand) {
  // Probabilities 1/8, 1/2, 1/8, 1/4, whatever is added to all logits.
  for (const float moved : {0.0f, 300.0f, -300.0f}) {
    const float ln2 = std::log(2.0f);
    const std::vector<float> logits{moved, moved + 2 * ln2, moved, moved + ln2};
    const TokenChoice choice = choose_token(logits, 2, 3, bundled().tokenizer);
    EXPECT_EQ(choice.chosen.id, 2);
    EXPECT_NEAR(choice.chosen.logprob, std::log(0.125), 1e-4);
    EXPECT_EQ(choice.chosen.bytes, bundled().tokenizer.piece(2));
    ASSERT_EQ(choice.top.size(), 3u);
    EXPECT_EQ(choice.top[0].id, 1);
    EXPECT_EQ(choice.top[1].id, 3);
    EXPECT_EQ(choice.top[2].id, 0); // the lower id of two equal ones
    EXPECT_NEAR(choice.top[0].logprob, std::log(0.5), 1e-4);
    EXPECT_NEAR(choice.top[1].logprob, std::log(0.25), 1e-4);
    EXPECT_NEAR(choice.top[2].logprob, std::log(0.125), 1e-4);
  }
  const std::vector<float> logits{1, 2};
  EXPECT_TRUE(choose_token(logits, 0, 0, bundled().tokenizer).top.empty());
  EXPECT_EQ(choose_token(logits, 0, 20, bundled().tokenizer).top.size(), 2u);
}

// The reference recorded the first token's five largest logits: their differences are those of the
// log-probabilities. Sampling settings change nothing.
TEST(Logprobs, AreTheReferencesBeforeAnySampling) {
  const std::string folder = testing::source_path("models/pinhole-mini/");
  std::istringstream lines(testing::read_file(folder + "samples.jsonl"));
  std::string line;
  for (int i = 0; i < 5 && std::getline(lines, line); ++i) {
    const Json sample = take(parse_json(line, "samples.jsonl"));
    const std::string path = folder + sample["image"].get<std::string>();
    std::vector<Picture> pictures;
    pictures.push_back(
        take(open_picture(testing::read_file(path), path, *bundled().model.pictures, {})));
    Answerer::Limits limits;
    limits.context_tokens = 512;
    const auto answerer =
        take(Answerer::create(bundled(), limits, pictures,
                              {take(kernels::select()), true, 1, kernels::KvType::kF32}));
    AnswerOptions options;
    options.top_logprobs = 5;
    options.max_new_tokens = 6;
    options.sampling.temperature = 5;
    options.sampling.top_k = 2;
    options.sampling.repetition_penalty = 1.7;
    std::vector<TokenChoice> seen;
    bool text_before_token = false;
    size_t bytes_of_tokens = 0;
    size_t bytes_of_text = 0;
    const auto on_token = [&](const TokenChoice& choice) {
      seen.push_back(choice);
      bytes_of_tokens += choice.chosen.bytes.size();
    };
    const auto on_text = [&](std::string_view text) {
      bytes_of_text += text.size();
      text_before_token |= bytes_of_text > bytes_of_tokens;
    };
    const auto on_progress = [](std::string_view, int64_t, int64_t) {};
    const std::vector<ChatTurn> turns{{"user", sample["question"].get<std::string>(), {0}}};
    const Answer answer = take(
        answerer->answer(turns, pictures, options, {}, {on_text, on_progress, on_token}));
    EXPECT_FALSE(text_before_token);
    ASSERT_EQ(answer.logprobs.size(), answer.ids.size());
    ASSERT_EQ(seen.size(), answer.ids.size());
    for (size_t t = 0; t < seen.size(); ++t) {
      EXPECT_EQ(seen[t].chosen.id, answer.ids[t]);
      EXPECT_EQ(answer.logprobs[t].chosen.id, answer.ids[t]);
      EXPECT_LE(seen[t].chosen.logprob, 0);
      EXPECT_EQ(seen[t].top.size(), 5u);
    }
    if (seen.empty())
      continue; // the first token ended it
    const Json& want = sample["first_logits_top5"];
    for (size_t n = 0; n < 5; ++n) {
      EXPECT_EQ(seen[0].top[n].id, want[n][0].get<TokenId>());
      EXPECT_NEAR(seen[0].top[n].logprob - seen[0].top[0].logprob,
                  want[n][1].get<float>() - want[0][1].get<float>(), 2e-2);
    }
  }
}

} // namespace
} // namespace pinhole
