// A session gives the same logits however its tokens arrive: in chunks of any size, on top of a
// cached prefix, on any number of threads; and it refuses what does not fit.
#include "engine/session.h"

#include "fixture.h"

#include <algorithm>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <thread>

namespace pinhole {
namespace {

using ::testing::AllOf;
using testing::copy_of;
using testing::cosine;
using testing::Described;
using testing::encode;
using testing::FakePicture;
using ::testing::HasSubstr;
using testing::kernel_choice;
using testing::max_difference;
using testing::picture_prompt;
using testing::random_prompt;
using testing::shape_of;
using testing::take;
using testing::text_token;

// Folders of the golden collection; "" is the bundled model.
class Sessions : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string name = GetParam();
    if (!name.empty())
      REQUIRE_GOLDEN();
    described_ = name.empty() ? Described::bundled() : Described::open(testing::golden(name));
  }
  const Model& model() const { return described_->model; }
  std::unique_ptr<Session> session(const RunShape& shape, const KernelChoice& kernels) const {
    return take(Session::create(model(), {shape, kernels}));
  }
  std::vector<float> logits_of(std::span<const PromptToken> prompt, int64_t chunk,
                               const KernelChoice& kernels) const {
    const auto fresh = session(shape_of(64, chunk), kernels);
    return copy_of(take(fresh->prefill(prompt)));
  }
  // Largest logit: differences are judged against it, since models differ in scale.
  static float scale(std::span<const float> logits) {
    float out = 1;
    for (const float value : logits)
      out = std::max(out, std::abs(value));
    return out;
  }

  std::unique_ptr<Described> described_;
};

TEST_P(Sessions, ChunkSizeDoesNotMatter) {
  const auto prompt = random_prompt(model(), 41, 7);
  const std::vector<float> whole = logits_of(prompt, 64, kernel_choice(true));
  for (const int64_t chunk : {1, 2, 5, 16, 40, 41}) {
    EXPECT_LE(max_difference(logits_of(prompt, chunk, kernel_choice(true)), whole),
              1e-5f * scale(whole))
        << chunk;
  }
}

TEST_P(Sessions, StepsContinueAPrefill) {
  const auto prompt = random_prompt(model(), 30, 8);
  const std::vector<float> whole = logits_of(prompt, 64, kernel_choice(true));
  const auto stepped = session(shape_of(64, 8), kernel_choice(true));
  take(stepped->prefill(std::span(prompt).first(11)));
  std::vector<float> last;
  for (size_t i = 11; i < prompt.size(); ++i)
    last = copy_of(take(stepped->step(prompt[i])));
  EXPECT_EQ(stepped->length(), 30);
  EXPECT_LE(max_difference(last, whole), 1e-5f * scale(whole));
}

TEST_P(Sessions, AllLogitsEndWithThoseOfAPrefill) {
  const auto prompt = random_prompt(model(), 23, 9);
  RunShape shape = shape_of(64, 9);
  shape.output_rows = 9;
  const auto all = session(shape, kernel_choice(true));
  std::vector<std::vector<float>> rows;
  take(all->prefill_all_logits(prompt, [&](int64_t row, std::span<const float> logits) {
    EXPECT_EQ(row, static_cast<int64_t>(rows.size()));
    rows.push_back(copy_of(logits));
  }));
  ASSERT_EQ(rows.size(), prompt.size());
  for (const size_t length : {size_t{1}, size_t{9}, size_t{10}, size_t{23}}) {
    const auto want = logits_of(std::span(prompt).first(length), 64, kernel_choice(true));
    EXPECT_LE(max_difference(rows[length - 1], want), 1e-5f * scale(want)) << length;
  }
}

TEST_P(Sessions, ThreadsDoNotMatter) {
  const auto prompt = random_prompt(model(), 37, 10);
  for (const bool exact : {true, false}) {
    const std::vector<float> one = logits_of(prompt, 16, kernel_choice(exact, 1));
    for (const int threads : {2, 3}) {
      EXPECT_LE(max_difference(logits_of(prompt, 16, kernel_choice(exact, threads)), one),
                1e-5f * scale(one))
          << threads << " threads, exact " << exact;
    }
  }
}

