// The index inputs of a vision tower, computed from the grid of patches: positions, corners in the
// learned position table, windows, tiles. Pure functions; a tower's graph names which of them it
// reads.
//
// Patches come in merge-block order: block by block (merge x merge patches), blocks row by row.
#pragma once

#include "base/checked.h"

#include <cstdint>
#include <span>
#include <vector>

namespace pinhole {

// Pictures on tiles: the picture lies on a canvas of tile_rows x tile_cols of them, the tower reads
// `tiles` always, of which the others are empty, and height and width are those of one tile. Its
// rows are the tiles' tokens (a class token, then the patches), tile by tile, then rows of nothing:
// those that would make each tile's number of rows a multiple of 8. So what text sees comes first.
struct PatchGrid {
  int64_t height = 0; // patches, a multiple of merge
  int64_t width = 0;
  int64_t merge = 1;
  int64_t tiles = 0; // 0: the picture is not cut
  int64_t tile_rows = 0;
  int64_t tile_cols = 0;

  // Rows that the tower reads.
  int64_t patches() const {
    return tiles == 0 ? height * width : tiles * round_up(tile_tokens(), kTileRowStep);
  }
  // Rows that it gives.
  int64_t tokens() const {
    return tiles == 0 ? height * width / (merge * merge) : tiles * tile_tokens();
  }
  // Of these, the ones that hold the picture.
  int64_t seen_tokens() const {
    return tiles == 0 ? tokens() : tile_rows * tile_cols * tile_tokens();
  }
  int64_t tile_tokens() const { return height * width + 1; }
  // Number of the canvas among all of at most `tiles` tiles, by height and then width, from 1 on.
  int64_t arrangement() const;

  static constexpr int64_t kTileRowStep = 8;
};

// Row and column of each patch: out [patches, 2]. `order` [tokens], where it is not empty, says
// which token's patches stand at each place.
void patch_positions(const PatchGrid& grid, std::span<const int32_t> order, std::span<int32_t> out);

// fast_pos_embed_interpolate: bilinear with aligned corners (linspace(0, side - 1, n)) in a table
// [side, side]; out_rows, out_weights [patches, 4].
void position_table_corners(const PatchGrid& grid, int64_t side, std::span<int32_t> out_rows,
                            std::span<float> out_weights);

// get_window_index of Qwen2.5-VL: merged tokens sorted by windows of window_tokens x window_tokens,
// windows row by row, those at the edges smaller. Vectors that have room are not allocated anew.
struct Windows {
  std::vector<int32_t> order;      // [tokens]: which token stands at this place
  std::vector<int32_t> inverse;    // [tokens]: at which place this token stands
  std::vector<int32_t> begin, end; // [tokens], in sorted order: the window's range of places
};
void make_windows(const PatchGrid& grid, int64_t window_tokens, Windows& out);

// What a number of InputKind::kTileRows counts; -1 where a row has none.
enum class TileNumbering : int64_t {
  kClass,       // 0 for class tokens
  kToken,       // place in its tile, of class token and patches
  kRow,         // its own number, of class token and patches
  kPatchTile,   // arrangement * tiles + tile, of patches
  kTile,        // the same, of every row
  kTokenOfTile, // (arrangement * tiles + tile) * tile_tokens + place, of class token and patches
};
void tile_numbers(const PatchGrid& grid, TileNumbering numbering, std::span<int32_t> out);

} // namespace pinhole
