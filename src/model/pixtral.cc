#include "model/pixtral.h"

#include "model/blocks.h"
#include "model/yarn.h"

#include <cmath>
#include <fmt/format.h>

namespace pinhole {

namespace {

constexpr float kNormEps = 1e-5f; // PixtralRMSNorm(…, eps=1e-5) throughout the tower

Status check(const PixtralConfig& c, const std::string& where) {
  if (c.hidden_size % c.num_attention_heads != 0 ||
      (c.hidden_size / c.num_attention_heads) % 4 != 0) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("vision hidden_size {} over num_attention_heads {} is not a multiple of "
                    "4, which 2D rope needs",
                    c.hidden_size, c.num_attention_heads),
        where);
  }
  if (!(c.rope_theta > 0) || !std::isfinite(c.rope_theta)) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("'rope_theta' is {}, expected a positive number", c.rope_theta), where);
  }
  return {};
}

constexpr TensorName kVisionNames[] = {
    {"patch_conv", "v.patch_embd", Role::kVisionEmbedding},
    {"ln_pre", "v.pre_ln", Role::kVisionNorm},
    {"transformer.layers.{}.attention_norm", "v.blk.{}.ln1", Role::kVisionNorm},
    {"transformer.layers.{}.ffn_norm", "v.blk.{}.ln2", Role::kVisionNorm},
    {"transformer.layers.{}.attention.q_proj", "v.blk.{}.attn_q", Role::kVisionAttention},
    {"transformer.layers.{}.attention.k_proj", "v.blk.{}.attn_k", Role::kVisionAttention},
    {"transformer.layers.{}.attention.v_proj", "v.blk.{}.attn_v", Role::kVisionAttention},
    {"transformer.layers.{}.attention.o_proj", "v.blk.{}.attn_out", Role::kVisionAttention},
    {"transformer.layers.{}.feed_forward.gate_proj", "v.blk.{}.ffn_gate", Role::kVisionMlp},
    {"transformer.layers.{}.feed_forward.up_proj", "v.blk.{}.ffn_up", Role::kVisionMlp},
    {"transformer.layers.{}.feed_forward.down_proj", "v.blk.{}.ffn_down", Role::kVisionMlp},
    // A row of the text model's embeddings, which is where it is read.
    {"img_break", "v.token_embd.img_break", Role::kVisionEmbedding},
};

constexpr TensorName kProjectorNames[] = {
    {"norm", "mm.input_norm", Role::kProjector},
    {"patch_merger.merging_layer", "mm.patch_merger", Role::kProjector},
    {"linear_1", "mm.1", Role::kProjector},
    {"linear_2", "mm.2", Role::kProjector},
};

// PixtralRotaryEmbedding: even frequencies from the row, odd ones from the column.
Graph::RopeAngles rope_2d(Graph& g, ValueId positions, double theta, int64_t head_dim) {
  const std::vector<float> freqs = rope_inv_freq(theta, head_dim);
  std::vector<float> inv_freq;
  std::vector<uint8_t> axis;
  for (const uint8_t component : {uint8_t{0}, uint8_t{1}}) {
    for (size_t i = component; i < freqs.size(); i += 2) {
      inv_freq.push_back(freqs[i]);
      axis.push_back(component);
    }
  }
  return g.rope_table(positions, std::move(inv_freq), std::move(axis));
}

// PixtralAttentionLayer.forward
void describe_vision_layer(Graph& g, WeightTable& w, const PixtralConfig& c, int layer, ValueId x,
                           const Graph::RopeAngles& angles, const Graph::KeyRange& keys) {
  const int64_t n = c.hidden_size;
  const std::string at = "transformer.layers.{}.";
  const WeightId norm1 = w.vector(at + "attention_norm", n, layer);
  const MatmulPart qkv_parts[] = {{w.matrix(at + "attention.q_proj", n, n, layer)},
                                  {w.matrix(at + "attention.k_proj", n, n, layer)},
                                  {w.matrix(at + "attention.v_proj", n, n, layer)}};
  const WeightId o_proj = w.matrix(at + "attention.o_proj", n, n, layer);
  const WeightId norm2 = w.vector(at + "ffn_norm", n, layer);
  const MatmulPart mlp_parts[] = {
      {w.matrix(at + "feed_forward.gate_proj", c.intermediate_size, n, layer)},
      {w.matrix(at + "feed_forward.up_proj", c.intermediate_size, n, layer)}};
  const WeightId down = w.matrix(at + "feed_forward.down_proj", n, c.intermediate_size, layer);
  if (!w.status())
    return;
  g.begin_block(layer);
  const int64_t head_dim = n / c.num_attention_heads;
  // hidden_states = residual + self.attention(self.attention_norm(hidden_states), …)
  const std::vector<ValueId> qkv = g.matmul_shared(g.rms_norm(x, norm1, kNormEps), qkv_parts);
  g.rope(qkv[0], angles, head_dim, c.interleaved_rope);
  g.rope(qkv[1], angles, head_dim, c.interleaved_rope);
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  const ValueId attended =
      g.attention(qkv[0], qkv[1], qkv[2], keys, c.num_attention_heads, head_dim, scale);
  g.matmul(attended, o_proj, kNoWeight, Activation::kNone, x);
  // hidden_states = residual + self.feed_forward(self.ffn_norm(hidden_states))
  const std::vector<ValueId> gate_up = g.matmul_shared(g.rms_norm(x, norm2, kNormEps), mlp_parts);
  g.matmul(g.gated(gate_up[0], gate_up[1], c.hidden_act), down, kNoWeight, Activation::kNone, x);
}

