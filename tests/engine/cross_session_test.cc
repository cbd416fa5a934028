// Sessions of a model that attends to pictures from cross-attention layers: the same logits however
// tokens and pictures arrive, and nothing reused that depended on other pictures.
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
using testing::tiled_picture;

constexpr float kClose = 2e-5f;

// Text of so many tokens, or a picture.
struct Piece {
  size_t text = 0;
  const FakePicture* picture = nullptr;
};

class CrossSessions : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_GOLDEN();
    described_ = Described::open(testing::golden("mllama/tiny"));
    a_ = std::make_unique<FakePicture>(tiled_picture(model(), 1, 3, 1));
    b_ = std::make_unique<FakePicture>(tiled_picture(model(), 1, 1, 2));
    c_ = std::make_unique<FakePicture>(tiled_picture(model(), 2, 2, 3));
  }
  const Model& model() const { return described_->model; }
  int64_t rows() const { return a_->grid.tokens(); } // of every picture in the cache
  std::unique_ptr<Session> session(int64_t chunk = 16, int64_t pictures = 3,
                                   int threads = 1) const {
    return take(
        Session::create(model(), {shape_of(160, chunk, a_->grid.patches(), pictures * rows()),
                                  kernel_choice(true, threads)}));
  }
  // The same words at the same places whatever the pictures are.
  std::vector<PromptToken> prompt(std::initializer_list<Piece> pieces) const {
    const auto words = random_prompt(model(), 200, 9);
    std::vector<PromptToken> out;
    for (const Piece& piece : pieces) {
      if (piece.picture == nullptr) {
        for (size_t i = 0; i < piece.text; ++i)
          out.push_back(text_token(words[out.size()].id, out.size()));
        continue;
      }
      PromptToken token = text_token(static_cast<int32_t>(model().vocab_size), out.size());
      std::memcpy(&token.picture_key, piece.picture->digest.data(), sizeof token.picture_key);
      out.push_back(token);
    }
    return out;
  }
  std::vector<float> answer(Session& s, std::initializer_list<Piece> pieces,
                            int64_t* reused = nullptr) const {
    for (const Piece& piece : pieces) {
      if (piece.picture != nullptr)
        encode_keeping(s, pieces, *piece.picture);
    }
    return copy_of(take(s.prefill(prompt(pieces), nullptr, reused)));
  }
  void encode_keeping(Session& s, std::initializer_list<Piece> pieces,
                      const FakePicture& picture) const {
    std::vector<Sha256Digest> keep;
    for (const Piece& piece : pieces) {
      if (piece.picture != nullptr)
        keep.push_back(piece.picture->digest);
    }
    take(s.encode(
        picture.digest, picture.grid,
        [&](int64_t begin, int64_t end, float* out) { picture.write(begin, end, out); }, keep));
  }
  // In one chunk of a session that has seen nothing else.
  std::vector<float> fresh(std::initializer_list<Piece> pieces) const {
    const auto s = session(160);
    return answer(*s, pieces);
  }

  std::unique_ptr<Described> described_;
  std::unique_ptr<FakePicture> a_, b_, c_;
};

TEST_F(CrossSessions, ChunksAndThreadsDoNotMatter) {
  const auto want = fresh({{5}, {0, a_.get()}, {9}, {0, b_.get()}, {0, c_.get()}, {20}});
  for (const int64_t chunk : {1, 2, 7, 16, 36}) {
    for (const int threads : {1, 3}) {
      const auto s = session(chunk, 3, threads);
      const auto got = answer(*s, {{5}, {0, a_.get()}, {9}, {0, b_.get()}, {0, c_.get()}, {20}});
      EXPECT_LE(max_difference(got, want), kClose) << chunk << ", " << threads << " threads";
    }
  }
}

TEST_F(CrossSessions, StepsSeeThePicturesBeforeThem) {
  const auto s = session();
  answer(*s, {{5}, {0, a_.get()}, {3}});
  const auto all = prompt({{5}, {0, a_.get()}, {30}});
  std::vector<float> last;
  for (size_t i = 9; i < all.size(); ++i)
    last = copy_of(take(s->step(all[i])));
  EXPECT_LE(max_difference(last, fresh({{5}, {0, a_.get()}, {30}})), kClose);
}

TEST_F(CrossSessions, EachPictureMatters) {
  const auto with = fresh({{5}, {0, a_.get()}, {9}});
  EXPECT_GT(max_difference(with, fresh({{5}, {0, b_.get()}, {9}})), 0.01f);
  EXPECT_GT(max_difference(with, fresh({{15}})), 0.01f);
  // A picture before the last group is seen through earlier tokens alone, but it is.
  EXPECT_GT(max_difference(fresh({{5}, {0, a_.get()}, {4}, {0, c_.get()}, {9}}),
                           fresh({{5}, {0, b_.get()}, {4}, {0, c_.get()}, {9}})),
            0.001f);
}

