// The index inputs of the vision towers against the recorded ones of transformers, and against
// grids small enough to write down.
#include "model/vision_inputs.h"

#include "model/model.h"
#include "support/golden.h"

#include <algorithm>
#include <cmath>
#include <gmock/gmock.h>
#include <numeric>

namespace pinhole {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

std::vector<int32_t> positions_of(const PatchGrid& grid) {
  std::vector<int32_t> out(static_cast<size_t>(2 * grid.patches()));
  patch_positions(grid, {}, out);
  return out;
}

Windows windows_of(const PatchGrid& grid, int64_t window_tokens) {
  Windows out;
  make_windows(grid, window_tokens, out);
  return out;
}

PatchGrid grid_of(const std::string& folder) {
  const std::vector<int64_t> thw = testing::load_ints(folder + "/image_grid_thw.npy");
  return {thw[1], thw[2], 2};
}

TEST(PatchPositions, MergeBlockOrder) {
  EXPECT_THAT(positions_of({2, 4, 2}), ElementsAre(0, 0, 0, 1, 1, 0, 1, 1, //
                                                   0, 2, 0, 3, 1, 2, 1, 3));
  EXPECT_THAT(positions_of({2, 3, 1}), ElementsAre(0, 0, 0, 1, 0, 2, 1, 0, 1, 1, 1, 2));
  EXPECT_THAT(positions_of({3, 3, 3}),
              ElementsAre(0, 0, 0, 1, 0, 2, 1, 0, 1, 1, 1, 2, 2, 0, 2, 1, 2, 2));
}

TEST(PatchPositions, InAnotherOrderOfTokens) {
  std::vector<int32_t> out(16);
  const std::vector<int32_t> order{1, 0};
  patch_positions({2, 4, 2}, order, out);
  EXPECT_THAT(out, ElementsAre(0, 2, 0, 3, 1, 2, 1, 3, //
                               0, 0, 0, 1, 1, 0, 1, 1));
}

TEST(PatchPositions, EveryPatchOnce) {
  for (const PatchGrid& grid : {PatchGrid{2, 2, 2}, PatchGrid{6, 10, 2}, PatchGrid{9, 3, 3}}) {
    const std::vector<int32_t> positions = positions_of(grid);
    std::vector<int> seen(static_cast<size_t>(grid.patches()), 0);
    for (size_t i = 0; i < positions.size(); i += 2)
      ++seen[static_cast<size_t>(positions[i] * grid.width + positions[i + 1])];
    EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
  }
}

class RecordedPositions : public ::testing::TestWithParam<const char*> {};

TEST_P(RecordedPositions, SameAsTransformers) {
  REQUIRE_GOLDEN();
  const std::string folder = testing::golden(std::string(GetParam()) + "/tiny/cases/one_image");
  const std::vector<int64_t> want =
      testing::load_ints(folder + "/debug/vision_rope_position_ids.npy");
  const std::vector<int32_t> own = positions_of(grid_of(folder));
  EXPECT_THAT(own, ElementsAreArray(want.begin(), want.end()));
}

INSTANTIATE_TEST_SUITE_P(Family, RecordedPositions,
                         ::testing::Values("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl"));

// --- the learned position table ---

struct Corners {
  std::vector<int32_t> rows;  // [patches, 4]
  std::vector<float> weights; // [patches, 4]
};

Corners corners_of(const PatchGrid& grid, int64_t side) {
  const auto n = static_cast<size_t>(4 * grid.patches());
  Corners out{std::vector<int32_t>(n), std::vector<float>(n)};
  position_table_corners(grid, side, out.rows, out.weights);
  return out;
}

TEST(PositionTable, GridOfTheTablesSizeReadsItUnchanged) {
  const Corners c = corners_of({3, 3, 1}, 3);
  for (size_t patch = 0; patch < 9; ++patch) {
    for (size_t i = 0; i < 4; ++i) {
      const float weight = c.weights[4 * patch + i];
      if (weight != 0) {
        EXPECT_EQ(c.rows[4 * patch + i], static_cast<int32_t>(patch));
        EXPECT_FLOAT_EQ(weight, 1);
      }
    }
  }
}

TEST(PositionTable, MidwayIsTheMeanOfItsNeighbours) {
  // 3 rows over a table of 2: 0, 0.5, 1. One column: linspace(0, 1, 1) is 0.
  const Corners c = corners_of({3, 1, 1}, 2);
  const auto value = [&](size_t patch, auto table) {
    float sum = 0;
    for (size_t i = 0; i < 4; ++i)
      sum += c.weights[4 * patch + i] * table(c.rows[4 * patch + i]);
    return sum;
  };
  const auto row_of = [](int32_t cell) { return static_cast<float>(cell / 2); };
  const auto col_of = [](int32_t cell) { return static_cast<float>(cell % 2); };
  for (size_t patch = 0; patch < 3; ++patch) {
    EXPECT_FLOAT_EQ(value(patch, row_of), 0.5f * static_cast<float>(patch));
    EXPECT_FLOAT_EQ(value(patch, col_of), 0);
  }
}

TEST(PositionTable, LinearFunctionsAreReproduced) {
  // Bilinear interpolation with aligned corners is exact for a + b*row + c*col.
  for (const int64_t side : {1, 2, 5, 48}) {
    for (const PatchGrid& grid : {PatchGrid{2, 2, 2}, PatchGrid{14, 6, 2}, PatchGrid{1, 97, 1}}) {
      const Corners c = corners_of(grid, side);
      const std::vector<int32_t> positions = positions_of(grid);
      for (size_t p = 0; p < static_cast<size_t>(grid.patches()); ++p) {
        double sum = 0;
        double total = 0;
        for (size_t i = 4 * p; i < 4 * p + 4; ++i) {
          ASSERT_GE(c.rows[i], 0);
          ASSERT_LT(c.rows[i], side * side);
          ASSERT_GE(c.weights[i], 0);
          total += c.weights[i];
          sum += c.weights[i] * (2.0 + 3.0 * (c.rows[i] / side) - 5.0 * (c.rows[i] % side));
        }
        const auto along = [&](int32_t at, int64_t n) {
          return n == 1 ? 0.0
                        : static_cast<double>(at) * static_cast<double>(side - 1) /
                              static_cast<double>(n - 1);
        };
        EXPECT_NEAR(total, 1, 1e-5);
        EXPECT_NEAR(sum,
                    2 + 3 * along(positions[2 * p], grid.height) -
                        5 * along(positions[2 * p + 1], grid.width),
                    2e-3);
      }
    }
  }
}

class RecordedTable : public ::testing::TestWithParam<const char*> {};

TEST_P(RecordedTable, SameAsTransformers) {
  REQUIRE_GOLDEN();
  const std::string model = testing::golden(std::string(GetParam()) + "/tiny");
  const std::string folder = model + "/cases/one_image";
  const auto want = testing::load_floats(folder + "/debug/vision_pos_embed.npy");
  const ModelFile file = testing::take(ModelFile::open(model));
  const Tensor* table = file.find("model.visual.pos_embed.weight");
  ASSERT_NE(table, nullptr);
  std::vector<float> cells(static_cast<size_t>(table->elements()));
  if (table->format == FormatId::kF32) {
    std::memcpy(cells.data(), table->data, cells.size() * 4);
  } else {
    ASSERT_EQ(table->format, FormatId::kBF16);
    for (size_t i = 0; i < cells.size(); ++i) {
      const uint32_t bits = uint32_t{reinterpret_cast<const uint16_t*>(table->data)[i]} << 16;
      std::memcpy(&cells[i], &bits, 4);
    }
  }
  const PatchGrid grid = grid_of(folder);
  const auto side = static_cast<int64_t>(std::lround(std::sqrt(table->rows())));
  const Corners c = corners_of(grid, side);
  const auto cols = static_cast<size_t>(table->cols());
  ASSERT_EQ(want.values.size(), static_cast<size_t>(grid.patches()) * cols);
  float worst = 0;
  for (size_t p = 0; p < static_cast<size_t>(grid.patches()); ++p) {
    for (size_t col = 0; col < cols; ++col) {
      float sum = 0;
      for (size_t i = 4 * p; i < 4 * p + 4; ++i)
        sum += c.weights[i] * cells[static_cast<size_t>(c.rows[i]) * cols + col];
      worst = std::max(worst, std::abs(sum - want.values[p * cols + col]));
    }
  }
  EXPECT_LE(worst, 1e-5f);
}

INSTANTIATE_TEST_SUITE_P(Family, RecordedTable, ::testing::Values("qwen3_vl", "qwen3_vl_moe"));

// --- windows ---

TEST(Windows, SmallGridByHand) {
  // 3 rows of 5 tokens in windows of 2 x 2:
  //    0  1 |  2  3 |  4
  //    5  6 |  7  8 |  9
  //   10 11 | 12 13 | 14
  const Windows w = windows_of({6, 10, 2}, 2);
  EXPECT_THAT(w.order, ElementsAre(0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14));
  EXPECT_THAT(w.begin, ElementsAre(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 10, 10, 12, 12, 14));
  EXPECT_THAT(w.end, ElementsAre(4, 4, 4, 4, 8, 8, 8, 8, 10, 10, 12, 12, 14, 14, 15));
}

TEST(Windows, OneWindowLargerThanThePicture) {
  const Windows w = windows_of({4, 6, 2}, 100);
  std::vector<int32_t> straight(6);
  std::iota(straight.begin(), straight.end(), 0);
  EXPECT_EQ(w.order, straight);
  EXPECT_EQ(w.inverse, straight);
  EXPECT_THAT(w.begin, ::testing::Each(0));
  EXPECT_THAT(w.end, ::testing::Each(6));
}

TEST(Windows, InverseUndoesTheOrder) {
  for (const PatchGrid& grid : {PatchGrid{2, 2, 2}, PatchGrid{26, 14, 2}, PatchGrid{7, 9, 1}}) {
    for (const int64_t side : {1, 2, 4, 5}) {
      const Windows w = windows_of(grid, side);
      ASSERT_EQ(w.order.size(), static_cast<size_t>(grid.tokens()));
      for (size_t place = 0; place < w.order.size(); ++place) {
        ASSERT_EQ(w.inverse[static_cast<size_t>(w.order[place])], static_cast<int32_t>(place));
        ASSERT_LE(w.begin[place], static_cast<int32_t>(place));
        ASSERT_GT(w.end[place], static_cast<int32_t>(place));
        ASSERT_LE(w.end[place] - w.begin[place], side * side);
      }
    }
  }
}

TEST(Windows, SameAsTransformers) {
  REQUIRE_GOLDEN();
  const std::string model = testing::golden("qwen2_5_vl/tiny");
  const std::string folder = model + "/cases/one_image";
  const Json vision = testing::load_json(model + "/config.json")["vision_config"];
  const PatchGrid grid = grid_of(folder);
  const int64_t side =
      vision["window_size"].get<int64_t>() / (vision["patch_size"].get<int64_t>() * grid.merge);
  const Windows w = windows_of(grid, side);
  const std::vector<int64_t> order = testing::load_ints(folder + "/debug/vision_window_index.npy");
  EXPECT_THAT(w.order, ElementsAreArray(order.begin(), order.end()));
  // cu_window_seqlens counts patches: 0, then the end of each window.
  std::vector<int64_t> bounds{0};
  for (const int32_t end : w.end) {
    if (end * 4 != bounds.back())
      bounds.push_back(end * 4);
  }
  EXPECT_EQ(bounds, testing::load_ints(folder + "/debug/vision_cu_window_seqlens.npy"));
}

} // namespace
} // namespace pinhole
