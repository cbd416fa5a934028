// The index inputs of a vision tower, computed from the grid of patches: positions, corners in the
// learned position table, windows. Pure functions; a tower's graph names which of them it reads.
//
// Patches come in merge-block order: block by block (merge x merge patches), blocks row by row.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pinhole {

struct PatchGrid {
  int64_t height = 0; // patches, a multiple of merge
  int64_t width = 0;
  int64_t merge = 1;
  int64_t patches() const { return height * width; }
  int64_t tokens() const { return patches() / (merge * merge); }
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

} // namespace pinhole
