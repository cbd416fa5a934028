// Mistral 3, Pixtral and InternVL from both containers: what their configurations say, leave out,
// or must not say; and published configurations, whose tensors are those that transformers makes.
#include "support/describe.h"

#include <gmock/gmock.h>
#include <map>

namespace pinhole {
namespace {

using ::testing::AllOf;
using testing::Described;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string problem(const std::string& path, const std::string& mmproj = {}) {
  const auto files = ModelFiles::open(path, mmproj);
  const auto model = files ? describe_model(*files) : fail_in("", files.error());
  return model ? std::string() : model.error().text();
}

// --- published configurations ---

Json pixtral_vision(int64_t image_size, int64_t patch_size) {
  return {{"head_dim", 64},          {"hidden_act", "silu"},     {"image_size", image_size},
          {"model_type", "pixtral"}, {"patch_size", patch_size}, {"rope_theta", 10000.0}};
}

Json mistral_small_31() {
  return {{"model_type", "mistral3"},
          {"multimodal_projector_bias", false},
          {"projector_hidden_act", "gelu"},
          {"spatial_merge_size", 2},
          {"text_config",
           {{"head_dim", 128},
            {"hidden_act", "silu"},
            {"hidden_size", 5120},
            {"intermediate_size", 32768},
            {"max_position_embeddings", 131072},
            {"model_type", "mistral"},
            {"num_attention_heads", 32},
            {"num_hidden_layers", 40},
            {"num_key_value_heads", 8},
            {"rms_norm_eps", 1e-05},
            {"rope_theta", 1e9},
            {"sliding_window", nullptr},
            {"vocab_size", 131072}}},
          {"torch_dtype", "bfloat16"},
          {"vision_config", pixtral_vision(1540, 14)},
          {"vision_feature_layer", -1}};
}

Json ministral_3_8b() {
  Json config = mistral_small_31();
  config["text_config"] = {{"head_dim", 128},
                           {"hidden_size", 4096},
                           {"intermediate_size", 14336},
                           {"max_position_embeddings", 262144},
                           {"model_type", "ministral3"},
                           {"num_attention_heads", 32},
                           {"num_hidden_layers", 34},
                           {"num_key_value_heads", 8},
                           {"rms_norm_eps", 1e-05},
                           {"rope_parameters",
                            {{"rope_type", "yarn"},
                             {"rope_theta", 1e6},
                             {"factor", 16.0},
                             {"beta_fast", 32.0},
                             {"beta_slow", 1.0},
                             {"mscale", 1.0},
                             {"mscale_all_dim", 1.0},
                             {"llama_4_scaling_beta", 0.1},
                             {"original_max_position_embeddings", 16384}}},
                           {"vocab_size", 131072}};
  return config;
}

Json pixtral_12b() {
  return {{"model_type", "llava"},
          {"projector_hidden_act", "gelu"},
          {"text_config",
           {{"head_dim", 128},
            {"hidden_size", 5120},
            {"intermediate_size", 14336},
            {"max_position_embeddings", 1024000},
            {"model_type", "mistral"},
            {"num_hidden_layers", 40},
            {"num_key_value_heads", 8},
            {"rms_norm_eps", 1e-05},
            {"rope_theta", 1e9},
            {"sliding_window", nullptr},
            {"vocab_size", 131072}}},
          {"torch_dtype", "bfloat16"},
          {"vision_config", pixtral_vision(1024, 16)},
          {"vision_feature_layer", -1},
          {"vision_feature_select_strategy", "full"}};
}

Json internvl3_1b() {
  return {{"model_type", "internvl"},
          {"downsample_ratio", 0.5},
          {"projector_hidden_act", "gelu"},
          {"text_config",
           {{"model_type", "qwen2"},
            {"hidden_act", "silu"},
            {"hidden_size", 896},
            {"intermediate_size", 4864},
            {"max_position_embeddings", 32768},
            {"num_attention_heads", 14},
            {"num_hidden_layers", 24},
            {"num_key_value_heads", 2},
            {"rms_norm_eps", 1e-06},
            {"rope_theta", 1e6},
            {"rope_scaling", {{"factor", 2.0}, {"rope_type", "dynamic"}, {"type", "dynamic"}}},
            {"tie_word_embeddings", false},
            {"use_sliding_window", false},
            {"vocab_size", 151674}}},
          {"tie_word_embeddings", false},
          {"torch_dtype", "bfloat16"},
          {"vision_config",
           {{"attention_bias", true},
            {"hidden_act", "gelu"},
            {"hidden_size", 1024},
            {"image_size", {448, 448}},
            {"intermediate_size", 4096},
            {"norm_type", "layer_norm"},
            {"num_attention_heads", 16},
            {"num_hidden_layers", 24},
            {"patch_size", {14, 14}},
            {"use_absolute_position_embeddings", true},
            {"use_mask_token", false},
            {"use_mean_pooling", true},
            {"use_qk_norm", false}}},
          {"vision_feature_layer", -1},
          {"vision_feature_select_strategy", "default"}};
}

Json internvl3_38b() {
  Json config = internvl3_1b();
  config["text_config"].update({{"hidden_size", 5120},
                                {"intermediate_size", 27648},
                                {"num_attention_heads", 40},
                                {"num_key_value_heads", 8},
                                {"num_hidden_layers", 64}});
  config["vision_config"].update({{"attention_bias", false},
                                  {"hidden_size", 3200},
                                  {"intermediate_size", 12800},
                                  {"norm_type", "rms_norm"},
                                  {"num_attention_heads", 25},
                                  {"num_hidden_layers", 45},
                                  {"use_qk_norm", true}});
  return config;
}

struct Planned {
  ModelFiles files;
  Model model;
};

std::unique_ptr<Planned> planned(const Json& config) {
  const testing::TempDir folder;
  auto out = std::make_unique<Planned>();
  out->files = testing::take(ModelFiles::open_to_plan(folder.write("c.json", config.dump())));
  out->model = testing::take(describe_model(out->files));
  return out;
}

// Numbers of parameters and of tensors: transformers 5.12.1 on the meta device. That version ties
// what Mistral Small's configuration leaves open; the published weights are not tied.
TEST(PublishedConfigs, TensorsAreThoseOfTransformers) {
  const struct {
    Json config;
    int64_t parameters;
    size_t tensors;
  } expected[] = {
      {mistral_small_31(), 23340272640 + 131072 * 5120, 584 + 1},
      {ministral_3_8b(), 8918026240, 531},
      {pixtral_12b(), 12682739712, 585},
      {internvl3_1b(), 938193024, 733},
      {internvl3_38b(), 38388164992, 1456},
  };
  for (const auto& row : expected) {
    const auto plan = planned(row.config);
    std::map<std::string, const Tensor*> tensors;
    for (const Graph* graph : {&plan->model.text, &plan->model.vision}) {
      for (const auto& [name, tensor] : graph->declared_tensors())
        tensors.emplace(name, &tensor);
    }
    int64_t parameters = 0;
    for (const auto& [name, tensor] : tensors)
      parameters += tensor->elements();
    EXPECT_EQ(parameters, row.parameters) << row.config.dump();
    EXPECT_EQ(tensors.size(), row.tensors) << row.config.dump();
    EXPECT_EQ(plan->model.weight_bytes, 2 * static_cast<uint64_t>(parameters));
  }
}

TEST(PublishedConfigs, PicturesAndCaches) {
  const auto small = planned(mistral_small_31());
  EXPECT_EQ(small->model.pictures->longest_px, 1540);
  EXPECT_EQ(small->model.pictures->merge_size, 2);
  EXPECT_EQ(small->model.cache.head_dim, 128);
  const auto pixtral = planned(pixtral_12b());
  EXPECT_EQ(pixtral->model.pictures->tokens(1024, 1024), 64 * 64);
  EXPECT_EQ(pixtral->model.context_length, 1024000);
  const auto internvl = planned(internvl3_1b());
  EXPECT_EQ(internvl->model.pictures->tokens(448, 448), 256);
  EXPECT_EQ(internvl->model.pictures->max_pieces, 12);
}

// --- both containers ---

TEST(Mistral3, GgufHoldsTheSameModel) {
  REQUIRE_GOLDEN();
  const std::string folder = testing::golden("gguf/mistral3");
  const auto gguf =
      Described::open(folder + "/mistral3-f32.gguf", folder + "/mmproj-mistral3-f32.gguf");
  EXPECT_EQ(gguf->model.family, "mistral3");
  EXPECT_EQ(gguf->model.cache.head_dim, 24);
  EXPECT_EQ(gguf->model.pictures->longest_px, 168);
  EXPECT_EQ(gguf->model.pictures->merge_size, 2);
  EXPECT_THAT(gguf->model.unused_tensors, IsEmpty());
  const auto folder_model = Described::open(testing::golden("mistral3/small31"));
  EXPECT_EQ(gguf->model.text.ops().size(), folder_model->model.text.ops().size());
  EXPECT_EQ(gguf->model.vision.ops().size(), folder_model->model.vision.ops().size());
}

TEST(InternVl, GgufHoldsTheSameModel) {
  REQUIRE_GOLDEN();
  const std::string folder = testing::golden("gguf/internvl");
  const auto gguf =
      Described::open(folder + "/internvl-f32.gguf", folder + "/mmproj-internvl-f32.gguf");
  EXPECT_EQ(gguf->model.family, "internvl");
  EXPECT_EQ(gguf->model.pictures->square_px, 84);
  EXPECT_EQ(gguf->model.pictures->tokens(84, 84), 9);
  EXPECT_THAT(gguf->model.unused_tensors, IsEmpty());
  const auto folder_model = Described::open(testing::golden("internvl/qwen2"));
  EXPECT_EQ(gguf->model.text.ops().size(), folder_model->model.text.ops().size());
  EXPECT_EQ(gguf->model.vision.ops().size(), folder_model->model.vision.ops().size());
}

TEST(Mistral3, EveryTensorIsUsedAndEachMissingOneIsNamed) {
  REQUIRE_GOLDEN();
  for (const char* name :
       {"mistral3/small31", "mistral3/ministral3", "pixtral/llava", "internvl/qwen2"}) {
    const auto whole = Described::open(testing::golden(name));
    EXPECT_THAT(whole->model.unused_tensors, IsEmpty()) << name;
    const bool says_tied =
        testing::load_json(testing::golden(name) + "/config.json").contains("tie_word_embeddings");
    for (const Tensor& tensor : whole->files.text.tensors()) {
      if (!says_tied && tensor.name.ends_with("lm_head.weight"))
        continue; // without it embeddings are tied
      const testing::ModelCopy copy(testing::golden(name));
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
}

TEST(Mistral3, TiedWhereTheConfigSaysNothingAndTheFileHasNoHead) {
  REQUIRE_GOLDEN();
  const testing::ModelCopy copy(testing::golden("mistral3/small31"));
  copy.edit_json("config.json", [](Json& json) { json.erase("tie_word_embeddings"); });
  const auto head = [](const Described& described) {
    const Graph& g = described.model.text;
    return g.weight(g.ops().back().parts.front().weight).tensor->name;
  };
  EXPECT_THAT(head(*Described::open(copy.path())), HasSubstr("lm_head"));
  copy.edit_safetensors("model.safetensors", [](Json& header) {
    const Json before = header;
    for (const auto& [name, row] : before.items()) {
      if (!name.ends_with("lm_head.weight"))
        continue;
      header["other"] = row;
      header.erase(name);
    }
  });
  EXPECT_THAT(head(*Described::open(copy.path())), HasSubstr("embed_tokens"));
}

// The decoder alone, as a folder and as GGUF without a projector.
TEST(Mistral3, ATextModelAlone) {
  REQUIRE_GOLDEN();
  const testing::TempDir folder;
  std::filesystem::copy(testing::golden("gguf/mistral3/mistral3-f32.gguf"), folder.path());
  const auto alone = Described::open(folder.file("mistral3-f32.gguf"));
  EXPECT_FALSE(alone->model.pictures);
  EXPECT_THAT(alone->model.unused_tensors, IsEmpty());
  std::filesystem::copy(testing::golden("gguf/internvl/internvl-f32.gguf"), folder.path());
  EXPECT_FALSE(Described::open(folder.file("internvl-f32.gguf"))->model.pictures);
  Json text = ministral_3_8b()["text_config"];
  const auto ministral = planned(text);
  EXPECT_FALSE(ministral->model.pictures);
  EXPECT_EQ(ministral->model.cache.layers, 34);
}

// --- what is not computed, or makes no sense ---

void expect_refused(const char* model, const char* part, const char* key, const Json& value,
                    const char* named) {
  const testing::ModelCopy copy(testing::golden(model));
  const bool in_processor = std::string(part) == "processor";
  copy.edit_json(in_processor ? "preprocessor_config.json" : "config.json", [&](Json& json) {
    (*part == 0 || in_processor ? json : json[part])[key] = value;
  });
  EXPECT_THAT(problem(copy.path()), AllOf(HasSubstr(named), HasSubstr(copy.path())))
      << model << " " << key << " " << value.dump();
}

TEST(Mistral3, WhatIsNotComputedIsRefused) {
  REQUIRE_GOLDEN();
  for (const char* model : {"mistral3/small31", "pixtral/llava"}) {
    expect_refused(model, "text_config", "sliding_window", 100, "sliding_window 100");
    expect_refused(model, "text_config", "model_type", "qwen2", "model_type");
    expect_refused(model, "text_config", "hidden_act", "gelu", "hidden_act");
    expect_refused(model, "text_config", "head_dim", 15, "head_dim");
    expect_refused(model, "text_config", "num_key_value_heads", 21, "num_key_value_heads");
    expect_refused(model, "vision_config", "model_type", "clip_vision_model", "clip_vision_model");
    expect_refused(model, "vision_config", "hidden_act", "relu", "relu");
    expect_refused(model, "vision_config", "num_attention_heads", 5, "num_attention_heads 5");
    expect_refused(model, "vision_config", "num_attention_heads", 0, "num_attention_heads");
    expect_refused(model, "vision_config", "rope_theta", 0, "rope_theta");
    expect_refused(model, "vision_config", "image_size", 0, "image_size");
    expect_refused(model, "", "vision_feature_layer", -2, "vision_feature_layer");
    expect_refused(model, "", "vision_feature_layer", Json::array({-1, -2}),
                   "vision_feature_layer");
    expect_refused(model, "", "projector_hidden_act", "relu", "projector_hidden_act");
    expect_refused(model, "processor", "size", {{"longest_edge", 0}}, "longest_edge");
    expect_refused(model, "processor", "size", {{"height", 9}, {"width", 8}}, "8 x 9");
  }
  expect_refused("pixtral/llava", "", "vision_feature_select_strategy", "default", "strategy");
  expect_refused("mistral3/small31", "", "spatial_merge_size", 0, "spatial_merge_size");
  expect_refused("mistral3/ministral3", "text_config", "rope_parameters",
                 {{"rope_type", "longrope"}}, "longrope");
}

TEST(InternVl, WhatIsNotComputedIsRefused) {
  REQUIRE_GOLDEN();
  const char* model = "internvl/qwen2";
  expect_refused(model, "text_config", "model_type", "llama", "model_type");
  expect_refused(model, "text_config", "use_sliding_window", true, "use_sliding_window");
  expect_refused(model, "vision_config", "image_size", {84, 70}, "image_size");
  expect_refused(model, "vision_config", "image_size", {98, 98}, "image_size 98");
  expect_refused(model, "vision_config", "patch_size", 0, "patch_size");
  expect_refused(model, "vision_config", "num_attention_heads", 5, "num_attention_heads 5");
  expect_refused(model, "vision_config", "norm_type", "batch_norm", "norm_type");
  expect_refused(model, "vision_config", "use_mask_token", true, "use_mask_token");
  expect_refused(model, "", "vision_feature_layer", -2, "vision_feature_layer");
  expect_refused(model, "", "vision_feature_select_strategy", "full", "strategy");
  expect_refused(model, "", "downsample_ratio", 0, "downsample_ratio");
  expect_refused(model, "", "downsample_ratio", 2.0, "downsample_ratio");
  expect_refused(model, "processor", "max_patches", 0, "max_patches");
  expect_refused(model, "processor", "max_patches", 100000, "max_patches");
  expect_refused(model, "processor", "min_patches", 7, "min_patches 7");
  expect_refused(model, "processor", "size", {{"height", 98}, {"width", 84}}, "98");
}

TEST(Mistral3, ProjectorsOfOtherModelsAreRefused) {
  REQUIRE_GOLDEN();
  const std::string mistral = testing::golden("gguf/mistral3/");
  const std::string internvl = testing::golden("gguf/internvl/");
  EXPECT_THAT(problem(mistral + "mistral3-f32.gguf", internvl + "mmproj-internvl-f32.gguf"),
              AllOf(HasSubstr("internvl"), HasSubstr("'pixtral'")));
  EXPECT_THAT(problem(internvl + "internvl-f32.gguf", mistral + "mmproj-mistral3-f32.gguf"),
              AllOf(HasSubstr("pixtral"), HasSubstr("'internvl'")));
}

} // namespace
} // namespace pinhole
