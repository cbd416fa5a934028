#include "model/blocks.h"

#include <cmath>

namespace pinhole {

namespace {

constexpr TensorName kDecoderNames[] = {
    {"embed_tokens", "token_embd", Role::kTextEmbedding},
    {"layers.{}.input_layernorm", "blk.{}.attn_norm", Role::kTextNorm},
    {"layers.{}.self_attn.q_proj", "blk.{}.attn_q", Role::kTextAttention},
    {"layers.{}.self_attn.k_proj", "blk.{}.attn_k", Role::kTextAttention},
    {"layers.{}.self_attn.v_proj", "blk.{}.attn_v", Role::kTextAttention},
    {"layers.{}.self_attn.o_proj", "blk.{}.attn_output", Role::kTextAttention},
    {"layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm", Role::kTextNorm},
    {"layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm", Role::kTextNorm},
    {"layers.{}.post_attention_layernorm", "blk.{}.ffn_norm", Role::kTextNorm},
    {"layers.{}.mlp.gate_proj", "blk.{}.ffn_gate", Role::kTextMlp},
    {"layers.{}.mlp.up_proj", "blk.{}.ffn_up", Role::kTextMlp},
    {"layers.{}.mlp.down_proj", "blk.{}.ffn_down", Role::kTextMlp},
    {"layers.{}.mlp.gate", "blk.{}.ffn_gate_inp", Role::kTextRouter},
    {"layers.{}.mlp.experts.gate_up_proj", "", Role::kTextExpert}, // gate rows, then up rows
    {"layers.{}.mlp.experts.gate_proj", "blk.{}.ffn_gate_exps", Role::kTextExpert},
    {"layers.{}.mlp.experts.up_proj", "blk.{}.ffn_up_exps", Role::kTextExpert},
    {"layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps", Role::kTextExpert},
    {"norm", "output_norm", Role::kTextNorm},
    {"lm_head", "output", Role::kTextOutput},
};

// down_proj(act_fn(gate_proj(x)) * up_proj(x))
void dense_mlp(Graph& g, WeightTable& w, const TextConfig& c, int layer, ValueId x,
               ValueId normed) {
  const MatmulPart parts[] = {
      {w.matrix("layers.{}.mlp.gate_proj", c.intermediate_size, c.hidden_size, layer)},
      {w.matrix("layers.{}.mlp.up_proj", c.intermediate_size, c.hidden_size, layer)}};
  const WeightId down =
      w.matrix("layers.{}.mlp.down_proj", c.hidden_size, c.intermediate_size, layer);
  if (!w.status())
    return;
  const std::vector<ValueId> gate_up = g.matmul_shared(normed, parts);
  const ValueId hidden = g.gated(gate_up[0], gate_up[1], Activation::kSilu);
  g.matmul(hidden, down, kNoWeight, Activation::kNone, x);
}

// Qwen3VLMoeTextSparseMoeBlock: softmax over all experts in f32, top-k, renormalise; an expert is
// down(silu(gate(x)) * up(x)) with gate and up fused on the hub, gate first.
void sparse_mlp(Graph& g, WeightTable& w, const TextConfig& c, int layer, ValueId x,
                ValueId normed) {
  const int64_t experts = c.num_experts;
  const int64_t ffn = c.moe_intermediate_size;
  const int64_t hidden = c.hidden_size;
  const WeightId router = w.matrix("layers.{}.mlp.gate", experts, hidden, layer);
  WeightId gate, up, down;
  if (w.has("layers.{}.mlp.experts.gate_up_proj", layer, "")) {
    const std::string_view fused = "layers.{}.mlp.experts.gate_up_proj";
    gate = w.experts(fused, experts, 2 * ffn, hidden, 0, ffn, layer, "");
    up = w.experts(fused, experts, 2 * ffn, hidden, ffn, ffn, layer, "");
    down = w.experts("layers.{}.mlp.experts.down_proj", experts, hidden, ffn, 0, hidden, layer, "");
  } else {
    gate = w.experts("layers.{}.mlp.experts.gate_proj", experts, ffn, hidden, 0, ffn, layer,
                     ".weight");
    up = w.experts("layers.{}.mlp.experts.up_proj", experts, ffn, hidden, 0, ffn, layer, ".weight");
    down = w.experts("layers.{}.mlp.experts.down_proj", experts, hidden, ffn, 0, hidden, layer,
                     ".weight");
  }
  if (!w.status())
    return;
  const ValueId logits = g.matmul(normed, router);
  const Graph::Routing routing = g.route(logits, c.num_experts_per_tok, c.norm_topk_prob);
  g.moe(normed, x, routing, gate, up, down, Activation::kSilu);
}

} // namespace

std::span<const TensorName> decoder_tensor_names() { return kDecoderNames; }

std::vector<float> rope_inv_freq(double theta, int64_t dim) {
  // 1.0 / (base ** (torch.arange(0, dim, 2).float() / dim))
  std::vector<float> out;
  for (int64_t i = 0; i < dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(dim);
    out.push_back(1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent))));
  }
  return out;
}

