#include "answer/picture.h"

#include "base/checked.h"
#include "image/tiles.h"

#include <algorithm>
#include <fmt/format.h>
#include <span>

namespace pinhole {

namespace {

std::span<const std::byte> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// smart_resize never makes a side shorter than one token: a very long picture can stay above the
// bound. What a person asked for holds, and the longer side gives way.
void hold_tokens(Size& size, int64_t factor, int64_t max_tokens) {
  int64_t rows = size.height / factor;
  int64_t cols = size.width / factor;
  while (rows * cols > max_tokens) {
    int64_t& longer = rows > cols ? rows : cols;
    const int64_t shorter = std::min(rows, cols);
    longer = std::max({int64_t{1}, std::min(longer - 1, max_tokens / shorter), shorter - 1});
  }
  size = {rows * factor, cols * factor};
}

// A model of one picture size takes it whatever is asked for; what rules that out is an error.
Result<Size> square_size(const PictureSpec& spec, const PictureOptions& options) {
  const int64_t tokens = spec.tokens(spec.square_px, spec.square_px);
  const bool too_many = options.max_tokens > 0 && tokens > options.max_tokens;
  if (too_many || tokens < options.min_tokens) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("this model makes {} tokens of every picture, {} is {}", tokens,
                            too_many ? "--max-image-tokens" : "--min-image-tokens",
                            too_many ? options.max_tokens : options.min_tokens));
  }
  return Size{spec.square_px, spec.square_px};
}

Result<Size> target_size(const Picture& picture, const PictureSpec& spec,
                         const PictureOptions& options) {
  if (spec.square_px > 0)
    return square_size(spec, options);
  const int64_t factor = spec.patch_size * spec.merge_size;
  int64_t min_pixels = spec.min_pixels;
  int64_t max_pixels = spec.max_pixels;
  if (options.max_tokens > 0)
    max_pixels = options.max_tokens * factor * factor;
  if (options.min_tokens > 0)
    min_pixels = options.min_tokens * factor * factor;
  if (options.max_tokens > 0 && options.min_tokens == 0)
    min_pixels = std::min(min_pixels, max_pixels);
  if (options.min_tokens > 0 && options.max_tokens == 0)
    max_pixels = std::max(min_pixels, max_pixels);
  if (min_pixels > max_pixels) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("--min-image-tokens {} is more than --max-image-tokens {}",
                            options.min_tokens, options.max_tokens));
  }
  auto target = smart_resize({picture.height_px, picture.width_px}, factor, min_pixels, max_pixels);
  if (!target)
    return fail_in(picture.name, std::move(target.error()));
  if (options.max_tokens > 0) {
    // Scaled up to min_pixels, sides are rounded up, beyond a max_pixels that is close to it.
    if (target->height / factor * (target->width / factor) > options.max_tokens)
      target = smart_resize({picture.height_px, picture.width_px}, factor, 1, max_pixels);
    hold_tokens(*target, factor, options.max_tokens);
  }
  return *target;
}

Status lay_on_tiles(Picture& picture, const PictureSpec& spec, const PictureOptions& options) {
  if (options.min_tokens > 1) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("a picture is 1 token of this model's prompt, --min-image-tokens is {}",
                            options.min_tokens));
  }
  const Size size{picture.height_px, picture.width_px};
  const TileGrid canvas = choose_canvas(size, spec.square_px, spec.max_tiles);
  picture.target = fit_to_canvas(size, canvas, spec.square_px);
  const int64_t side = spec.square_px / spec.patch_size;
  picture.grid = {side, side, spec.merge_size, spec.max_tiles, canvas.rows, canvas.cols};
  return {};
}

} // namespace

PatchLayout patch_layout(const PictureSpec& spec) {
  PatchLayout layout;
  layout.patch_size = spec.patch_size;
  layout.merge_size = spec.merge_size;
  layout.temporal = spec.frames;
  std::copy(spec.mean.begin(), spec.mean.end(), layout.mean);
  std::copy(spec.std.begin(), spec.std.end(), layout.std);
  return layout;
}

