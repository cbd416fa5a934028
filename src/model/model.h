// A model described: what its family makes of the files. The graphs, the shape of the cache, how a
// picture becomes patches and tokens, and which tensors are missing or unused. Weights point into
// the files, which must outlive the model.
#pragma once

#include "base/result.h"
#include "file/model_file.h"
#include "file/remote_file.h"
#include "model/graph.h"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace pinhole {

// How pictures enter a model. Sides are resized to multiples of patch_size * merge_size with the
// number of pixels inside the bounds, or with no side above one, or to a square of one size, or to
// several such squares; each merge_size x merge_size block of patches is one token.
struct PictureSpec {
  int64_t patch_size = 0;
  int64_t merge_size = 1;
  int64_t frames = 1; // times each pixel stands in a patch row (temporal patch of a still)
  std::array<float, 3> mean{0.5f, 0.5f, 0.5f};
  std::array<float, 3> std{0.5f, 0.5f, 0.5f};
  int64_t min_pixels = 0;
  int64_t max_pixels = 0;
  int64_t square_px = 0;    // both sides of every picture; 0: sides follow from the bounds
  bool bilinear = false;    // how it is resized; otherwise bicubic
  int64_t feature_size = 0; // columns of one feature row: the text model's hidden_size
  // 1 + number of deepstack outputs. 0: cross-attention layers read pictures; a picture is one
  // token of the prompt, with an embedding of its own.
  int32_t feature_slots = 1;
  int64_t window_size_px = 0; // windowed vision attention; 0: none
  std::string image_token;    // text of the token that stands for one picture token
  std::string before, after;  // texts around the image tokens (vision start, vision end)
  // What templates write for a picture and before + image tokens + after takes the place of. Empty:
  // they write before, one image token and after themselves.
  std::string picture_mark;
  bool sees_itself_whole = false; // a picture's tokens attend to each other in both directions
  // No side is longer; then sides are rounded up to whole tokens, and no picture is enlarged. 0:
  // the number of pixels counts.
  int64_t longest_px = 0;
  std::string row_break; // text of the token between rows of image tokens; empty: none
  // A picture is cut into squares of square_px, as many as fit its shape best, which the tower
  // reads one by one; where there is more than one, the whole as one more square follows. 0: it is
  // not.
  int64_t min_pieces = 1;
  int64_t max_pieces = 0;
  // Pictures are laid on a canvas of up to so many tiles of square_px, in the upper left corner;
  // the tower always reads as many at once, each with a class token. 0: they are not.
  int64_t max_tiles = 0;
  bool alpha_on_white = false; // transparent pictures; otherwise alpha is dropped

  int64_t patch_elements() const { return 3 * frames * patch_size * patch_size; }
  int64_t tokens(int64_t height_px, int64_t width_px) const {
    const int64_t side = patch_size * merge_size;
    return (height_px / side) * (width_px / side);
  }
  // What a template writes where a picture stands.
  const std::string& template_token() const {
    return picture_mark.empty() ? image_token : picture_mark;
  }
};

// Rows of keys and values kept per token and layer.
struct CacheSpec {
  int64_t layers = 0; // all of the text model's
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t window = 0;        // keys that a token sees in sliding layers, its own among them
  std::vector<bool> sliding; // by layer; empty: none is
  // By layer, which attend to pictures instead of earlier tokens; empty: none does. A picture is
  // one token of the prompt then, and its keys and values are kept once, beside the cache.
  std::vector<bool> cross;

  bool has_cross() const { return !cross.empty(); }
  bool is_cross(int64_t layer) const { return has_cross() && cross[static_cast<size_t>(layer)]; }
  int64_t cross_layers() const { return std::count(cross.begin(), cross.end(), true); }
  bool is_sliding(int64_t layer) const {
    return !sliding.empty() && sliding[static_cast<size_t>(layer)];
  }
};

struct Model {
  std::string family; // row name in families.def
  std::string name;   // general.name or the folder's name
  int64_t hidden_size = 0;
  int64_t vocab_size = 0;     // columns of the logits
  int64_t input_ids = 0;      // ids that may be read; those from vocab_size on are never written
  int64_t context_length = 0; // max_position_embeddings
  int64_t position_axes = 1;  // 3 for M-RoPE
  CacheSpec cache;
  std::vector<int64_t> eos_token_ids; // from config; the tokenizer may add more
  Graph text;                         // output "logits" [outputs, vocab_size]
  std::optional<PictureSpec> pictures;
  Graph vision; // outputs "features.0", "features.1", ...: [tokens, feature_size]
  std::vector<std::string> unused_tensors; // in the files, but the family does not know them
  uint64_t weight_bytes = 0;               // of the tensors that are used
  uint64_t header_bytes = 0; // of the files before their tensors, read when they are opened
  // Of the tokenizer's tables, by building them (answer/loaded_model.h); 0: not known.
  int64_t vocabulary_bytes = 0;
};

// The files of a model: text, and for GGUF the projector beside it.
struct ModelFiles {
  ModelFile text;
  std::optional<ModelFile> projector;

  // `mmproj` empty: find it beside the model. A folder holds everything itself.
  static Result<ModelFiles> open(const std::string& path, const std::string& mmproj = {});
  // The same where a configuration is enough (see ModelFile::open_config), to plan only. Both may
  // be addresses, of which headers alone are read (see open_remote); no projector is looked for
  // beside one.
  static Result<ModelFiles> open_to_plan(const std::string& path, const std::string& mmproj = {},
                                         const FetchProgress& progress = {});
};

// Whether `op`, of the text graph, looks up rows of a table that no matmul reads whole.
bool only_looks_up(const Model& model, const Op& op);

// Recognises the family (config.json's model_type, GGUF's general.architecture) and describes it.
Result<Model> describe_model(const ModelFiles& files);

} // namespace pinhole
