// InternViT as a shared piece: pictures of one size with a class token, a learned position table,
// layers whose results are scaled, and the projector that joins patches. Source: transformers
// models/internvl/modeling_internvl.py; the reference's line stands above each call. GGUF:
// projector type internvl. Invariant: the class token is the first row, of the tower and of the
// table.
#pragma once

#include "model/config.h"
#include "model/graph.h"
#include "model/weight_table.h"

namespace pinhole {

struct InternVitConfig {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t image_size = 0;
  int64_t patch_size = 0;
  double layer_norm_eps = 1e-6;
  bool attention_bias = false;
  bool use_qk_norm = false;
  bool is_rms_norm = false;     // norm_type; layer_norm otherwise
  bool has_final_norm = false;  // not use_mean_pooling
  int64_t downsample_side = 2;  // 1 / downsample_ratio
  std::string_view suffix = ""; // of parameters that are no module's weight
  int64_t patches_per_side() const { return image_size / patch_size; }
};

// vision_config of config.json, and what of the whole concerns the projector;
// InternVLVisionConfig's defaults stand for what is left out.
Result<InternVitConfig> internvit_config_from_hf(const ModelFile& file);
Result<InternVitConfig> internvit_config_from_gguf(const ModelFile& projector);

// Describes tower and projector: output "features.0" [tokens, text_size].
Status describe_internvit(Graph& g, const ModelFile& file, const InternVitConfig& config,
                          int64_t text_size);

} // namespace pinhole