std::vector<uint8_t> mrope_axes(const TextConfig& config, bool interleaved) {
  const auto half = static_cast<size_t>(config.head_dim / 2);
  std::vector<uint8_t> axes(half, 0);
  const auto& section = config.mrope_section;
  if (interleaved) {
    for (size_t axis = 1; axis <= 2; ++axis) {
      const auto end = std::min<size_t>(half, static_cast<size_t>(3 * section[axis]));
      for (size_t i = axis; i < end; i += 3)
        axes[i] = static_cast<uint8_t>(axis);
    }
  } else {
    for (size_t i = 0; i < half; ++i) {
      const auto slot = static_cast<int64_t>(i);
      axes[i] = slot < section[0] ? 0 : slot < section[0] + section[1] ? 1 : 2;
    }
  }
  return axes;
}

TextInputs text_inputs(Graph& g, int64_t position_axes) {
  TextInputs in{};
  in.ids = g.input(InputKind::kTokenIds, 1, ElementType::kI32);
  in.positions = g.input(InputKind::kPositions, position_axes, ElementType::kI32);
  in.keys.begin = g.input(InputKind::kKeyBegin, 1, ElementType::kI32);
  in.keys.end = g.input(InputKind::kKeyEnd, 1, ElementType::kI32);
  in.feature_rows = g.input(InputKind::kFeatureRows, 1, ElementType::kI32);
  in.output_rows = g.input(InputKind::kOutputRows, 1, ElementType::kI32, {RowSymbol::kOutputs, 1});
  return in;
}

void decoder_layer(Graph& g, WeightTable& w, const TextConfig& c, const DecoderOptions& options,
                   int layer, ValueId x, const Graph::RopeAngles& angles,
                   const Graph::KeyRange& keys) {
  const int64_t q_dim = c.num_attention_heads * c.head_dim;
  const int64_t kv_dim = c.num_key_value_heads * c.head_dim;
  const auto eps = static_cast<float>(c.rms_norm_eps);
  const auto bias = [&](std::string_view name, int64_t n) {
    return options.qkv_bias ? w.bias(name, n, layer) : kNoWeight;
  };
  const WeightId norm1 = w.vector("layers.{}.input_layernorm", c.hidden_size, layer);
  const MatmulPart qkv_parts[] = {
      {w.matrix("layers.{}.self_attn.q_proj", q_dim, c.hidden_size, layer),
       bias("layers.{}.self_attn.q_proj", q_dim)},
      {w.matrix("layers.{}.self_attn.k_proj", kv_dim, c.hidden_size, layer),
       bias("layers.{}.self_attn.k_proj", kv_dim)},
      {w.matrix("layers.{}.self_attn.v_proj", kv_dim, c.hidden_size, layer),
       bias("layers.{}.self_attn.v_proj", kv_dim)}};
  const WeightId o_proj = w.matrix("layers.{}.self_attn.o_proj", c.hidden_size, q_dim, layer);
  const WeightId norm2 = w.vector("layers.{}.post_attention_layernorm", c.hidden_size, layer);
  WeightId q_norm = kNoWeight;
  WeightId k_norm = kNoWeight;
  if (options.qk_norm) {
    q_norm = w.vector("layers.{}.self_attn.q_norm", c.head_dim, layer);
    k_norm = w.vector("layers.{}.self_attn.k_norm", c.head_dim, layer);
  }
  if (!w.status())
    return;

  g.begin_block(layer);
  // hidden_states = self.input_layernorm(hidden_states)
  const ValueId normed = g.rms_norm(x, norm1, eps);
  // q [tokens, heads, head_dim], k and v [tokens, kv_heads, head_dim]
  const std::vector<ValueId> qkv = g.matmul_shared(normed, qkv_parts);
  if (options.qk_norm) {
    g.rms_norm_heads(qkv[0], q_norm, eps, c.head_dim);
    g.rms_norm_heads(qkv[1], k_norm, eps, c.head_dim);
  }
  // query_states, key_states = apply_rotary_pos_emb(query_states, key_states, cos, sin)
  g.rope(qkv[0], options.query_angles.value_or(angles), c.head_dim, options.interleaved_rope);
  g.rope(qkv[1], angles, c.head_dim, options.interleaved_rope);
  g.kv_store(qkv[1], qkv[2], layer, c.num_key_value_heads, c.head_dim);
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
  const ValueId attended = g.attention_cached(qkv[0], keys, layer, c.num_attention_heads,
                                              c.num_key_value_heads, c.head_dim, scale);
  // hidden_states = residual + self.o_proj(attn_output)
  g.matmul(attended, o_proj, kNoWeight, Activation::kNone, x);
  // hidden_states = residual + self.mlp(self.post_attention_layernorm(hidden_states))
  const ValueId normed2 = g.rms_norm(x, norm2, eps);
  if (c.is_sparse(layer)) {
    sparse_mlp(g, w, c, layer, x, normed2);
  } else {
    dense_mlp(g, w, c, layer, x, normed2);
  }
}

