#include "cli/verify_pixels.h"

#include "file/npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace pinhole::cli {

namespace {

struct PixelCase {
  const NpyArray& array;
  std::span<const Picture> pictures;
  size_t picture_idx;
  const Picture& picture; // of this index
  const PictureSpec& spec;
};

// pixel_values [patches, channels * frames * patch * patch]: of all pictures one after the other,
// or of the first one alone.
Status compare_patches(const PixelCase& c, const Image& image, Difference& pixels) {
  PINHOLE_TRY(const std::span<const float> want, c.array.floats());
  PatchLayout layout = patch_layout(c.spec);
  layout.temporal = 2; // as the reference's processor writes them
  const int64_t row = 3 * layout.temporal * layout.patch_size * layout.patch_size;
  size_t begin = 0;
  size_t all = 0;
  for (const Picture& picture : c.pictures) {
    if (&picture == &c.picture)
      begin = all;
    all += static_cast<size_t>(picture.grid.patches() * row);
  }
  const PatchGrid& grid = c.picture.grid;
  std::vector<float> own(static_cast<size_t>(grid.patches() * row));
  const bool first_alone = want.size() == static_cast<size_t>(c.pictures[0].grid.patches() * row);
  if (c.picture_idx > 0 && first_alone)
    return {};
  if (want.size() != all && !first_alone) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("{} pixel values, expected {}", want.size(), all), c.array.name);
  }
  write_patches(image, layout, 0, grid.patches(), own.data());
  pixels.add(own, want.subspan(begin, own.size()));
  return {};
}

// One piece of a picture; `plane` counts pieces of all pictures.
Status compare_plane(const PixelCase& c, const Image& image, int64_t piece, int64_t plane,
                     Difference& pixels) {
  PINHOLE_TRY(const std::span<const float> want, c.array.floats());
  const std::vector<int64_t>& shape = c.array.shape;
  const PatchGrid& grid = c.picture.grid;
  const int64_t side = c.spec.patch_size;
  const int64_t row = 3 * side * side;
  std::vector<float> own(static_cast<size_t>(grid.patches() * row));
  write_rows(image, c.picture, c.spec, piece * grid.patches(), (piece + 1) * grid.patches(),
             own.data());
  std::vector<int32_t> positions(static_cast<size_t>(2 * grid.patches()));
  patch_positions(grid, {}, positions);
  for (int64_t i = 0; i < grid.patches() * row; ++i) {
    const auto patch = static_cast<size_t>(i / row);
    const int64_t channel = i % row / (side * side);
    const int64_t y = positions[2 * patch] * side + i % (side * side) / side;
    const int64_t x = positions[2 * patch + 1] * side + i % side;
    const auto at = static_cast<size_t>(((plane * 3 + channel) * shape[2] + y) * shape[3] + x);
    pixels.add({&own[static_cast<size_t>(i)], 1}, want.subspan(at, 1));
  }
  return {};
}

// pixel_values [pictures, channels, height, width]; of pictures in pieces [pieces, ...]; smaller
// ones stand in the upper left corner.
Status compare_planes(const PixelCase& c, const Image& image, Difference& pixels) {
  const int64_t side = c.spec.patch_size;
  std::vector<int64_t> shape = {0, 3, 0, 0};
  int64_t first_plane = 0; // of the picture
  for (const Picture& picture : c.pictures) {
    if (&picture == &c.picture)
      first_plane = shape[0];
    shape[0] += picture.pieces;
    shape[2] = std::max(shape[2], picture.grid.height * side);
    shape[3] = std::max(shape[3], picture.grid.width * side);
  }
  if (c.array.shape != shape || c.spec.frames != 1) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("pixel values [{}], expected [{}]", fmt::join(c.array.shape, ", "),
                            fmt::join(shape, ", ")),
                c.array.name);
  }
  for (int64_t piece = 0; piece < c.picture.pieces; ++piece)
    PINHOLE_CHECK(compare_plane(c, image, piece, first_plane + piece, pixels));
  return {};
}

// pixel_values [1, pictures, tiles, channels, height, width].
Status compare_tiles(const PixelCase& c, const Image& image, Difference& pixels) {
  PINHOLE_TRY(const std::span<const float> want, c.array.floats());
  const PatchGrid& grid = c.picture.grid;
  const int64_t px = c.spec.square_px;
  const std::vector<int64_t> shape = {1, static_cast<int64_t>(c.pictures.size()), grid.tiles, 3, px,
                                      px};
  if (c.array.shape != shape) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("pixel values [{}], expected [{}]", fmt::join(c.array.shape, ", "),
                            fmt::join(shape, ", ")),
                c.array.name);
  }
  const int64_t side = c.spec.patch_size;
  const int64_t row = 3 * side * side;
  std::vector<float> own(static_cast<size_t>(grid.tokens() * row));
  write_rows(image, c.picture, c.spec, 0, grid.tokens(), own.data());
  for (int64_t i = 0; i < grid.tokens() * row; ++i) {
    const int64_t tile = i / row / grid.tile_tokens();
    const int64_t patch = i / row % grid.tile_tokens() - 1; // -1: the class token
    if (patch < 0)
      continue;
    const int64_t channel = i % row / (side * side);
    const int64_t y = patch / grid.width * side + i % (side * side) / side;
    const int64_t x = patch % grid.width * side + i % side;
    const int64_t plane = (static_cast<int64_t>(c.picture_idx) * grid.tiles + tile) * 3 + channel;
    pixels.add({&own[static_cast<size_t>(i)], 1},
               want.subspan(static_cast<size_t>((plane * px + y) * px + x), 1));
  }
  return {};
}

} // namespace

Status compare_pixels(const std::string& path, const Image& image,
                      std::span<const Picture> pictures, size_t picture_idx,
                      const PictureSpec& spec, Difference& pixels) {
  PINHOLE_TRY(const NpyArray array, NpyArray::open(path));
  const PixelCase c{array, pictures, picture_idx, pictures[picture_idx], spec};
  switch (array.shape.size()) {
  case 4:
    return compare_planes(c, image, pixels);
  case 6:
    return compare_tiles(c, image, pixels);
  default:
    return compare_patches(c, image, pixels);
  }
}

} // namespace pinhole::cli