// Steps are tried on one thread and on all (engine/team_choice.h): 20 of them on both.
TEST_P(Sessions, StepsOnAllThreadsAndOnOneGiveTheSameNumbers) {
  const auto prompt = random_prompt(model(), 30, 12);
  KernelChoice one = kernel_choice(false), all = kernel_choice(false);
  one.num_threads = 1;
  all.num_threads = 3;
  const auto alone = session(shape_of(64, 16), one);
  const auto team = session(shape_of(64, 16), all);
  take(alone->prefill(std::span(prompt).first(10)));
  take(team->prefill(std::span(prompt).first(10)));
  for (size_t i = 10; i < prompt.size(); ++i)
    ASSERT_EQ(copy_of(take(alone->step(prompt[i]))), copy_of(take(team->step(prompt[i])))) << i;
}

TEST_P(Sessions, RunsAreReproducible) {
  const auto prompt = random_prompt(model(), 20, 11);
  for (const bool exact : {true, false}) {
    EXPECT_EQ(logits_of(prompt, 16, kernel_choice(exact, 2)),
              logits_of(prompt, 16, kernel_choice(exact, 2)));
  }
}

TEST_P(Sessions, CachedPrefixIsReused) {
  const auto first = random_prompt(model(), 30, 12);
  auto second = first;
  second.resize(18);
  for (const PromptToken& token : random_prompt(model(), 12, 13))
    second.push_back(text_token(token.id, second.size()));
  second[18].id = (first[18].id + 1) % static_cast<int32_t>(model().vocab_size);

  const auto shared = session(shape_of(64, 8), kernel_choice(true));
  int64_t reused = -1;
  take(shared->prefill(first, nullptr, &reused));
  EXPECT_EQ(reused, 0);
  const auto logits = copy_of(take(shared->prefill(second, nullptr, &reused)));
  EXPECT_EQ(reused, 18);
  EXPECT_EQ(shared->length(), 30);
  const auto fresh = logits_of(second, 8, kernel_choice(true));
  EXPECT_LE(max_difference(logits, fresh), 1e-5f * scale(fresh));

  // The same prompt again: all but the last token, whose logits are wanted, is there.
  const auto again = copy_of(take(shared->prefill(second, nullptr, &reused)));
  EXPECT_EQ(reused, 29);
  EXPECT_LE(max_difference(again, fresh), 1e-5f * scale(fresh));
  // A prompt that is a prefix of what is there.
  const auto shorter =
      copy_of(take(shared->prefill(std::span(second).first(10), nullptr, &reused)));
  EXPECT_EQ(reused, 9);
  EXPECT_EQ(shared->length(), 10);
  const auto want = logits_of(std::span(second).first(10), 8, kernel_choice(true));
  EXPECT_LE(max_difference(shorter, want), 1e-5f * scale(want));
}

TEST_P(Sessions, SameTokenAtAnotherPositionIsNotReused) {
  const auto prompt = random_prompt(model(), 12, 14);
  auto moved = prompt;
  for (size_t i = 6; i < moved.size(); ++i)
    moved[i].position = {20, 21, 22};
  const auto shared = session(shape_of(64, 8), kernel_choice(true));
  take(shared->prefill(prompt));
  int64_t reused = -1;
  const auto logits = copy_of(take(shared->prefill(moved, nullptr, &reused)));
  EXPECT_EQ(reused, 6);
  const auto fresh = logits_of(moved, 8, kernel_choice(true));
  EXPECT_LE(max_difference(logits, fresh), 1e-5f * scale(fresh));
}

