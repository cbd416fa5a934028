// Ops of small graphs against numbers worked out by hand: views of rows, vectors, regrouped blocks,
// the two orders of rope and angles that grow with the position.
#include "engine/cpu.h"

#include "fixture.h"

#include <gmock/gmock.h>
#include <map>
#include <span>

namespace pinhole {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::FloatNear;
using ::testing::Pointwise;

// A graph with weights of its own, run once.
class OpsFixture {
 public:
  Graph graph;

  WeightId weight(int64_t rows, int64_t cols, std::vector<float> values) {
    Tensor tensor{std::to_string(data_.size()), FormatId::kF32, {rows, cols}};
    const auto& held = data_.emplace_back(std::make_unique<std::vector<float>>(values));
    tensor.bytes = held->size() * sizeof(float);
    Weight w;
    w.tensor = graph.declare_tensor(tensor);
    w.data = reinterpret_cast<const std::byte*>(held->data());
    w.rows = rows;
    w.cols = cols;
    w.row_stride_bytes = cols * 4;
    return graph.add_weight(w);
  }
  WeightId vector(std::vector<float> values) {
    const auto n = static_cast<int64_t>(values.size());
    return weight(1, n, std::move(values));
  }
  ValueId input(int64_t cols, std::vector<float> values) {
    const ValueId id = graph.input(InputKind::kPatches, cols, ElementType::kF32);
    floats_[id] = std::move(values);
    return id;
  }
  ValueId positions(std::vector<int32_t> values) {
    const ValueId id = graph.input(InputKind::kPositions, 1, ElementType::kI32);
    ints_[id] = std::move(values);
    return id;
  }

  // The numbers of `id` after a run of `items` rows.
  std::vector<float> run(ValueId id, int64_t items, int threads) {
    graph.output(id, "out");
    const KernelChoice kernels = testing::kernel_choice(true, threads);
    const RowBinding rows{items, 0};
    const Layout layout = lay_out(graph, {items + 5, 0}, 64, kernels);
    auto arena = testing::take(AnonymousMemory::reserve(layout.arena_bytes, "test"));
    for (const auto& [value, numbers] : floats_)
      fill(layout, arena.data(), value, numbers);
    for (const auto& [value, numbers] : ints_)
      fill(layout, arena.data(), value, numbers);
    CpuBackend backend(threads);
    RunContext context;
    context.arena = arena.data();
    EXPECT_TRUE(backend.run(graph, layout, rows, context));
    std::vector<float> out;
    const Value& view = graph.value(id);
    const auto* from = reinterpret_cast<const float*>(value_data(graph, layout, arena.data(), id));
    for (int64_t r = 0; r < rows.count(view.rows); ++r)
      out.insert(out.end(), from + r * view.stride, from + r * view.stride + view.cols);
    return out;
  }

