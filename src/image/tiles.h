// Pictures on a canvas of square tiles, as the processor of Llama 3.2 Vision lays them: the canvas
// is chosen by the picture's shape, the picture keeps its own and stands in the upper left corner,
// black beside it. Source: transformers, models/mllama/image_processing_mllama.py.
#pragma once

#include "image/image.h"

namespace pinhole {

struct TileGrid {
  int64_t rows = 0;
  int64_t cols = 0;
  bool operator==(const TileGrid&) const = default;
};

// get_optimal_tiled_canvas: of all canvases of at most max_tiles tiles the one that asks for the
// least enlargement, or where none holds the picture for the least reduction; of equals the
// smallest.
TileGrid choose_canvas(Size picture, int64_t tile_px, int64_t max_tiles);

// get_image_size_fit_to_canvas: the size that the picture is resized to.
Size fit_to_canvas(Size picture, TileGrid canvas, int64_t tile_px);

// Rows of a tower that reads `tiles` tiles, of which the first ones hold the picture: of each tile
// a class token (zeros), then its patches row by row as [channel][y][x], values as in PatchLayout;
// zeros for tiles that the canvas does not have, and for every row behind the last tile.
struct TileLayout {
  PatchLayout patch; // patch_size, mean, std
  int64_t tile_px = 0;
  int64_t tiles = 0;
  TileGrid canvas;
};
// `image` as fit_to_canvas() wants it. Rows [row_begin, row_end) only.
void write_tiles(const Image& image, const TileLayout& layout, int64_t row_begin, int64_t row_end,
                 float* out);

} // namespace pinhole