TEST_P(Sessions, TruncateForgetsLaterTokens) {
  const auto prompt = random_prompt(model(), 25, 15);
  const auto shared = session(shape_of(64, 8), kernel_choice(true));
  take(shared->prefill(prompt));
  shared->truncate(100); // longer than it is: nothing happens
  EXPECT_EQ(shared->length(), 25);
  shared->truncate(12);
  EXPECT_EQ(shared->length(), 12);
  const auto logits = copy_of(take(shared->step(prompt[12])));
  const auto fresh = logits_of(std::span(prompt).first(13), 8, kernel_choice(true));
  EXPECT_LE(max_difference(logits, fresh), 1e-5f * scale(fresh));
  shared->truncate(0);
  EXPECT_EQ(shared->length(), 0);
  const auto whole = copy_of(take(shared->prefill(prompt)));
  const auto want = logits_of(prompt, 8, kernel_choice(true));
  EXPECT_LE(max_difference(whole, want), 1e-5f * scale(want));
}

TEST_P(Sessions, ContextOverflowIsRefusedWithBothCounts) {
  const auto prompt = random_prompt(model(), 21, 16);
  const auto small = session(shape_of(20, 8), kernel_choice(true));
  const auto refused = small->prefill(prompt);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge);
  EXPECT_THAT(refused.error().text(), AllOf(HasSubstr("20"), HasSubstr("21"), HasSubstr("--ctx")));
  // Exactly full works, one more step does not, and the session still answers afterwards.
  const auto full = copy_of(take(small->prefill(std::span(prompt).first(20))));
  const auto step = small->step(prompt[20]);
  ASSERT_FALSE(step);
  EXPECT_EQ(step.error().code, ErrorCode::kTooLarge);
  EXPECT_THAT(step.error().text(), AllOf(HasSubstr("20"), HasSubstr("21")));
  EXPECT_EQ(small->length(), 20);
  const auto again = copy_of(take(small->prefill(std::span(prompt).first(20))));
  EXPECT_LE(max_difference(full, again), 1e-5f * scale(full));
}

TEST_P(Sessions, TokensOutsideTheVocabularyAreRefused) {
  const auto any = session(shape_of(20, 8), kernel_choice(true));
  for (const int64_t id :
       {int64_t{-1}, model().vocab_size, int64_t{INT32_MAX}, int64_t{INT32_MIN}}) {
    const std::vector<PromptToken> prompt{text_token(1, 0),
                                          text_token(static_cast<int32_t>(id), 1)};
    for (const auto& result : {any->prefill(prompt), any->step(prompt[1])}) {
      ASSERT_FALSE(result) << id;
      EXPECT_EQ(result.error().code, ErrorCode::kInvalidInput);
      EXPECT_THAT(result.error().text(), AllOf(HasSubstr(std::to_string(id)),
                                               HasSubstr(std::to_string(model().vocab_size))));
    }
  }
  EXPECT_FALSE(any->prefill({}));
  take(any->step(text_token(static_cast<int32_t>(model().vocab_size - 1), 0)));
}

TEST_P(Sessions, CancelledRunsLeaveAWorkingSession) {
  const auto prompt = random_prompt(model(), 30, 17);
  const auto fresh = logits_of(prompt, 8, kernel_choice(true, 2));
  const auto shared = session(shape_of(64, 8), kernel_choice(true, 2));
  std::atomic<bool> cancel{true};
  const auto refused = shared->prefill(prompt, &cancel);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kCancelled);
  // In the middle of a prompt: after two chunks.
  cancel = false;
  const auto stopped = shared->prefill(prompt, &cancel, nullptr,
                                       [&](int64_t done, int64_t) { cancel = done >= 16; });
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(shared->length(), 16);
  cancel = false;
  int64_t reused = -1;
  const auto logits = copy_of(take(shared->prefill(prompt, &cancel, &reused)));
  EXPECT_EQ(reused, 16);
  EXPECT_LE(max_difference(logits, fresh), 1e-5f * scale(fresh));
}

TEST_P(Sessions, ProgressCountsUpToTheWhole) {
  const auto prompt = random_prompt(model(), 30, 18);
  const auto any = session(shape_of(64, 8), kernel_choice(true));
  std::vector<int64_t> seen;
  take(any->prefill(prompt, nullptr, nullptr, [&](int64_t done, int64_t total) {
    EXPECT_EQ(total, 30);
    seen.push_back(done);
  }));
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen.back(), 30);
}

