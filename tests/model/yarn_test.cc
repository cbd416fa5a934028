// YaRN's frequencies and factor against transformers' _compute_yarn_parameters, and what of its
// settings is refused.
#include "model/yarn.h"

#include "support/golden.h"

#include <gmock/gmock.h>

namespace pinhole {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Result<YarnRope> read(const Json& text) {
  const HfReaderScope scope(text, "config.json");
  return yarn_rope_from_hf(scope, 4096);
}

Json yarn(Json more) {
  Json rope = {{"rope_type", "yarn"}, {"rope_theta", 1e6}, {"factor", 16.0}};
  rope.update(more);
  return {{"rope_parameters", std::move(rope)}};
}

struct Expected {
  int64_t dim;
  Json rope;
  std::vector<float> inv_freq;
  double factor;
};

// ROPE_INIT_FUNCTIONS["yarn"] of transformers 5.12.1.
std::vector<Expected> recorded() {
  return {
      {16,
       {{"rope_theta", 1e6},
        {"factor", 16.0},
        {"original_max_position_embeddings", 24},
        {"mscale", 1.0},
        {"mscale_all_dim", 1.0}},
       {1.0f, 0.0111142462f, 0.00197642366f, 0.000351463328f, 6.2500003e-05f, 1.11142463e-05f,
        1.97642339e-06f, 3.51463342e-07f},
       1.0},
      {20,
       {{"rope_theta", 1000.0},
        {"factor", 8.0},
        {"original_max_position_embeddings", 128},
        {"beta_fast", 4.0},
        {"beta_slow", 0.5}},
       {1.0f, 0.501187205f, 0.251188636f, 0.0983535498f, 0.035491351f, 0.01087033f, 0.00198111613f,
        0.000992910354f, 0.000497633941f, 0.000249407836f},
       1.2079441541679836},
      {16,
       {{"rope_theta", 1e4},
        {"factor", 4.0},
        {"original_max_position_embeddings", 512},
        {"mscale", 2.0},
        {"mscale_all_dim", 0.5},
        {"truncate", false}},
       {1.0f, 0.301406473f, 0.0703986362f, 0.0143833589f, 0.00249999994f, 0.000790569466f,
        0.000250000012f, 7.90569466e-05f},
       1.1944648761087142},
      {8,
       {{"rope_theta", 1e4},
        {"factor", 4.0},
        {"original_max_position_embeddings", 512},
        {"attention_factor", 1.5}},
       {1.0f, 0.0625f, 0.00249999994f, 0.000250000012f},
       1.5},
  };
}

TEST(Yarn, FrequenciesAndFactorAreTransformers) {
  for (const Expected& expected : recorded()) {
    const YarnRope rope = testing::take(read(yarn(expected.rope)));
    const std::vector<float> got = yarn_inv_freq(rope, expected.dim);
    ASSERT_EQ(got.size(), expected.inv_freq.size());
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_NEAR(got[i] / expected.inv_freq[i], 1, 1e-6) << expected.rope.dump() << " " << i;
    EXPECT_NEAR(yarn_attention_factor(rope), expected.factor, 1e-12) << expected.rope.dump();
  }
}

TEST(Yarn, OlderConfigurationsSayTheSame) {
  const Json older = {{"rope_theta", 1000.0},
                      {"rope_scaling",
                       {{"type", "yarn"},
                        {"factor", 8.0},
                        {"original_max_position_embeddings", 128},
                        {"beta_fast", 4.0},
                        {"beta_slow", 0.5}}}};
  EXPECT_EQ(yarn_inv_freq(testing::take(read(older)), 20),
            yarn_inv_freq(testing::take(read(yarn(recorded()[1].rope))), 20));
}

TEST(Yarn, WithoutScalingTheBaseAloneCounts) {
  for (const Json& text :
       {Json{{"rope_theta", 100.0}}, Json{{"rope_parameters", {{"rope_theta", 100.0}}}},
        Json{{"rope_theta", 100.0}, {"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}}}}) {
    const YarnRope rope = testing::take(read(text));
    EXPECT_FLOAT_EQ(yarn_inv_freq(rope, 4)[1], 0.1f) << text.dump();
    EXPECT_EQ(yarn_attention_factor(rope), 1) << text.dump();
  }
}

TEST(Yarn, WhatIsNotComputedOrMakesNoSenseIsRefused) {
  const auto expect = [](const Json& text, const char* named) {
    const auto rope = read(text);
    ASSERT_FALSE(rope) << text.dump();
    EXPECT_THAT(rope.error().text(), AllOf(HasSubstr(named), HasSubstr("config.json")));
  };
  expect({{"rope_scaling", {{"rope_type", "longrope"}}}}, "longrope");
  expect({{"rope_scaling", "yarn"}}, "rope_scaling");
  expect({{"rope_theta", 0}}, "rope_theta");
  expect(yarn({{"factor", 0}}), "factor");
  expect(yarn({{"factor", "16"}}), "factor");
  expect(yarn({{"beta_fast", -1}}), "beta_fast");
  expect(yarn({{"rope_theta", 1.0}}), "rope_theta");
  expect(yarn({{"llama_4_scaling_beta", -1}}), "negative");
  expect(yarn({{"original_max_position_embeddings", 0}}), "original_max_position_embeddings");
}

} // namespace
} // namespace pinhole
