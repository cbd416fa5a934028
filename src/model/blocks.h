// Pieces that several families share, described with graph ops. Each mirrors the transformers
// module named above it; a family composes them and adds what is its own.
#pragma once

#include "model/config.h"
#include "model/graph.h"
#include "model/weight_table.h"

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace pinhole {

// inv_freq of rotary embeddings: theta^(-2i/dim), i < dim/2, computed as transformers does in f32.
std::vector<float> rope_inv_freq(double theta, int64_t dim);

// Llama 3's scaling: long waves are `factor` times as long, short ones stay, and those between go
// over smoothly. Source: _compute_llama3_parameters of transformers' modeling_rope_utils.py.
struct Llama3Rope {
  double theta = 10000;
  double factor = 1; // 1: no scaling
  double low_freq_factor = 1, high_freq_factor = 4;
  double original_max_position_embeddings = 8192;
};
// From rope_parameters (transformers 5), or rope_theta and rope_scaling; of the types default and
// llama3.
Result<Llama3Rope> llama3_rope_from_hf(const HfReaderScope& text, double default_theta);
std::vector<float> llama3_inv_freq(const Llama3Rope& rope, int64_t dim);

// Which of (time, height, width) drives each of head_dim/2 angles. Interleaved (Qwen3-VL): height
// at 1, 4, 7 … below 3*section[1], width at 2, 5, 8 … below 3*section[2], time elsewhere. Chunked
// (Qwen2-VL, Qwen2.5-VL): time, then height, then width.
std::vector<uint8_t> mrope_axes(const TextConfig& config, bool interleaved);

// Inputs that every decoder-only text model reads.
struct TextInputs {
  ValueId ids, positions, feature_rows, output_rows;
  Graph::KeyRange keys;
};
TextInputs text_inputs(Graph& g, int64_t position_axes);

struct DecoderOptions {
  bool qk_norm = false;  // RMSNorm per head on q and k (Qwen3)
  bool qkv_bias = false; // biases on q, k, v (Qwen2)
  // Rows of q_proj and k_proj are sorted so that pairs stand side by side (GGUF, architecture
  // llama).
  bool interleaved_rope = false;
  std::optional<Graph::RopeAngles> query_angles = std::nullopt; // where q's are not those of k
};

// One pre-norm decoder layer: x += attention(norm(x)); x += mlp(norm(x)), dense or mixture of
// experts.
void decoder_layer(Graph& g, WeightTable& w, const TextConfig& config,
                   const DecoderOptions& options, int layer, ValueId x,
                   const Graph::RopeAngles& angles, const Graph::KeyRange& keys);

// Final norm and lm_head on the wanted rows; output "logits".
// `norm_offset` is added to the norm's weights.
void text_head(Graph& g, WeightTable& w, const TextConfig& config, ValueId x, ValueId output_rows,
               float norm_offset = 0);

// Fills the parts of `model` that follow from the text config: sizes, cache, end-of-sequence ids.
void set_text_config(Model& model, const TextConfig& config, int64_t position_axes);

// Rows of the tensor table that decoder_layer and text_head read (llama.cpp's names beside HF's).
std::span<const TensorName> decoder_tensor_names();

// Vision attention over one picture: fused qkv, 2D rope, full or windowed.
struct VisionAttention {
  int64_t hidden_size = 0;
  int64_t num_heads = 0;
  Graph::RopeAngles angles;
  Graph::KeyRange keys;
};
// x += proj(attention(normed)); weights "blocks.{}.attn.qkv" (one matrix, or q, k, v apart in
// GGUF).
void vision_attention(Graph& g, WeightTable& w, const VisionAttention& spec, int layer, ValueId x,
                      ValueId normed);

// Angles of 2D vision rope: the first half of a head's angles from the row, the second from the
// column; theta 10000 over head_dim / 2 dimensions.
Graph::RopeAngles vision_rope(Graph& g, ValueId patch_positions, int64_t head_dim);

// Flattened patches times the convolution's kernel: one matrix in HF files, one per frame in GGUF
// (a still picture has the same pixels in both frames, so both read the same x).
ValueId patch_embed(Graph& g, WeightTable& w, bool has_bias, int64_t hidden_size,
                    int64_t patch_size, int64_t frames, ValueId patches);

} // namespace pinhole
