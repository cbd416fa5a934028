// Ops that cross-attention and tiled towers are described with, under every instruction set,
// against loops in double precision; and the picture cache's pieces.
#include "engine/cpu.h"
#include "engine/picture_cache.h"
#include "kernels/select.h"
#include "support/golden.h"

#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <random>

namespace pinhole {
namespace {

using testing::take;

constexpr int64_t kRows = 7;
constexpr int64_t kCols = 37;

std::vector<float> random_values(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(static_cast<size_t>(n));
  for (float& value : out)
    value = normal(random);
  return out;
}

class PictureOps : public ::testing::TestWithParam<std::string> {
 protected:
  WeightId weight(std::span<const float> values, int64_t rows, int64_t cols) {
    Weight w;
    w.tensor =
        g_.declare_tensor({std::to_string(g_.weights().size()), FormatId::kF32, {rows, cols}});
    w.data = reinterpret_cast<const std::byte*>(values.data());
    w.rows = rows;
    w.cols = cols;
    w.row_stride_bytes = cols * 4;
    return g_.add_weight(w);
  }
  ValueId input(InputKind kind, int64_t cols, ElementType type) {
    return g_.input(kind, cols, type);
  }
  void lay_out_graph(int64_t max_keys = 1) {
    kernels_ = {take(kernels::find(GetParam())), true, 2, kernels::KvType::kF32};
    layout_ = lay_out(g_, {kRows, 0}, max_keys, kernels_, max_keys);
    arena_ = take(AnonymousMemory::reserve(layout_.arena_bytes, "test"));
    std::memset(arena_.data(), 0x7f, static_cast<size_t>(layout_.arena_bytes)); // not zeros
  }
  template <class T> void set(ValueId id, std::span<const T> values) {
    std::memcpy(value_data(g_, layout_, arena_.data(), id), values.data(), values.size_bytes());
  }
  std::vector<float> get(ValueId id, int64_t count) {
    std::vector<float> out(static_cast<size_t>(count));
    std::memcpy(out.data(), value_data(g_, layout_, arena_.data(), id), out.size() * 4);
    return out;
  }
  void run(RunContext context = {}) {
    CpuBackend backend(2);
    context.arena = arena_.data();
    ASSERT_TRUE(backend.run(g_, layout_, {kRows, 0}, context));
  }

