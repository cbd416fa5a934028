#include "model/mllama_vision.h"

#include "model/vision_inputs.h"

#include <cmath>
#include <fmt/format.h>

namespace pinhole {

namespace {

constexpr TensorName kVisionNames[] = {
    {"patch_embedding", "", Role::kVisionEmbedding},
    {"class_embedding", "", Role::kVisionEmbedding},
    {"pre_tile_positional_embedding.embedding", "", Role::kVisionEmbedding},
    {"pre_tile_positional_embedding.gate", "", Role::kVisionNorm},
    {"gated_positional_embedding.embedding", "", Role::kVisionEmbedding},
    {"gated_positional_embedding.tile_embedding", "", Role::kVisionEmbedding},
    {"gated_positional_embedding.gate", "", Role::kVisionNorm},
    {"post_tile_positional_embedding.embedding", "", Role::kVisionEmbedding},
    {"post_tile_positional_embedding.gate", "", Role::kVisionNorm},
    {"layernorm_pre", "", Role::kVisionNorm},
    {"layernorm_post", "", Role::kVisionNorm},
};
constexpr TensorName kEncoderNames[] = {
    {"layers.{}.input_layernorm", "", Role::kVisionNorm},
    {"layers.{}.self_attn.q_proj", "", Role::kVisionAttention},
    {"layers.{}.self_attn.k_proj", "", Role::kVisionAttention},
    {"layers.{}.self_attn.v_proj", "", Role::kVisionAttention},
    {"layers.{}.self_attn.o_proj", "", Role::kVisionAttention},
    {"layers.{}.gate_attn", "", Role::kVisionNorm},
    {"layers.{}.post_attention_layernorm", "", Role::kVisionNorm},
    {"layers.{}.mlp.fc1", "", Role::kVisionMlp},
    {"layers.{}.mlp.fc2", "", Role::kVisionMlp},
    {"layers.{}.gate_ffn", "", Role::kVisionNorm},
};

constexpr int64_t kMaxSide = 1 << 14; // of a tile, in pixels
constexpr int64_t kMaxTiles = 64;
constexpr float kTorchNormEps = 1e-5f; // nn.LayerNorm's own, which layernorm_pre and _post take

tl::unexpected<Error> wrong(std::string message, const std::string& where) {
  return fail(ErrorCode::kInvalidInput, std::move(message), where);
}

// All canvases of at most so many tiles.
int64_t arrangements(int64_t max_tiles) {
  int64_t count = 0;
  for (int64_t rows = 1; rows <= max_tiles; ++rows)
    count += max_tiles / rows;
  return count;
}

// Ids of arrangements are counted by max_num_tiles; a list of others would number them otherwise.
Status check_arrangements(const HfReaderScope& read, int64_t max_tiles) {
  const Json* given = json_find(read.object(), "supported_aspect_ratios");
  Json expected = Json::array();
  for (int64_t rows = 1; rows <= max_tiles; ++rows) {
    for (int64_t cols = 1; cols <= max_tiles / rows; ++cols)
      expected.push_back({rows, cols});
  }
  if (given == nullptr ? max_tiles == 4 : *given == expected)
    return {};
  return fail(ErrorCode::kUnsupported,
              fmt::format("supported_aspect_ratios are not those of max_num_tiles {}", max_tiles),
              read.where());
}

} // namespace

Result<MllamaVision> mllama_vision_from_hf(const ModelFile& file) {
  const std::string where = file.config_path() + ", vision_config";
  const Json* vision = json_find(file.config(), "vision_config");
  if (vision == nullptr)
    return fail(ErrorCode::kNotFound, "vision_config is missing", where);
  const HfReaderScope read(*vision, where);
  MllamaVision c;
  PINHOLE_TRY(c.hidden_size, read.integer_or("hidden_size", 1280, 1, kMaxWidth));
  PINHOLE_TRY(c.intermediate_size, read.integer_or("intermediate_size", 5120, 1, kMaxWidth));
  PINHOLE_TRY(c.num_hidden_layers, read.integer_or("num_hidden_layers", 32, 1, kMaxCount));
  PINHOLE_TRY(c.num_global_layers, read.integer_or("num_global_layers", 8, 0, kMaxCount));
  PINHOLE_TRY(c.attention_heads, read.integer_or("attention_heads", 16, 1, kMaxCount));
  PINHOLE_TRY(c.image_size, read.integer_or("image_size", 448, 1, kMaxSide));
  PINHOLE_TRY(c.patch_size, read.integer_or("patch_size", 14, 1, 256));
  PINHOLE_TRY(c.max_num_tiles, read.integer_or("max_num_tiles", 4, 1, kMaxTiles));
  PINHOLE_TRY(c.norm_eps, read.number_or("norm_eps", 1e-5));
  PINHOLE_TRY(c.intermediate_layers_indices,
              read.integers_or("intermediate_layers_indices", {3, 7, 15, 23, 30}, 0,
                               c.num_hidden_layers - 1));
  PINHOLE_TRY(const int64_t channels, read.integer_or("num_channels", 3, 1, kMaxWidth));
  PINHOLE_TRY(const int64_t output_dim, read.integer_or("vision_output_dim", 7680, 1, INT32_MAX));
  PINHOLE_CHECK(expect_json(read.object(), "hidden_act", "gelu", read.where()));
  PINHOLE_CHECK(check_arrangements(read, c.max_num_tiles));
  if (c.hidden_size % c.attention_heads != 0)
    return wrong(fmt::format("hidden_size {} is not a multiple of attention_heads {}",
                             c.hidden_size, c.attention_heads),
                 where);
  if (c.image_size % c.patch_size != 0)
    return wrong(
        fmt::format("image_size {} is not a multiple of patch_size {}", c.image_size, c.patch_size),
        where);
  if (channels != 3)
    return wrong(fmt::format("num_channels is {}, expected 3", channels), where);
  if (output_dim != c.output_dim())
    return wrong(fmt::format("vision_output_dim is {}, expected {} x hidden_size {}", output_dim,
                             1 + c.intermediate_layers_indices.size(), c.hidden_size),
                 where);
  const int64_t tables = (arrangements(c.max_num_tiles) + 1) * c.max_num_tiles;
  if (c.tile_tokens() > INT32_MAX / tables)
    return wrong(fmt::format("image_size {} and patch_size {} make {} tokens of a tile",
                             c.image_size, c.patch_size, c.tile_tokens()),
                 where);
  if (!(c.norm_eps >= 0) || !std::isfinite(c.norm_eps))
    return wrong(fmt::format("norm_eps is {}, expected a small number", c.norm_eps), where);
  return c;
}

namespace {

struct Encoder { // one of the two transformers
  WeightTable& weights;
  bool is_gated = false;
};

void encoder_layer(Graph& g, const Encoder& encoder, const MllamaVision& c, int layer, ValueId x,
                   const Graph::KeyRange& keys) {
  WeightTable& w = encoder.weights;
  const int64_t n = c.hidden_size;
  const auto eps = static_cast<float>(c.norm_eps);
  const auto gate = [&](const char* name) {
    return Gate{encoder.is_gated ? w.vector(name, 1, layer, "") : kNoWeight};
  };
  const WeightId norm1 = w.vector("layers.{}.input_layernorm", n, layer);
  const WeightId norm1_bias = w.bias("layers.{}.input_layernorm", n, layer);
  const WeightId norm2 = w.vector("layers.{}.post_attention_layernorm", n, layer);
  const WeightId norm2_bias = w.bias("layers.{}.post_attention_layernorm", n, layer);
  const MatmulPart qkv_parts[] = {{w.matrix("layers.{}.self_attn.q_proj", n, n, layer)},
                                  {w.matrix("layers.{}.self_attn.k_proj", n, n, layer)},
                                  {w.matrix("layers.{}.self_attn.v_proj", n, n, layer)}};
  const WeightId o_proj = w.matrix("layers.{}.self_attn.o_proj", n, n, layer);
  const WeightId fc1 = w.matrix("layers.{}.mlp.fc1", c.intermediate_size, n, layer);
  const WeightId fc1_bias = w.bias("layers.{}.mlp.fc1", c.intermediate_size, layer);
  const WeightId fc2 = w.matrix("layers.{}.mlp.fc2", n, c.intermediate_size, layer);
  const WeightId fc2_bias = w.bias("layers.{}.mlp.fc2", n, layer);
  const Gate gate_attn = gate("layers.{}.gate_attn");
  const Gate gate_ffn = gate("layers.{}.gate_ffn");
  if (!w.status())
    return;
  const int64_t head_dim = n / c.attention_heads;
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  // hidden_state = self.self_attn(self.input_layernorm(hidden_state), attention_mask)
  const std::vector<ValueId> qkv =
      g.matmul_shared(g.layer_norm(x, norm1, norm1_bias, eps), qkv_parts);
  const ValueId attended =
      g.attention(qkv[0], qkv[1], qkv[2], keys, c.attention_heads, head_dim, scale);
  // hidden_state = residual + self.gate_attn.tanh() * hidden_state
  g.add_gated(x, g.matmul(attended, o_proj), gate_attn);
  // hidden_state = residual + self.gate_ffn.tanh() * self.mlp(self.post_attention_layernorm(...))
  const ValueId normed = g.layer_norm(x, norm2, norm2_bias, eps);
  const ValueId hidden = g.matmul(normed, fc1, fc1_bias, Activation::kGeluErf);
  g.add_gated(x, g.matmul(hidden, fc2, fc2_bias), gate_ffn);
}

// MllamaVisionModel.forward up to the transformers: x [rows, hidden_size].
ValueId embeddings(Graph& g, WeightTable& w, const MllamaVision& c, int64_t tables) {
  const int64_t n = c.hidden_size;
  const int64_t elements = 3 * c.patch_size * c.patch_size;
  const ValueId patches = g.input(InputKind::kPatches, elements, ElementType::kF32);
  const auto rows = [&](TileNumbering numbering) {
    return g.input(InputKind::kTileRows, 1, ElementType::kI32, {}, static_cast<int64_t>(numbering));
  };
  const WeightId kernel = w.matrix("patch_embedding", n, elements);
  const WeightId pre_tile =
      w.matrix_split("pre_tile_positional_embedding.embedding", tables, n, c.max_num_tiles);
  const WeightId pre_tile_gate = w.vector("pre_tile_positional_embedding.gate", 1, -1, "");
  const WeightId class_embedding = w.vector("class_embedding", n, -1, "");
  const WeightId position =
      w.matrix("gated_positional_embedding.embedding", c.tile_tokens(), n, -1, "");
  const WeightId gate = w.vector("gated_positional_embedding.gate", 1, -1, "");
  const WeightId tile =
      w.matrix_split("gated_positional_embedding.tile_embedding", tables * c.tile_tokens(), n,
                     c.max_num_tiles * c.tile_tokens());
  const WeightId norm = w.vector("layernorm_pre", n);
  const WeightId norm_bias = w.bias("layernorm_pre", n);
  if (!w.status())
    return kNoValue;
  // hidden_state = self.patch_embedding(pixel_values)     of class tokens and rows of nothing: 0
  const ValueId x = g.matmul(patches, kernel);
  // hidden_state = self.pre_tile_positional_embedding(hidden_state, aspect_ratio_ids)
  g.add_table_rows(x, rows(TileNumbering::kPatchTile), pre_tile, {pre_tile_gate});
  // hidden_state = self.apply_class_embedding(hidden_state)
  g.add_table_rows(x, rows(TileNumbering::kClass), class_embedding);
  // hidden_state + (1 - self.gate.tanh()) * self.embedding
  g.add_table_rows(x, rows(TileNumbering::kToken), position, {gate, true});
  // hidden_state + self.gate.tanh() * self.tile_embedding(aspect_ratio_ids)
  g.add_table_rows(x, rows(TileNumbering::kTokenOfTile), tile, {gate});
  // hidden_state = F.pad(self.layernorm_pre(hidden_state), padding, mode="constant", value=0)
  return g.gather_rows(g.layer_norm(x, norm, norm_bias, kTorchNormEps), rows(TileNumbering::kRow),
                       {});
}

} // namespace

ValueId mllama_tower(Graph& g, const ModelFile& file, const MllamaVision& c, Status& status) {
  const int64_t n = c.hidden_size;
  const int64_t num_states = c.output_dim() / n - 1;
  const int64_t tables = (arrangements(c.max_num_tiles) + 1) * c.max_num_tiles; // 0: no picture
  WeightTable w(file, g, kVisionNames, {"vision_model.", "model.vision_model."});
  WeightTable local(file, g, kEncoderNames,
                    {"vision_model.transformer.", "model.vision_model.transformer."});
  WeightTable global(
      file, g, kEncoderNames,
      {"vision_model.global_transformer.", "model.vision_model.global_transformer."});
  const Graph::KeyRange keys{g.input(InputKind::kKeyBegin, 1, ElementType::kI32),
                             g.input(InputKind::kKeyEnd, 1, ElementType::kI32)};
  const WeightId norm = w.vector("layernorm_post", n);
  const WeightId norm_bias = w.bias("layernorm_post", n);
  const WeightId post_tile =
      w.matrix_split("post_tile_positional_embedding.embedding", tables, n, c.max_num_tiles);
  const WeightId post_tile_gate = w.vector("post_tile_positional_embedding.gate", 1, -1, "");
  const ValueId all = g.new_value({}, c.output_dim());
  const auto broken = [&](const WeightTable& table) {
    status = table.status();
    return !status;
  };
  ValueId x = embeddings(g, w, c, tables);
  if (broken(w))
    return kNoValue;
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    g.begin_block(layer);
    encoder_layer(g, {local}, c, layer, x, keys);
    if (broken(local))
      return kNoValue;
    // torch.stack([output.hidden_states[i] for i in self.intermediate_layers_indices], dim=-1)
    for (int64_t i = 0; i < num_states; ++i) {
      if (c.intermediate_layers_indices[static_cast<size_t>(i)] == layer)
        g.put_columns(x, all, n + i, num_states);
    }
  }
  g.begin_block(-1);
  // hidden_state = self.post_tile_positional_embedding(self.layernorm_post(hidden_state), ...)
  x = g.layer_norm(x, norm, norm_bias, kTorchNormEps);
  const ValueId tile_rows = g.input(InputKind::kTileRows, 1, ElementType::kI32, {},
                                    static_cast<int64_t>(TileNumbering::kTile));
  g.add_table_rows(x, tile_rows, post_tile, {post_tile_gate});
  for (int layer = 0; layer < c.num_global_layers; ++layer) {
    g.begin_block(static_cast<int32_t>(c.num_hidden_layers) + layer);
    encoder_layer(g, {global, true}, c, layer, x, keys);
    if (broken(global))
      return kNoValue;
  }
  g.begin_block(-1);
  // hidden_state = torch.cat([hidden_state, intermediate_hidden_states], dim=-1)
  g.put_columns(x, all, 0);
  return all;
}

} // namespace pinhole
