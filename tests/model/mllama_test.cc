// Llama 3.2 Vision: what its configuration says, leaves out, or must not say. Rope
// frequencies are those of transformers 5.12.1 (MllamaRotaryEmbedding).
#include "model/blocks.h"
#include "model/vision_inputs.h"
#include "support/describe.h"

#include <gmock/gmock.h>

namespace pinhole {
namespace {

using ::testing::AllOf;
using testing::Described;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::take;

std::string problem(const std::string& path) {
  const auto files = ModelFiles::open(path);
  const auto model = files ? describe_model(*files) : fail_in("", files.error());
  return model ? std::string() : model.error().text();
}

TEST(Mllama, GoldenModelIsDescribedWhole) {
  REQUIRE_GOLDEN();
  const auto described = Described::open(testing::golden("mllama/tiny"));
  const Model& model = described->model;
  EXPECT_EQ(model.family, "mllama");
  EXPECT_EQ(model.hidden_size, 64);
  EXPECT_EQ(model.vocab_size, 487);
  EXPECT_EQ(model.input_ids, 487 + 8);
  EXPECT_EQ(model.context_length, 512);
  EXPECT_EQ(model.position_axes, 1);
  EXPECT_EQ(model.eos_token_ids, (std::vector<int64_t>{481, 485}));
  EXPECT_EQ(model.cache.layers, 5);
  EXPECT_EQ(model.cache.cross, (std::vector<bool>{false, true, false, true, false}));
  EXPECT_THAT(model.unused_tensors, IsEmpty());
  uint64_t bytes = 0;
  for (const Tensor& tensor : described->files.text.tensors())
    bytes += tensor.bytes;
  EXPECT_EQ(model.weight_bytes, bytes);
  ASSERT_TRUE(model.pictures);
  EXPECT_EQ(model.pictures->square_px, 56);
  EXPECT_EQ(model.pictures->max_tiles, 4);
  EXPECT_FLOAT_EQ(model.pictures->mean[1], 0.4578275f);
  EXPECT_FLOAT_EQ(model.pictures->std[2], 0.27577711f);
}

TEST(Mllama, ConfigOfTransformers5GivesTheSameModel) {
  REQUIRE_GOLDEN();
  const auto old = Described::open(testing::golden("mllama/tiny"));
  const testing::ModelCopy copy(testing::golden("mllama/tiny"));
  copy.replace("config.json", testing::read_file(copy.file("config.transformers5.json")));
  const auto now = Described::open(copy.path());
  for (Graph Model::*part : {&Model::text, &Model::vision}) {
    const auto& a = (old->model.*part).ops();
    const auto& b = (now->model.*part).ops();
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].kind, b[i].kind);
      EXPECT_EQ(a[i].inv_freq, b[i].inv_freq);
      EXPECT_EQ(a[i].eps, b[i].eps);
      EXPECT_EQ(a[i].layer, b[i].layer);
    }
  }
  EXPECT_EQ(old->model.cache.cross, now->model.cache.cross);
  EXPECT_EQ(old->model.input_ids, now->model.input_ids);
}

TEST(Mllama, RopeIsScaledAsTheReferenceDoes) {
  const Json config = {{"rope_theta", 500000.0},
                       {"rope_scaling",
                        {{"factor", 8.0},
                         {"high_freq_factor", 4.0},
                         {"low_freq_factor", 1.0},
                         {"original_max_position_embeddings", 8192},
                         {"rope_type", "llama3"}}}};
  const Llama3Rope rope = take(llama3_rope_from_hf({config, "test"}, 1e4));
  const std::vector<float> large = llama3_inv_freq(rope, 128);
  ASSERT_EQ(large.size(), 64u);
  // Short waves, those between, long ones.
  EXPECT_FLOAT_EQ(large[1], 0.8146172165870667f);
  EXPECT_FLOAT_EQ(large[28], 0.0032114461064338684f);
  EXPECT_FLOAT_EQ(large[29], 0.0021665706299245358f);
  EXPECT_FLOAT_EQ(large[31], 0.0008567514596506953f);
  EXPECT_FLOAT_EQ(large[34], 0.0001785077911335975f);
  EXPECT_FLOAT_EQ(large[35], 9.556212171446532e-05f);
  EXPECT_FLOAT_EQ(large[63], 3.068925877869333e-07f);
  Llama3Rope small = rope;
  small.original_max_position_embeddings = 64;
  const std::vector<float> want{1.0f,
                                0.07940301299095154f,
                                0.004700753837823868f,
                                0.0009115831344388425f,
                                0.00017677668074611574f,
                                3.428102354519069e-05f,
                                6.647869668086059e-06f,
                                1.289173155782919e-06f};
  const std::vector<float> got = llama3_inv_freq(small, 16);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i)
    EXPECT_FLOAT_EQ(got[i], want[i]) << i;
  // No scaling.
  EXPECT_EQ(llama3_inv_freq(take(llama3_rope_from_hf({Json::object(), "test"}, 1e4)), 16),
            rope_inv_freq(1e4, 16));
}

