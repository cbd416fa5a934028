// Plans of Llama 3.2 Vision: counts are those of transformers 5.12.1 (the model on the meta
// device); pictures have a cache of their own, which the context does not change.
#include "kernels/select.h"
#include "plan/memory.h"
#include "plan/recipe.h"
#include "plan/residency.h"
#include "plan/work.h"
#include "support/describe.h"

#include <gtest/gtest.h>

namespace pinhole {
namespace {

using testing::Described;
using testing::take;

// The published configuration of Llama-3.2-11B-Vision.
Json published() {
  return Json::parse(R"({
    "architectures": ["MllamaForConditionalGeneration"], "image_token_index": 128256,
    "model_type": "mllama", "torch_dtype": "bfloat16",
    "text_config": {
      "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38], "eos_token_id": [128001, 128008],
      "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
      "max_position_embeddings": 131072, "num_attention_heads": 32, "num_hidden_layers": 40,
      "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
      "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                       "original_max_position_embeddings": 8192, "rope_type": "llama3"},
      "tie_word_embeddings": false, "vocab_size": 128256},
    "vision_config": {
      "attention_heads": 16, "hidden_act": "gelu", "hidden_size": 1280, "image_size": 560,
      "intermediate_layers_indices": [3, 7, 15, 23, 30], "intermediate_size": 5120,
      "max_num_tiles": 4, "norm_eps": 1e-05, "num_channels": 3, "num_global_layers": 8,
      "num_hidden_layers": 32, "patch_size": 14, "vision_output_dim": 7680,
      "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]}
  })");
}

std::unique_ptr<Described> from_config(const Json& config) {
  const testing::TempDir folder;
  folder.write("config.json", config.dump());
  auto out = std::make_unique<Described>();
  out->files = take(ModelFiles::open_to_plan(folder.path()));
  out->model = take(describe_model(out->files));
  return out;
}

TEST(MllamaPlan, PublishedConfigurationHasTheReferencesParameters) {
  const auto described = from_config(published());
  const TransformersFootprint footprint = transformers_footprint(described->model);
  EXPECT_EQ(footprint.parameters, 10670220835);
  EXPECT_EQ(footprint.linear, 9542041600);
  EXPECT_EQ(footprint.float32_bytes(), 42680883340);
  EXPECT_EQ(footprint.bfloat16_bytes(), 21340441670);
  EXPECT_EQ(described->model.weight_bytes, 21340441670u);
  int64_t vision = 0, projector = 0;
  for (const RoleBytes& role : bytes_by_role(described->model)) {
    vision += part_of(role.role) == Part::kVision ? role.elements : 0;
    projector += part_of(role.role) == Part::kProjector ? role.elements : 0;
  }
  EXPECT_EQ(vision, 863567379);
  EXPECT_EQ(projector, 31461376);
  // 32 layers keep the text's keys, 8 a picture's: 2 x layers x 8 heads x 128 values of 2 bytes.
  const CacheSpec& cache = described->model.cache;
  EXPECT_EQ(cache.cross_layers(), 8);
  EXPECT_EQ(kv_bytes_per_token(cache, kernels::KvType::kF16), 2 * 32 * 8 * 128 * 2);
  EXPECT_EQ(picture_bytes_per_token(cache, kernels::KvType::kF16), 2 * 8 * 8 * 128 * 2);
}

TEST(MllamaPlan, DefaultsAreThePublishedNumbers) {
  // What MllamaConfig fills in; image_size is 448 there.
  Json config = published();
  config["vision_config"] = {{"image_size", 560}};
  config["text_config"] = {{"vocab_size", 128256},
                           {"rope_scaling", config["text_config"]["rope_scaling"]}};
  const auto described = from_config(config);
  EXPECT_EQ(transformers_footprint(described->model).parameters, 10670220835);
  EXPECT_EQ(described->model.cache.cross_layers(), 8);
}

KernelChoice scalar_kernels() {
  return {take(kernels::find("scalar")), false, 2, kernels::KvType::kF16};
}

RunShape shape_of(int64_t context, int64_t pictures) {
  RunShape shape;
  shape.context_tokens = context;
  shape.chunk_tokens = 64;
  shape.max_patches = pictures > 0 ? 4 * 1608 : 0;
  shape.feature_tokens = pictures * 4 * 1601;
  return shape;
}

TEST(MllamaPlan, PicturesHaveACacheOfTheirOwn) {
  const auto described = from_config(published());
  const auto plan = [&](int64_t context, int64_t pictures) {
    return take(plan_memory(described->model, shape_of(context, pictures), scalar_kernels()));
  };
  const int64_t picture = 6404 * 2 * 8 * 8 * 128 * 2;
  for (const int64_t context : {64, 4096, 65536}) {
    EXPECT_EQ(plan(context, 1).picture_cache_bytes, picture);
    EXPECT_EQ(plan(context, 3).picture_cache_bytes, 3 * picture);
    EXPECT_EQ(plan(context, 1).kv_cache_bytes, context * 2 * 32 * 8 * 128 * 2);
    EXPECT_EQ(plan(context, 1).features_bytes, 0);
  }
  const MemoryPlan one = plan(4096, 1);
  int64_t sum = 0;
  bool listed = false;
  for (const MemoryPart& part : one.parts()) {
    sum += part.bytes;
    listed = listed || (part.name == "picture cache" && part.bytes == picture);
  }
  EXPECT_TRUE(listed);
  EXPECT_EQ(sum, one.anonymous_bytes());
  EXPECT_EQ(plan(4096, 0).picture_cache_bytes, 0);
}

// q_proj, o_proj, the MLP, norms and gates of the 8 layers are read where there are pictures alone,
// as are the vision part, and the keys and values of pictures.
TEST(MllamaPlan, WithoutPicturesCrossAttentionIsNotMapped) {
  const auto described = from_config(published());
  const auto mapped = [&](int64_t pictures) {
    return take(plan_memory(described->model, shape_of(256, pictures), scalar_kernels()))
        .mapped_bytes;
  };
  const int64_t layer =
      2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096 + 2 * 128 + 2;
  EXPECT_EQ(mapped(1) - mapped(0), 2 * (8 * layer + 863567379 + 31461376));
}

Work total(const Graph& graph, const WorkShape& shape) {
  Work sum;
  for (const Op& op : graph.ops())
    sum += op_work(graph, op, shape);
  return sum;
}

TEST(MllamaPlan, WorkCountsThePicturesThatATokenSees) {
  const auto described = from_config(published());
  WorkShape shape;
  shape.rows = {1, 1};
  shape.past_tokens = 10;
  const Work text = total(described->model.text, shape);
  EXPECT_EQ(text.cache_bytes, 11.0 * 2 * 32 * 8 * 128 * 2);
  shape.picture_keys = 1601;
  const Work seen = total(described->model.text, shape);
  EXPECT_EQ(seen.cache_bytes - text.cache_bytes, 1601.0 * 2 * 8 * 8 * 128 * 2);
  const double matrices = 8.0 * (2 * 4096 * 4096 + 3 * 4096 * 14336);
  EXPECT_EQ(seen.weight_bytes - text.weight_bytes, 2 * matrices);
  // Two operations for each weight; q k and p v of each key in each of 32 heads of 128.
  EXPECT_EQ(seen.flops - text.flops, 2 * matrices + 8 * 4.0 * 1601 * 4096);
}

TEST(MllamaPlan, TablesOfThePositionsAreLookedUpAndTheRestStreams) {
  const auto described = from_config(published());
  const Model& model = described->model;
  const MemoryPlan plan = take(plan_memory(model, shape_of(256, 1), scalar_kernels()));
  int64_t tables = 0;
  for (const Op& op : model.vision.ops()) {
    if (looks_up_table(model.vision, op))
      tables += model.vision.weight(op.weight).rows * model.vision.weight(op.weight).cols;
  }
  EXPECT_EQ(tables, (9 * 4 + 9 * 4 + 1601 + 9 * 4 * 1601) * 1280);
  const int64_t limit = int64_t{6} << 30;
  const Residency residency = take(plan_residency(model, plan, limit));
  EXPECT_TRUE(residency.streams());
  EXPECT_LE(residency.peak_bytes(plan), limit);
  EXPECT_EQ(residency.resident_bytes + residency.streamed_text_bytes +
                residency.streamed_vision_bytes,
            plan.mapped_bytes);
  // Nothing of cross-attention is streamed when there are no pictures.
  const MemoryPlan words = take(plan_memory(model, shape_of(256, 0), scalar_kernels()));
  const Residency text = take(plan_residency(model, words, limit));
  for (size_t i = 0; i < model.text.ops().size(); ++i) {
    if (model.text.ops()[i].needs_pictures) {
      EXPECT_FALSE(text.text[i]) << i;
    }
  }
  EXPECT_EQ(text.resident_bytes + text.streamed_text_bytes, words.mapped_bytes);
}

TEST(MllamaPlan, RecipesQuantiseKeysOfPicturesWithTheText) {
  auto described = from_config(published());
  take(apply_recipe("q4_0", described->model));
  int cross = 0;
  for (const Weight& weight : described->model.vision.weights()) {
    if (weight.role == Role::kTextAttention) {
      EXPECT_EQ(weight.format, FormatId::kQ4_0);
      ++cross;
    } else if (weight.rows > 1) {
      EXPECT_EQ(weight.format, FormatId::kF16);
    }
  }
  EXPECT_EQ(cross, 16);
}

} // namespace
} // namespace pinhole
