#include "model/picture_config.h"

#include "model/config.h"

#include <cmath>
#include <fmt/format.h>

namespace pinhole {

namespace {

constexpr int64_t kMaxPixels = int64_t{1} << 40;

Status read_three(const Json& config, const char* key, const std::string& where,
                  std::array<float, 3>& out) {
  const Json* list = json_find(config, key);
  if (list == nullptr)
    return {};
  if (!list->is_array() || list->size() != 3) {
    return fail(ErrorCode::kInvalidInput, fmt::format("'{}' is not a list of 3 numbers", key),
                where);
  }
  for (size_t i = 0; i < 3; ++i) {
    if (!(*list)[i].is_number()) {
      return fail(ErrorCode::kInvalidInput, fmt::format("'{}' is not a list of 3 numbers", key),
                  where);
    }
    out[i] = (*list)[i].get<float>();
  }
  return {};
}

constexpr int64_t kMaxSide = 1 << 14; // of a picture, in pixels
constexpr int64_t kMaxPieces = 256;

// {"longest_edge": n}, or {"height": n, "width": n}
Status read_longest_side(const Json& config, const std::string& where, PictureSpec& spec) {
  const Json* size = json_find(config, "size");
  if (size == nullptr)
    return {};
  const HfReaderScope scope(*size, where + ", size");
  if (json_find(*size, "longest_edge") != nullptr) {
    PINHOLE_TRY(spec.longest_px, scope.integer("longest_edge", 1, kMaxSide));
    return {};
  }
  PINHOLE_TRY(spec.longest_px, scope.integer("height", 1, kMaxSide));
  PINHOLE_TRY(const int64_t width, scope.integer("width", 1, kMaxSide));
  if (width == spec.longest_px)
    return {};
  return fail(
      ErrorCode::kUnsupported,
      fmt::format("pictures of at most {} x {} px, here both are the same", width, spec.longest_px),
      scope.where());
}

Status read_pieces(const Json& config, const std::string& where, PictureSpec& spec) {
  const HfReaderScope read(config, where);
  PINHOLE_TRY(spec.min_pieces, read.integer_or("min_patches", spec.min_pieces, 1, kMaxPieces));
  PINHOLE_TRY(spec.max_pieces, read.integer_or("max_patches", spec.max_pieces, 1, kMaxPieces));
  if (spec.min_pieces > spec.max_pieces) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("min_patches {} exceeds max_patches {}", spec.min_pieces, spec.max_pieces),
        where);
  }
  const Json* size = json_find(config, "size");
  if (size == nullptr)
    return {};
  const HfReaderScope scope(*size, where + ", size");
  for (const char* key : {"height", "width"}) {
    PINHOLE_TRY(const int64_t side, scope.integer_or(key, spec.square_px, 1, kMaxSide));
    if (side != spec.square_px) {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("'{}' is {}, the vision part's image_size {}; both must be the same",
                              key, side, spec.square_px),
                  scope.where());
    }
  }
  return {};
}

Status check(const PictureSpec& spec, const std::string& where) {
  for (size_t i = 0; i < 3; ++i) {
    if (!std::isfinite(spec.mean[i]) || !std::isfinite(spec.std[i]) || spec.std[i] == 0) {
      return fail(ErrorCode::kInvalidInput, "image_mean or image_std is not finite, or a std is 0",
                  where);
    }
  }
  if (spec.min_pixels > spec.max_pixels) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("smallest number of pixels {} exceeds the largest {}", spec.min_pixels,
                            spec.max_pixels),
                where);
  }
  return {};
}

} // namespace

Status read_preprocessor_config(const Json& config, const std::string& where, PictureSpec& spec) {
  if (!config.is_object())
    return check(spec, where);
  PINHOLE_CHECK(read_three(config, "image_mean", where, spec.mean));
  PINHOLE_CHECK(read_three(config, "image_std", where, spec.std));
  if (spec.longest_px > 0)
    PINHOLE_CHECK(read_longest_side(config, where, spec));
  if (spec.max_pieces > 0)
    PINHOLE_CHECK(read_pieces(config, where, spec));
  if (spec.longest_px > 0 || spec.max_pieces > 0)
    return check(spec, where);
  const HfReaderScope read(config, where);
  PINHOLE_TRY(spec.min_pixels, read.integer_or("min_pixels", spec.min_pixels, 1, kMaxPixels));
  PINHOLE_TRY(spec.max_pixels, read.integer_or("max_pixels", spec.max_pixels, 1, kMaxPixels));
  if (const Json* size = json_find(config, "size"); size != nullptr && size->is_object()) {
    const HfReaderScope scope(*size, where + ", size");
    PINHOLE_TRY(spec.min_pixels, scope.integer_or("shortest_edge", spec.min_pixels, 1, kMaxPixels));
    PINHOLE_TRY(spec.max_pixels, scope.integer_or("longest_edge", spec.max_pixels, 1, kMaxPixels));
  }
  return check(spec, where);
}

Status read_processor_of(const ModelFile& folder, PictureSpec& spec) {
  const Json* nested = json_find(folder.processor_config(), "image_processor");
  if (folder.preprocessor_config().is_null() && nested != nullptr)
    return read_preprocessor_config(
        *nested, folder.path() + "/processor_config.json, image_processor", spec);
  return read_preprocessor_config(folder.preprocessor_config(),
                                  folder.path() + "/preprocessor_config.json", spec);
}

Status read_clip_config(const ModelFile& projector, PictureSpec& spec) {
  const auto read = [&](const char* key, std::array<float, 3>& out) -> Status {
    if (projector.gguf().find(key) == nullptr)
      return {};
    PINHOLE_TRY(const GgufArray* array, projector.gguf().array(key));
    PINHOLE_TRY(const std::vector<double> numbers, array->numbers());
    if (numbers.size() != 3) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("'{}' has {} numbers, expected 3", key, numbers.size()),
                  projector.path());
    }
    for (size_t i = 0; i < 3; ++i)
      out[i] = static_cast<float>(numbers[i]);
    return {};
  };
  PINHOLE_CHECK(read("clip.vision.image_mean", spec.mean));
  PINHOLE_CHECK(read("clip.vision.image_std", spec.std));
  const int64_t token_pixels =
      spec.patch_size * spec.merge_size * spec.patch_size * spec.merge_size;
  spec.min_pixels = 8 * token_pixels;
  spec.max_pixels = 4096 * token_pixels;
  return check(spec, projector.path());
}

} // namespace pinhole
