// The tower of Llama 3.2 Vision as a shared piece: a transformer over all tiles of a picture at
// once, then a second one with gates; the output has the second's state beside states of the
// first. Source: MllamaVisionModel of transformers' models/mllama/modeling_mllama.py.
#pragma once

#include "model/blocks.h"

namespace pinhole {

struct MllamaVision {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_global_layers = 0;
  int64_t attention_heads = 0;
  int64_t image_size = 0;
  int64_t patch_size = 0;
  int64_t max_num_tiles = 0;
  std::vector<int64_t> intermediate_layers_indices;
  double norm_eps = 1e-5;

  int64_t side() const { return image_size / patch_size; }
  int64_t tile_tokens() const { return side() * side() + 1; }
  int64_t output_dim() const {
    return hidden_size * (1 + static_cast<int64_t>(intermediate_layers_indices.size()));
  }
};

// vision_config of config.json; MllamaVisionConfig's defaults stand for what is left out.
Result<MllamaVision> mllama_vision_from_hf(const ModelFile& file);

// last_hidden_state [rows, output_dim] in the order of PatchGrid's rows; kNoValue, and the problem
// in `status`, when a tensor is missing.
ValueId mllama_tower(Graph& g, const ModelFile& file, const MllamaVision& config, Status& status);

} // namespace pinhole
