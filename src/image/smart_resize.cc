// The size that the Qwen processors resize to.
// Source: transformers, models/qwen2_vl/image_processing_qwen2_vl.py, smart_resize. Python's
// round() is half to even, and so is nearbyint() in the default rounding mode.
#include "image/image.h"

#include "base/checked.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace pinhole {

namespace {

constexpr double kMaxAspectRatio = 200.0;
// Keeps every product below 2^53, where doubles are still exact integers.
constexpr int64_t kMaxSide = int64_t{1} << 26;

} // namespace

Result<Size> smart_resize(Size size, int64_t factor, int64_t min_pixels, int64_t max_pixels) {
  const auto [height, width] = size;
  if (height < 1 || width < 1 || height > kMaxSide || width > kMaxSide) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("a picture of {} x {} px; both sides must be 1 to {}", width, height,
                            kMaxSide));
  }
  if (factor < 1 || factor > kMaxSide) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("patch size x merge size is {}, expected 1 to {}", factor, kMaxSide));
  }
  if (min_pixels < 0 || max_pixels < 1 || min_pixels > max_pixels) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("pixel bounds {} to {} do not form a range", min_pixels, max_pixels));
  }
  const double h = static_cast<double>(height), w = static_cast<double>(width);
  const double f = static_cast<double>(factor);
  const double ratio = std::max(h, w) / std::min(h, w);
  if (ratio > kMaxAspectRatio) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("a picture of {} x {} px has the aspect ratio {:.4g}; this model takes "
                            "at most {}",
                            width, height, ratio, kMaxAspectRatio),
                {}, "crop or split the picture");
  }
  const auto multiple = [&](double count) { return static_cast<int64_t>(count) * factor; };
  Size out{multiple(std::nearbyint(h / f)), multiple(std::nearbyint(w / f))};
  if (out.height * out.width > max_pixels) {
    const double beta = std::sqrt(h * w / static_cast<double>(max_pixels));
    out.height = std::max(factor, multiple(std::floor(h / beta / f)));
    out.width = std::max(factor, multiple(std::floor(w / beta / f)));
  } else if (out.height * out.width < min_pixels) {
    const double beta = std::sqrt(static_cast<double>(min_pixels) / (h * w));
    out.height = multiple(std::ceil(h * beta / f));
    out.width = multiple(std::ceil(w * beta / f));
  }
  if (out.height < 1 || out.width < 1) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("a picture of {} x {} px rounds to {} x {} px at multiples of {}",
                            width, height, out.width, out.height, factor),
                {}, "raise the lower pixel bound");
  }
  return out;
}

} // namespace pinhole
