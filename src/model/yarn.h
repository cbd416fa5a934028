// Rotary embeddings that YaRN stretches beyond the context a model was trained with, and queries
// that grow with the position. Sources: _compute_yarn_parameters of transformers'
// modeling_rope_utils.py; get_llama_4_attn_scale of models/ministral3/modeling_ministral3.py.
#pragma once

#include "model/config.h"
#include "model/graph.h"

#include <optional>

namespace pinhole {

struct YarnRope {
  double theta = 10000;
  bool is_scaled = false; // what follows counts
  double factor = 1;
  double beta_fast = 32;
  double beta_slow = 1;
  std::optional<double> mscale, mscale_all_dim, attention_factor;
  bool truncate = true;
  int64_t original_max_position_embeddings = 1;
  double query_growth = 0; // llama_4_scaling_beta
};

// rope_parameters (transformers 5), or rope_theta beside rope_scaling. Of the type "dynamic" the
// base alone is read: within max_position_embeddings nothing is scaled.
Result<YarnRope> yarn_rope_from_hf(const HfReaderScope& text, int64_t max_position_embeddings);
// "<arch>.rope.…", "<arch>.attention.temperature_scale".
Result<YarnRope> yarn_rope_from_gguf(const ModelFile& file, const std::string& arch,
                                     int64_t max_position_embeddings);

// The angles of keys and, where they differ, of queries.
struct YarnAngles {
  Graph::RopeAngles keys;
  std::optional<Graph::RopeAngles> queries;
};
YarnAngles yarn_angles(Graph& g, ValueId positions, const YarnRope& rope, int64_t head_dim);

// Parts of it, for tests.
std::vector<float> yarn_inv_freq(const YarnRope& rope, int64_t dim);
double yarn_attention_factor(const YarnRope& rope);

} // namespace pinhole
