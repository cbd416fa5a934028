// A picture on its way into a prompt: sized from its header, decoded only when it is encoded.
#pragma once

#include "base/result.h"
#include "base/sha256.h"
#include "engine/session.h"
#include "image/image.h"
#include "model/model.h"
#include "model/vision_inputs.h"
#include "plan/memory.h"
#include "plan/speed.h"

#include <atomic>
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
  Size target;        // what it is resized to
  PatchGrid grid;     // of each piece
  int64_t pieces = 1; // that the tower reads one by one; more than one: squares of the target, row
                      // by row, and the whole as one more
  int64_t piece_px = 0;               // side of a square, where there are several
  int64_t image_tokens = 0;           // of a prompt, those that stand for it
  int64_t tokens = 0;                 // the same with those between rows
  std::optional<Sha256Digest> digest; // of pixels + preprocessing; known after decoding

  // Rows that are kept of it, as embeddings or as keys and values.
  int64_t feature_tokens() const { return pieces * grid.tokens(); }

  // Pixels held while it is decoded and, where it is, resized and cut.
  int64_t io_bytes() const {
    const bool as_it_is = target == Size{height_px, width_px};
    const int64_t resized = as_it_is ? 0 : target.width * height_px + target.width * target.height;
    // The whole, and all of them below each other.
    const int64_t cut = piece_px * height_px + (1 + pieces) * piece_px * piece_px;
    return file_bytes + 3 * (width_px * height_px + resized + cut);
  }
};

// What a picture of this size costs, before there is one. Its file is taken to have a byte a pixel
// (a screenshot as PNG has half of that, a photo as JPEG a quarter).
Result<Picture> plan_picture(int64_t width_px, int64_t height_px, std::string name,
                             const PictureSpec& spec, const PictureOptions& options);

// Reads the header and works out what the picture costs.
Result<Picture> open_picture(std::string bytes, std::string name, const PictureSpec& spec,
                             const PictureOptions& options);

// Decodes and resizes; sets picture.digest. The file's bytes may be dropped afterwards. Pieces
// stand below each other: the patches of piece i are those from i * picture.grid.patches() on.
Result<Image> decode_for_model(Picture& picture, const PictureSpec& spec,
                               const PictureOptions& options);

// What a piece's features are kept by. Needs picture.digest.
Sha256Digest piece_digest(const Picture& picture, int64_t piece);

PatchLayout patch_layout(const PictureSpec& spec);
// Rows [row_begin, row_end) of what the tower reads, of all pieces one after the other; `image`
// from decode_for_model().
void write_rows(const Image& image, const Picture& picture, const PictureSpec& spec,
                int64_t row_begin, int64_t row_end, float* out);

// Runs the vision tower on a piece of a decoded picture (Session::encode()).
Result<Session::EncodedPicture> encode_picture(
    Session& session, const Picture& picture, int64_t piece, const Image& image,
    const PictureSpec& spec, std::span<const Sha256Digest> keep, const std::atomic<bool>* cancel,
    FunctionRef<void()> between = [] {});

// What these pictures need of a run, at least: the one place that plans and runs take it from.
void add_pictures(std::span<const Picture> pictures, RunShape& shape);
// What a question has beside its tokens when it comes with these pictures.
void add_pictures(std::span<const Picture> pictures, const Model& model, QuestionShape& question);

} // namespace pinhole
