// What a GPU's memory holds, and what that leaves to the RAM.
#include "plan/offload.h"

#include "kernels/select.h"
#include "plan/known_machine.h"
#include "plan/recipe.h"
#include "support/describe.h"

#include <gtest/gtest.h>

namespace pinhole {
namespace {

MemoryPlan plan_of(const Model& model) {
  RunShape shape;
  shape.context_tokens = 512;
  shape.max_patches = 256;
  shape.feature_tokens = 64;
  const KernelChoice kernels{testing::take(kernels::find("scalar")), false, 1,
                             kernels::KvType::kF16};
  return testing::take(plan_memory(model, shape, kernels));
}

TEST(Offload, WithoutAGpuNothingMoves) {
  const auto described = testing::Described::bundled();
  const MemoryPlan plan = plan_of(described->model);
  const Offload none = plan_offload(described->model, plan, 0);
  EXPECT_FALSE(none.any());
  EXPECT_EQ(without(none, plan).anonymous_bytes(), plan.anonymous_bytes());
  EXPECT_EQ(without(none, plan).mapped_bytes, plan.mapped_bytes);
}

TEST(Offload, AllOfItLiesOnALargeGpu) {
  const auto described = testing::Described::bundled();
  const MemoryPlan plan = plan_of(described->model);
  const Offload all = plan_offload(described->model, plan, int64_t{8} << 30);
  EXPECT_TRUE(all.all());
  EXPECT_TRUE(all.vision);
  EXPECT_EQ(all.cache_bytes, plan.kv_cache_bytes);
  EXPECT_LE(all.weight_bytes, plan.mapped_bytes);
  EXPECT_EQ(all.used_bytes,
            all.weight_bytes + all.cache_bytes + plan.arena_bytes + plan.features_bytes);
  const MemoryPlan rest = without(all, plan);
  EXPECT_EQ(rest.kv_cache_bytes, 0);
  EXPECT_EQ(rest.arena_bytes, 0);
  EXPECT_EQ(rest.mapped_bytes, plan.mapped_bytes - all.weight_bytes);
}

TEST(Offload, MoreMemoryHoldsMoreAndNeverMoreThanItself) {
  const auto described = testing::Described::bundled();
  const MemoryPlan plan = plan_of(described->model);
  const int64_t most = plan_offload(described->model, plan, int64_t{8} << 30).used_bytes;
  Offload last;
  for (int64_t limit = 0; limit <= most; limit += most / 40) {
    const Offload one = plan_offload(described->model, plan, limit);
    EXPECT_LE(one.used_bytes, limit);
    EXPECT_GE(one.weight_bytes, last.weight_bytes);
    last = one;
  }
  EXPECT_TRUE(plan_offload(described->model, plan, most).all());
  EXPECT_FALSE(plan_offload(described->model, plan, most - 1).all());
}

TEST(Offload, TheLastBlocksAreTheOnesThatMove) {
  Offload offload;
  offload.total_layers = 4;
  offload.layers = 1;
  EXPECT_TRUE(offload.has_block(3));
  EXPECT_FALSE(offload.has_block(2));
  EXPECT_FALSE(offload.has_block(-1));
  offload.output = true;
  EXPECT_TRUE(offload.has_block(-1));
}

TEST(KnownMachines, AreDescribedWhole) {
  for (const KnownMachine& machine : known_machines()) {
    EXPECT_GT(machine.ram_bytes, 0) << machine.name;
    EXPECT_GT(cpu_rates(machine).read_gb_per_s, 0) << machine.name;
    EXPECT_GT(machine.disk_gb_per_s, 0) << machine.name;
    EXPECT_EQ(find_machine(machine.name)->description, machine.description);
    if (machine.has_gpu())
      EXPECT_EQ(machine.unified(), machine.link_gb_per_s == 0) << machine.name;
    else
      EXPECT_EQ(machine.vram_bytes, 0) << machine.name;
  }
}

TEST(KnownMachines, AnUnknownNameListsThem) {
  const auto none = find_machine("abacus");
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().text().find("m1-16"), std::string::npos);
}

} // namespace
} // namespace pinhole