TEST_F(CrossSessions, QuestionsAboutTheSamePictureShareWhatIsBeforeThem) {
  const auto s = session();
  answer(*s, {{5}, {0, a_.get()}, {20}});
  int64_t reused = -1;
  auto other = prompt({{5}, {0, a_.get()}, {20}});
  for (size_t i = 14; i < other.size(); ++i)
    other[i].id = (other[i].id + 1) % static_cast<int32_t>(model().vocab_size);
  const auto got = copy_of(take(s->prefill(other, nullptr, &reused)));
  EXPECT_EQ(reused, 14);
  const auto alone = session(160);
  encode(*alone, *a_);
  EXPECT_LE(max_difference(got, take(alone->prefill(other))), kClose);
}

TEST_F(CrossSessions, NothingIsSharedWithAnotherPicture) {
  const auto s = session();
  answer(*s, {{5}, {0, a_.get()}, {20}});
  int64_t reused = -1;
  // The words before the picture are the same: what was computed of them is not.
  const auto got = answer(*s, {{5}, {0, b_.get()}, {20}}, &reused);
  EXPECT_EQ(reused, 0);
  EXPECT_LE(max_difference(got, fresh({{5}, {0, b_.get()}, {20}})), kClose);
  // Back again, without encoding it anew.
  const auto back = answer(*s, {{5}, {0, a_.get()}, {20}}, &reused);
  EXPECT_EQ(reused, 0);
  EXPECT_LE(max_difference(back, fresh({{5}, {0, a_.get()}, {20}})), kClose);
}

TEST_F(CrossSessions, APictureOfALaterTurnChangesWhatIsBeforeTheFirst) {
  const auto s = session();
  answer(*s, {{5}, {0, a_.get()}, {20}});
  int64_t reused = -1;
  const auto got = answer(*s, {{5}, {0, a_.get()}, {20}, {0, b_.get()}, {8}}, &reused);
  EXPECT_EQ(reused, 0);
  EXPECT_LE(max_difference(got, fresh({{5}, {0, a_.get()}, {20}, {0, b_.get()}, {8}})), kClose);
}

TEST_F(CrossSessions, WhereAPictureIsFirstALaterOneLeavesTheRestAsItIs) {
  const auto s = session();
  answer(*s, {{0, a_.get()}, {20}});
  int64_t reused = -1;
  const auto got = answer(*s, {{0, a_.get()}, {20}, {0, b_.get()}, {8}}, &reused);
  EXPECT_EQ(reused, 21);
  EXPECT_LE(max_difference(got, fresh({{0, a_.get()}, {20}, {0, b_.get()}, {8}})), kClose);
  const auto other = answer(*s, {{0, b_.get()}, {20}}, &reused);
  EXPECT_EQ(reused, 0);
  EXPECT_LE(max_difference(other, fresh({{0, b_.get()}, {20}})), kClose);
}

TEST_F(CrossSessions, TextAloneAndPicturesTakeTurns) {
  const auto s = session();
  for (int i = 0; i < 2; ++i) {
    int64_t reused = -1;
    EXPECT_LE(max_difference(answer(*s, {{21}}, &reused), fresh({{21}})), kClose);
    EXPECT_EQ(reused, 0);
    const auto got = answer(*s, {{5}, {0, a_.get()}, {15}}, &reused);
    EXPECT_EQ(reused, 0);
    EXPECT_LE(max_difference(got, fresh({{5}, {0, a_.get()}, {15}})), kClose);
  }
}

TEST_F(CrossSessions, OrderOfEncodingDoesNotMatter) {
  const auto want = fresh({{5}, {0, a_.get()}, {0, b_.get()}, {0, c_.get()}, {10}});
  const auto s = session();
  for (const FakePicture* picture : {c_.get(), a_.get(), b_.get()})
    encode(*s, *picture);
  EXPECT_LE(
      max_difference(answer(*s, {{5}, {0, a_.get()}, {0, b_.get()}, {0, c_.get()}, {10}}), want),
      kClose);
  // Another order is another question.
  const auto turned = answer(*s, {{5}, {0, c_.get()}, {0, a_.get()}, {3}, {0, b_.get()}, {7}});
  EXPECT_LE(
      max_difference(turned, fresh({{5}, {0, c_.get()}, {0, a_.get()}, {3}, {0, b_.get()}, {7}})),
      kClose);
}

