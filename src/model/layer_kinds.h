// Decoders that mix layers of sliding and of full attention: which layer is which, the window, and
// each kind's rope. Source: convert_rope_params_to_dict of transformers'
// models/gemma3/configuration_gemma3.py.
#pragma once

#include "model/config.h"

namespace pinhole {

struct RopeBase {
  double theta = 10000;
  double factor = 1; // linear scaling: positions divided by it
};

struct LayerKinds {
  std::vector<bool> is_sliding; // by layer
  int64_t sliding_window = 0;   // keys that a token of a sliding layer sees, its own among them
  RopeBase full, sliding;
};

// What is left out takes its value from `defaults`; every `pattern`-th layer is then a full one.
// Reads layer_types or sliding_window_pattern; rope_parameters by kind, or rope_theta, rope_scaling
// (of the full layers) and rope_local_base_freq.
Result<LayerKinds> layer_kinds_from_hf(const HfReaderScope& text, int64_t num_layers,
                                       const LayerKinds& defaults, int64_t pattern);
// "<arch>.attention.sliding_window", "<arch>.rope.…".
Result<LayerKinds> layer_kinds_from_gguf(const ModelFile& file, const std::string& arch,
                                         int64_t num_layers, const LayerKinds& defaults,
                                         int64_t pattern);

} // namespace pinhole