TEST_P(Sessions, NarrowCachesComeCloseToF32) {
  const auto prompt = random_prompt(model(), 40, 19);
  const auto want = logits_of(prompt, 8, kernel_choice(true, 1, kernels::KvType::kF32));
  const auto f16 = logits_of(prompt, 8, kernel_choice(true, 1, kernels::KvType::kF16));
  EXPECT_LE(max_difference(f16, want), 0.02f * scale(want));
  EXPECT_GE(cosine(f16, want), 0.9999);
  EXPECT_GT(max_difference(f16, want), 0); // it was indeed stored otherwise
  if (model().cache.head_dim % 32 != 0) {
    EXPECT_FALSE(Session::create(
        model(), {shape_of(64, 8), kernel_choice(true, 1, kernels::KvType::kQ8_0)}));
    return;
  }
  const auto q8 = logits_of(prompt, 8, kernel_choice(true, 1, kernels::KvType::kQ8_0));
  EXPECT_GE(cosine(q8, want), 0.995);
  EXPECT_GT(max_difference(q8, want), max_difference(f16, want));
}

// --- pictures ---

TEST_P(Sessions, SecondEncodeOfAPictureRunsNothing) {
  const FakePicture picture(model(), 8, 12, 1);
  const auto any = session(shape_of(64, 8, 96, 60), kernel_choice(true));
  std::vector<double> op_seconds(model().vision.ops().size(), 0);
  any->backend().set_profile(&op_seconds);
  EXPECT_FALSE(any->find_picture(picture.digest));
  const auto first = encode(*any, picture);
  EXPECT_FALSE(first.from_cache);
  EXPECT_EQ(first.tokens, picture.grid.tokens());
  const auto ran = [&] {
    return std::any_of(op_seconds.begin(), op_seconds.end(), [](double s) { return s > 0; });
  };
  EXPECT_TRUE(ran());
  std::fill(op_seconds.begin(), op_seconds.end(), 0);
  const auto second = take(
      any->encode(picture.digest, picture.grid,
                  [](int64_t, int64_t, float*) { ADD_FAILURE() << "patches were asked for"; }, {}));
  EXPECT_TRUE(second.from_cache);
  EXPECT_EQ(second.first_row, first.first_row);
  EXPECT_EQ(second.tokens, first.tokens);
  EXPECT_FALSE(ran());
  any->backend().set_profile(nullptr);
  ASSERT_TRUE(any->find_picture(picture.digest));
  EXPECT_TRUE(any->find_picture(picture.digest)->from_cache);
}

TEST_P(Sessions, PictureFeaturesDoNotDependOnThreadsOrOtherPictures) {
  const FakePicture a(model(), 8, 12, 1);
  const FakePicture b(model(), 4, 6, 2);
  const auto features = [&](Session& s, const Session::EncodedPicture& rows) {
    std::vector<float> out;
    for (int32_t slot = 0; slot < model().pictures->feature_slots; ++slot) {
      for (int32_t row = 0; row < rows.tokens; ++row) {
        const auto values = s.feature_row(slot, rows.first_row + row);
        out.insert(out.end(), values.begin(), values.end());
      }
    }
    return out;
  };
  const auto alone = session(shape_of(64, 8, 24, 6), kernel_choice(true));
  const auto want = features(*alone, encode(*alone, b));
  for (const int threads : {1, 2, 3}) {
    const auto both = session(shape_of(64, 8, 96, 30), kernel_choice(true, threads));
    encode(*both, a);
    EXPECT_LE(max_difference(features(*both, encode(*both, b)), want), 1e-5f * scale(want))
        << threads;
  }
}

