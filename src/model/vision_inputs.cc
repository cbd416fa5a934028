#include "model/vision_inputs.h"

#include <algorithm>

namespace pinhole {

namespace {

// Calls fn(patch_idx, row, col) in merge-block order.
template <class Fn> void for_each_patch(const PatchGrid& grid, Fn fn) {
  int64_t idx = 0;
  for (int64_t block_row = 0; block_row < grid.height; block_row += grid.merge) {
    for (int64_t block_col = 0; block_col < grid.width; block_col += grid.merge) {
      for (int64_t row = block_row; row < block_row + grid.merge; ++row) {
        for (int64_t col = block_col; col < block_col + grid.merge; ++col)
          fn(idx++, row, col);
      }
    }
  }
}

// torch.linspace(0, last, n)[i] in f32: from both ends towards the middle.
float linspace(float last, int64_t n, int64_t i) {
  if (n == 1)
    return 0;
  const float step = last / static_cast<float>(n - 1);
  return i < n / 2 ? step * static_cast<float>(i) : last - step * static_cast<float>(n - 1 - i);
}

} // namespace

void patch_positions(const PatchGrid& grid, std::span<const int32_t> order,
                     std::span<int32_t> out) {
  const int64_t cols = grid.width / grid.merge;
  size_t at = 0;
  for (int64_t place = 0; place < grid.tokens(); ++place) {
    const int64_t token = order.empty() ? place : order[static_cast<size_t>(place)];
    for (int64_t row = 0; row < grid.merge; ++row) {
      for (int64_t col = 0; col < grid.merge; ++col) {
        out[at++] = static_cast<int32_t>(token / cols * grid.merge + row);
        out[at++] = static_cast<int32_t>(token % cols * grid.merge + col);
      }
    }
  }
}

void position_table_corners(const PatchGrid& grid, int64_t side, std::span<int32_t> out_rows,
                            std::span<float> out_weights) {
  const auto last = static_cast<float>(side - 1);
  for_each_patch(grid, [&](int64_t idx, int64_t row, int64_t col) {
    const float y = linspace(last, grid.height, row);
    const float x = linspace(last, grid.width, col);
    const auto y0 = static_cast<int64_t>(y);
    const auto x0 = static_cast<int64_t>(x);
    const int64_t y1 = std::min(y0 + 1, side - 1);
    const int64_t x1 = std::min(x0 + 1, side - 1);
    const float dy = y - static_cast<float>(y0);
    const float dx = x - static_cast<float>(x0);
    const auto at = static_cast<size_t>(4 * idx);
    const int64_t rows[4] = {y0 * side + x0, y0 * side + x1, y1 * side + x0, y1 * side + x1};
    const float weights[4] = {(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx};
    for (size_t i = 0; i < 4; ++i) {
      out_rows[at + i] = static_cast<int32_t>(rows[i]);
      out_weights[at + i] = weights[i];
    }
  });
}

void make_windows(const PatchGrid& grid, int64_t window_tokens, Windows& out) {
  const int64_t height = grid.height / grid.merge;
  const int64_t width = grid.width / grid.merge;
  const auto count = static_cast<size_t>(height * width);
  for (std::vector<int32_t>* part : {&out.order, &out.begin, &out.end}) {
    part->clear();
    part->reserve(count);
  }
  out.inverse.resize(count);
  for (int64_t top = 0; top < height; top += window_tokens) {
    for (int64_t left = 0; left < width; left += window_tokens) {
      const auto begin = static_cast<int32_t>(out.order.size());
      for (int64_t row = top; row < std::min(top + window_tokens, height); ++row) {
        for (int64_t col = left; col < std::min(left + window_tokens, width); ++col) {
          const int64_t token = row * width + col;
          out.inverse[static_cast<size_t>(token)] = static_cast<int32_t>(out.order.size());
          out.order.push_back(static_cast<int32_t>(token));
        }
      }
      const auto end = static_cast<int32_t>(out.order.size());
      out.begin.insert(out.begin.end(), static_cast<size_t>(end - begin), begin);
      out.end.insert(out.end.end(), static_cast<size_t>(end - begin), end);
    }
  }
}

int64_t PatchGrid::arrangement() const {
  // get_all_supported_aspect_ratios: heights outside, widths inside
  int64_t number = tile_cols;
  for (int64_t rows = 1; rows < tile_rows; ++rows)
    number += tiles / rows;
  return number;
}

void tile_numbers(const PatchGrid& grid, TileNumbering numbering, std::span<int32_t> out) {
  const int64_t tokens = grid.tile_tokens();
  const int64_t nothing = PatchGrid::kTileRowStep - 1 - (tokens - 1) % PatchGrid::kTileRowStep;
  const int64_t first_tile = grid.arrangement() * grid.tiles;
  for (int64_t row = 0; row < grid.patches(); ++row) {
    const bool is_token = row < grid.tokens();
    const int64_t place = is_token ? row % tokens : -1;
    const int64_t tile = is_token ? row / tokens : (row - grid.tokens()) / nothing;
    int64_t number = -1;
    switch (numbering) {
    case TileNumbering::kClass:
      number = place == 0 ? 0 : -1;
      break;
    case TileNumbering::kToken:
      number = place;
      break;
    case TileNumbering::kRow:
      number = is_token ? row : -1;
      break;
    case TileNumbering::kPatchTile:
      number = place > 0 ? first_tile + tile : -1;
      break;
    case TileNumbering::kTile:
      number = first_tile + tile;
      break;
    case TileNumbering::kTokenOfTile:
      number = is_token ? (first_tile + tile) * tokens + place : -1;
      break;
    }
    out[static_cast<size_t>(row)] = static_cast<int32_t>(number);
  }
}

} // namespace pinhole
