// Gemma 3: a SigLIP tower whose patches are averaged to a fixed number of tokens, and a decoder
// with windowed and full layers. Source: transformers models/gemma3/modeling_gemma3.py and
// siglip/modeling_siglip.py; the reference's line stands above each call. GGUF: architecture
// gemma3, projector type gemma3. Invariant: norms are x / rms(x) * (1 + w); GGUF files hold 1 + w,
// Hugging Face's w.
#include "model/blocks.h"
#include "model/family.h"
#include "model/layer_kinds.h"
#include "model/picture_config.h"
#include "model/siglip.h"

#include <cmath>
#include <fmt/format.h>

namespace pinhole {

namespace {

// --- config ---

struct DecoderConfig {
  TextConfig text;
  LayerKinds kinds;
  double query_pre_attn_scalar = 256;
  float norm_offset = 1;
};

// Gemma3TextConfig: the hub's files leave out what is as here.
TextConfig text_defaults() {
  TextConfig c;
  c.hidden_size = 2304;
  c.intermediate_size = 9216;
  c.num_hidden_layers = 26;
  c.num_attention_heads = 8;
  c.num_key_value_heads = 4;
  c.head_dim = 256;
  c.vocab_size = 262208;
  c.max_position_embeddings = 131072;
  c.tie_word_embeddings = true;
  return c;
}

LayerKinds kind_defaults() {
  LayerKinds kinds;
  kinds.sliding_window = 4096;
  kinds.full.theta = 1e6;
  kinds.sliding.theta = 1e4;
  return kinds;
}
constexpr int64_t kSlidingWindowPattern = 6; // every 6th layer is a full one

// What no published Gemma 3 has and the graph below does not compute.
Status refuse_unknown(const Json& text, const std::string& where) {
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    if (json_find(text, key) != nullptr)
      return fail(ErrorCode::kUnsupported, fmt::format("'{}' is not supported here", key), where);
  }
  for (const char* key : {"attention_bias", "use_bidirectional_attention"}) {
    PINHOLE_TRY(const bool set, json_bool_or(text, key, false, where));
    if (set)
      return fail(ErrorCode::kUnsupported, fmt::format("'{}' is not supported here", key), where);
  }
  return {};
}

Result<DecoderConfig> decoder_config_from_hf(const ModelFile& file) {
  DecoderConfig c;
  PINHOLE_TRY(c.text, text_config_from_hf(file, text_defaults(), RopeKeys::kOfFamily));
  const Json* nested = json_find(file.config(), "text_config");
  const std::string where = file.config_path() + ", text_config";
  const HfReaderScope read(nested != nullptr ? *nested : file.config(), where);
  PINHOLE_CHECK(refuse_unknown(read.object(), where));
  PINHOLE_TRY(c.query_pre_attn_scalar, read.number_or("query_pre_attn_scalar", 256));
  if (!(c.query_pre_attn_scalar > 0) || !std::isfinite(c.query_pre_attn_scalar)) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("'query_pre_attn_scalar' is {}, expected a positive number",
                            c.query_pre_attn_scalar),
                where);
  }
  PINHOLE_TRY(c.kinds, layer_kinds_from_hf(read, c.text.num_hidden_layers, kind_defaults(),
                                           kSlidingWindowPattern));
  return c;
}

Result<DecoderConfig> decoder_config_from_gguf(const ModelFile& file) {
  DecoderConfig c;
  c.norm_offset = 0;
  PINHOLE_TRY(c.text, text_config_from_gguf(file, "gemma3"));
  // Files do not say it: the one of 62 layers (27B) takes hidden_size / heads, the others head_dim.
  constexpr int64_t kLayersOf27B = 62;
  const TextConfig& text = c.text;
  c.query_pre_attn_scalar = static_cast<double>(text.num_hidden_layers == kLayersOf27B
                                                    ? text.hidden_size / text.num_attention_heads
                                                    : text.head_dim);
  PINHOLE_TRY(c.kinds, layer_kinds_from_gguf(file, "gemma3", text.num_hidden_layers,
                                             kind_defaults(), kSlidingWindowPattern));
  return c;
}

// --- tensors ---

