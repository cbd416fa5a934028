// What every picture fuzzer checks: a decoded picture has the size that the probe named and all of
// its pixels, an error says something, and resizing and patching hold for any decoded size.
#pragma once

#include "image/image.h"

#include <cstdlib>
#include <span>

namespace pinhole {

// Small enough for thousands of runs a second, large enough for several rows of blocks.
constexpr DecodeLimits kFuzzLimits{1 << 20, 1 << 16};

inline void check(bool holds) {
  if (!holds)
    std::abort();
}

inline void fuzz_picture(std::span<const std::byte> file) {
  const auto info = probe_picture(file, "fuzz");
  for (const AlphaPolicy alpha : {AlphaPolicy::kDrop, AlphaPolicy::kWhite}) {
    const auto image = decode_picture(file, kFuzzLimits, alpha, "fuzz");
    if (!image) {
      check(!image.error().message.empty());
      continue;
    }
    check(info.has_value());
    check(info->width == image->width && info->height == image->height);
    check(image->rgb.size() == static_cast<size_t>(image->width * image->height * 3));
    const auto size = smart_resize({image->height, image->width}, 8, 64, 1024);
    if (!size)
      continue;
    const Image small = resize(*image, *size, Filter::kBicubic);
    PatchLayout layout;
    layout.patch_size = 4;
    std::vector<float> patches(small.rgb.size() * layout.temporal);
    write_patches(small, layout, 0, size->width * size->height / 16, patches.data());
  }
}

} // namespace pinhole