TEST(Mllama, WhatIsNotComputedIsRefused) {
  REQUIRE_GOLDEN();
  const auto expect = [](const char* file, const char* part, const char* key, const Json& value,
                         const char* named) {
    const testing::ModelCopy copy(testing::golden("mllama/tiny"));
    copy.edit_json(file, [&](Json& json) { (*part == 0 ? json : json[part])[key] = value; });
    EXPECT_THAT(problem(copy.path()), AllOf(HasSubstr(named), HasSubstr(copy.path())))
        << key << " " << value.dump();
  };
  const auto text = [&](const char* key, const Json& value, const char* named) {
    expect("config.json", "text_config", key, value, named);
  };
  const auto vision = [&](const char* key, const Json& value, const char* named) {
    expect("config.json", "vision_config", key, value, named);
  };
  text("hidden_act", "gelu", "hidden_act");
  text("cross_attention_layers", Json::array({1, 5}), "cross_attention_layers");
  text("cross_attention_layers", Json::array({-1}), "cross_attention_layers");
  text("cross_attention_layers", "1", "cross_attention_layers");
  text("head_dim", 8, "head_dim");
  text("rope_scaling", {{"rope_type", "yarn"}, {"factor", 8.0}}, "yarn");
  text("rope_scaling", {{"rope_type", "llama3"}, {"factor", 0.5}}, "rope factor 0.5");
  text("rope_scaling", {{"rope_type", "llama3"}, {"low_freq_factor", 4.0}}, "low_freq_factor 4");
  text("rope_scaling", {{"rope_type", "llama3"}, {"factor", -1.0}}, "-1");
  text("rope_scaling", 3, "rope_scaling");
  text("vocab_size", 0, "vocab_size");
  vision("hidden_act", "silu", "hidden_act");
  vision("attention_heads", 5, "attention_heads 5");
  vision("image_size", 57, "image_size 57");
  vision("image_size", 0, "image_size");
  vision("patch_size", 0, "patch_size");
  vision("max_num_tiles", 0, "max_num_tiles");
  vision("max_num_tiles", 3, "supported_aspect_ratios");
  vision("supported_aspect_ratios", Json::array({{1, 1}}), "supported_aspect_ratios");
  vision("num_channels", 1, "num_channels");
  vision("vision_output_dim", 100, "vision_output_dim");
  vision("intermediate_layers_indices", Json::array({4}), "intermediate_layers_indices");
  vision("norm_eps", -1.0, "norm_eps");
  expect("preprocessor_config.json", "", "max_image_tiles", 2, "max_image_tiles");
  expect("preprocessor_config.json", "size", "height", 57, "height");
}

TEST(Mllama, HugeTilesAreRefused) {
  REQUIRE_GOLDEN();
  const testing::ModelCopy copy(testing::golden("mllama/tiny"));
  copy.edit_json("config.json", [](Json& json) {
    json["vision_config"]["image_size"] = 16384;
    json["vision_config"]["patch_size"] = 1;
  });
  EXPECT_THAT(problem(copy.path()), HasSubstr("image_size 16384"));
}

TEST(Mllama, EachMissingTensorIsNamed) {
  REQUIRE_GOLDEN();
  const auto whole = Described::open(testing::golden("mllama/tiny"));
  for (const Tensor& tensor : whole->files.text.tensors()) {
    const testing::ModelCopy copy(testing::golden("mllama/tiny"));
    copy.edit_safetensors("model.safetensors", [&](Json& header) {
      header["other"] = header[tensor.name]; // the bytes must stay accounted for
      header.erase(tensor.name);
    });
    const size_t dot = tensor.name.rfind('.', tensor.name.rfind('.') - 1);
    EXPECT_THAT(problem(copy.path()),
                AllOf(HasSubstr("missing"), HasSubstr(tensor.name.substr(dot + 1))))
        << tensor.name;
  }
}

// supported_aspect_ratios of the reference's defaults, and the ids that follow from the list.
TEST(TileNumbers, CanvasesAreNumberedAsTheReferencesList) {
  const int64_t list[][2] = {{1, 1}, {1, 2}, {1, 3}, {1, 4}, {2, 1}, {2, 2}, {3, 1}, {4, 1}};
  for (int64_t i = 0; i < 8; ++i) {
    const PatchGrid grid{4, 4, 1, 4, list[i][0], list[i][1]};
    EXPECT_EQ(grid.arrangement(), i + 1);
  }
  EXPECT_EQ((PatchGrid{4, 4, 1, 6, 2, 3}).arrangement(), 9);
  EXPECT_EQ((PatchGrid{4, 4, 1, 9, 4, 2}).arrangement(), 18);
}

// Tiles of 1 x 2 patches: 3 tokens each, 5 rows of nothing behind every one of 2 tiles.
TEST(TileNumbers, CountFromTheirTile) {
  const PatchGrid grid{1, 2, 1, 2, 2, 1}; // the third canvas
  EXPECT_EQ(grid.patches(), 16);
  EXPECT_EQ(grid.tokens(), 6);
  EXPECT_EQ(grid.seen_tokens(), 6);
  EXPECT_EQ((PatchGrid{1, 2, 1, 2, 1, 1}).seen_tokens(), 3);
  const auto numbers = [&](TileNumbering numbering) {
    std::vector<int32_t> out(16, -7);
    tile_numbers(grid, numbering, out);
    return out;
  };
  const auto with = [](std::vector<int32_t> tokens, int32_t first, int32_t second) {
    tokens.insert(tokens.end(), 5, first);
    tokens.insert(tokens.end(), 5, second);
    return tokens;
  };
  EXPECT_EQ(numbers(TileNumbering::kClass), with({0, -1, -1, 0, -1, -1}, -1, -1));
  EXPECT_EQ(numbers(TileNumbering::kToken), with({0, 1, 2, 0, 1, 2}, -1, -1));
  EXPECT_EQ(numbers(TileNumbering::kRow), with({0, 1, 2, 3, 4, 5}, -1, -1));
  EXPECT_EQ(numbers(TileNumbering::kPatchTile), with({-1, 6, 6, -1, 7, 7}, -1, -1));
  EXPECT_EQ(numbers(TileNumbering::kTile), with({6, 6, 6, 7, 7, 7}, 6, 7));
  EXPECT_EQ(numbers(TileNumbering::kTokenOfTile), with({18, 19, 20, 21, 22, 23}, -1, -1));
}

} // namespace
} // namespace pinhole