  Graph g_;
  KernelChoice kernels_;
  Layout layout_;
  AnonymousMemory arena_;
};

TEST_P(PictureOps, GatedSumsAreOfMarkedRowsAlone) {
  const std::vector<float> gate{0.37f};
  const auto x0 = random_values(kRows * kCols, 1), other = random_values(kRows * kCols, 2);
  const std::vector<int32_t> marks{1, 0, 1, 1, 0, 0, 1};
  const ValueId x = input(InputKind::kPatches, kCols, ElementType::kF32);
  const ValueId y = input(InputKind::kTableWeights, kCols, ElementType::kF32);
  const ValueId marked = input(InputKind::kSeesPicture, 1, ElementType::kI32);
  const WeightId w = weight(gate, 1, 1);
  g_.add_gated(x, y, {w}, marked);
  g_.add_gated(x, y, {w, true});
  g_.add_gated(x, y, {});
  g_.output(x, "out");
  lay_out_graph();
  set<float>(x, x0);
  set<float>(y, other);
  set<int32_t>(marked, marks);
  run();
  const auto got = get(x, kRows * kCols);
  const double t = std::tanh(0.37);
  for (size_t i = 0; i < got.size(); ++i) {
    const double factor = (marks[i / kCols] != 0 ? t : 0) + (1 - t) + 1;
    EXPECT_NEAR(got[i], x0[i] + factor * other[i], 2e-6) << i;
  }
}

TEST_P(PictureOps, RowsOfATableAreAdded) {
  const std::vector<float> gate{-0.8f};
  const auto table = random_values(5 * kCols, 3), x0 = random_values(kRows * kCols, 4);
  const std::vector<int32_t> rows{4, -1, 0, 0, 3, -1, 2};
  const ValueId x = input(InputKind::kPatches, kCols, ElementType::kF32);
  const ValueId from = input(InputKind::kTileRows, 1, ElementType::kI32);
  g_.add_table_rows(x, from, weight(table, 5, kCols), {weight(gate, 1, 1)});
  g_.add_table_rows(x, from, weight(table, 5, kCols));
  g_.output(x, "out");
  lay_out_graph();
  set<float>(x, x0);
  set<int32_t>(from, rows);
  run();
  const auto got = get(x, kRows * kCols);
  for (size_t i = 0; i < got.size(); ++i) {
    const int32_t row = rows[i / kCols];
    const double added = row < 0 ? 0 : (std::tanh(-0.8) + 1) * table[row * kCols + i % kCols];
    EXPECT_NEAR(got[i], x0[i] + added, 2e-6) << i;
  }
}

TEST_P(PictureOps, ColumnsInterleaveAndMissingRowsAreZeros) {
  const auto a = random_values(kRows * kCols, 5), b = random_values(kRows * kCols, 6);
  const std::vector<int32_t> rows{0, -1, 2, 6, -1, 1, 3};
  const ValueId x = input(InputKind::kPatches, kCols, ElementType::kF32);
  const ValueId y = input(InputKind::kTableWeights, kCols, ElementType::kF32);
  const ValueId from = input(InputKind::kTileRows, 1, ElementType::kI32);
  const ValueId all = g_.new_value({}, 3 * kCols);
  g_.put_columns(x, all, kCols, 2);
  g_.put_columns(y, all, kCols + 1, 2);
  g_.put_columns(g_.gather_rows(x, from, {}), all, 0);
  g_.output(all, "out");
  lay_out_graph();
  set<float>(x, a);
  set<float>(y, b);
  set<int32_t>(from, rows);
  run();
  const auto got = get(all, kRows * 3 * kCols);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kCols; ++c) {
      const float* row = got.data() + r * 3 * kCols;
      const int32_t source = rows[static_cast<size_t>(r)];
      EXPECT_EQ(row[c], source < 0 ? 0 : a[static_cast<size_t>(source * kCols + c)]);
      EXPECT_EQ(row[kCols + 2 * c], a[static_cast<size_t>(r * kCols + c)]);
      EXPECT_EQ(row[kCols + 2 * c + 1], b[static_cast<size_t>(r * kCols + c)]);
    }
  }
}

// Two kv heads of 8, four query heads; layer 1 of 3 attends to pictures.
constexpr int64_t kHeadDim = 8;
const CacheSpec kSpec{3, 2, kHeadDim, 0, {}, {false, true, false}};

