#include "answer/picture.h"

#include "base/checked.h"
#include "base/function_ref.h"
#include "image/tiles.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <limits>
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

tl::unexpected<Error> cannot_cost(const Picture& picture, const PictureOptions& options,
                                  int64_t fewest, int64_t most) {
  const bool too_many = options.max_tokens > 0 && fewest > options.max_tokens;
  return fail(ErrorCode::kInvalidInput,
              fmt::format("this model makes {} to {} tokens of a picture of {} x {} px, {} is {}",
                          fewest, most, picture.width_px, picture.height_px,
                          too_many ? "--max-image-tokens" : "--min-image-tokens",
                          too_many ? options.max_tokens : options.min_tokens),
              picture.name);
}

// --- no side above a bound ---

int64_t row_breaks(const PictureSpec& spec, const Size& size) {
  return spec.row_break.empty() ? 0 : size.height / (spec.patch_size * spec.merge_size) - 1;
}

int64_t cost(const PictureSpec& spec, const Size& size) {
  return spec.tokens(size.height, size.width) + row_breaks(spec, size);
}

// get_resize_output_image_size of transformers' models/pixtral/image_processing_pixtral.py; with
// `enlarge` a smaller picture is scaled up to that side.
Size within_side(const Picture& picture, int64_t factor, int64_t longest_px, bool enlarge) {
  auto height = static_cast<double>(picture.height_px);
  auto width = static_cast<double>(picture.width_px);
  const double ratio = std::max(height, width) / static_cast<double>(longest_px);
  if (ratio > 1 || enlarge) {
    height = std::max(1.0, std::floor(height / ratio)); // where the reference has 0, and fails
    width = std::max(1.0, std::floor(width / ratio));
  }
  return {round_up(static_cast<int64_t>(height), factor),
          round_up(static_cast<int64_t>(width), factor)};
}

// The smallest side in [1, high] for which `holds`, given that it holds for larger ones too.
int64_t smallest_side(int64_t high, FunctionRef<bool(int64_t)> holds) {
  int64_t low = 1;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (holds(middle))
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

Result<Size> bounded_size(const Picture& picture, const PictureSpec& spec,
                          const PictureOptions& options) {
  const int64_t factor = spec.patch_size * spec.merge_size;
  const int64_t longest = spec.longest_px;
  Size size = within_side(picture, factor, longest, false);
  if (options.max_tokens > 0 && cost(spec, size) > options.max_tokens) {
    const int64_t side = smallest_side(longest, [&](int64_t px) {
      return cost(spec, within_side(picture, factor, px, false)) > options.max_tokens;
    });
    size = within_side(picture, factor, side - 1, false);
  } else if (cost(spec, size) < options.min_tokens) {
    const int64_t side = smallest_side(longest, [&](int64_t px) {
      return cost(spec, within_side(picture, factor, px, true)) >= options.min_tokens;
    });
    size = within_side(picture, factor, side, true);
  }
  const int64_t tokens = cost(spec, size);
  if (tokens < options.min_tokens || (options.max_tokens > 0 && tokens > options.max_tokens)) {
    return cannot_cost(picture, options, 1,
                       cost(spec, within_side(picture, factor, longest, true)));
  }
  return size;
}

// --- pieces ---

// get_optimal_tiled_canvas of transformers' models/got_ocr2/image_processing_got_ocr2.py, of the
// arrangements whose tokens are within the bounds. Columns and rows; none: 0.
Size best_grid(const Picture& picture, const PictureSpec& spec, int64_t min_pieces,
               int64_t max_pieces) {
  const auto height = static_cast<double>(picture.height_px);
  const auto width = static_cast<double>(picture.width_px);
  const double ratio = width / height;
  double best = std::numeric_limits<double>::infinity();
  Size grid{0, 0};
  // By number of squares, then by columns.
  for (int64_t count = min_pieces; count <= max_pieces; ++count) {
    for (int64_t cols = 1; cols <= count; ++cols) {
      if (count % cols != 0)
        continue;
      const int64_t rows = count / cols;
      const double off = std::abs(ratio - static_cast<double>(cols) / static_cast<double>(rows));
      const double squares_px = static_cast<double>(spec.square_px * spec.square_px * count);
      if (off < best || (off == best && width * height > 0.5 * squares_px)) {
        best = off;
        grid = {rows, cols};
      }
    }
  }
  return grid;
}

Result<Size> canvas_size(const Picture& picture, const PictureSpec& spec,
                         const PictureOptions& options) {
  const int64_t each = spec.tokens(spec.square_px, spec.square_px);
  const auto tokens_of = [&](int64_t count) { return each * (count > 1 ? count + 1 : 1); };
  int64_t low = spec.min_pieces;
  int64_t high = spec.max_pieces;
  while (low <= high && tokens_of(low) < options.min_tokens)
    ++low;
  while (low <= high && options.max_tokens > 0 && tokens_of(high) > options.max_tokens)
    --high;
  if (low > high)
    return cannot_cost(picture, options, tokens_of(spec.min_pieces), tokens_of(spec.max_pieces));
  const Size grid = best_grid(picture, spec, low, high);
  return Size{grid.height * spec.square_px, grid.width * spec.square_px};
}

// The squares of a canvas below each other, and `whole` below them.
Image stack_pieces(const Image& canvas, const Image& whole) {
  const int64_t side = whole.width;
  const auto line = static_cast<size_t>(3 * side);
  const int64_t cols = canvas.width / side;
  const int64_t count = canvas.height / side * cols;
  Image out{side, (count + 1) * side, {}};
  out.rgb.resize(line * static_cast<size_t>(out.height));
  uint8_t* to = out.rgb.data();
  for (int64_t piece = 0; piece < count; ++piece) {
    for (int64_t y = 0; y < side; ++y, to += line) {
      const int64_t at = (piece / cols * side + y) * canvas.width + piece % cols * side;
      std::memcpy(to, canvas.rgb.data() + 3 * at, line);
    }
  }
  std::copy(whole.rgb.begin(), whole.rgb.end(), to);
  return out;
}

Result<Size> target_size(const Picture& picture, const PictureSpec& spec,
                         const PictureOptions& options) {
  if (options.max_tokens > 0 && options.min_tokens > options.max_tokens) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("--min-image-tokens {} is more than --max-image-tokens {}",
                            options.min_tokens, options.max_tokens));
  }
  if (spec.max_pieces > 0)
    return canvas_size(picture, spec, options);
  if (spec.square_px > 0)
    return square_size(spec, options);
  if (spec.longest_px > 0)
    return bounded_size(picture, spec, options);
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
  picture.image_tokens = picture.tokens = 1;
  return {};
}

