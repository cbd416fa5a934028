// Canvases and sizes are those of transformers 5.12.1 (get_optimal_tiled_canvas,
// get_image_size_fit_to_canvas of models/mllama/image_processing_mllama.py).
#include "image/tiles.h"

#include <algorithm>
#include <gtest/gtest.h>

namespace pinhole {
namespace {

struct CanvasCase {
  int64_t height, width, tile, max_tiles;
  int64_t rows, cols, new_height, new_width;
};

constexpr CanvasCase kCases[] = {
    {560, 560, 560, 4, 1, 1, 560, 560},     {1, 1, 560, 4, 1, 1, 560, 560},
    {768, 1024, 560, 4, 2, 2, 768, 1024},   {1024, 768, 560, 4, 2, 2, 1024, 768},
    {300, 2000, 560, 4, 1, 4, 300, 2000},   {2000, 300, 560, 4, 4, 1, 2000, 300},
    {561, 560, 560, 4, 2, 1, 561, 560},     {560, 561, 560, 4, 1, 2, 560, 561},
    {4000, 3000, 560, 4, 2, 2, 1120, 840},  {1121, 1120, 560, 4, 2, 2, 1120, 1119},
    {1120, 1120, 560, 4, 2, 2, 1120, 1120}, {5, 900, 56, 4, 1, 4, 1, 224},
    {900, 5, 56, 4, 4, 1, 224, 1},          {3, 100000, 560, 4, 1, 4, 1, 2240},
    {100000, 3, 560, 4, 4, 1, 2240, 1},     {60, 150, 56, 4, 1, 3, 56, 140},
    {50, 40, 56, 4, 1, 1, 56, 44},          {57, 57, 56, 3, 1, 1, 56, 56},
    {200, 200, 56, 3, 1, 1, 56, 56},        {100, 170, 56, 6, 2, 3, 98, 168},
    {333, 777, 112, 9, 2, 4, 192, 448},     {777, 333, 112, 9, 4, 2, 448, 192},
    {1680, 560, 560, 4, 3, 1, 1680, 560},   {1681, 560, 560, 4, 4, 1, 1681, 560},
    {33, 97, 32, 2, 1, 2, 21, 64},          {64, 65, 64, 2, 1, 2, 64, 65},
    {480, 640, 64, 2, 1, 2, 64, 85},        {1080, 1920, 448, 4, 2, 2, 504, 896},
    {1440, 900, 560, 4, 2, 2, 1120, 700},
};

TEST(Tiles, CanvasAndSizeAreTheReferences) {
  for (const CanvasCase& c : kCases) {
    const TileGrid canvas = choose_canvas({c.height, c.width}, c.tile, c.max_tiles);
    EXPECT_EQ(canvas, (TileGrid{c.rows, c.cols})) << c.height << " x " << c.width;
    EXPECT_EQ(fit_to_canvas({c.height, c.width}, canvas, c.tile), (Size{c.new_height, c.new_width}))
        << c.height << " x " << c.width;
  }
}

TEST(Tiles, EverySizeStaysOnItsCanvas) {
  for (int64_t height = 1; height < 300; height += 7) {
    for (int64_t width = 1; width < 300; width += 5) {
      for (const int64_t max_tiles : {1, 2, 4, 7}) {
        const TileGrid canvas = choose_canvas({height, width}, 28, max_tiles);
        EXPECT_LE(canvas.rows * canvas.cols, max_tiles);
        const Size size = fit_to_canvas({height, width}, canvas, 28);
        EXPECT_GE(size.height, 1);
        EXPECT_GE(size.width, 1);
        EXPECT_LE(size.height, canvas.rows * 28);
        EXPECT_LE(size.width, canvas.cols * 28);
      }
    }
  }
}

// 2 tiles of 4 px side by side of at most 3, patches of 2 px: 5 rows a tile, then one of nothing.
TEST(Tiles, RowsHoldThePictureBlackBesideItAndNothing) {
  Image image;
  image.width = 7;
  image.height = 3;
  for (int64_t i = 0; i < 7 * 3; ++i) {
    for (const int64_t channel : {1, 2, 3})
      image.rgb.push_back(static_cast<uint8_t>(10 * channel + i)); // never 0
  }
  TileLayout layout;
  layout.patch.patch_size = 2;
  for (int c = 0; c < 3; ++c) {
    layout.patch.mean[c] = 0.5f;
    layout.patch.std[c] = 0.25f;
  }
  layout.tile_px = 4;
  layout.tiles = 3;
  layout.canvas = {1, 2};
  std::vector<float> rows(16 * 12, -9);
  write_tiles(image, layout, 0, 16, rows.data());
  const auto value = [](int pixel) { return (static_cast<float>(pixel) - 127.5f) / 63.75f; };
  for (int64_t row = 0; row < 16; ++row) {
    const int64_t tile = row / 5, patch = row % 5 - 1;
    for (int64_t i = 0; i < 12; ++i) {
      const int64_t channel = i / 4;
      const int64_t y = patch / 2 * 2 + i % 4 / 2;
      const int64_t x = tile * 4 + patch % 2 * 2 + i % 2;
      float want = 0;
      if (tile < 2 && patch >= 0)
        want = y < 3 && x < 7 ? value(static_cast<int>(10 * (channel + 1) + y * 7 + x)) : value(0);
      EXPECT_FLOAT_EQ(rows[static_cast<size_t>(row * 12 + i)], want) << row << ", " << i;
    }
  }
  // In parts.
  std::vector<float> parts(16 * 12);
  for (int64_t begin = 0; begin < 16; begin += 3)
    write_tiles(image, layout, begin, std::min<int64_t>(begin + 3, 16), parts.data() + begin * 12);
  EXPECT_EQ(parts, rows);
}

} // namespace
} // namespace pinhole