constexpr TensorName kDecoderNames[] = {
    {"embed_tokens", "token_embd", Role::kTextEmbedding},
    {"layers.{}.input_layernorm", "blk.{}.attn_norm", Role::kTextNorm},
    {"layers.{}.self_attn.q_proj", "blk.{}.attn_q", Role::kTextAttention},
    {"layers.{}.self_attn.k_proj", "blk.{}.attn_k", Role::kTextAttention},
    {"layers.{}.self_attn.v_proj", "blk.{}.attn_v", Role::kTextAttention},
    {"layers.{}.self_attn.o_proj", "blk.{}.attn_output", Role::kTextAttention},
    {"layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm", Role::kTextNorm},
    {"layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm", Role::kTextNorm},
    {"layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm", Role::kTextNorm},
    {"layers.{}.pre_feedforward_layernorm", "blk.{}.ffn_norm", Role::kTextNorm},
    {"layers.{}.post_feedforward_layernorm", "blk.{}.post_ffw_norm", Role::kTextNorm},
    {"layers.{}.mlp.gate_proj", "blk.{}.ffn_gate", Role::kTextMlp},
    {"layers.{}.mlp.up_proj", "blk.{}.ffn_up", Role::kTextMlp},
    {"layers.{}.mlp.down_proj", "blk.{}.ffn_down", Role::kTextMlp},
    {"norm", "output_norm", Role::kTextNorm},
    {"lm_head", "output", Role::kTextOutput},
};

constexpr TensorName kProjectorNames[] = {
    {"mm_soft_emb_norm", "mm.soft_emb_norm", Role::kProjector},
    {"mm_input_projection_weight", "mm.input_projection", Role::kProjector}, // [vision, text]
};

// --- vision ---

// Gemma3MultiModalProjector; x [patches, vision hidden] comes in blocks of kernel_size squared.
void describe_projector(Graph& g, WeightTable& w, const SiglipConfig& c, int64_t kernel_size,
                        int64_t text_size, bool is_gguf, ValueId x) {
  const int64_t n = c.hidden_size;
  const int64_t unit = kernel_size * kernel_size;
  const WeightId norm = w.vector("mm_soft_emb_norm", n);
  const WeightId projection =
      w.matrix_transposed("mm_input_projection_weight", text_size, n, -1, is_gguf ? ".weight" : "");
  if (!w.status())
    return;
  // pooled_vision_outputs = self.avg_pool(reshaped_vision_outputs)
  // normed_vision_outputs = self.mm_soft_emb_norm(pooled_vision_outputs)
  // Here of the sum, which is `unit` times the mean: eps grows with its square.
  const ValueId blocks = g.merge_rows(x, unit);
  const ValueId sum = g.columns(blocks, 0, n);
  for (int64_t i = 1; i < unit; ++i)
    g.add(sum, g.columns(blocks, i * n, n));
  const auto eps = static_cast<float>(c.layer_norm_eps * static_cast<double>(unit * unit));
  const ValueId normed = g.rms_norm(sum, norm, eps, is_gguf ? 0.0f : 1.0f);
  // projected_vision_outputs = torch.matmul(normed_vision_outputs, self.mm_input_projection_weight)
  g.output(g.matmul(normed, projection), "features.0");
}

// Patches of a side that become one token.
Result<int64_t> pooling_size(const ModelFile& file, const SiglipConfig& c, bool is_gguf) {
  constexpr int64_t kMaxPooling = 256;
  const int64_t patches = c.patches_per_side();
  int64_t kernel = 0;
  int64_t tokens = 0;
  if (is_gguf) {
    PINHOLE_TRY(kernel,
                gguf_integer_or(file, "clip.vision.projector.scale_factor", 4, 1, kMaxPooling));
    tokens = (patches / kernel) * (patches / kernel);
  } else {
    const HfReaderScope read(file.config(), file.config_path());
    PINHOLE_TRY(tokens, read.integer_or("mm_tokens_per_image", 256, 1, kMaxVocab));
    // self.kernel_size = self.patches_per_image // int(config.mm_tokens_per_image**0.5)
    kernel = patches / static_cast<int64_t>(std::sqrt(static_cast<double>(tokens)));
  }
  if (kernel < 1 || kernel > kMaxPooling || kernel * kernel * tokens != patches * patches) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("{} x {} patches do not divide into {} tokens", patches, patches, tokens),
        file.path());
  }
  return kernel;
}