 private:
  template <class T>
  void fill(const Layout& layout, std::byte* arena, ValueId value, const std::vector<T>& numbers) {
    std::memcpy(value_data(graph, layout, arena, value), numbers.data(),
                numbers.size() * sizeof(T));
  }
  std::vector<std::unique_ptr<std::vector<float>>> data_;
  std::map<ValueId, std::vector<float>> floats_;
  std::map<ValueId, std::vector<int32_t>> ints_;
};

TEST(Ops, AClassTokenStandsBeforeThePatches) {
  for (const int threads : {1, 3}) {
    OpsFixture f;
    const ValueId patches = f.input(2, {1, 2, 3, 4, 5, 6});
    const ValueId x = f.graph.new_value({RowSymbol::kItems, 1, 1}, 3);
    const ValueId first = f.graph.rows(x, 0, {RowSymbol::kOne});
    const ValueId rest = f.graph.rows(x, 1, {});
    f.graph.put_vector(first, f.vector({10, 20, 30}), false);
    f.graph.put_vector(first, f.vector({1, 1, 1}), true);
    f.graph.matmul_into(rest, patches, f.weight(3, 2, {1, 0, 0, 1, 1, 1}), f.vector({0, 0, 100}));
    f.graph.scale(x, f.vector({1, -1, 2}));
    EXPECT_THAT(f.run(x, 3, threads), ElementsAre(11, -21, 62, 1, -2, 206, 3, -4, 214, 5, -6, 222));
  }
}

TEST(Ops, RowsAfterTheFirstAreMerged) {
  OpsFixture f;
  const ValueId x = f.graph.new_value({RowSymbol::kItems, 1, 1}, 1);
  f.graph.put_vector(f.graph.rows(x, 0, {RowSymbol::kOne}), f.vector({9}), false);
  f.graph.matmul_into(f.graph.rows(x, 1, {}), f.input(1, {1, 2, 3, 4}), f.weight(1, 1, {1}));
  const ValueId pairs = f.graph.merge_rows(f.graph.rows(x, 1, {}), 2);
  // [[1, 2], [3, 4]] times columns (1, 10)
  EXPECT_THAT(f.run(f.graph.matmul(pairs, f.weight(1, 2, {1, 10})), 4, 1), ElementsAre(21, 43));
}

TEST(Ops, RegroupPutsBlocksColumnByColumn) {
  for (const int threads : {1, 2}) {
    OpsFixture f;
    // Two blocks of 4 rows of 3 columns; unfold's order is channel, then place in the block.
    std::vector<float> x;
    for (int block = 0; block < 2; ++block)
      for (int place = 0; place < 4; ++place)
        for (int channel = 0; channel < 3; ++channel)
          x.push_back(static_cast<float>(100 * block + 10 * channel + place));
    const ValueId y = f.graph.regroup(f.input(3, x), 4);
    EXPECT_THAT(f.run(y, 8, threads),
                ElementsAre(0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23, 100, 101, 102, 103, 110,
                            111, 112, 113, 120, 121, 122, 123));
  }
}

// Permuted rows and interleaved pairs are the same rotation.
TEST(Ops, RopeOfInterleavedPairsIsThatOfHalvesInAnotherOrder) {
  std::vector<float> halves(16), pairs(16);
  for (int head = 0; head < 2; ++head) {
    for (int i = 0; i < 8; ++i) {
      const float value = std::sin(static_cast<float>(7 * head + i) * 1.3f);
      halves[static_cast<size_t>(8 * head + i)] = value;
      pairs[static_cast<size_t>(8 * head + (i % 4) * 2 + i / 4)] = value;
    }
  }
  const auto rotated = [](const std::vector<float>& x, bool interleaved) {
    OpsFixture f;
    const ValueId value = f.input(16, x);
    f.graph.rope(value, f.graph.rope_table(f.positions({5}), {1, 0.3f, 0.1f, 0.01f}, {0, 0, 0, 0}),
                 8, interleaved);
    return f.run(value, 1, 1);
  };
  const std::vector<float> a = rotated(halves, false);
  const std::vector<float> b = rotated(pairs, true);
  std::vector<float> sorted(16);
  for (int head = 0; head < 2; ++head)
    for (int i = 0; i < 8; ++i)
      sorted[static_cast<size_t>(8 * head + i)] =
          b[static_cast<size_t>(8 * head + (i % 4) * 2 + i / 4)];
  EXPECT_THAT(sorted, Pointwise(FloatNear(1e-6f), a));
  EXPECT_NEAR(a[0], halves[0] * std::cos(5.0f) - halves[4] * std::sin(5.0f), 1e-6f);
}

TEST(Ops, RopeScaleGrowsInSteps) {
  OpsFixture f;
  Graph::RopeScale scale;
  scale.factor = 2;
  scale.growth = 0.5f;
  scale.step = 10;
  // Angle 0 everywhere: the cosine is the scale.
  const auto angles = f.graph.rope_table(f.positions({0, 9, 10, 25, 999}), {0}, {0}, scale);
  const auto at = [](double steps) {
    return static_cast<float>(2 * (1 + 0.5 * std::log(1 + steps)));
  };
  EXPECT_THAT(f.run(angles.cos, 5, 2),
              Pointwise(FloatNear(1e-6f), {at(0), at(0), at(1), at(2), at(99)}));
}

} // namespace
} // namespace pinhole