TEST_F(CrossSessions, APictureThatStandsTwiceIsHeldTwice) {
  // The same pixels under another name.
  FakePicture twin = *a_;
  twin.digest[0] ^= 0x55;
  const auto want = fresh({{5}, {0, a_.get()}, {4}, {0, b_.get()}, {4}, {0, &twin}, {9}});
  const auto s = session();
  encode(*s, *c_); // in the way: it gives way
  const auto got = answer(*s, {{5}, {0, a_.get()}, {4}, {0, b_.get()}, {4}, {0, a_.get()}, {9}});
  EXPECT_LE(max_difference(got, want), kClose);
  EXPECT_FALSE(s->find_picture(c_->digest));
  const auto small = session(16, 1);
  encode(*small, *a_);
  const auto refused = small->prefill(prompt({{5}, {0, a_.get()}, {4}, {0, a_.get()}}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge);
  EXPECT_THAT(refused.error().text(), HasSubstr("several places"));
}

TEST_F(CrossSessions, PicturesGiveWayAndComeBack) {
  const auto s = session(16, 1);
  answer(*s, {{5}, {0, a_.get()}, {20}});
  encode(*s, *b_);
  EXPECT_FALSE(s->find_picture(a_->digest));
  const auto refused = s->prefill(prompt({{5}, {0, a_.get()}, {21}}));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text(), HasSubstr("not encoded"));
  const auto got = answer(*s, {{5}, {0, a_.get()}, {22}});
  EXPECT_LE(max_difference(got, fresh({{5}, {0, a_.get()}, {22}})), kClose);
  // One that must stay leaves no room.
  const Sha256Digest keep[] = {a_->digest};
  const auto full = s->encode(
      c_->digest, c_->grid,
      [&](int64_t begin, int64_t end, float* out) { c_->write(begin, end, out); }, keep);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::kTooLarge);
}

TEST_F(CrossSessions, PicturesComeWithTheirPrompt) {
  const auto s = session();
  answer(*s, {{5}, {0, a_.get()}, {3}});
  encode(*s, *b_);
  EXPECT_FALSE(s->step(prompt({{0, b_.get()}})[0]));
  EXPECT_FALSE(s->step(text_token(static_cast<int32_t>(model().input_ids), 9)));
  take(s->step(text_token(3, 9)));
}

TEST_F(CrossSessions, CancelledEncodeLeavesNoPicture) {
  const auto s = session();
  const auto want = answer(*s, {{5}, {0, a_.get()}, {9}});
  std::atomic<bool> cancel{true};
  EXPECT_FALSE(s->encode(
      b_->digest, b_->grid,
      [&](int64_t begin, int64_t end, float* out) { b_->write(begin, end, out); }, {}, &cancel));
  EXPECT_FALSE(s->find_picture(b_->digest));
  EXPECT_LE(max_difference(answer(*s, {{5}, {0, a_.get()}, {9}}), want), kClose);
}

TEST_F(CrossSessions, StreamedWeightsGiveTheSameNumbers) {
  const KernelChoice kernels = kernel_choice(false, 2);
  const RunShape shape = shape_of(64, 8, a_->grid.patches(), 2 * rows());
  const auto whole = take(Session::create(model(), {shape, kernels}));
  const auto want = answer(*whole, {{5}, {0, a_.get()}, {0, b_.get()}, {9}});
  const auto want_text = answer(*whole, {{20}});
  const int64_t fixed = whole->plan().anonymous_bytes() + whole->plan().program_mapped_bytes;
  int streamed = 0;
  for (int64_t share = 1; share < 20; share += 3) {
    SessionOptions options{shape, kernels, fixed + whole->plan().mapped_bytes / 20 * share,
                           described_->mapped_files()};
    if (!plan_residency(model(), whole->plan(), options.limit_bytes))
      continue;
    const auto s = take(Session::create(model(), options));
    streamed += s->residency().streams() ? 1 : 0;
    EXPECT_EQ(max_difference(answer(*s, {{5}, {0, a_.get()}, {0, b_.get()}, {9}}), want), 0);
    EXPECT_EQ(max_difference(answer(*s, {{20}}), want_text), 0);
    // Without pictures in the plan the layers that attend to them are not read at all.
    RunShape text = shape;
    text.max_patches = text.feature_tokens = 0;
    const MemoryPlan plan = take(plan_memory(model(), text, kernels));
    options.shape = text;
    options.limit_bytes =
        plan.anonymous_bytes() + plan.program_mapped_bytes + plan.mapped_bytes / 20 * share;
    if (!plan_residency(model(), plan, options.limit_bytes))
      continue;
    const auto words = take(Session::create(model(), options));
    EXPECT_EQ(max_difference(answer(*words, {{20}}), want_text), 0);
  }
  EXPECT_GT(streamed, 2);
}

TEST_F(CrossSessions, ReservedBytesAreThePlanned) {
  const auto s = session(16, 2);
  const MemoryPlan& plan = s->plan();
  // 2 (K, V) x 2 layers x 2 kv heads x 16 values of 4 bytes, of each row of two pictures.
  EXPECT_EQ(rows(), 4 * 17);
  EXPECT_EQ(plan.picture_cache_bytes, 2 * rows() * 2 * 2 * 2 * 16 * 4);
  EXPECT_EQ(plan.features_bytes, 0);
  EXPECT_EQ(plan.kv_cache_bytes, 160 * 2 * 3 * 2 * 16 * 4); // of the 3 other layers
}

} // namespace
} // namespace pinhole
