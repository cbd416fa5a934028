// Normalised patches in the order of the Qwen vision towers.
// Invariant: every float is (pixel - 255*mean) / (255*std) in float32, each operation rounded once,
// which is what torchvision computes; a table of the 256 values per channel keeps it exact and
// fast. Source: transformers, models/qwen2_vl/image_processing_qwen2_vl.py, _preprocess.
#include "image/image.h"

#include <array>
#include <cassert>
#include <cstring>

namespace pinhole {

namespace {

constexpr int64_t kChannels = 3;

} // namespace

void write_patches(const Image& image, const PatchLayout& layout, int64_t row_begin,
                   int64_t row_end, float* out) {
  const int64_t patch = layout.patch_size, merge = layout.merge_size, frames = layout.temporal;
  assert(patch > 0 && merge > 0 && frames > 0);
  assert(image.width % (patch * merge) == 0 && image.height % (patch * merge) == 0);
  const int64_t grid_w = image.width / patch, grid_h = image.height / patch;
  assert(0 <= row_begin && row_end <= grid_w * grid_h);
  (void)grid_h;

  std::array<std::array<float, 256>, kChannels> value; // [channel, pixel]
  for (int64_t c = 0; c < kChannels; ++c) {
    const float mean = 255.0f * layout.mean[c], std = 255.0f * layout.std[c];
    for (int pixel = 0; pixel < 256; ++pixel) {
      value[c][pixel] = (static_cast<float>(pixel) - mean) / std;
    }
  }

  const int64_t blocks_per_row = grid_w / merge;
  const int64_t plane = patch * patch; // floats of one channel of one frame
  for (int64_t row = row_begin; row < row_end; ++row) {
    const int64_t block = row / (merge * merge), inside = row % (merge * merge);
    const int64_t patch_y = block / blocks_per_row * merge + inside / merge;
    const int64_t patch_x = block % blocks_per_row * merge + inside % merge;
    const uint8_t* corner =
        image.rgb.data() + (patch_y * patch * image.width + patch_x * patch) * 3;
    float* to = out + (row - row_begin) * kChannels * frames * plane; // [channel, frame, y, x]
    for (int64_t y = 0; y < patch; ++y) {
      const uint8_t* from = corner + y * image.width * 3;
      float* r = to + y * patch;
      float* g = r + frames * plane;
      float* b = g + frames * plane;
      for (int64_t x = 0; x < patch; ++x, from += 3) {
        r[x] = value[0][from[0]];
        g[x] = value[1][from[1]];
        b[x] = value[2][from[2]];
      }
    }
    for (int64_t c = 0; c < kChannels; ++c) {
      float* first = to + c * frames * plane;
      for (int64_t t = 1; t < frames; ++t)
        std::memcpy(first + t * plane, first, plane * sizeof(float));
    }
  }
}

} // namespace pinhole
