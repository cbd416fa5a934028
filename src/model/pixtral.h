// Pixtral's vision tower and its projectors as a shared piece: pictures of any size, 2D rope,
// pre-norm layers without biases. Sources: transformers models/pixtral/modeling_pixtral.py,
// models/llava/modeling_llava.py, models/mistral3/modeling_mistral3.py; the reference's line stands
// above each call. GGUF: projector type pixtral, rows of q and k in the order of interleaved rope.
#pragma once

#include "model/config.h"
#include "model/graph.h"
#include "model/weight_table.h"

namespace pinhole {

struct PixtralConfig {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t image_size = 0;
  int64_t patch_size = 0;
  double rope_theta = 10000;
  Activation hidden_act = Activation::kSilu;
  // Of the projector.
  int64_t spatial_merge_size = 1;
  bool has_merger = false; // Mistral3PatchMerger and the norm before it
  bool has_bias = false;
  bool interleaved_rope = false;
};

// vision_config of config.json, and what of the whole concerns the projector: LLaVA's, or Mistral
// 3's with its merger.
Result<PixtralConfig> pixtral_config_from_hf(const ModelFile& file, bool is_mistral3);
Result<PixtralConfig> pixtral_config_from_gguf(const ModelFile& projector);

// Describes tower and projector: output "features.0" [tokens, text_size]. `norm_eps` is that of the
// text model, which the projector's norm shares.
Status describe_pixtral(Graph& g, const ModelFile& file, const PixtralConfig& config,
                        int64_t text_size, double norm_eps);

} // namespace pinhole
