// Formats that a quantiser would choose, and what transformers would hold.
#include "plan/recipe.h"

#include "kernels/select.h"
#include "plan/memory.h"
#include "support/describe.h"

#include <gtest/gtest.h>

namespace pinhole {
namespace {

using testing::take;

struct Planned {
  ModelFiles files;
  Model model;
};

std::unique_ptr<Planned> config_model(const std::string& name) {
  auto out = std::make_unique<Planned>();
  out->files =
      take(ModelFiles::open_to_plan(testing::golden("footprint/" + name + ".config.json")));
  out->model = take(describe_model(out->files));
  return out;
}

int64_t text_bytes(const Model& model) {
  int64_t bytes = 0;
  for (const RoleBytes& role : bytes_by_role(model)) {
    if (part_of(role.role) == Part::kText)
      bytes += role.bytes;
  }
  return bytes;
}

// The sums of the tensors' bytes in files that llama-quantize (llama.cpp 0.7.0) made from these
// shapes.
TEST(Recipe, SizesOfLlamaQuantize) {
  REQUIRE_GOLDEN();
  const std::pair<const char*, int64_t> sizes[] = {
      {"q4_k_m", 1101457408}, {"q4_0", 1048471552}, {"q8_0", 1828474880}};
  for (const auto& [name, bytes] : sizes) {
    const auto planned = config_model("Qwen3-VL-2B-Instruct");
    ASSERT_TRUE(apply_recipe(name, planned->model));
    EXPECT_EQ(text_bytes(planned->model), bytes) << name;
  }
}

TEST(Recipe, OfAFileThatIsSoAlreadyChangesNothing) {
  const auto bundled = testing::Described::bundled();
  const uint64_t before = bundled->model.weight_bytes;
  int64_t norms = 0;
  for (const RoleBytes& role : bytes_by_role(bundled->model)) {
    if (role.role == Role::kTextNorm || role.role == Role::kVisionNorm)
      norms += role.bytes;
  }
  ASSERT_TRUE(apply_recipe("f16", bundled->model));
  // The file keeps norms and biases in F32.
  EXPECT_LE(bundled->model.weight_bytes, before);
  EXPECT_GE(bundled->model.weight_bytes, before - before / 50 - static_cast<uint64_t>(norms));
}

TEST(Recipe, ExpertsAreQuantisedAndRoutersAreNot) {
  REQUIRE_GOLDEN();
  const auto planned = config_model("Qwen3-VL-30B-A3B-Instruct");
  ASSERT_TRUE(apply_recipe("q4_k_m", planned->model));
  for (const RoleBytes& role : bytes_by_role(planned->model)) {
    if (role.role == Role::kTextExpert) { // between all Q4_K and all Q6_K
      EXPECT_GT(role.bytes, role.elements / 256 * 144);
      EXPECT_LT(role.bytes, role.elements / 256 * 210);
    }
    if (role.role == Role::kTextRouter) {
      EXPECT_EQ(role.bytes, 4 * role.elements);
    }
  }
}

TEST(Recipe, UnknownNamesAreListed) {
  const auto bundled = testing::Described::bundled();
  const Status status = apply_recipe("q4_k_x", bundled->model);
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("q4_k_m"), std::string::npos);
}

TEST(Footprint, OfEveryFamilyThatIsHere) {
  REQUIRE_GOLDEN();
  const Json expected = testing::load_json(testing::golden("footprint/expected.json"));
  int compared = 0;
  for (const auto& [name, wanted] : expected.items()) {
    if (wanted["model_type"] == "gemma3") // no such family here
      continue;
    const auto planned = config_model(name);
    const TransformersFootprint found = transformers_footprint(planned->model);
    EXPECT_EQ(found.parameters, wanted["parameters"]) << name;
    EXPECT_EQ(found.linear, wanted["linear_weight_parameters"]) << name;
    const Json& bytes = wanted["footprint_bytes"];
    EXPECT_EQ(found.float32_bytes(), bytes["float32"]) << name;
    EXPECT_EQ(found.bfloat16_bytes(), bytes["bfloat16"]) << name;
    EXPECT_EQ(found.nf4_bytes(), bytes["nf4_double_quant_bitsandbytes"]) << name;
    EXPECT_EQ(kv_bytes_per_token(planned->model.cache, kernels::KvType::kF16),
              wanted["kv_cache_bytes_per_token_f16"])
        << name;
    ++compared;
  }
  EXPECT_EQ(compared, 4);
}

// A plan from a configuration is the plan of the files that belong to it.
TEST(ConfigOnly, PlansAsTheFolderItself) {
  REQUIRE_GOLDEN();
  const kernels::Table* table = take(kernels::find("scalar"));
  for (const char* name :
       {"qwen3_vl/tiny", "qwen3_vl_moe/tiny", "qwen2_5_vl/tiny", "mistral3/small31",
        "mistral3/ministral3", "pixtral/llava", "internvl/qwen2"}) {
    const auto whole = testing::Described::open(testing::golden(name));
    Planned config;
    config.files.text = take(ModelFile::open_config(testing::golden(name)));
    config.model = take(describe_model(config.files));
    // What the collection's folders hold in F32, as their configurations say.
    EXPECT_EQ(config.model.weight_bytes, whole->model.weight_bytes) << name;
    EXPECT_EQ(config.model.text.ops().size(), whole->model.text.ops().size()) << name;
    const RunShape shape{
        .context_tokens = 512, .chunk_tokens = 128, .max_patches = 256, .feature_tokens = 64};
    const KernelChoice kernels{table, false, 2, kernels::KvType::kF16};
    const MemoryPlan a = take(plan_memory(config.model, shape, kernels));
    const MemoryPlan b = take(plan_memory(whole->model, shape, kernels));
    EXPECT_EQ(a.arena_bytes, b.arena_bytes) << name;
    EXPECT_EQ(a.anonymous_bytes(), b.anonymous_bytes()) << name;
  }
}

TEST(ConfigOnly, ZeroHeadsAreRefused) {
  REQUIRE_GOLDEN();
  const testing::TempDir folder;
  Json config = testing::load_json(testing::golden("qwen3_vl/tiny/config.json"));
  config["text_config"]["num_attention_heads"] = 0;
  const std::string path = folder.write("config.json", config.dump());
  const ModelFiles files = take(ModelFiles::open_to_plan(path));
  const auto model = describe_model(files);
  ASSERT_FALSE(model);
  EXPECT_NE(model.error().text().find("num_attention_heads"), std::string::npos)
      << model.error().text();
}

} // namespace
} // namespace pinhole
