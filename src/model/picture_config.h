// PictureSpec from preprocessor_config.json, or from a projector GGUF's clip.vision.* keys.
#pragma once

#include "model/model.h"

namespace pinhole {

// Fills mean, std and bounds from `config` (null: the defaults that `spec` already has). Of pixels
// both spellings are read: size.shortest_edge / longest_edge, and min_pixels / max_pixels. Where
// `spec` bounds sides or pieces already, these are read instead.
Status read_preprocessor_config(const Json& config, const std::string& where, PictureSpec& spec);

// The same from what lies beside a folder's configuration: preprocessor_config.json, or the
// image_processor of processor_config.json, where transformers 5 writes it.
Status read_processor_of(const ModelFile& folder, PictureSpec& spec);

// Fills mean, std from clip.vision.image_mean / image_std. GGUF files say nothing of pixel bounds:
// they are 8 to 4096 tokens, as llama.cpp sets them for the Qwen families.
Status read_clip_config(const ModelFile& projector, PictureSpec& spec);

} // namespace pinhole