TEST_P(PictureOps, AttentionSeesItsRangeOfTheCache) {
  constexpr int64_t kKeys = 70;
  auto cache = take(PictureCache::create(kSpec, kernels::KvType::kF32, kKeys));
  const auto keys = random_values(kKeys * 2 * kHeadDim, 7);
  const auto values = random_values(kKeys * 2 * kHeadDim, 8);
  for (int64_t key = 0; key < kKeys; ++key) {
    for (int64_t head = 0; head < 2; ++head) {
      const int64_t to = head * cache.head_bytes() + key * cache.row_bytes();
      const size_t from = static_cast<size_t>((key * 2 + head) * kHeadDim);
      std::memcpy(cache.keys(1) + to, keys.data() + from, kHeadDim * 4);
      std::memcpy(cache.values(1) + to, values.data() + from, kHeadDim * 4);
    }
  }
  const auto q0 = random_values(kRows * 4 * kHeadDim, 9);
  const std::vector<int32_t> begins{0, 0, 10, 33, 5, 69, 20}, ends{70, 1, 20, 70, 5, 70, 64};
  const ValueId q = input(InputKind::kPatches, 4 * kHeadDim, ElementType::kF32);
  const Graph::KeyRange range{input(InputKind::kPictureKeyBegin, 1, ElementType::kI32),
                              input(InputKind::kPictureKeyEnd, 1, ElementType::kI32)};
  const ValueId out = g_.attention_to_pictures(q, range, 1, 4, 2, kHeadDim, 0.3f);
  g_.output(out, "out");
  lay_out_graph(kKeys);
  set<float>(q, q0);
  set<int32_t>(range.begin, begins);
  set<int32_t>(range.end, ends);
  RunContext context;
  context.pictures = &cache;
  context.picture_rows = kKeys;
  run(context);
  const auto got = get(out, kRows * 4 * kHeadDim);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t h = 0; h < 4; ++h) {
      std::vector<double> sum(kHeadDim, 0);
      double total = 0;
      for (int64_t key = begins[static_cast<size_t>(r)]; key < ends[static_cast<size_t>(r)];
           ++key) {
        double score = 0;
        const size_t at = static_cast<size_t>((key * 2 + h / 2) * kHeadDim);
        for (int64_t d = 0; d < kHeadDim; ++d)
          score += double{q0[static_cast<size_t>((r * 4 + h) * kHeadDim + d)]} *
                   keys[at + static_cast<size_t>(d)];
        const double p = std::exp(0.3 * score);
        total += p;
        for (int64_t d = 0; d < kHeadDim; ++d)
          sum[static_cast<size_t>(d)] += p * values[at + static_cast<size_t>(d)];
      }
      for (int64_t d = 0; d < kHeadDim; ++d) {
        const double want = total == 0 ? 0 : sum[static_cast<size_t>(d)] / total;
        EXPECT_NEAR(got[static_cast<size_t>((r * 4 + h) * kHeadDim + d)], want, 1e-5)
            << r << " " << h;
      }
    }
  }
}

TEST_P(PictureOps, KeysAreStoredAndOpsWithoutPicturesAreSkipped) {
  auto cache = take(PictureCache::create(kSpec, kernels::KvType::kF32, 20));
  const auto k0 = random_values(kRows * 2 * kHeadDim, 10),
             v0 = random_values(kRows * 2 * kHeadDim, 11);
  const ValueId k = input(InputKind::kPatches, 2 * kHeadDim, ElementType::kF32);
  const ValueId v = input(InputKind::kTableWeights, 2 * kHeadDim, ElementType::kF32);
  g_.store_picture_keys(k, v, 1, 2, kHeadDim);
  g_.begin_pictures_only(true);
  g_.add(k, v);
  g_.begin_pictures_only(false);
  g_.output(k, "out");
  lay_out_graph();
  set<float>(k, k0);
  set<float>(v, v0);
  RunContext context;
  context.pictures = &cache;
  run(context); // no rows: nothing is stored, nothing is added
  EXPECT_EQ(get(k, kRows * 2 * kHeadDim), k0);
  context.picture_row = 9;
  context.picture_rows = 5; // the last two rows are not the picture's
  run(context);
  for (int64_t row = 0; row < 20; ++row) {
    for (int64_t head = 0; head < 2; ++head) {
      const int64_t at = head * cache.head_bytes() + row * cache.row_bytes();
      const bool is_stored = row >= 9 && row < 14;
      for (int64_t d = 0; d < kHeadDim; ++d) {
        const auto from = static_cast<size_t>(((row - 9) * 2 + head) * kHeadDim + d);
        float key = 0, value = 0;
        std::memcpy(&key, cache.keys(1) + at + d * 4, 4);
        std::memcpy(&value, cache.values(1) + at + d * 4, 4);
        EXPECT_EQ(key, is_stored ? k0[from] : 0);
        EXPECT_EQ(value, is_stored ? v0[from] : 0);
      }
    }
  }
  EXPECT_NE(get(k, kRows * 2 * kHeadDim), k0);
}

INSTANTIATE_TEST_SUITE_P(Isa, PictureOps, ::testing::ValuesIn([] {
                           std::vector<std::string> names;
                           for (const std::string_view name : kernels::available())
                             names.emplace_back(name);
                           return names;
                         }()),
                         [](const auto& param_info) { return param_info.param; });