Status lay_out_pieces(Picture& picture, const PictureSpec& spec, const PictureOptions& options) {
  PINHOLE_TRY(picture.target, target_size(picture, spec, options));
  Size piece = picture.target;
  if (spec.max_pieces > 0) {
    const int64_t squares =
        picture.target.height * picture.target.width / (spec.square_px * spec.square_px);
    piece = {spec.square_px, spec.square_px};
    if (squares > 1) {
      picture.pieces = squares + 1;
      picture.piece_px = spec.square_px;
    }
  }
  picture.grid = {piece.height / spec.patch_size, piece.width / spec.patch_size, spec.merge_size};
  picture.image_tokens = picture.feature_tokens();
  picture.tokens = picture.image_tokens + row_breaks(spec, piece);
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
    tokens += picture.feature_tokens();
    shape.max_patches = std::max(shape.max_patches, picture.grid.patches());
    shape.picture_io_bytes = std::max(shape.picture_io_bytes, picture.io_bytes());
  }
  shape.feature_tokens = std::max(shape.feature_tokens, tokens);
}

void add_pictures(std::span<const Picture> pictures, const Model& model, QuestionShape& question) {
  for (const Picture& picture : pictures) {
    if (model.cache.has_cross())
      question.picture_keys += picture.grid.seen_tokens();
    question.picture_patches.insert(question.picture_patches.end(),
                                    static_cast<size_t>(picture.pieces), picture.grid.patches());
    question.picture_pixels += picture.width_px * picture.height_px;
  }
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
  if (spec.max_tiles > 0)
    PINHOLE_CHECK(lay_on_tiles(picture, spec, options));
  else
    PINHOLE_CHECK(lay_out_pieces(picture, spec, options));
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
  const Filter filter = spec.bilinear ? Filter::kBilinear : Filter::kBicubic;
  Image whole;
  if (picture.pieces > 1)
    whole = resize(image, {picture.piece_px, picture.piece_px}, filter);
  if (image.width != picture.target.width || image.height != picture.target.height)
    image = resize(image, picture.target, filter);
  if (picture.pieces > 1)
    image = stack_pieces(image, whole);
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

Sha256Digest piece_digest(const Picture& picture, int64_t piece) {
  if (picture.pieces == 1)
    return *picture.digest;
  Sha256 hash;
  hash.update(picture.digest->data(), picture.digest->size());
  hash.update(&piece, sizeof piece);
  return hash.finish();
}

Result<Session::EncodedPicture>
encode_picture(Session& session, const Picture& picture, int64_t piece, const Image& image,
               const PictureSpec& spec, std::span<const Sha256Digest> keep,
               const std::atomic<bool>* cancel, FunctionRef<void()> between) {
  const int64_t first_row = piece * picture.grid.patches();
  return session.encode(
      piece_digest(picture, piece), picture.grid,
      [&](int64_t begin, int64_t end, float* out) {
        write_rows(image, picture, spec, first_row + begin, first_row + end, out);
      },
      keep, cancel, between);
}

} // namespace pinhole