// PixtralVisionModel.forward: [patches, hidden_size]
ValueId describe_tower(Graph& g, WeightTable& w, const PixtralConfig& c) {
  const int64_t patch_elements = 3 * c.patch_size * c.patch_size;
  const ValueId patches = g.input(InputKind::kPatches, patch_elements, ElementType::kF32);
  const ValueId positions = g.input(InputKind::kPatchPositions, 2, ElementType::kI32);
  const Graph::KeyRange keys{g.input(InputKind::kKeyBegin, 1, ElementType::kI32),
                             g.input(InputKind::kKeyEnd, 1, ElementType::kI32)};
  const WeightId patch_conv = w.matrix("patch_conv", c.hidden_size, patch_elements);
  const WeightId ln_pre = w.vector("ln_pre", c.hidden_size);
  if (!w.status())
    return kNoValue;
  // patch_embeds = self.ln_pre(self.patch_conv(pixel_values))
  const ValueId x = g.rms_norm(g.matmul(patches, patch_conv), ln_pre, kNormEps);
  // position_embeddings = self.patch_positional_embedding(patch_embeds, position_ids)
  const Graph::RopeAngles angles =
      rope_2d(g, positions, c.rope_theta, c.hidden_size / c.num_attention_heads);
  for (int layer = 0; layer < c.num_hidden_layers && w.status(); ++layer)
    describe_vision_layer(g, w, c, layer, x, angles, keys);
  g.begin_block(-1);
  return x;
}

// LlavaMultiModalProjector.forward, Mistral3MultiModalProjector.forward
void describe_projector(Graph& g, WeightTable& w, const PixtralConfig& c, int64_t text_size,
                        double norm_eps, ValueId x) {
  const int64_t n = c.hidden_size;
  const int64_t unit = c.spatial_merge_size * c.spatial_merge_size;
  WeightId norm = kNoWeight;
  WeightId merging_layer = kNoWeight;
  if (c.has_merger) {
    norm = w.vector("norm", n);
    merging_layer = w.matrix("patch_merger.merging_layer", n, n * unit);
  }
  const auto bias = [&](const char* name) {
    return c.has_bias ? w.bias(name, text_size) : kNoWeight;
  };
  const WeightId linear_1 = w.matrix("linear_1", text_size, n);
  const WeightId bias_1 = bias("linear_1");
  const WeightId linear_2 = w.matrix("linear_2", text_size, text_size);
  const WeightId bias_2 = bias("linear_2");
  if (!w.status())
    return;
  if (c.has_merger) {
    // image_features = self.norm(image_features)
    const ValueId normed = g.rms_norm(x, norm, static_cast<float>(norm_eps));
    // torch.nn.functional.unfold(image_grid, kernel_size=self.spatial_merge_size, …)
    x = g.matmul(unit == 1 ? normed : g.regroup(normed, unit), merging_layer);
  }
  // hidden_states = self.linear_2(self.act(self.linear_1(image_features)))
  const ValueId hidden = g.matmul(x, linear_1, bias_1, Activation::kGeluErf);
  g.output(g.matmul(hidden, linear_2, bias_2), "features.0");
}

} // namespace