Result<PictureSpec> describe_pictures(const ModelFile& file, Graph& g, int64_t text_size) {
  const bool is_gguf = file.container() == Container::kGguf;
  SiglipConfig vision;
  if (is_gguf) {
    PINHOLE_TRY(const std::string_view type, file.gguf().string("clip.projector_type"));
    if (type != "gemma3") {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("clip.projector_type is '{}', expected 'gemma3'", type), file.path(),
                  "give the projector of this model with --mmproj");
    }
    PINHOLE_TRY(vision, siglip_config_from_gguf(file));
  } else {
    PINHOLE_TRY(vision, siglip_config_from_hf(file));
  }
  PINHOLE_TRY(const int64_t kernel_size, pooling_size(file, vision, is_gguf));
  WeightTable tower(file, g, siglip_tensor_names(),
                    {"vision_tower.vision_model.", "model.vision_tower.vision_model.",
                     "model.vision_tower.", "vision_tower."});
  const ValueId x = siglip_tower(g, tower, vision);
  PINHOLE_CHECK(tower.status());
  WeightTable projector(file, g, kProjectorNames,
                        {"multi_modal_projector.", "model.multi_modal_projector."});
  describe_projector(g, projector, vision, kernel_size, text_size, is_gguf, x);
  PINHOLE_CHECK(projector.status());

  PictureSpec spec;
  spec.patch_size = vision.patch_size;
  spec.merge_size = kernel_size;
  spec.feature_size = text_size;
  spec.image_token = "<image_soft_token>";
  // self.full_image_sequence
  spec.picture_mark = "<start_of_image>";
  spec.before = "\n\n<start_of_image>";
  spec.after = "<end_of_image>\n\n";
  spec.sees_itself_whole = true;
  spec.square_px = vision.image_size;
  spec.bilinear = true;
  spec.min_pixels = spec.max_pixels = vision.image_size * vision.image_size;
  if (is_gguf) {
    PINHOLE_CHECK(read_clip_config(file, spec));
  } else {
    PINHOLE_CHECK(read_preprocessor_config(file.preprocessor_config(),
                                           file.path() + "/preprocessor_config.json", spec));
  }
  return spec;
}

// --- text ---

struct Kind { // of layers: what sliding and full ones differ in
  Graph::RopeAngles angles;
  Graph::KeyRange keys;
};

// Gemma3DecoderLayer.forward
void describe_layer(Graph& g, WeightTable& w, const DecoderConfig& config, int layer, ValueId x,
                    const Kind& kind) {
  const TextConfig& c = config.text;
  const int64_t q_dim = c.num_attention_heads * c.head_dim;
  const int64_t kv_dim = c.num_key_value_heads * c.head_dim;
  const auto eps = static_cast<float>(c.rms_norm_eps);
  const float offset = config.norm_offset;
  const WeightId norm1 = w.vector("layers.{}.input_layernorm", c.hidden_size, layer);
  const MatmulPart qkv_parts[] = {
      {w.matrix("layers.{}.self_attn.q_proj", q_dim, c.hidden_size, layer)},
      {w.matrix("layers.{}.self_attn.k_proj", kv_dim, c.hidden_size, layer)},
      {w.matrix("layers.{}.self_attn.v_proj", kv_dim, c.hidden_size, layer)}};
  const WeightId q_norm = w.vector("layers.{}.self_attn.q_norm", c.head_dim, layer);
  const WeightId k_norm = w.vector("layers.{}.self_attn.k_norm", c.head_dim, layer);
  const WeightId o_proj = w.matrix("layers.{}.self_attn.o_proj", c.hidden_size, q_dim, layer);
  const WeightId norm2 = w.vector("layers.{}.post_attention_layernorm", c.hidden_size, layer);
  const WeightId norm3 = w.vector("layers.{}.pre_feedforward_layernorm", c.hidden_size, layer);
  const WeightId norm4 = w.vector("layers.{}.post_feedforward_layernorm", c.hidden_size, layer);
  const MatmulPart mlp_parts[] = {
      {w.matrix("layers.{}.mlp.gate_proj", c.intermediate_size, c.hidden_size, layer)},
      {w.matrix("layers.{}.mlp.up_proj", c.intermediate_size, c.hidden_size, layer)}};
  const WeightId down =
      w.matrix("layers.{}.mlp.down_proj", c.hidden_size, c.intermediate_size, layer);
  if (!w.status())
    return;
  g.begin_block(layer);
  // hidden_states = self.input_layernorm(hidden_states)
  const std::vector<ValueId> qkv = g.matmul_shared(g.rms_norm(x, norm1, eps, offset), qkv_parts);
  // query_states = self.q_norm(query_states); key_states = self.k_norm(key_states)
  g.rms_norm_heads(qkv[0], q_norm, eps, c.head_dim, offset);
  g.rms_norm_heads(qkv[1], k_norm, eps, c.head_dim, offset);
  // query_states, key_states = apply_rotary_pos_emb(query_states, key_states, cos, sin)
  g.rope(qkv[0], kind.angles, c.head_dim);
  g.rope(qkv[1], kind.angles, c.head_dim);
  g.kv_store(qkv[1], qkv[2], layer, c.num_key_value_heads, c.head_dim);
  // self.scaling = config.query_pre_attn_scalar**-0.5
  const auto scale = static_cast<float>(1.0 / std::sqrt(config.query_pre_attn_scalar));
  const ValueId attended = g.attention_cached(qkv[0], kind.keys, layer, c.num_attention_heads,
                                              c.num_key_value_heads, c.head_dim, scale);
  // hidden_states = residual + self.post_attention_layernorm(self.o_proj(attn_output))
  g.add(x, g.rms_norm(g.matmul(attended, o_proj), norm2, eps, offset));
  // hidden_states = self.mlp(self.pre_feedforward_layernorm(hidden_states))   gelu_pytorch_tanh
  const std::vector<ValueId> gate_up =
      g.matmul_shared(g.rms_norm(x, norm3, eps, offset), mlp_parts);
  const ValueId hidden = g.matmul(g.gated(gate_up[0], gate_up[1], Activation::kGeluTanh), down);
  // hidden_states = residual + self.post_feedforward_layernorm(hidden_states)
  g.add(x, g.rms_norm(hidden, norm4, eps, offset));
}