TEST_P(Sessions, PromptsWithPicturesAreReusedToo) {
  const FakePicture picture(model(), 8, 8, 3);
  const auto shared = session(shape_of(64, 8, 64, 40), kernel_choice(true));
  const auto encoded = encode(*shared, picture);
  const auto prompt = picture_prompt(model(), picture, encoded, 20);
  const auto first = copy_of(take(shared->prefill(prompt)));
  int64_t reused = -1;
  const auto second = copy_of(take(shared->prefill(prompt, nullptr, &reused)));
  EXPECT_EQ(reused, static_cast<int64_t>(prompt.size()) - 1);
  EXPECT_LE(max_difference(first, second), 1e-5f * scale(first));

  // Another picture in the same place: everything from its first row on is computed anew.
  const FakePicture other(model(), 8, 8, 4);
  const auto other_encoded = encode(*shared, other);
  const auto other_prompt = picture_prompt(model(), other, other_encoded, 20);
  const auto third = copy_of(take(shared->prefill(other_prompt, nullptr, &reused)));
  EXPECT_EQ(reused, 5);
  EXPECT_GT(max_difference(first, third), 1e-3f); // the picture matters
  const auto fresh = session(shape_of(64, 64, 64, 40), kernel_choice(true));
  const auto fresh_prompt = picture_prompt(model(), other, encode(*fresh, other), 20);
  EXPECT_LE(max_difference(take(fresh->prefill(fresh_prompt)), third), 1e-5f * scale(third));
}

// --- weights that do not all stay ---

TEST_P(Sessions, StreamedWeightsGiveTheSameNumbers) {
  const KernelChoice kernels = kernel_choice(false, 2);
  const RunShape shape = shape_of(64, 8, 64, 40);
  SessionOptions options{shape, kernels, 0, described_->mapped_files()};
  const auto whole = session(shape, kernels);
  // The least memory that works, and some between that and all.
  const int64_t fixed = whole->plan().anonymous_bytes() + whole->plan().program_mapped_bytes;
  std::vector<int64_t> limits;
  for (int64_t share = 1; share < 20; ++share) {
    const int64_t limit = fixed + whole->plan().mapped_bytes / 20 * share;
    if (plan_residency(model(), whole->plan(), limit))
      limits.push_back(limit);
  }
  ASSERT_FALSE(limits.empty());
  const FakePicture picture(model(), 8, 8, 3);
  const auto prompt = picture_prompt(model(), picture, encode(*whole, picture), 20);
  const auto want = copy_of(take(whole->prefill(prompt)));
  const auto want_next = copy_of(take(whole->step(text_token(3, prompt.size()))));
  for (const int64_t limit : limits) {
    options.limit_bytes = limit;
    const auto streamed = take(Session::create(model(), options));
    ASSERT_TRUE(streamed->residency().streams());
    EXPECT_EQ(max_difference(take(streamed->prefill(random_prompt(model(), 9, 1))),
                             take(session(shape, kernels)->prefill(random_prompt(model(), 9, 1)))),
              0);
    // A picture in between, and a run that is broken off: the order starts anew.
    encode(*streamed, picture);
    std::atomic<bool> cancel{true};
    EXPECT_FALSE(streamed->prefill(prompt, &cancel));
    EXPECT_EQ(max_difference(take(streamed->prefill(prompt)), want), 0);
    EXPECT_EQ(max_difference(take(streamed->step(text_token(3, prompt.size()))), want_next), 0);
  }
}

