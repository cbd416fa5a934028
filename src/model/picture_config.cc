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
  const HfReaderScope read(config, where);
  PINHOLE_TRY(spec.min_pixels, read.integer_or("min_pixels", spec.min_pixels, 1, kMaxPixels));
  PINHOLE_TRY(spec.max_pixels, read.integer_or("max_pixels", spec.max_pixels, 1, kMaxPixels));
  if (const Json* size = json_find(config, "size"); size != nullptr && size->is_object()) {
    const HfReaderScope scope(*size, where + ", size");
    PINHOLE_TRY(spec.min_pixels, scope.integer_or("shortest_edge", spec.min_pixels, 1, kMaxPixels));
    PINHOLE_TRY(spec.max_pixels, scope.integer_or("longest_edge", spec.max_pixels, 1, kMaxPixels));
  }
  PINHOLE_CHECK(read_three(config, "image_mean", where, spec.mean));
  PINHOLE_CHECK(read_three(config, "image_std", where, spec.std));
  return check(spec, where);
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
