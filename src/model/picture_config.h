// PictureSpec from preprocessor_config.json, or from a projector GGUF's clip.vision.* keys.
#pragma once

#include "model/model.h"

namespace pinhole {

// Fills mean, std and pixel bounds from `config` (null: the defaults that `spec` already has). Both
// spellings are read: size.shortest_edge / longest_edge, and min_pixels / max_pixels.
Status read_preprocessor_config(const Json& config, const std::string& where, PictureSpec& spec);

// Fills mean, std from clip.vision.image_mean / image_std. GGUF files say nothing of pixel bounds:
// they are 8 to 4096 tokens, as llama.cpp sets them for the Qwen families.
Status read_clip_config(const ModelFile& projector, PictureSpec& spec);

} // namespace pinhole