Result<PixtralConfig> pixtral_config_from_hf(const ModelFile& file, bool is_mistral3) {
  const std::string where = file.config_path() + ", vision_config";
  const Json& whole = file.config();
  const Json* vision = json_find(whole, "vision_config");
  if (vision == nullptr)
    return fail(ErrorCode::kNotFound, "vision_config is missing", where);
  PINHOLE_CHECK(expect_json(*vision, "model_type", "pixtral", where));
  PINHOLE_CHECK(expect_json(whole, "vision_feature_layer", -1, file.config_path()));
  PINHOLE_CHECK(expect_json(whole, "projector_hidden_act", "gelu", file.config_path()));
  if (!is_mistral3)
    PINHOLE_CHECK(expect_json(whole, "vision_feature_select_strategy", "full", file.config_path()));
  const HfReaderScope read(*vision, where);
  PixtralConfig c; // PixtralVisionConfig's defaults stand for what is left out
  PINHOLE_TRY(c.hidden_size, read.integer_or("hidden_size", 1024, 1, kMaxWidth));
  PINHOLE_TRY(c.intermediate_size, read.integer_or("intermediate_size", 4096, 1, kMaxWidth));
  PINHOLE_TRY(c.num_hidden_layers, read.integer_or("num_hidden_layers", 24, 1, kMaxCount));
  PINHOLE_TRY(c.num_attention_heads, read.integer_or("num_attention_heads", 16, 1, kMaxCount));
  PINHOLE_TRY(c.image_size, read.integer_or("image_size", 1024, 1, 1 << 14));
  PINHOLE_TRY(c.patch_size, read.integer_or("patch_size", 16, 1, 256));
  PINHOLE_TRY(const YarnRope rope, yarn_rope_from_hf(read, 1));
  c.rope_theta = rope.theta;
  const Json* act = json_find(*vision, "hidden_act");
  if (act == nullptr || *act == "gelu") {
    c.hidden_act = Activation::kGeluErf;
  } else {
    PINHOLE_CHECK(expect_json(*vision, "hidden_act", "silu", where));
  }
  c.has_merger = is_mistral3;
  if (is_mistral3) {
    const HfReaderScope outer(whole, file.config_path());
    PINHOLE_TRY(c.spatial_merge_size, outer.integer_or("spatial_merge_size", 2, 1, 16));
  }
  PINHOLE_TRY(c.has_bias,
              json_bool_or(whole, "multimodal_projector_bias", !is_mistral3, file.config_path()));
  PINHOLE_CHECK(check(c, where));
  return c;
}

Result<PixtralConfig> pixtral_config_from_gguf(const ModelFile& file) {
  const std::string v = "clip.vision.";
  PINHOLE_TRY(const std::string_view type, file.gguf().string("clip.projector_type"));
  if (type != "pixtral") {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("clip.projector_type is '{}', expected 'pixtral'", type), file.path(),
                "give the projector of this model with --mmproj");
  }
  PixtralConfig c;
  PINHOLE_TRY(c.hidden_size, gguf_integer(file, v + "embedding_length", 1, kMaxWidth));
  PINHOLE_TRY(c.intermediate_size, gguf_integer(file, v + "feed_forward_length", 1, kMaxWidth));
  PINHOLE_TRY(c.num_hidden_layers, gguf_integer(file, v + "block_count", 1, kMaxCount));
  PINHOLE_TRY(c.num_attention_heads, gguf_integer(file, v + "attention.head_count", 1, kMaxCount));
  PINHOLE_TRY(c.image_size, gguf_integer(file, v + "image_size", 1, 1 << 14));
  PINHOLE_TRY(c.patch_size, gguf_integer(file, v + "patch_size", 1, 256));
  PINHOLE_TRY(c.rope_theta, file.gguf().number_or("clip.rope.freq_base", 10000.0));
  PINHOLE_TRY(const bool is_gelu, file.gguf().boolean_or("clip.use_gelu", false));
  c.hidden_act = is_gelu ? Activation::kGeluErf : Activation::kSilu;
  PINHOLE_TRY(c.spatial_merge_size, gguf_integer_or(file, v + "spatial_merge_size", 1, 1, 16));
  c.has_merger = file.find("mm.patch_merger.weight") != nullptr;
  c.has_bias = file.find("mm.1.bias") != nullptr;
  c.interleaved_rope = true;
  if (!c.has_merger && c.spatial_merge_size != 1) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("spatial_merge_size is {}, but there is no 'mm.patch_merger.weight'",
                            c.spatial_merge_size),
                file.path());
  }
  PINHOLE_CHECK(check(c, file.path()));
  return c;
}

Status describe_pixtral(Graph& g, const ModelFile& file, const PixtralConfig& c, int64_t text_size,
                        double norm_eps) {
  WeightTable tower(file, g, kVisionNames, {"vision_tower.", "model.vision_tower."});
  const ValueId x = describe_tower(g, tower, c);
  if (c.interleaved_rope && tower.has("img_break", -1, ""))
    tower.vector("img_break", text_size, -1, "");
  PINHOLE_CHECK(tower.status());
  WeightTable projector(file, g, kProjectorNames,
                        {"multi_modal_projector.", "model.multi_modal_projector."});
  describe_projector(g, projector, c, text_size, norm_eps, x);
  return projector.status();
}

} // namespace pinhole
