// Bytes that a run will take: against published footprints, and as they grow.
#include "plan/memory.h"

#include "kernels/select.h"
#include "model/blocks.h"
#include "model/family.h"
#include "model/model.h"
#include "support/describe.h"
#include "support/write_safetensors.h"

#include <algorithm>
#include <gmock/gmock.h>

namespace pinhole {
namespace {

using testing::Described;
using ::testing::HasSubstr;

KernelChoice scalar(bool exact = false) {
  return {testing::take(kernels::find("scalar")), exact, 1, kernels::KvType::kF16};
}

TEST(KvCache, BytesPerTokenOfRealModels) {
  REQUIRE_GOLDEN();
  const Json expected = testing::load_json(testing::golden("footprint/expected.json"));
  int checked = 0;
  for (const auto& [name, row] : expected.items()) {
    const bool known = std::any_of(families().begin(), families().end(), [&](const Family& f) {
      return f.name == row["model_type"].get<std::string>();
    });
    if (!known) {
      std::printf("%s: family %s is not here\n", name.c_str(),
                  row["model_type"].get<std::string>().c_str());
      continue;
    }
    const testing::TempDir folder;
    folder.write("config.json",
                 testing::read_file(testing::golden("footprint/" + name + ".config.json")));
    folder.write("model.safetensors",
                 testing::SafetensorsWriter().tensor_f32("a", {1}, {0}).bytes());
    const ModelFile file = testing::take(ModelFile::open(folder.path()));
    Model model;
    set_text_config(model, testing::take(text_config_from_hf(file)), 3);
    const auto want = row["kv_cache_bytes_per_token_f16"].get<int64_t>();
    EXPECT_EQ(kv_bytes_per_token(model.cache, kernels::KvType::kF16), want) << name;
    EXPECT_EQ(kv_bytes_per_token(model.cache, kernels::KvType::kF32), 2 * want) << name;
    // Q8_0: 34 bytes for 32 values where f16 takes 64.
    EXPECT_EQ(kv_bytes_per_token(model.cache, kernels::KvType::kQ8_0), want * 34 / 64) << name;
    ++checked;
  }
  EXPECT_GE(checked, 4);
}

TEST(KvCache, SlidingLayersHoldAWindowAChunkAndTheSpareTokens) {
  const CacheSpec cache{3, 2, 16, 10, {true, false, true}};
  RunShape shape;
  shape.context_tokens = 1000;
  shape.chunk_tokens = 64;
  EXPECT_EQ(kv_rows(cache, 0, shape), 9 + kSpareTokens + 64);
  EXPECT_EQ(kv_rows(cache, 1, shape), 1000);
  // 2 (K, V) x 2 heads x 16 values of 2 bytes.
  EXPECT_EQ(kv_cache_bytes(cache, kernels::KvType::kF16, shape),
            128 * (1000 + 2 * (9 + kSpareTokens + 64)));
  shape.context_tokens = 50; // shorter than that
  EXPECT_EQ(kv_cache_bytes(cache, kernels::KvType::kF16, shape), 128 * 3 * 50);
}

TEST(MemoryPlan, OfAFirstQuestionPixelsAndTheCacheAreNotThereAtOnce) {
  const auto described = Described::bundled();
  RunShape shape;
  shape.context_tokens = 1024;
  shape.max_patches = 400;
  shape.feature_tokens = 100;
  const auto untouched = [&](int64_t io_bytes) {
    shape.picture_io_bytes = io_bytes;
    const MemoryPlan plan = testing::take(plan_memory(described->model, shape, scalar()));
    return plan.anonymous_bytes() - first_question_bytes(described->model, plan, 512);
  };
  EXPECT_EQ(untouched(0), 0);
  EXPECT_EQ(untouched(1000), 1000); // less than the cache: gone before it is filled
  // More than all else: the arena of the pictures, and none of the cache, stands beside it.
  constexpr int64_t kMuch = 100 << 20;
  const MemoryPlan plan = testing::take(plan_memory(described->model, shape, scalar()));
  EXPECT_EQ(untouched(kMuch), plan.kv_cache_bytes + plan.arena_bytes - plan.vision.arena_bytes);
}

TEST(MemoryPlan, PartsAddUp) {
  const auto described = Described::bundled();
  RunShape shape;
  shape.context_tokens = 300;
  shape.max_patches = 400;
  shape.feature_tokens = 100;
  shape.picture_io_bytes = 12345;
  const MemoryPlan plan = testing::take(plan_memory(described->model, shape, scalar()));
  int64_t sum = 0;
  for (const MemoryPart& part : plan.parts()) {
    EXPECT_GT(part.bytes, 0) << part.name;
    sum += part.bytes;
  }
  EXPECT_EQ(sum, plan.anonymous_bytes());
  EXPECT_EQ(plan.arena_bytes, std::max(plan.text.arena_bytes, plan.vision.arena_bytes));
  EXPECT_EQ(plan.kv_cache_bytes,
            300 * kv_bytes_per_token(described->model.cache, kernels::KvType::kF16));
  EXPECT_EQ(plan.features_bytes, 100 * described->model.pictures->feature_slots *
                                     described->model.hidden_size * int64_t{sizeof(float)});
  EXPECT_EQ(plan.picture_io_bytes, 12345);
}

TEST(MemoryPlan, WithoutPicturesNothingIsPlannedForThem) {
  const auto described = Described::bundled();
  RunShape shape;
  shape.context_tokens = 300;
  const MemoryPlan plan = testing::take(plan_memory(described->model, shape, scalar()));
  EXPECT_EQ(plan.features_bytes, 0);
  EXPECT_EQ(plan.picture_io_bytes, 0);
  EXPECT_EQ(plan.arena_bytes, plan.text.arena_bytes);
}

TEST(MemoryPlan, ChunkIsNeverLargerThanTheContext) {
  const auto described = Described::bundled();
  RunShape small;
  small.context_tokens = 40;
  small.chunk_tokens = 40;
  RunShape large = small;
  large.chunk_tokens = 4096;
  EXPECT_EQ(testing::take(plan_memory(described->model, small, scalar())).anonymous_bytes(),
            testing::take(plan_memory(described->model, large, scalar())).anonymous_bytes());
}

TEST(MemoryPlan, GrowsLinearlyWithThePicture) {
  const auto described = Described::bundled();
  for (const std::string_view isa : kernels::available()) {
    for (const bool exact : {false, true}) {
      const KernelChoice choice{testing::take(kernels::find(isa)), exact, 2, kernels::KvType::kF16};
      const auto arena = [&](int64_t patches) {
        RunShape shape;
        shape.context_tokens = 64;
        shape.chunk_tokens = 1;
        shape.max_patches = patches;
        shape.feature_tokens = patches / 4;
        return testing::take(plan_memory(described->model, shape, choice)).vision.arena_bytes;
      };
      // 16384 patches are a picture of 2048 x 2048: an attention matrix of it would be 1 GiB a
      // head.
      const int64_t first = arena(4096) - arena(2048);
      const int64_t second = arena(8192) - arena(4096);
      const int64_t third = arena(16384) - arena(8192);
      EXPECT_GT(first, 0);
      EXPECT_NEAR(static_cast<double>(second) / static_cast<double>(first), 2, 0.25) << isa;
      EXPECT_NEAR(static_cast<double>(third) / static_cast<double>(second), 2, 0.25) << isa;
    }
  }
}

TEST(MemoryPlan, ContextCostsItsCacheOnly) {
  const auto described = Described::bundled();
  const auto plan = [&](int64_t context) {
    RunShape shape;
    shape.context_tokens = context;
    shape.chunk_tokens = 32;
    return testing::take(plan_memory(described->model, shape, scalar())).anonymous_bytes();
  };
  const int64_t per_token = kv_bytes_per_token(described->model.cache, kernels::KvType::kF16);
  // What grows beside the cache is per-thread attention scratch: less than a tenth of it.
  EXPECT_GE(plan(8192) - plan(4096), 4096 * per_token);
  EXPECT_LE(plan(8192) - plan(4096), 4096 * per_token * 11 / 10);
}

TEST(MemoryPlan, Q8CacheNeedsWholeBlocks) {
  REQUIRE_GOLDEN();
  const auto described = Described::open(testing::golden("qwen2_5_vl/tiny")); // head_dim 16
  KernelChoice choice = scalar();
  choice.kv_type = kernels::KvType::kQ8_0;
  const auto plan = plan_memory(described->model, {}, choice);
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(plan.error().text(), HasSubstr("16"));
  EXPECT_THAT(plan.error().text(), HasSubstr("--kv-type"));
}

} // namespace
} // namespace pinhole
