#include "image/tiles.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstring>

namespace pinhole {

namespace {

constexpr int64_t kChannels = 3;

} // namespace

TileGrid choose_canvas(Size picture, int64_t tile_px, int64_t max_tiles) {
  // scales = np.where(scale_w > scale_h, scale_h, scale_w), in double precision
  TileGrid best{1, 1};
  double best_scale = -1;
  for (int64_t rows = 1; rows <= max_tiles; ++rows) {
    for (int64_t cols = 1; cols <= max_tiles / rows; ++cols) {
      const double scale =
          std::min(static_cast<double>(rows * tile_px) / static_cast<double>(picture.height),
                   static_cast<double>(cols * tile_px) / static_cast<double>(picture.width));
      const bool better = best_scale < 1 ? scale > best_scale : scale >= 1 && scale < best_scale;
      const bool smaller = scale == best_scale && rows * cols < best.rows * best.cols;
      if (!better && !smaller)
        continue;
      best = {rows, cols};
      best_scale = scale;
    }
  }
  return best;
}

Size fit_to_canvas(Size picture, TileGrid canvas, int64_t tile_px) {
  const Size target{std::clamp(picture.height, tile_px, canvas.rows * tile_px),
                    std::clamp(picture.width, tile_px, canvas.cols * tile_px)};
  const auto height = static_cast<double>(picture.height);
  const auto width = static_cast<double>(picture.width);
  const double scale_h = static_cast<double>(target.height) / height;
  const double scale_w = static_cast<double>(target.width) / width;
  // min(math.floor(...) or 1, target)
  const auto scaled = [](double side, int64_t most) {
    return std::min(std::max<int64_t>(1, static_cast<int64_t>(std::floor(side))), most);
  };
  if (scale_w < scale_h)
    return {scaled(height * scale_w, target.height), target.width};
  return {target.height, scaled(width * scale_h, target.width)};
}

void write_tiles(const Image& image, const TileLayout& layout, int64_t row_begin, int64_t row_end,
                 float* out) {
  const int64_t patch = layout.patch.patch_size;
  const int64_t side = layout.tile_px / patch; // patches of a tile
  const int64_t tokens = side * side + 1;
  assert(image.height <= layout.canvas.rows * layout.tile_px);
  assert(image.width <= layout.canvas.cols * layout.tile_px);
  std::array<std::array<float, 256>, kChannels> value; // [channel, pixel]
  for (size_t c = 0; c < kChannels; ++c) {
    const float mean = 255.0f * layout.patch.mean[c], std = 255.0f * layout.patch.std[c];
    for (size_t pixel = 0; pixel < 256; ++pixel)
      value[c][pixel] = (static_cast<float>(pixel) - mean) / std;
  }
  const int64_t plane = patch * patch;
  const int64_t elements = kChannels * plane;
  for (int64_t row = row_begin; row < row_end; ++row) {
    float* to = out + (row - row_begin) * elements; // [channel, y, x]
    const int64_t tile = row / tokens;
    const int64_t place = row % tokens - 1; // -1: the class token
    if (tile >= layout.canvas.rows * layout.canvas.cols || place < 0) {
      std::memset(to, 0, static_cast<size_t>(elements) * sizeof(float));
      continue;
    }
    const int64_t top = tile / layout.canvas.cols * layout.tile_px + place / side * patch;
    const int64_t left = tile % layout.canvas.cols * layout.tile_px + place % side * patch;
    for (int64_t y = 0; y < patch; ++y) {
      for (int64_t x = 0; x < patch; ++x) {
        const bool inside = top + y < image.height && left + x < image.width;
        const uint8_t* pixel =
            inside ? image.rgb.data() + ((top + y) * image.width + left + x) * kChannels : nullptr;
        for (int64_t c = 0; c < kChannels; ++c) {
          to[c * plane + y * patch + x] =
              value[static_cast<size_t>(c)][pixel == nullptr ? 0 : pixel[c]];
        }
      }
    }
  }
}

} // namespace pinhole