void text_head(Graph& g, WeightTable& w, const TextConfig& c, ValueId x, ValueId output_rows,
               float norm_offset) {
  const WeightId norm = w.vector("norm", c.hidden_size);
  // Some files keep lm_head although the embeddings are tied; the tie is what counts.
  const WeightId head =
      w.matrix(c.tie_word_embeddings ? "embed_tokens" : "lm_head", c.vocab_size, c.hidden_size);
  if (!w.status())
    return;
  g.begin_block(-1);
  const ValueId last = g.gather_rows(x, output_rows, {RowSymbol::kOutputs, 1});
  const ValueId normed = g.rms_norm(last, norm, static_cast<float>(c.rms_norm_eps), norm_offset);
  g.output(g.matmul(normed, head), "logits");
}

void set_text_config(Model& model, const TextConfig& c, int64_t position_axes) {
  model.hidden_size = c.hidden_size;
  model.vocab_size = model.input_ids = c.vocab_size;
  model.context_length = c.max_position_embeddings;
  model.position_axes = position_axes;
  model.cache = {c.num_hidden_layers, c.num_key_value_heads, c.head_dim};
  model.eos_token_ids = c.eos_token_ids;
}

void vision_attention(Graph& g, WeightTable& w, const VisionAttention& spec, int layer, ValueId x,
                      ValueId normed) {
  const int64_t n = spec.hidden_size;
  std::vector<MatmulPart> parts;
  if (w.has("blocks.{}.attn.qkv", layer) || !w.has("blocks.{}.attn.q", layer)) {
    parts = {{w.matrix("blocks.{}.attn.qkv", 3 * n, n, layer),
              w.bias("blocks.{}.attn.qkv", 3 * n, layer)}};
  } else {
    for (const char* name : {"blocks.{}.attn.q", "blocks.{}.attn.k", "blocks.{}.attn.v"}) {
      parts.push_back({w.matrix(name, n, n, layer), w.bias(name, n, layer)});
    }
  }
  const WeightId proj = w.matrix("blocks.{}.attn.proj", n, n, layer);
  const WeightId proj_bias = w.bias("blocks.{}.attn.proj", n, layer);
  if (!w.status())
    return;

  const int64_t head_dim = n / spec.num_heads;
  std::vector<ValueId> qkv = g.matmul_shared(normed, parts);
  if (qkv.size() == 1) {
    // qkv(hidden_states).reshape(seq_length, 3, self.num_heads, -1): q, k, v side by side
    const ValueId all = qkv[0];
    qkv = {g.columns(all, 0, n), g.columns(all, n, n), g.columns(all, 2 * n, n)};
  }
  g.rope(qkv[0], spec.angles, head_dim);
  g.rope(qkv[1], spec.angles, head_dim);
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  const ValueId attended =
      g.attention(qkv[0], qkv[1], qkv[2], spec.keys, spec.num_heads, head_dim, scale);
  g.matmul(attended, proj, proj_bias, Activation::kNone, x);
}

Graph::RopeAngles vision_rope(Graph& g, ValueId patch_positions, int64_t head_dim) {
  const std::vector<float> quarter = rope_inv_freq(10000.0, head_dim / 2);
  std::vector<float> inv_freq;
  std::vector<uint8_t> axis;
  for (const uint8_t component : {uint8_t{0}, uint8_t{1}}) {
    inv_freq.insert(inv_freq.end(), quarter.begin(), quarter.end());
    axis.insert(axis.end(), quarter.size(), component);
  }
  return g.rope_table(patch_positions, std::move(inv_freq), std::move(axis));
}

ValueId patch_embed(Graph& g, WeightTable& w, bool has_bias, int64_t hidden_size,
                    int64_t patch_size, int64_t frames, ValueId patches) {
  const int64_t cols = 3 * frames * patch_size * patch_size;
  const WeightId kernel = w.matrix("patch_embed.proj", hidden_size, cols);
  const WeightId bias = has_bias ? w.bias("patch_embed.proj", hidden_size) : kNoWeight;
  const bool second = w.has("patch_embed.proj", -1, ".weight.1");
  const WeightId kernel2 =
      second ? w.matrix("patch_embed.proj", hidden_size, cols, -1, ".weight.1") : kNoWeight;
  if (!w.status())
    return kNoValue;
  const ValueId x = g.matmul(patches, kernel, bias);
  if (second)
    g.matmul(patches, kernel2, kNoWeight, Activation::kNone, x);
  return x;
}

} // namespace pinhole
