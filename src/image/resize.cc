// Antialiased resizing of 8-bit RGB, bit for bit as torchvision does it on uint8 tensors.
//
// Invariant: the horizontal pass comes first; each pass sums 16-bit weights in 32 bits, adds a
// half, shifts and clamps to 0..255, so the order of the additions does not matter and loops may be
// vectorised. Weights are normalised in double and rounded half away from zero to the largest
// precision (at most 22 bits) at which the axis' largest weight stays below 2^15.
//
// Source: PyTorch, aten/src/ATen/native/cpu/UpSampleKernel.cpp (int16 weights), after Pillow's
// Resample.c; filters: bicubic with a = -0.5, bilinear (triangle).
#include "image/image.h"

#include "base/checked.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

namespace pinhole {

namespace {

constexpr int kMaxPrecision = 22;
// Taps of an output are padded with zero weights to whole vectors of eight 16-bit products.
constexpr int64_t kTapStep = 8;

double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0)
    return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0)
    return ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
  return 0.0;
}

double triangle(double x) {
  x = std::abs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

// Which inputs an output of one axis takes, and how much of each.
struct AxisWeights {
  std::vector<int64_t> first;  // [out]
  std::vector<int64_t> count;  // [out]
  int64_t stride = 0;          // taps per output, padded
  std::vector<int16_t> weight; // [out, stride], zero beyond count
  int precision = 0;
};

AxisWeights make_weights(int64_t in_size, int64_t out_size, Filter filter) {
  const double scale = static_cast<double>(in_size) / static_cast<double>(out_size);
  const double radius = filter == Filter::kBicubic ? 2.0 : 1.0;
  const double support = scale >= 1.0 ? radius * scale : radius;
  const double inverse = scale >= 1.0 ? 1.0 / scale : 1.0;
  const auto weigh = filter == Filter::kBicubic ? cubic : triangle;

  AxisWeights axis;
  axis.first.resize(out_size);
  axis.count.resize(out_size);
  int64_t longest = 0;
  for (int64_t i = 0; i < out_size; ++i) {
    const double center = scale * (static_cast<double>(i) + 0.5);
    const int64_t begin = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const int64_t end = std::min(static_cast<int64_t>(center + support + 0.5), in_size);
    axis.first[i] = begin;
    axis.count[i] = end - begin;
    longest = std::max(longest, end - begin);
  }
  axis.stride = round_up(longest, kTapStep);

  // Two sweeps, because the precision depends on the largest weight of the whole axis.
  std::vector<double> taps(longest);
  const auto fill = [&](int64_t i) {
    const double center = scale * (static_cast<double>(i) + 0.5);
    double total = 0.0;
    for (int64_t j = 0; j < axis.count[i]; ++j) {
      taps[j] = weigh((static_cast<double>(j + axis.first[i]) - center + 0.5) * inverse);
      total += taps[j];
    }
    if (total != 0.0) {
      for (int64_t j = 0; j < axis.count[i]; ++j)
        taps[j] /= total;
    }
  };
  double largest = 0.0;
  for (int64_t i = 0; i < out_size; ++i) {
    fill(i);
    for (int64_t j = 0; j < axis.count[i]; ++j)
      largest = std::max(largest, taps[j]);
  }
  while (axis.precision < kMaxPrecision &&
         static_cast<int>(0.5 + largest * (1 << (axis.precision + 1))) < (1 << 15)) {
    ++axis.precision;
  }
  axis.weight.resize(out_size * axis.stride);
  for (int64_t i = 0; i < out_size; ++i) {
    fill(i);
    for (int64_t j = 0; j < axis.count[i]; ++j) {
      const double fixed = taps[j] * (1 << axis.precision);
      axis.weight[i * axis.stride + j] =
          static_cast<int16_t>(static_cast<int>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
  return axis;
}

uint8_t to_byte(int32_t sum, int precision) {
  return static_cast<uint8_t>(std::clamp(sum >> precision, 0, 255));
}

int32_t dot(const int16_t* a, const int16_t* b, int64_t count) {
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i)
    sum += int32_t{a[i]} * int32_t{b[i]};
  return sum;
}

// One row: in [in_width, 3] -> out [out_width, 3]. `planes` [3, plane_stride] is scratch whose tail
// beyond in_width holds zeros.
void resize_row(const uint8_t* in, int64_t in_width, const AxisWeights& axis, int16_t* planes,
                int64_t plane_stride, uint8_t* out) {
  int16_t* r = planes;
  int16_t* g = r + plane_stride;
  int16_t* b = g + plane_stride;
  for (int64_t x = 0; x < in_width; ++x) {
    r[x] = in[x * 3];
    g[x] = in[x * 3 + 1];
    b[x] = in[x * 3 + 2];
  }
  const int64_t out_width = static_cast<int64_t>(axis.first.size());
  const int precision = axis.precision;
  const int32_t half = 1 << (precision - 1);
  for (int64_t x = 0; x < out_width; ++x) {
    const int16_t* weight = axis.weight.data() + x * axis.stride;
    const int64_t first = axis.first[x], count = round_up(axis.count[x], kTapStep);
    out[x * 3] = to_byte(half + dot(r + first, weight, count), precision);
    out[x * 3 + 1] = to_byte(half + dot(g + first, weight, count), precision);
    out[x * 3 + 2] = to_byte(half + dot(b + first, weight, count), precision);
  }
}

// Columns per step of the vertical pass: the sums stay in L1.
constexpr int64_t kColumnStep = 256;

// out[i] = sum over t of weight[t] * rows[t][i], rounded and clamped.
void blend_rows(const uint8_t* const* rows, const int16_t* weight, int64_t count, int precision,
                int64_t row_bytes, uint8_t* out) {
  const int32_t half = 1 << (precision - 1);
  for (int64_t begin = 0; begin < row_bytes; begin += kColumnStep) {
    const int64_t width = std::min(kColumnStep, row_bytes - begin);
    int32_t sum[kColumnStep];
    std::fill(sum, sum + kColumnStep, half);
    for (int64_t t = 0; t < count; ++t) {
      const uint8_t* row = rows[t] + begin;
      const int16_t w = weight[t];
      for (int64_t i = 0; i < width; ++i)
        sum[i] += int32_t{w} * int16_t{row[i]};
    }
    for (int64_t i = 0; i < width; ++i)
      out[begin + i] = to_byte(sum[i], precision);
  }
}

} // namespace

Image resize(const Image& image, Size target, Filter filter) {
  assert(image.width > 0 && image.height > 0 && target.width > 0 && target.height > 0);
  if (target.width == image.width && target.height == image.height)
    return image;
  const AxisWeights across = make_weights(image.width, target.width, filter);
  const AxisWeights down = make_weights(image.height, target.height, filter);
  const int64_t in_row_bytes = image.width * 3, row_bytes = target.width * 3;

  const int64_t plane_stride = image.width + kTapStep;
  std::vector<int16_t> planes(3 * plane_stride);
  // Horizontally resized rows that the current output row needs: input row y is at y % ring_rows.
  const int64_t ring_rows = down.stride;
  std::vector<uint8_t> ring(ring_rows * row_bytes);
  std::vector<const uint8_t*> rows(ring_rows);

  Image out;
  out.width = target.width;
  out.height = target.height;
  out.rgb.resize(target.height * row_bytes);
  int64_t next_row = 0;
  for (int64_t y = 0; y < target.height; ++y) {
    const int64_t first = down.first[y], count = down.count[y];
    for (next_row = std::max(next_row, first); next_row < first + count; ++next_row) {
      resize_row(image.rgb.data() + next_row * in_row_bytes, image.width, across, planes.data(),
                 plane_stride, ring.data() + next_row % ring_rows * row_bytes);
    }
    for (int64_t t = 0; t < count; ++t) {
      rows[t] = ring.data() + (first + t) % ring_rows * row_bytes;
    }
    blend_rows(rows.data(), down.weight.data() + y * down.stride, count, down.precision, row_bytes,
               out.rgb.data() + y * row_bytes);
  }
  return out;
}

} // namespace pinhole