// --- the cache's pieces: every row is labelled with its picture and number ---

class PicturesInTheCache : public ::testing::Test {
 protected:
  void SetUp() override { cache_ = take(PictureCache::create(kSpec, kernels::KvType::kF32, 40)); }
  void add(int64_t id, int64_t seen, int64_t rows) {
    for (int64_t row = 0; row < rows; ++row)
      label(cache_.used() + row, static_cast<float>(100 * id + row));
    cache_.add(id, seen, rows);
  }
  void label(int64_t row, float value) {
    for (int64_t head = 0; head < 2; ++head) {
      for (std::byte* base : {cache_.keys(1), cache_.values(1)}) {
        float* to =
            reinterpret_cast<float*>(base + head * cache_.head_bytes() + row * cache_.row_bytes());
        std::fill(to, to + kHeadDim, value + 0.25f * static_cast<float>(head));
      }
    }
  }
  // Labels by row; each must be the same in every head, of keys and of values.
  std::vector<float> labels() const {
    std::vector<float> out;
    for (int64_t row = 0; row < cache_.used(); ++row) {
      const auto at = [&](std::byte* base, int64_t head) {
        float value = 0;
        std::memcpy(&value, base + head * cache_.head_bytes() + row * cache_.row_bytes(), 4);
        return value;
      };
      out.push_back(at(cache_.keys(1), 0));
      EXPECT_EQ(at(cache_.values(1), 0), out.back());
      EXPECT_EQ(at(cache_.keys(1), 1), out.back() + 0.25f);
      EXPECT_EQ(at(cache_.values(1), 1), out.back() + 0.25f);
    }
    return out;
  }

  PictureCache cache_;
};

using Labels = std::vector<float>;

TEST_F(PicturesInTheCache, WhatHoldsPicturesComesFirstInTheirOrder) {
  add(1, 2, 4);
  add(2, 3, 4);
  add(3, 4, 4); // fills all its tiles
  int64_t begins[4] = {};
  const int64_t ids[] = {2, 3, 1};
  EXPECT_EQ(cache_.arrange(ids, begins), 12);
  EXPECT_EQ(labels(), (Labels{200, 201, 202, 300, 301, 302, 303, 100, 101, 203, 102, 103}));
  EXPECT_EQ(std::vector<int64_t>(begins, begins + 4), (std::vector<int64_t>{0, 3, 7, 9}));
  // Of two, the others stay behind.
  const int64_t fewer[] = {1, 3};
  EXPECT_EQ(cache_.arrange(fewer, std::span(begins, 3)), 8);
  EXPECT_EQ(labels(), (Labels{100, 101, 300, 301, 302, 303, 102, 103, 200, 201, 202, 203}));
  EXPECT_EQ(begins[2], 6);
}

TEST_F(PicturesInTheCache, RemovingClosesTheGapAndCopiesAreWhole) {
  add(1, 2, 4);
  add(2, 3, 4);
  add(3, 1, 3);
  int64_t begins[3] = {};
  const int64_t ids[] = {3, 1};
  cache_.arrange(ids, begins);
  cache_.remove(1);
  EXPECT_EQ(cache_.used(), 7);
  EXPECT_EQ(labels(), (Labels{300, 301, 302, 200, 201, 202, 203}));
  cache_.copy(2, 9);
  EXPECT_EQ(cache_.rows_of(9), 4);
  EXPECT_EQ(labels(), (Labels{300, 301, 302, 200, 201, 202, 203, 200, 201, 202, 203}));
  cache_.remove(2);
  cache_.remove(3);
  cache_.release_unused();
  EXPECT_EQ(labels(), (Labels{200, 201, 202, 203}));
}

TEST_F(PicturesInTheCache, ModelsWithoutCrossAttentionReserveNothing) {
  const CacheSpec plain{3, 2, kHeadDim};
  EXPECT_EQ(take(PictureCache::create(plain, kernels::KvType::kF32, 100)).capacity(), 0);
}

} // namespace
} // namespace pinhole
