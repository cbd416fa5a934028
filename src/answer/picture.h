// A picture on its way into a prompt: sized from its header, decoded only when it is encoded.
#pragma once

#include "base/result.h"
#include "base/sha256.h"
#include "image/image.h"
#include "model/model.h"
#include "model/vision_inputs.h"
#include "plan/memory.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace pinhole {

struct PictureOptions {
  DecodeLimits limits;
  int64_t min_tokens = 0; // 0: the model's own bounds
  int64_t max_tokens = 0;
};

struct Picture {
  std::string name;
  std::string bytes; // the file
  int64_t file_bytes = 0;
  int64_t width_px = 0;
  int64_t height_px = 0;
  Size target; // what it is resized to
  PatchGrid grid;
  int64_t tokens = 0;                 // of the prompt
  std::optional<Sha256Digest> digest; // of pixels + preprocessing; known after decoding

  // Pixels held while it is decoded and, where it is, resized.
  int64_t io_bytes() const {
    const bool as_it_is = target == Size{height_px, width_px};
    const int64_t resized = as_it_is ? 0 : target.width * height_px + target.width * target.height;
    return file_bytes + 3 * (width_px * height_px + resized);
  }
};

// What a picture of this size costs, before there is one. Its file is taken to have a byte a pixel
// (a screenshot as PNG has half of that, a photo as JPEG a quarter).
Result<Picture> plan_picture(int64_t width_px, int64_t height_px, std::string name,
                             const PictureSpec& spec, const PictureOptions& options);

// Reads the header and works out what the picture costs.
Result<Picture> open_picture(std::string bytes, std::string name, const PictureSpec& spec,
                             const PictureOptions& options);

// Decodes and resizes; sets picture.digest. The file's bytes may be dropped afterwards.
Result<Image> decode_for_model(Picture& picture, const PictureSpec& spec,
                               const PictureOptions& options);

PatchLayout patch_layout(const PictureSpec& spec);
// Rows [row_begin, row_end) of what the tower reads; `image` from decode_for_model().
void write_rows(const Image& image, const Picture& picture, const PictureSpec& spec,
                int64_t row_begin, int64_t row_end, float* out);

// What these pictures need of a run, at least: the one place that plans and runs take it from.
void add_pictures(std::span<const Picture> pictures, RunShape& shape);

} // namespace pinhole
