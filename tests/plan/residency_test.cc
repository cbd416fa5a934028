// Which weights stay under a limit: the promise holds, nothing is forgotten, and what is refused
// says what would do.
#include "plan/residency.h"

#include "base/memory_limit.h"
#include "kernels/select.h"
#include "plan/recipe.h"
#include "support/describe.h"

#include <gtest/gtest.h>

namespace pinhole {
namespace {

using testing::take;

class ResidencyOf : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string name = GetParam();
    if (name.empty()) {
      described_ = testing::Described::bundled();
    } else {
      REQUIRE_GOLDEN();
      described_ = std::make_unique<testing::Described>();
      described_->files =
          take(ModelFiles::open_to_plan(testing::golden("footprint/" + name + ".config.json")));
      described_->model = take(describe_model(described_->files));
    }
    RunShape shape;
    shape.context_tokens = 256;
    shape.chunk_tokens = 128;
    shape.max_patches = 1024;
    shape.feature_tokens = 256;
    plan_ = take(plan_memory(described_->model, shape,
                             {take(kernels::find("scalar")), false, 2, kernels::KvType::kF16}));
  }
  const Model& model() const { return described_->model; }
  Result<Residency> under(int64_t limit) const { return plan_residency(model(), plan_, limit); }
  int64_t whole() const {
    return plan_.anonymous_bytes() + plan_.mapped_bytes + plan_.program_mapped_bytes;
  }

  std::unique_ptr<testing::Described> described_;
  MemoryPlan plan_;
};

TEST_P(ResidencyOf, NothingIsStreamedWhereAllFits) {
  const Residency all = take(under(whole()));
  EXPECT_FALSE(all.streams());
  EXPECT_EQ(all.peak_bytes(plan_), whole());
  EXPECT_EQ(all.streamed_text_bytes + all.streamed_vision_bytes, 0);
}

TEST_P(ResidencyOf, EveryByteStaysOrIsStreamed) {
  int streaming = 0;
  for (int percent = 5; percent < 100; percent += 5) {
    const int64_t limit =
        plan_.anonymous_bytes() + plan_.program_mapped_bytes + plan_.mapped_bytes / 100 * percent;
    const auto residency = under(limit);
    if (!residency)
      continue;
    ++streaming;
    EXPECT_TRUE(residency->streams());
    EXPECT_LE(residency->peak_bytes(plan_), limit);
    int64_t stays = 0, streamed = 0, largest = 0, pictures = 0;
    for (size_t i = 0; i < model().text.ops().size(); ++i) {
      const int64_t bytes = op_weight_bytes(model().text, model().text.ops()[i]);
      (residency->text[i] ? streamed : stays) += bytes;
      largest = std::max(largest, residency->text[i] ? bytes : 0);
    }
    for (size_t i = 0; i < model().vision.ops().size(); ++i) {
      const int64_t bytes = op_weight_bytes(model().vision, model().vision.ops()[i]);
      EXPECT_EQ(residency->vision[i], bytes > 0);
      pictures += bytes;
      largest = std::max(largest, bytes);
    }
    EXPECT_EQ(residency->streamed_text_bytes, streamed);
    EXPECT_EQ(residency->streamed_vision_bytes, pictures);
    EXPECT_LE(stays, residency->resident_bytes);
    // The op that runs and the next one, at least.
    EXPECT_GE(residency->window_bytes, 2 * largest);
  }
  EXPECT_GE(streaming, 3);
}

TEST_P(ResidencyOf, MoreMemoryNeverMeansMoreReading) {
  int64_t before = std::numeric_limits<int64_t>::max();
  for (int percent = 5; percent <= 100; percent += 5) {
    const auto residency = under(plan_.anonymous_bytes() + plan_.program_mapped_bytes +
                                 plan_.mapped_bytes / 100 * percent);
    if (!residency)
      continue;
    EXPECT_LE(residency->streamed_text_bytes, before) << percent;
    before = residency->streamed_text_bytes;
  }
}

TEST_P(ResidencyOf, RefusalNamesALimitThatWorks) {
  const auto refused = under(1 << 20);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge);
  const std::string& message = refused.error().message;
  const std::string named = message.substr(message.rfind("least ") + 6); // "700.12 MiB", rounded
  const std::string number = named.substr(0, named.find(' '));
  const std::string unit = named.substr(named.find(' ') + 1);
  const auto least = parse_bytes(number + unit);
  ASSERT_TRUE(least) << message;
  EXPECT_TRUE(under(*least + *least / 100)) << message;
  EXPECT_FALSE(under(*least - *least / 100)) << message;
}

INSTANTIATE_TEST_SUITE_P(, ResidencyOf,
                         ::testing::Values("", "Qwen3-VL-2B-Instruct", "Qwen2.5-VL-7B-Instruct"));

// The 17 GB of a 30B-A3B in 4 bits, under less: attention stays, experts share what is left.
TEST(Residency, ExpertsShareWhatIsLeft) {
  REQUIRE_GOLDEN();
  const auto files = take(
      ModelFiles::open_to_plan(testing::golden("footprint/Qwen3-VL-30B-A3B-Instruct.config.json")));
  Model model = take(describe_model(files));
  take(apply_recipe("q4_k_m", model));
  const MemoryPlan plan = take(
      plan_memory(model, {}, {take(kernels::find("scalar")), false, 2, kernels::KvType::kF16}));
  int64_t experts = 0, one_op = 0;
  for (const Op& op : model.text.ops()) {
    if (op.kind != OpKind::kMoe)
      continue;
    experts += op_weight_bytes(model.text, op);
    one_op = std::max(one_op, op_weight_bytes(model.text, op));
  }
  const int64_t limit = int64_t{6} << 30;
  const Residency residency = take(plan_residency(model, plan, limit));
  EXPECT_TRUE(residency.streams());
  EXPECT_LE(residency.peak_bytes(plan), limit);
  EXPECT_EQ(residency.streamed_text_bytes, 0);
  EXPECT_EQ(residency.expert_bytes, experts);
  EXPECT_GE(residency.expert_cache_bytes, one_op);
  EXPECT_LT(residency.expert_cache_bytes, experts);
  for (size_t i = 0; i < model.text.ops().size(); ++i)
    EXPECT_FALSE(residency.text[i]);
  // Not even one op's experts.
  EXPECT_FALSE(
      plan_residency(model, plan, plan.anonymous_bytes() + plan.program_mapped_bytes + one_op));
}

} // namespace
} // namespace pinhole
