// Pictures: bounded decoding to RGB, and the resizing and patching that the model families were
// trained with (bit for bit as their reference processors do it).
#pragma once

#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace pinhole {

struct Image {
  int64_t width = 0;
  int64_t height = 0;
  std::vector<uint8_t> rgb; // [height, width, 3]
};

struct DecodeLimits {
  uint64_t max_file_bytes = 64u << 20;
  uint64_t max_pixels = 100'000'000; // width * height, checked from the header before decoding
};

enum class PictureFormat { kJpeg, kPng, kWebp };

struct PictureInfo {
  PictureFormat format;
  int64_t width = 0; // after EXIF orientation
  int64_t height = 0;
};

// Reads only the header. An unknown signature, or one of a known but unsupported format (GIF, BMP,
// TIFF, HEIC, AVIF, PDF), is an error that names it.
Result<PictureInfo> probe_picture(std::span<const std::byte> file, const std::string& where);

// What happens to transparency: the Qwen processors drop alpha (the colours beneath show).
enum class AlphaPolicy { kDrop, kWhite };

// Decodes to 8-bit RGB: EXIF orientation applied, CMYK and YCCK JPEGs converted, palettes and
// 16-bit PNGs as Pillow's convert("RGB") gives them, grey replicated. A truncated file is an error.
Result<Image> decode_picture(std::span<const std::byte> file, const DecodeLimits& limits,
                             AlphaPolicy alpha, const std::string& where);

struct Size {
  int64_t height = 0;
  int64_t width = 0;
  bool operator==(const Size&) const = default;
};

// transformers' smart_resize: both sides multiples of `factor`, pixels within the bounds, aspect
// ratio kept as far as that allows. Aspect ratios above 200 are an error.
Result<Size> smart_resize(Size size, int64_t factor, int64_t min_pixels, int64_t max_pixels);

enum class Filter { kBilinear, kBicubic };

// torchvision's antialiased resize of uint8: horizontal pass, then vertical, fixed-point weights,
// rounding and clamping between the passes.
Image resize(const Image& image, Size target, Filter filter);

// Qwen's patch order: [grid_h*grid_w, channels*temporal*patch*patch] floats where rows go block by
// block (merge x merge patches), a row holds [channel][frame][y][x], and a value is
// (pixel - 255*mean) / (255*std). A still picture repeats itself in every frame; `temporal` 1
// writes each patch once. image sides are multiples of patch*merge. Rows [row_begin, row_end) only.
struct PatchLayout {
  int64_t patch_size = 16;
  int64_t merge_size = 2;
  int64_t temporal = 2;
  float mean[3] = {0.5f, 0.5f, 0.5f};
  float std[3] = {0.5f, 0.5f, 0.5f};
};
void write_patches(const Image& image, const PatchLayout& layout, int64_t row_begin,
                   int64_t row_end, float* out);

} // namespace pinhole
