// SigLIP's vision tower as a shared piece: pictures of one size, a learned position table, pre-norm
// layers with biases. Source: transformers models/siglip/modeling_siglip.py.
#pragma once

#include "model/blocks.h"

namespace pinhole {

struct SiglipConfig {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t image_size = 0; // of both sides, a multiple of patch_size
  int64_t patch_size = 0;
  double layer_norm_eps = 1e-6;
  bool swapped_mlp_names = false; // older projector files call fc1 ffn_down and fc2 ffn_up
  int64_t patches_per_side() const { return image_size / patch_size; }
};

// vision_config of config.json; SiglipVisionConfig's defaults stand for what is left out.
Result<SiglipConfig> siglip_config_from_hf(const ModelFile& file);
Result<SiglipConfig> siglip_config_from_gguf(const ModelFile& projector);

// Rows of the tensor table that siglip_tower reads.
std::span<const TensorName> siglip_tensor_names();

// SiglipVisionModel without its head: last_hidden_state [patches, hidden_size], in merge-block
// order. kNoValue when a tensor is missing.
ValueId siglip_tower(Graph& g, WeightTable& w, const SiglipConfig& config);

} // namespace pinhole