TEST_P(Sessions, EmbeddingOfWhichRowsAreLookedUpIsNotTouchedThroughTheMapping) {
  const Op& embed = model().text.ops().front();
  ASSERT_EQ(embed.kind, OpKind::kEmbed);
  const Weight& table = model().text.weight(embed.weight);
  const int64_t table_bytes = table.row_stride_bytes * table.rows;
  const KernelChoice kernels = kernel_choice(false, 2);
  const auto prompt = random_prompt(model(), 20, 1);
  const auto want = logits_of(prompt, 8, kernels); // through the mapping: no files are given
  const auto session =
      take(Session::create(model(), {shape_of(64, 8), kernels, 0, described_->mapped_files()}));
  const bool only_rows = only_looks_up(model(), embed);
  EXPECT_EQ(session->plan().looked_up_bytes, only_rows ? table_bytes : 0);
  if (!only_rows) {
    EXPECT_EQ(max_difference(take(session->prefill(prompt)), want), 0);
    return;
  }
  const auto address = reinterpret_cast<uintptr_t>(table.data);
  const uintptr_t begin = (address + 4095) / 4096 * 4096;
  const uintptr_t end = (address + static_cast<uintptr_t>(table_bytes)) / 4096 * 4096;
  ASSERT_GT(end, begin + static_cast<uintptr_t>(table_bytes) / 2);
  auto* pages = reinterpret_cast<void*>(begin);
  ASSERT_EQ(::mprotect(pages, end - begin, PROT_NONE), 0);
  const auto got = copy_of(take(session->prefill(prompt)));
  ASSERT_EQ(::mprotect(pages, end - begin, PROT_READ), 0);
  EXPECT_EQ(max_difference(got, want), 0);
}

TEST_P(Sessions, OldPicturesMakeRoom) {
  const auto any = session(shape_of(64, 8, 64, 40), kernel_choice(true));
  const FakePicture a(model(), 8, 8, 5); // 16 tokens each
  const FakePicture b(model(), 8, 8, 6);
  const FakePicture c(model(), 8, 8, 7);
  encode(*any, a);
  encode(*any, b);
  encode(*any, a); // now b was used longest ago
  encode(*any, c);
  EXPECT_TRUE(any->find_picture(a.digest));
  EXPECT_FALSE(any->find_picture(b.digest));
  EXPECT_TRUE(any->find_picture(c.digest));
  // Two pictures that must stay leave no room for a third.
  const Sha256Digest keep[] = {a.digest, c.digest, b.digest};
  const auto refused = any->encode(
      b.digest, b.grid, [&](int64_t begin, int64_t end, float* out) { b.write(begin, end, out); },
      keep);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge);
  EXPECT_THAT(refused.error().text(), AllOf(HasSubstr("16"), HasSubstr("40")));
  EXPECT_TRUE(any->find_picture(a.digest));
  EXPECT_TRUE(any->find_picture(c.digest));
}

TEST_P(Sessions, PicturesBeyondThePlanAreRefused) {
  const auto any = session(shape_of(64, 8, 64, 16), kernel_choice(true));
  const FakePicture large(model(), 8, 10, 8);
  const auto refused =
      any->encode(large.digest, large.grid, [](int64_t, int64_t, float*) { ADD_FAILURE(); }, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge);
  EXPECT_THAT(refused.error().text(), AllOf(HasSubstr("80"), HasSubstr("64")));
  PromptToken token = text_token(1, 0);
  token.feature_row = 16;
  EXPECT_FALSE(any->step(token)); // a row outside the store
}

TEST_P(Sessions, CancelledEncodeLeavesNoPicture) {
  const auto any = session(shape_of(64, 8, 96, 60), kernel_choice(true, 2));
  const FakePicture picture(model(), 8, 12, 9);
  std::atomic<bool> cancel{true};
  const auto refused = any->encode(
      picture.digest, picture.grid,
      [&](int64_t begin, int64_t end, float* out) { picture.write(begin, end, out); }, {}, &cancel);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kCancelled);
  EXPECT_FALSE(any->find_picture(picture.digest));
  EXPECT_FALSE(encode(*any, picture).from_cache);
}

INSTANTIATE_TEST_SUITE_P(Model, Sessions,
                         ::testing::Values("", "qwen3_vl/tiny", "qwen3_vl_moe/tiny",
                                           "qwen2_5_vl/tiny", "mistral3/ministral3",
                                           "internvl/qwen2"),
                         [](const auto& param_info) {
                           std::string name = param_info.param;
                           name = name.empty() ? "bundled" : name.substr(0, name.find('/'));
                           return name;
                         });

} // namespace
} // namespace pinhole
