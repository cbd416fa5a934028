// Gemma 3 from both containers: what its configuration says, leaves out, or must not say.
#include "support/describe.h"

#include <gmock/gmock.h>

namespace pinhole {
namespace {

using ::testing::AllOf;
using testing::Described;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string problem(const std::string& path) {
  const auto files = ModelFiles::open(path);
  const auto model = files ? describe_model(*files) : fail_in("", files.error());
  return model ? std::string() : model.error().text();
}

int64_t windows(const Graph& graph) {
  int64_t out = 0;
  for (const Op& op : graph.ops()) {
    for (const Input& input : graph.inputs())
      out += op.kind == OpKind::kAttention && op.b == input.value && input.parameter > 0;
  }
  return out;
}

TEST(Gemma3, WhatTheConfigSaysAndWhatItLeavesOut) {
  REQUIRE_GOLDEN();
  const auto described = Described::open(testing::golden("gemma3/tiny"));
  const Model& model = described->model;
  EXPECT_EQ(model.hidden_size, 64);
  EXPECT_EQ(model.context_length, 4096);
  EXPECT_EQ(model.position_axes, 1);
  EXPECT_EQ(windows(model.text), 6); // of 7 layers, the sixth is full
  ASSERT_TRUE(model.pictures);
  EXPECT_EQ(model.pictures->square_px, 112);
  EXPECT_EQ(model.pictures->tokens(112, 112), 16);
  EXPECT_THAT(model.unused_tensors, IsEmpty());

  const auto hub = ModelFiles::open_to_plan(testing::golden("footprint/gemma-3-4b-it.config.json"));
  ASSERT_TRUE(hub);
  const auto large = describe_model(*hub);
  ASSERT_TRUE(large) << large.error().text();
  EXPECT_EQ(large->pictures->tokens(896, 896), 256);
  EXPECT_EQ(large->pictures->merge_size, 4);
  EXPECT_EQ(windows(large->text), 29);
}

TEST(Gemma3, GgufHoldsTheSameModel) {
  REQUIRE_GOLDEN();
  const std::string folder = testing::golden("gguf/gemma3");
  const auto gguf =
      Described::open(folder + "/gemma3-f32.gguf", folder + "/mmproj-gemma3-f32.gguf");
  EXPECT_EQ(gguf->model.cache.head_dim, 32);
  EXPECT_EQ(windows(gguf->model.text), 6);
  EXPECT_EQ(gguf->model.pictures->square_px, 112);
  EXPECT_THAT(gguf->model.unused_tensors, IsEmpty());
}

TEST(Gemma3, WhatIsNotComputedIsRefused) {
  REQUIRE_GOLDEN();
  const auto expect = [](const char* part, const char* key, const Json& value, const char* named) {
    const testing::ModelCopy copy(testing::golden("gemma3/tiny"));
    copy.edit_json("config.json",
                   [&](Json& json) { (*part == 0 ? json : json[part])[key] = value; });
    EXPECT_THAT(problem(copy.path()), AllOf(HasSubstr(named), HasSubstr(copy.path())))
        << key << " " << value.dump();
  };
  expect("text_config", "final_logit_softcapping", 30.0, "final_logit_softcapping");
  expect("text_config", "use_bidirectional_attention", true, "use_bidirectional_attention");
  expect("text_config", "attention_bias", true, "attention_bias");
  expect("text_config", "query_pre_attn_scalar", 0, "query_pre_attn_scalar");
  expect("text_config", "sliding_window", 0, "sliding_window");
  expect("text_config", "sliding_window_pattern", 0, "sliding_window_pattern");
  expect("text_config", "layer_types", Json::array({"full_attention"}), "7 layers");
  expect("text_config", "rope_scaling", {{"rope_type", "yarn"}, {"factor", 8.0}}, "yarn");
  expect("text_config", "rope_scaling", {{"rope_type", "linear"}, {"factor", 0.0}}, "factor 0");
  expect("text_config", "rope_theta", -1.0, "base -1");
  expect("text_config", "head_dim", 15, "head_dim");
  expect("vision_config", "num_attention_heads", 5, "num_attention_heads 5");
  expect("vision_config", "patch_size", 15, "patch_size 15");
  expect("vision_config", "image_size", 0, "image_size");
  expect("", "mm_tokens_per_image", 0, "mm_tokens_per_image");
  expect("", "mm_tokens_per_image", 9, "do not divide");
  expect("", "mm_tokens_per_image", 10000, "do not divide");
}

} // namespace
} // namespace pinhole