Graph::RopeAngles rope_angles(Graph& g, ValueId positions, const RopeBase& rope, int64_t head_dim) {
  std::vector<float> inv_freq = rope_inv_freq(rope.theta, head_dim);
  for (float& frequency : inv_freq)
    frequency /= static_cast<float>(rope.factor);
  std::vector<uint8_t> axis(inv_freq.size(), 0);
  return g.rope_table(positions, std::move(inv_freq), std::move(axis));
}

// Gemma3TextModel.forward
void describe_text(Graph& g, WeightTable& w, const DecoderConfig& config) {
  const TextConfig& c = config.text;
  const TextInputs in = text_inputs(g, 1);
  const int64_t window = config.kinds.sliding_window;
  const Graph::KeyRange windowed{g.input(InputKind::kKeyBegin, 1, ElementType::kI32, {}, window),
                                 g.input(InputKind::kKeyEnd, 1, ElementType::kI32, {}, window)};
  const WeightId embed_tokens = w.matrix("embed_tokens", c.vocab_size, c.hidden_size);
  if (!w.status())
    return;
  // super().forward(input_ids) * self.embed_scale     hidden_size**0.5, of text alone
  const auto embed_scale = static_cast<float>(std::sqrt(static_cast<double>(c.hidden_size)));
  const ValueId x = g.embed(in.ids, embed_tokens, embed_scale);
  // inputs_embeds = inputs_embeds.masked_scatter(special_image_mask, image_features)
  g.put_rows(x, in.feature_rows, 0, false);
  // position_embeddings[layer_type] = self.rotary_emb(hidden_states, position_ids, layer_type)
  const Kind full{rope_angles(g, in.positions, config.kinds.full, c.head_dim), in.keys};
  const Kind sliding{rope_angles(g, in.positions, config.kinds.sliding, c.head_dim), windowed};
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    const bool is_sliding = config.kinds.is_sliding[static_cast<size_t>(layer)];
    describe_layer(g, w, config, layer, x, is_sliding ? sliding : full);
    if (!w.status())
      return;
  }
  text_head(g, w, c, x, in.output_rows, config.norm_offset);
}

} // namespace

Result<Model> describe_gemma3(const ModelFiles& files) {
  const bool is_gguf = files.text.container() == Container::kGguf;
  DecoderConfig config;
  if (is_gguf) {
    PINHOLE_TRY(config, decoder_config_from_gguf(files.text));
  } else {
    PINHOLE_TRY(config, decoder_config_from_hf(files.text));
  }
  Model model;
  if (!is_gguf || files.projector) {
    PINHOLE_TRY(model.pictures, describe_pictures(files.projector ? *files.projector : files.text,
                                                  model.vision, config.text.hidden_size));
  }
  WeightTable w(files.text, model.text, kDecoderNames,
                {"language_model.model.", "model.language_model.", "model.", ""});
  describe_text(model.text, w, config);
  PINHOLE_CHECK(w.status());
  set_text_config(model, config.text, 1);
  model.cache.window = config.kinds.sliding_window;
  model.cache.sliding = config.kinds.is_sliding;
  return model;
}

} // namespace pinhole
