// Llama 3.2 Vision: a tower of two transformers over the tiles of a picture, and a decoder some of
// whose layers attend to pictures instead of earlier tokens. Source: transformers
// models/mllama/modeling_mllama.py; the reference's line stands above each call. No GGUF exists.
// Invariant: a picture's keys and values follow from the picture alone, so that the vision graph
// ends with them and the text graph reads what is stored.
#include "model/blocks.h"
#include "model/family.h"
#include "model/mllama_vision.h"
#include "model/picture_config.h"

#include <cmath>
#include <fmt/format.h>

namespace pinhole {

namespace {

// --- config ---

struct MllamaConfig {
  TextConfig text;
  Llama3Rope rope;
  std::vector<bool> cross; // by layer
  MllamaVision vision;
};

// MllamaTextConfig: what a configuration leaves out.
TextConfig text_defaults() {
  TextConfig c;
  c.hidden_size = 4096;
  c.intermediate_size = 14336;
  c.num_hidden_layers = 40;
  c.num_attention_heads = 32;
  c.num_key_value_heads = 8;
  c.vocab_size = 128256;
  c.max_position_embeddings = 131072;
  return c;
}

constexpr double kRopeTheta = 500000;
constexpr int64_t kInputOnlyIds = 8; // nn.Embedding(config.vocab_size + 8, ...)

tl::unexpected<Error> wrong(std::string message, const std::string& where) {
  return fail(ErrorCode::kInvalidInput, std::move(message), where);
}

Result<MllamaConfig> config_from_hf(const ModelFile& file) {
  MllamaConfig c;
  PINHOLE_TRY(c.text, text_config_from_hf(file, text_defaults(), RopeKeys::kOfFamily));
  const std::string where = file.config_path() + ", text_config";
  const Json* text = json_find(file.config(), "text_config");
  if (text == nullptr)
    return fail(ErrorCode::kNotFound, "text_config is missing", where);
  const HfReaderScope read(*text, where);
  PINHOLE_TRY(c.text.rms_norm_eps, read.number_or("rms_norm_eps", 1e-5));
  PINHOLE_TRY(c.rope, llama3_rope_from_hf(read, kRopeTheta));
  PINHOLE_CHECK(expect_json(read.object(), "hidden_act", "silu", read.where()));
  PINHOLE_TRY(const auto layers,
              read.integers_or("cross_attention_layers", {3, 8, 13, 18, 23, 28, 33, 38}, 0,
                               c.text.num_hidden_layers - 1));
  c.cross.assign(static_cast<size_t>(c.text.num_hidden_layers), false);
  for (const int64_t layer : layers)
    c.cross[static_cast<size_t>(layer)] = true;
  if (c.text.tie_word_embeddings)
    return fail(ErrorCode::kUnsupported, "tie_word_embeddings is not supported here", where);
  if (c.text.head_dim * c.text.num_attention_heads != c.text.hidden_size)
    return wrong(fmt::format("hidden_size {} is not num_attention_heads {} x head_dim {}",
                             c.text.hidden_size, c.text.num_attention_heads, c.text.head_dim),
                 where);
  PINHOLE_TRY(c.vision, mllama_vision_from_hf(file));
  return c;
}

// --- tensors: those of the decoder, and of cross-attention layers ---

constexpr TensorName kCrossNames[] = {
    {"layers.{}.input_layernorm", "", Role::kTextNorm},
    {"layers.{}.cross_attn.q_proj", "", Role::kTextAttention},
    {"layers.{}.cross_attn.k_proj", "", Role::kTextAttention},
    {"layers.{}.cross_attn.v_proj", "", Role::kTextAttention},
    {"layers.{}.cross_attn.o_proj", "", Role::kTextAttention},
    {"layers.{}.cross_attn.q_norm", "", Role::kTextNorm},
    {"layers.{}.cross_attn.k_norm", "", Role::kTextNorm},
    {"layers.{}.cross_attn_attn_gate", "", Role::kTextNorm},
    {"layers.{}.cross_attn_mlp_gate", "", Role::kTextNorm},
    {"layers.{}.post_attention_layernorm", "", Role::kTextNorm},
    {"layers.{}.mlp.gate_proj", "", Role::kTextMlp},
    {"layers.{}.mlp.up_proj", "", Role::kTextMlp},
    {"layers.{}.mlp.down_proj", "", Role::kTextMlp},
};
constexpr TensorName kProjectorNames[] = {{"multi_modal_projector", "", Role::kProjector}};

WeightTable text_table(const ModelFile& file, Graph& g, std::span<const TensorName> names) {
  return {
      file, g, names, {"language_model.model.", "model.language_model.", "language_model.", ""}};
}

// --- vision ---

// MllamaModel.forward up to the language model, and what MllamaTextCrossAttention keeps of it.
Status describe_pictures(const ModelFile& file, const MllamaConfig& config, Graph& g) {
  const TextConfig& c = config.text;
  const int64_t kv_dim = c.num_key_value_heads * c.head_dim;
  const auto eps = static_cast<float>(c.rms_norm_eps);
  WeightTable projector(file, g, kProjectorNames, {"", "model."});
  WeightTable w = text_table(file, g, kCrossNames);
  Status status;
  const ValueId hidden = mllama_tower(g, file, config.vision, status);
  PINHOLE_CHECK(status);
  const WeightId projection =
      projector.matrix("multi_modal_projector", c.hidden_size, config.vision.output_dim());
  const WeightId projection_bias = projector.bias("multi_modal_projector", c.hidden_size);
  PINHOLE_CHECK(projector.status());
  // cross_attention_states = self.multi_modal_projector(cross_attention_states)
  const ValueId states = g.matmul(hidden, projection, projection_bias);
  g.output(states, "features.0");
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    if (!config.cross[static_cast<size_t>(layer)])
      continue;
    const MatmulPart parts[] = {
        {w.matrix("layers.{}.cross_attn.k_proj", kv_dim, c.hidden_size, layer)},
        {w.matrix("layers.{}.cross_attn.v_proj", kv_dim, c.hidden_size, layer)}};
    const WeightId k_norm = w.vector("layers.{}.cross_attn.k_norm", c.head_dim, layer);
    PINHOLE_CHECK(w.status());
    // key_states = self.k_norm(self.k_proj(cross_attention_states))
    const std::vector<ValueId> kv = g.matmul_shared(states, parts);
    g.rms_norm_heads(kv[0], k_norm, eps, c.head_dim);
    g.store_picture_keys(kv[0], kv[1], layer, c.num_key_value_heads, c.head_dim);
  }
  return {};
}

// What the processor says must be what the tower was made for.
Result<PictureSpec> picture_spec(const ModelFile& file, const MllamaVision& c, int64_t text_size) {
  const std::string where = file.path() + "/preprocessor_config.json";
  PictureSpec spec;
  spec.patch_size = c.patch_size;
  spec.feature_size = text_size;
  spec.feature_slots = 0;
  spec.image_token = "<|image|>";
  spec.square_px = c.image_size;
  spec.max_tiles = c.max_num_tiles;
  spec.bilinear = true;
  spec.alpha_on_white = true;
  spec.min_pixels = spec.max_pixels = c.image_size * c.image_size;
  const Json& given = file.preprocessor_config();
  PINHOLE_CHECK(read_preprocessor_config(given, where, spec));
  const Json* size = given.is_object() ? json_find(given, "size") : nullptr;
  for (const auto& [object, key, expected] :
       {std::tuple(size, "height", c.image_size), std::tuple(size, "width", c.image_size),
        std::tuple(&given, "max_image_tiles", c.max_num_tiles)}) {
    if (object == nullptr || !object->is_object())
      continue;
    PINHOLE_TRY(const int64_t value, json_int_or(*object, key, expected, where));
    if (value != expected)
      return wrong(fmt::format("'{}' is {}, the vision part was made for {}", key, value, expected),
                   where);
  }
  return spec;
}

// --- text ---

struct PictureInputs {
  Graph::KeyRange keys;
  ValueId sees_picture;
};

// MllamaCrossAttentionDecoderLayer.forward
void describe_cross_layer(Graph& g, WeightTable& w, const TextConfig& c, int layer, ValueId x,
                          const PictureInputs& in) {
  const int64_t n = c.hidden_size;
  const auto eps = static_cast<float>(c.rms_norm_eps);
  const WeightId norm1 = w.vector("layers.{}.input_layernorm", n, layer);
  const WeightId q_proj = w.matrix("layers.{}.cross_attn.q_proj", n, n, layer);
  const WeightId q_norm = w.vector("layers.{}.cross_attn.q_norm", c.head_dim, layer);
  const WeightId o_proj = w.matrix("layers.{}.cross_attn.o_proj", n, n, layer);
  const Gate attn_gate{w.vector("layers.{}.cross_attn_attn_gate", 1, layer, "")};
  const WeightId norm2 = w.vector("layers.{}.post_attention_layernorm", n, layer);
  const MatmulPart mlp_parts[] = {
      {w.matrix("layers.{}.mlp.gate_proj", c.intermediate_size, n, layer)},
      {w.matrix("layers.{}.mlp.up_proj", c.intermediate_size, n, layer)}};
  const WeightId down = w.matrix("layers.{}.mlp.down_proj", n, c.intermediate_size, layer);
  const Gate mlp_gate{w.vector("layers.{}.cross_attn_mlp_gate", 1, layer, "")};
  if (!w.status())
    return;
  g.begin_block(layer);
  // if is_cross_attention_layer and cross_attention_states is None ...: continue
  g.begin_pictures_only(true);
  // query_states = self.q_norm(self.q_proj(self.input_layernorm(hidden_states)))
  const ValueId q = g.matmul(g.rms_norm(x, norm1, eps), q_proj);
  g.rms_norm_heads(q, q_norm, eps, c.head_dim);
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
  const ValueId attended = g.attention_to_pictures(q, in.keys, layer, c.num_attention_heads,
                                                   c.num_key_value_heads, c.head_dim, scale);
  // hidden_states = residual + self.cross_attn_attn_gate.tanh() * hidden_states
  g.add_gated(x, g.matmul(attended, o_proj), attn_gate);
  // hidden_states = full_text_row_masked_out_mask[:, 0] * self.mlp(...)
  // hidden_states = residual + self.cross_attn_mlp_gate.tanh() * hidden_states
  const std::vector<ValueId> gate_up = g.matmul_shared(g.rms_norm(x, norm2, eps), mlp_parts);
  const ValueId hidden = g.matmul(g.gated(gate_up[0], gate_up[1], Activation::kSilu), down);
  g.add_gated(x, hidden, mlp_gate, in.sees_picture);
  g.begin_pictures_only(false);
}

// MllamaTextModel.forward
Status describe_text(const ModelFile& file, const MllamaConfig& config, Graph& g) {
  const TextConfig& c = config.text;
  WeightTable w = text_table(file, g, decoder_tensor_names());
  WeightTable cross = text_table(file, g, kCrossNames);
  const TextInputs in = text_inputs(g, 1);
  const PictureInputs pictures{{g.input(InputKind::kPictureKeyBegin, 1, ElementType::kI32),
                                g.input(InputKind::kPictureKeyEnd, 1, ElementType::kI32)},
                               g.input(InputKind::kSeesPicture, 1, ElementType::kI32)};
  const WeightId embed_tokens =
      w.matrix("embed_tokens", c.vocab_size + kInputOnlyIds, c.hidden_size);
  PINHOLE_CHECK(w.status());
  // inputs_embeds = self.embed_tokens(input_ids)     the picture's id is an ordinary one
  const ValueId x = g.embed(in.ids, embed_tokens);
  std::vector<float> inv_freq = llama3_inv_freq(config.rope, c.head_dim);
  std::vector<uint8_t> axis(inv_freq.size(), 0);
  const Graph::RopeAngles angles = g.rope_table(in.positions, std::move(inv_freq), std::move(axis));
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    if (config.cross[static_cast<size_t>(layer)])
      describe_cross_layer(g, cross, c, layer, x, pictures);
    else
      decoder_layer(g, w, c, {}, layer, x, angles, in.keys);
    PINHOLE_CHECK(w.status());
    PINHOLE_CHECK(cross.status());
  }
  text_head(g, w, c, x, in.output_rows);
  return w.status();
}

} // namespace

Result<Model> describe_mllama(const ModelFiles& files) {
  const ModelFile& file = files.text;
  PINHOLE_TRY(const MllamaConfig config, config_from_hf(file));
  Model model;
  PINHOLE_CHECK(describe_pictures(file, config, model.vision));
  PINHOLE_TRY(model.pictures, picture_spec(file, config.vision, config.text.hidden_size));
  PINHOLE_CHECK(describe_text(file, config, model.text));
  set_text_config(model, config.text, 1);
  model.input_ids = config.text.vocab_size + kInputOnlyIds;
  model.cache.cross = config.cross;
  return model;
}

} // namespace pinhole
