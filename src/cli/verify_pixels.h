// Pixels of a case's pictures against those of the reference's processor.
#pragma once

#include "answer/picture.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>

namespace pinhole::cli {

// Differences of a set of numbers from the expected ones.
struct Difference {
  double max_abs = 0;
  double sum_square_error = 0, sum_square = 0, sum_square_own = 0, dot = 0;
  int64_t count = 0;
  bool finite = true;

  void add(std::span<const float> own, std::span<const float> expected) {
    for (size_t i = 0; i < expected.size(); ++i) {
      const double a = own[i];
      const double b = expected[i];
      finite = finite && std::isfinite(a);
      max_abs = std::max(max_abs, std::abs(a - b));
      sum_square_error += (a - b) * (a - b);
      sum_square += b * b;
      sum_square_own += a * a;
      dot += a * b;
    }
    count += static_cast<int64_t>(expected.size());
  }
  double rms() const {
    return count == 0 ? 0 : std::sqrt(sum_square_error / static_cast<double>(count));
  }
  double relative() const { return sum_square == 0 ? 0 : std::sqrt(sum_square_error / sum_square); }
  double cosine() const {
    const double norm = std::sqrt(sum_square) * std::sqrt(sum_square_own);
    return norm == 0 ? (sum_square == sum_square_own ? 1 : 0) : dot / norm;
  }
};

// `path` holds pixel_values in one of the forms of docs/cases.md. Adds the differences of picture
// `picture_idx`, decoded as `image`.
Status compare_pixels(const std::string& path, const Image& image,
                      std::span<const Picture> pictures, size_t picture_idx,
                      const PictureSpec& spec, Difference& pixels);

} // namespace pinhole::cli
