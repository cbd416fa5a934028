// A session while other programs take the memory: it gives back what it can read again, refuses the
// next question, and computes the same numbers all the while.
#include "engine/session.h"

#include "fixture.h"
#include "support/memory_root.h"

#include <algorithm>
#include <gmock/gmock.h>

namespace pinhole {
namespace {

using ::testing::AllOf;
using testing::copy_of;
using testing::Described;
using testing::encode;
using testing::FakePicture;
using ::testing::HasSubstr;
using testing::kernel_choice;
using testing::max_difference;
using testing::MemoryRoot;
using testing::picture_prompt;
using testing::random_prompt;
using testing::shape_of;
using testing::take;

// Slots for the experts of the op that has most.
int64_t largest_experts(const Graph& graph) {
  int64_t count = 0;
  for (const Op& op : graph.ops())
    count = std::max(count, op.kind == OpKind::kMoe ? graph.weight(op.gate).experts : 0);
  return count * expert_slot_bytes(graph);
}

TEST(ExpertsUnderPressure, AreGivenBackAndComeAgain) {
  REQUIRE_GOLDEN();
  const auto described = Described::open(testing::golden("qwen3_vl_moe/tiny"));
  const Model& model = described->model;
  const RunShape shape = shape_of(80, 8);
  const KernelChoice kernels = kernel_choice(false, 2);
  const MemoryPlan plan = take(plan_memory(model, shape, kernels));
  const int64_t least = largest_experts(model.text);
  // The most memory in which not all experts stay.
  int64_t limit = plan.anonymous_bytes() + plan.program_mapped_bytes + plan.mapped_bytes;
  Residency residency;
  do {
    limit -= 4096;
    residency = take(plan_residency(model, plan, limit));
  } while (residency.expert_cache_bytes == 0);
  const int64_t planned = residency.expert_cache_bytes;
  ASSERT_GT(planned, least);

  const MemoryRoot root;
  const auto session = take(
      Session::create(model, {shape, kernels, limit, described->mapped_files(), root.options()}));
  const auto whole = take(Session::create(model, {shape, kernels}));
  const auto prompt = random_prompt(model, 75, 4);
  EXPECT_EQ(max_difference(take(session->prefill(std::span(prompt).first(20))),
                           take(whole->prefill(std::span(prompt).first(20)))),
            0);
  EXPECT_GT(session->held_expert_bytes(), planned / 2);
  size_t at = 20;
  const auto run_ten = [&] {
    int64_t held = 0;
    for (const size_t end = at + 10; at < end; ++at) {
      EXPECT_EQ(max_difference(take(session->step(prompt[at])), take(whole->step(prompt[at]))), 0)
          << at;
      held = std::max(held, session->held_expert_bytes());
    }
    return held;
  };
  // Half of what is available with the experts themselves, where that is more than one op needs.
  const int64_t some = (least + planned) / 2;
  root.set_kib(some / 1024, 8 * (some + planned + 4096) / 1024);
  EXPECT_LT(run_ten(), planned);
  EXPECT_LE(run_ten(), some + expert_slot_bytes(model.text));
  // No more than leaves others the eighth below which memory is tight.
  const int64_t held = session->held_expert_bytes();
  root.set_kib(2 << 20, 16 << 20);
  EXPECT_LE(run_ten(), held);
  root.set_available_mib(100);
  EXPECT_LE(run_ten(), least);
  EXPECT_GT(session->held_expert_bytes(), 0);
  root.set_available_mib(8192);
  EXPECT_GT(run_ten(), least);
  EXPECT_LE(session->held_expert_bytes(), planned);
}

class PicturesUnderPressure : public ::testing::Test {
 protected:
  PicturesUnderPressure()
      : described_(Described::bundled()), a_(described_->model, 8, 8, 1),
        b_(described_->model, 8, 8, 2),
        session_(take(Session::create(
            described_->model,
            {shape_of(64, 8, 64, 40), kernel_choice(true), 0, {}, root_.options()}))) {}
  const Model& model() const { return described_->model; }

  MemoryRoot root_;
  std::unique_ptr<Described> described_;
  FakePicture a_, b_;
  std::unique_ptr<Session> session_;
};

TEST_F(PicturesUnderPressure, ThoseOfOtherConversationsAreForgotten) {
  encode(*session_, a_);
  encode(*session_, b_);
  const Sha256Digest keep[] = {b_.digest};
  take(session_->admit(keep));
  EXPECT_TRUE(session_->find_picture(a_.digest));
  root_.set_available_mib(1024);
  take(session_->admit(keep));
  EXPECT_FALSE(session_->find_picture(a_.digest));
  ASSERT_TRUE(session_->find_picture(b_.digest));

  // The one that stays is whole, and the other comes again.
  for (const FakePicture* picture : {&b_, &a_}) {
    const auto encoded = encode(*session_, *picture);
    EXPECT_EQ(encoded.from_cache, picture == &b_);
    const auto fresh =
        take(Session::create(model(), {shape_of(64, 8, 64, 40), kernel_choice(true)}));
    const auto want = copy_of(
        take(fresh->prefill(picture_prompt(model(), *picture, encode(*fresh, *picture), 7))));
    const auto prompt = picture_prompt(model(), *picture, encoded, 7);
    session_->truncate(0);
    EXPECT_EQ(max_difference(take(session_->prefill(prompt)), want), 0);
  }
}

TEST_F(PicturesUnderPressure, QuestionsAreRefusedUntilThereIsMemoryAgain) {
  take(session_->admit({}));
  root_.set_available_mib(300);
  const auto refused = session_->admit({});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge);
  // What is there, what must be, what it is for, what to do.
  EXPECT_THAT(refused.error().text(),
              AllOf(HasSubstr("300.00 MiB of 16.00 GiB"), HasSubstr("512.00 MiB"),
                    HasSubstr("needs up to"), HasSubstr("ask again")));
  // What runs goes on.
  const auto prompt = random_prompt(model(), 20, 5);
  take(session_->prefill(std::span(prompt).first(18)));
  take(session_->step(prompt[18]));
  root_.set_available_mib(1024); // tight: nothing is refused yet
  take(session_->admit({}));
  root_.set_stall("80.00", "30.00");
  root_.set_available_mib(8192);
  take(session_->admit({}));
  take(session_->step(prompt[19]));
}

TEST_F(PicturesUnderPressure, StallsRefuseToo) {
  root_.set_stall("80.00", "30.00");
  const auto session = take(
      Session::create(model(), {shape_of(64, 8), kernel_choice(true), 0, {}, root_.options()}));
  take(session->admit({}));
  root_.set_available_mib(1024);
  const auto refused = session->admit({});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text(),
              AllOf(HasSubstr("1.00 GiB of 16.00 GiB"), HasSubstr("2.00 GiB")));
}

} // namespace
} // namespace pinhole
