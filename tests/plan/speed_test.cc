// Predicted times against sums made by hand from round rates.
#include "plan/speed.h"

#include "kernels/select.h"
#include "support/describe.h"

#include <algorithm>
#include <cstdlib>
#include <gtest/gtest.h>
#include <numeric>

namespace pinhole {
namespace {

KernelRates round_rates() {
  KernelRates rates;
  rates.read_gb_per_s = 10;
  rates.attention_gflop_per_s = 100;
  rates.cache_gb_per_s = 5;
  rates.elementwise_gb_per_s = rates.activation_gb_per_s = 1e9; // nothing
  for (FormatRate& rate : rates.formats)
    rate = {200, 1e9, 1e9, 1e6, 1e9};
  return rates;
}

Work total(const Graph& graph, const WorkShape& shape, OpKind kind) {
  Work sum;
  for (const Op& op : graph.ops()) {
    if (op.kind == kind)
      sum += op_work(graph, op, shape);
  }
  return sum;
}

TEST(Speed, DecodingIsBoundByMemory) {
  const auto described = testing::Described::bundled();
  WorkShape shape;
  shape.rows = {1, 1};
  shape.past_tokens = 1000;
  const Graph& text = described->model.text;
  KernelRates rates = round_rates();
  rates.cache_gb_per_s = 1e9; // arithmetic is no limit
  const double bytes = total(text, shape, OpKind::kMatmul).weight_bytes +
                       total(text, shape, OpKind::kAttention).cache_bytes;
  EXPECT_NEAR(run_seconds(text, shape, rates), bytes / (kStreamShare * 10e9), 1e-9);
}

TEST(Speed, AOneRowKernelThatIsSlowerThanMemoryBinds) {
  const auto described = testing::Described::bundled();
  WorkShape shape;
  shape.rows = {1, 1};
  KernelRates rates = round_rates();
  rates.cache_gb_per_s = rates.read_gb_per_s = 1e9;
  for (FormatRate& rate : rates.formats)
    rate.one_gb_per_s = 2;
  const Graph& text = described->model.text;
  EXPECT_NEAR(run_seconds(text, shape, rates),
              total(text, shape, OpKind::kMatmul).weight_bytes / 2e9, 1e-9);
}

TEST(Speed, APictureIsBoundByArithmetic) {
  const auto described = testing::Described::bundled();
  WorkShape shape;
  shape.rows = {4096, 0};
  const Graph& vision = described->model.vision;
  const double wanted = total(vision, shape, OpKind::kMatmul).flops / 200e9 +
                        total(vision, shape, OpKind::kAttention).flops / 100e9;
  EXPECT_NEAR(run_seconds(vision, shape, round_rates()), wanted / kRunShare, 1e-6 * wanted + 1e-9);
}

TEST(Speed, LayersAddUpToTheWhole) {
  const auto described = testing::Described::bundled();
  QuestionShape question;
  question.prompt_tokens = 300;
  question.chunk_tokens = 128; // three chunks, the last one shorter
  question.context_tokens = 512;
  Placement placement;
  placement.cpu = round_rates();
  const SpeedPlan plan = plan_speed(described->model, question, kernels::KvType::kF16, placement);
  double prefill = 0, decode = 0, bytes = 0;
  for (const BlockCost& block : plan.blocks) {
    prefill += block.prefill_seconds;
    decode += block.decode_seconds;
    bytes += block.weight_bytes;
  }
  EXPECT_NEAR(prefill, plan.prefill_seconds, 1e-12);
  EXPECT_NEAR(decode, plan.decode_seconds, 1e-12);
  WorkShape one;
  one.rows = {1, 1};
  EXPECT_EQ(bytes, total(described->model.text, one, OpKind::kMatmul).weight_bytes);
  EXPECT_EQ(plan.encode_seconds, 0);
  EXPECT_GT(plan.decode_full_seconds, plan.decode_seconds);
}

class Rates : public ::testing::Test {
 protected:
  void SetUp() override { setenv("XDG_CACHE_HOME", folder_.path().c_str(), 1); }
  void TearDown() override { unsetenv("XDG_CACHE_HOME"); }
  testing::TempDir folder_;
  const KernelChoice kernels_{testing::take(kernels::find("scalar")), false, 1,
                              kernels::KvType::kF16};
};

TEST_F(Rates, AreMeasuredOnceAndKept) {
  const auto described = testing::Described::bundled();
  KernelRates rates = load_rates(kernels_);
  EXPECT_EQ(rates.attention_gflop_per_s, 0);
  ThreadPool threads(1);
  EXPECT_TRUE(measure_rates(described->model.text, kernels_, threads, rates));
  EXPECT_FALSE(measure_rates(described->model.text, kernels_, threads, rates));
  EXPECT_GT(rates.of(FormatId::kF16).many_gflop_per_s, 0);
  EXPECT_EQ(rates.of(FormatId::kQ4_K).many_gflop_per_s, 0); // the model has none
  rates.disturbed = true;
  ASSERT_TRUE(save_rates(rates));
  const KernelRates kept = load_rates(kernels_);
  EXPECT_TRUE(kept.disturbed);
  EXPECT_EQ(rates_to_json(kept), rates_to_json(rates));
  KernelChoice more = kernels_;
  more.num_threads = 2; // another machine, as far as rates go
  EXPECT_EQ(load_rates(more).attention_gflop_per_s, 0);
}

TEST_F(Rates, ADamagedFileCountsAsNone) {
  for (const char* text : {"", "{", "[]", R"({"version":4,"machines":7})",
                           R"({"version":4,"machines":[{"cpu":3,"attention_gflop_per_s":"x"}]})",
                           R"({"version":99,"machines":[]})"}) {
    std::filesystem::create_directories(folder_.file("pinhole"));
    folder_.write("pinhole/rates.json", text);
    EXPECT_EQ(load_rates(kernels_).attention_gflop_per_s, 0) << text;
  }
}

TEST(Speed, MemoryAndArithmeticThatAreEqualCostMoreThanEither) {
  const auto described = testing::Described::bundled();
  WorkShape shape;
  shape.rows = {1, 1};
  KernelRates rates = round_rates();
  rates.cache_gb_per_s = 1e9;
  const Graph& text = described->model.text;
  const double memory = run_seconds(text, shape, rates);
  for (FormatRate& rate : rates.formats)
    rate.one_gb_per_s = kStreamShare * rates.read_gb_per_s;
  const double both = run_seconds(text, shape, rates);
  EXPECT_GT(both, 1.1 * memory);
  EXPECT_LT(both, 1.5 * memory);
}

TEST(Speed, RatesFollowTheCores) {
  KernelRates rates = round_rates();
  rates.peak_gop_per_s = 1000;
  FormatRate& q8 = rates.formats[static_cast<size_t>(FormatId::kQ8_0)];
  q8.peak_gop_per_s = 500; // measured at another moment
  const KernelRates now = rates_at(rates, 500);
  EXPECT_EQ(now.attention_gflop_per_s, rates.attention_gflop_per_s / 2);
  EXPECT_EQ(now.read_gb_per_s, rates.read_gb_per_s);
  EXPECT_EQ(now.of(FormatId::kQ8_0).many_gflop_per_s, q8.many_gflop_per_s);
  EXPECT_EQ(now.of(FormatId::kF16).many_gflop_per_s, 200); // nothing is known of its moment
}

TEST(Speed, WhatThePageCacheLacksComesFromTheDisk) {
  const auto described = testing::Described::bundled();
  QuestionShape question;
  question.prompt_tokens = 100;
  question.context_tokens = 200;
  Placement placement;
  placement.mapped_bytes = static_cast<int64_t>(described->model.weight_bytes);
  placement.cpu = round_rates();
  placement.cpu.disk_gb_per_s = 2;
  const auto first = [&] {
    return plan_speed(described->model, question, kernels::KvType::kF16, placement)
        .first_token_seconds();
  };
  const double cached = first();
  placement.uncached_bytes = 1'000'000'000;
  EXPECT_NEAR(first() - cached, 0.5, 1e-9);
}

TEST(Speed, ConversationsShareWeightsAndReadTheirOwnCaches) {
  const auto described = testing::Described::bundled();
  const Graph& text = described->model.text;
  WorkShape one, four;
  one.rows = {1, 1};
  one.past_tokens = four.past_tokens = 700;
  four.rows = {4, 4};
  four.conversations = 4;
  EXPECT_EQ(total(text, four, OpKind::kMatmul).weight_bytes,
            total(text, one, OpKind::kMatmul).weight_bytes);
  EXPECT_EQ(total(text, four, OpKind::kAttention).cache_bytes,
            4 * total(text, one, OpKind::kAttention).cache_bytes);
  EXPECT_EQ(total(text, four, OpKind::kAttention).flops,
            4 * total(text, one, OpKind::kAttention).flops);
}

TEST(Speed, BlocksOnAGpuRunAtItsRates) {
  const auto described = testing::Described::bundled();
  QuestionShape question;
  question.prompt_tokens = 100;
  question.context_tokens = 200;
  Placement placement;
  placement.mapped_bytes = static_cast<int64_t>(described->model.weight_bytes);
  placement.cpu = placement.gpu = round_rates();
  placement.cpu.map_gb_per_s = 50;
  placement.gpu.map_gb_per_s = 5;
  placement.gpu.read_gb_per_s *= 10;
  placement.gpu.cache_gb_per_s *= 10;
  const auto predict = [&] {
    return plan_speed(described->model, question, kernels::KvType::kF16, placement);
  };
  const SpeedPlan on_cpu = predict();
  placement.offload.total_layers = described->model.cache.layers;
  placement.offload.layers = 1;
  placement.offload.weight_bytes = 1000;
  const SpeedPlan mixed = predict();
  const auto last = static_cast<int32_t>(described->model.cache.layers - 1);
  for (const BlockCost& block : mixed.blocks) {
    const auto before = std::find_if(on_cpu.blocks.begin(), on_cpu.blocks.end(),
                                     [&](const BlockCost& b) { return b.block == block.block; });
    EXPECT_EQ(block.on_gpu, block.block == last);
    EXPECT_NEAR(block.decode_seconds, before->decode_seconds / (block.block == last ? 10 : 1),
                1e-9);
    EXPECT_EQ(block.link_seconds > 0, block.block == last);
  }
  // A byte takes 1/5 ns over the link, and 1/50 ns to be mapped.
  EXPECT_NEAR(mixed.map_seconds - on_cpu.map_seconds, 1000 * (1e-9 / 5 - 1e-9 / 50), 1e-12);
}

} // namespace
} // namespace pinhole