void write_rows(const Image& image, const Picture& picture, const PictureSpec& spec,
                int64_t row_begin, int64_t row_end, float* out) {
  const PatchLayout patches = patch_layout(spec);
  const PatchGrid& grid = picture.grid;
  if (grid.tiles == 0)
    return write_patches(image, patches, row_begin, row_end, out);
  write_tiles(image, {patches, spec.square_px, grid.tiles, {grid.tile_rows, grid.tile_cols}},
              row_begin, row_end, out);
}

void add_pictures(std::span<const Picture> pictures, RunShape& shape) {
  int64_t tokens = 0;
  for (const Picture& picture : pictures) {
    tokens += picture.grid.tokens();
    shape.max_patches = std::max(shape.max_patches, picture.grid.patches());
    shape.picture_io_bytes = std::max(shape.picture_io_bytes, picture.io_bytes());
  }
  shape.feature_tokens = std::max(shape.feature_tokens, tokens);
}

Result<Picture> plan_picture(int64_t width_px, int64_t height_px, std::string name,
                             const PictureSpec& spec, const PictureOptions& options) {
  Picture picture;
  picture.name = std::move(name);
  picture.width_px = width_px;
  picture.height_px = height_px;
  const auto pixels =
      checked_mul(static_cast<uint64_t>(width_px), static_cast<uint64_t>(height_px));
  if (!pixels || *pixels > options.limits.max_pixels) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("{} x {} pixels, at most {} in all are accepted", width_px, height_px,
                            options.limits.max_pixels),
                picture.name, "scale the picture down");
  }
  picture.file_bytes = width_px * height_px;
  if (spec.max_tiles > 0) {
    PINHOLE_CHECK(lay_on_tiles(picture, spec, options));
  } else {
    PINHOLE_TRY(picture.target, target_size(picture, spec, options));
    picture.grid = {picture.target.height / spec.patch_size, picture.target.width / spec.patch_size,
                    spec.merge_size};
  }
  picture.tokens = spec.feature_slots > 0 ? picture.grid.tokens() : 1;
  return picture;
}

Result<Picture> open_picture(std::string bytes, std::string name, const PictureSpec& spec,
                             const PictureOptions& options) {
  PINHOLE_TRY(const PictureInfo info, probe_picture(as_bytes(bytes), name));
  PINHOLE_TRY(Picture picture,
              plan_picture(info.width, info.height, std::move(name), spec, options));
  picture.bytes = std::move(bytes);
  picture.file_bytes = static_cast<int64_t>(picture.bytes.size());
  return picture;
}

Result<Image> decode_for_model(Picture& picture, const PictureSpec& spec,
                               const PictureOptions& options) {
  PINHOLE_TRY(Image image,
              decode_picture(as_bytes(picture.bytes), options.limits,
                             spec.alpha_on_white ? AlphaPolicy::kWhite : AlphaPolicy::kDrop,
                             picture.name));
  if (image.width != picture.target.width || image.height != picture.target.height) {
    image = resize(image, picture.target, spec.bilinear ? Filter::kBilinear : Filter::kBicubic);
  }
  Sha256 hash;
  std::string preprocessing =
      fmt::format("{}x{} patch {} merge {} frames {} mean {} {} {} std {} {} {}", image.width,
                  image.height, spec.patch_size, spec.merge_size, spec.frames, spec.mean[0],
                  spec.mean[1], spec.mean[2], spec.std[0], spec.std[1], spec.std[2]);
  if (picture.grid.tiles > 0)
    preprocessing += fmt::format(" canvas {}x{}", picture.grid.tile_rows, picture.grid.tile_cols);
  hash.update(preprocessing.data(), preprocessing.size());
  hash.update(image.rgb.data(), image.rgb.size());
  picture.digest = hash.finish();
  return image;
}

} // namespace pinhole
