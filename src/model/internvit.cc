#include "model/internvit.h"

#include <cmath>
#include <fmt/format.h>

namespace pinhole {

namespace {

constexpr float kQkNormEps = 1e-6f;        // InternVLVisionRMSNorm
constexpr float kProjectorNormEps = 1e-5f; // nn.LayerNorm

Status check(const InternVitConfig& c, const std::string& where) {
  if (c.hidden_size % c.num_attention_heads != 0) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("vision hidden_size {} is not a multiple of num_attention_heads {}",
                            c.hidden_size, c.num_attention_heads),
                where);
  }
  if (c.image_size % (c.patch_size * c.downsample_side) != 0) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("image_size {} is not a multiple of patch_size {} x {}", c.image_size,
                            c.patch_size, c.downsample_side),
                where);
  }
  if (!(c.layer_norm_eps >= 0) || !std::isfinite(c.layer_norm_eps)) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("layer_norm_eps is {}, expected a small number", c.layer_norm_eps),
                where);
  }
  return {};
}

// A number, or a list of two that are equal.
Result<int64_t> square_side(const HfReaderScope& read, const char* key, int64_t fallback,
                            int64_t high) {
  const Json* value = json_find(read.object(), key);
  if (value == nullptr || !value->is_array())
    return read.integer_or(key, fallback, 1, high);
  PINHOLE_TRY(const std::vector<int64_t> sides, read.integers_or(key, {}, 1, high));
  if (sides.size() == 2 && sides[0] == sides[1])
    return sides[0];
  return fail(ErrorCode::kUnsupported, fmt::format("'{}' is not one side of a square", key),
              read.where());
}

constexpr TensorName kVisionNames[] = {
    {"embeddings.position_embeddings", "v.position_embd", Role::kVisionEmbedding},
    {"embeddings.cls_token", "v.class_embd", Role::kVisionEmbedding},
    {"embeddings.patch_embeddings.projection", "v.patch_embd", Role::kVisionEmbedding},
    {"encoder.layer.{}.layernorm_before", "v.blk.{}.ln1", Role::kVisionNorm},
    {"encoder.layer.{}.layernorm_after", "v.blk.{}.ln2", Role::kVisionNorm},
    {"encoder.layer.{}.lambda_1", "v.blk.{}.ls1", Role::kVisionNorm},
    {"encoder.layer.{}.lambda_2", "v.blk.{}.ls2", Role::kVisionNorm},
    {"encoder.layer.{}.attention.q_proj", "v.blk.{}.attn_q", Role::kVisionAttention},
    {"encoder.layer.{}.attention.k_proj", "v.blk.{}.attn_k", Role::kVisionAttention},
    {"encoder.layer.{}.attention.v_proj", "v.blk.{}.attn_v", Role::kVisionAttention},
    {"encoder.layer.{}.attention.q_norm", "v.blk.{}.attn_q_norm", Role::kVisionNorm},
    {"encoder.layer.{}.attention.k_norm", "v.blk.{}.attn_k_norm", Role::kVisionNorm},
    {"encoder.layer.{}.attention.projection_layer", "v.blk.{}.attn_out", Role::kVisionAttention},
    {"encoder.layer.{}.mlp.fc1", "v.blk.{}.ffn_up", Role::kVisionMlp},
    {"encoder.layer.{}.mlp.fc2", "v.blk.{}.ffn_down", Role::kVisionMlp},
    {"layernorm", "v.post_ln", Role::kVisionNorm},
};

constexpr TensorName kProjectorNames[] = {
    {"layer_norm", "mm.model.mlp.0", Role::kProjector},
    {"linear_1", "mm.model.mlp.1", Role::kProjector},
    {"linear_2", "mm.model.mlp.3", Role::kProjector},
};

// NORM2FN[config.norm_type]: the norm of that name, or nothing where a tensor is missing.
ValueId norm(Graph& g, WeightTable& w, const InternVitConfig& c, bool is_rms, std::string_view name,
             int layer, ValueId x) {
  const auto eps = static_cast<float>(c.layer_norm_eps);
  const WeightId weight = w.vector(name, c.hidden_size, layer);
  const WeightId bias = is_rms ? kNoWeight : w.bias(name, c.hidden_size, layer);
  if (!w.status())
    return kNoValue;
  return is_rms ? g.rms_norm(x, weight, eps) : g.layer_norm(x, weight, bias, eps);
}

// InternVLVisionLayer.forward
void describe_vision_layer(Graph& g, WeightTable& w, const InternVitConfig& c, int layer, ValueId x,
                           const Graph::KeyRange& keys) {
  const int64_t n = c.hidden_size;
  const std::string at = "encoder.layer.{}.";
  g.begin_block(layer);
  const ValueId normed = norm(g, w, c, c.is_rms_norm, at + "layernorm_before", layer, x);
  std::vector<MatmulPart> qkv_parts;
  for (const char* part : {"attention.q_proj", "attention.k_proj", "attention.v_proj"}) {
    const WeightId bias = c.attention_bias ? w.bias(at + part, n, layer) : kNoWeight;
    qkv_parts.push_back({w.matrix(at + part, n, n, layer), bias});
  }
  WeightId q_norm = kNoWeight;
  WeightId k_norm = kNoWeight;
  if (c.use_qk_norm) {
    q_norm = w.vector(at + "attention.q_norm", n, layer);
    k_norm = w.vector(at + "attention.k_norm", n, layer);
  }
  const WeightId out = w.matrix(at + "attention.projection_layer", n, n, layer);
  const WeightId out_bias = w.bias(at + "attention.projection_layer", n, layer);
  const WeightId lambda_1 = w.vector(at + "lambda_1", n, layer, c.suffix);
  const WeightId lambda_2 = w.vector(at + "lambda_2", n, layer, c.suffix);
  const WeightId fc1 = w.matrix(at + "mlp.fc1", c.intermediate_size, n, layer);
  const WeightId fc1_bias = w.bias(at + "mlp.fc1", c.intermediate_size, layer);
  const WeightId fc2 = w.matrix(at + "mlp.fc2", n, c.intermediate_size, layer);
  const WeightId fc2_bias = w.bias(at + "mlp.fc2", n, layer);
  if (!w.status())
    return;
  const std::vector<ValueId> qkv = g.matmul_shared(normed, qkv_parts);
  if (c.use_qk_norm) {
    // query_states = self.q_norm(query_states)   over all heads at once
    g.rms_norm_heads(qkv[0], q_norm, kQkNormEps, n);
    g.rms_norm_heads(qkv[1], k_norm, kQkNormEps, n);
  }
  const int64_t head_dim = n / c.num_attention_heads;
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  const ValueId attended =
      g.attention(qkv[0], qkv[1], qkv[2], keys, c.num_attention_heads, head_dim, scale);
  // hidden_states = self.lambda_1 * attention_output + hidden_states
  const ValueId attention_output = g.matmul(attended, out, out_bias);
  g.scale(attention_output, lambda_1);
  g.add(x, attention_output);
  // layer_output = self.lambda_2 * self.mlp(self.layernorm_after(hidden_states)) + hidden_states
  const ValueId normed2 = norm(g, w, c, c.is_rms_norm, at + "layernorm_after", layer, x);
  if (normed2 == kNoValue)
    return;
  const ValueId layer_output =
      g.matmul(g.matmul(normed2, fc1, fc1_bias, Activation::kGeluErf), fc2, fc2_bias);
  g.scale(layer_output, lambda_2);
  g.add(x, layer_output);
}

// InternVLVisionModel.forward: the rows of patches, without the class token
ValueId describe_tower(Graph& g, WeightTable& w, const InternVitConfig& c) {
  const int64_t n = c.hidden_size;
  const int64_t side = c.patches_per_side();
  const int64_t patch_elements = 3 * c.patch_size * c.patch_size;
  const RowCount with_class{RowSymbol::kItems, 1, 1};
  const ValueId patches = g.input(InputKind::kPatches, patch_elements, ElementType::kF32);
  // A grid of the table's own size: each patch has one corner, itself, of weight 1.
  const ValueId table_rows = g.input(InputKind::kTableRows, 4, ElementType::kI32, {}, side);
  const ValueId table_weights = g.input(InputKind::kTableWeights, 4, ElementType::kF32, {}, side);
  const Graph::KeyRange keys{g.input(InputKind::kKeyBegin, 1, ElementType::kI32, with_class),
                             g.input(InputKind::kKeyEnd, 1, ElementType::kI32, with_class)};
  const std::string_view positions = "embeddings.position_embeddings";
  const WeightId table = w.matrix_rows(positions, side * side + 1, n, 1, side * side, -1, c.suffix);
  const WeightId class_row = w.matrix_rows(positions, side * side + 1, n, 0, 1, -1, c.suffix);
  const WeightId cls_token = w.vector("embeddings.cls_token", n, -1, "");
  const WeightId kernel = w.matrix("embeddings.patch_embeddings.projection", n, patch_elements);
  const WeightId kernel_bias = w.bias("embeddings.patch_embeddings.projection", n);
  if (!w.status())
    return kNoValue;
  // embeddings = torch.cat((cls_tokens, self.patch_embeddings(pixel_values)), dim=1)
  // embeddings = embeddings + self.position_embeddings
  const ValueId x = g.new_value(with_class, n);
  const ValueId class_token = g.rows(x, 0, {RowSymbol::kOne});
  const ValueId of_patches = g.rows(x, 1, {});
  g.put_vector(class_token, cls_token, false);
  g.put_vector(class_token, class_row, true);
  g.matmul_into(of_patches, patches, kernel, kernel_bias);
  g.gather_weighted(of_patches, table_rows, table_weights, table);
  for (int layer = 0; layer < c.num_hidden_layers && w.status(); ++layer)
    describe_vision_layer(g, w, c, layer, x, keys);
  g.begin_block(-1);
  // vision_features = vision_features[:, 1:, :]
  return c.has_final_norm ? norm(g, w, c, false, "layernorm", -1, of_patches) : of_patches;
}

// pixel_shuffle and InternVLMultiModalProjector.forward
void describe_projector(Graph& g, WeightTable& w, const InternVitConfig& c, int64_t text_size,
                        ValueId x) {
  const int64_t unit = c.downsample_side * c.downsample_side;
  const int64_t wide = c.hidden_size * unit;
  const WeightId layer_norm = w.vector("layer_norm", wide);
  const WeightId layer_norm_bias = w.bias("layer_norm", wide);
  const WeightId linear_1 = w.matrix("linear_1", text_size, wide);
  const WeightId bias_1 = w.bias("linear_1", text_size);
  const WeightId linear_2 = w.matrix("linear_2", text_size, text_size);
  const WeightId bias_2 = w.bias("linear_2", text_size);
  if (!w.status())
    return;
  // vision_features = self.pixel_shuffle(vision_features, scale_factor=downsample_ratio)
  const ValueId blocks = g.merge_rows(x, unit);
  // hidden_states = self.linear_2(self.act(self.linear_1(self.layer_norm(image_features))))
  const ValueId normed = g.layer_norm(blocks, layer_norm, layer_norm_bias, kProjectorNormEps);
  const ValueId hidden = g.matmul(normed, linear_1, bias_1, Activation::kGeluErf);
  g.output(g.matmul(hidden, linear_2, bias_2), "features.0");
}

} // namespace

Result<InternVitConfig> internvit_config_from_hf(const ModelFile& file) {
  const std::string where = file.config_path() + ", vision_config";
  const Json& whole = file.config();
  const Json* vision = json_find(whole, "vision_config");
  if (vision == nullptr)
    return fail(ErrorCode::kNotFound, "vision_config is missing", where);
  PINHOLE_CHECK(expect_json(whole, "vision_feature_layer", -1, file.config_path()));
  PINHOLE_CHECK(
      expect_json(whole, "vision_feature_select_strategy", "default", file.config_path()));
  PINHOLE_CHECK(expect_json(whole, "projector_hidden_act", "gelu", file.config_path()));
  PINHOLE_CHECK(expect_json(*vision, "hidden_act", "gelu", where));
  PINHOLE_CHECK(expect_json(*vision, "use_absolute_position_embeddings", true, where));
  PINHOLE_CHECK(expect_json(*vision, "use_mask_token", false, where));
  const HfReaderScope read(*vision, where);
  InternVitConfig c;
  PINHOLE_TRY(c.hidden_size, read.integer_or("hidden_size", 1024, 1, kMaxWidth));
  PINHOLE_TRY(c.intermediate_size, read.integer_or("intermediate_size", 4096, 1, kMaxWidth));
  PINHOLE_TRY(c.num_hidden_layers, read.integer_or("num_hidden_layers", 24, 1, kMaxCount));
  PINHOLE_TRY(c.num_attention_heads, read.integer_or("num_attention_heads", 16, 1, kMaxCount));
  PINHOLE_TRY(c.image_size, square_side(read, "image_size", 448, 1 << 14));
  PINHOLE_TRY(c.patch_size, square_side(read, "patch_size", 14, 256));
  PINHOLE_TRY(c.layer_norm_eps, read.number_or("layer_norm_eps", 1e-6));
  PINHOLE_TRY(c.attention_bias, json_bool_or(*vision, "attention_bias", false, where));
  PINHOLE_TRY(c.use_qk_norm, json_bool_or(*vision, "use_qk_norm", false, where));
  PINHOLE_TRY(const bool pooled, json_bool_or(*vision, "use_mean_pooling", true, where));
  c.has_final_norm = !pooled;
  const Json* norm = json_find(*vision, "norm_type");
  c.is_rms_norm = norm != nullptr && *norm == "rms_norm";
  if (!c.is_rms_norm)
    PINHOLE_CHECK(expect_json(*vision, "norm_type", "layer_norm", where));
  PINHOLE_TRY(const double ratio, json_double_or(whole, "downsample_ratio", 0.5, where));
  if (!(ratio > 1.0 / 16) || ratio > 1) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("'downsample_ratio' is {}, expected 1/16 to 1", ratio),
                file.config_path());
  }
  c.downsample_side = static_cast<int64_t>(1 / ratio);
  PINHOLE_CHECK(check(c, where));
  return c;
}

Result<InternVitConfig> internvit_config_from_gguf(const ModelFile& file) {
  const std::string v = "clip.vision.";
  PINHOLE_TRY(const std::string_view type, file.gguf().string("clip.projector_type"));
  if (type != "internvl") {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("clip.projector_type is '{}', expected 'internvl'", type), file.path(),
                "give the projector of this model with --mmproj");
  }
  InternVitConfig c;
  PINHOLE_TRY(c.hidden_size, gguf_integer(file, v + "embedding_length", 1, kMaxWidth));
  PINHOLE_TRY(c.intermediate_size, gguf_integer(file, v + "feed_forward_length", 1, kMaxWidth));
  PINHOLE_TRY(c.num_hidden_layers, gguf_integer(file, v + "block_count", 1, kMaxCount));
  PINHOLE_TRY(c.num_attention_heads, gguf_integer(file, v + "attention.head_count", 1, kMaxCount));
  PINHOLE_TRY(c.image_size, gguf_integer(file, v + "image_size", 1, 1 << 14));
  PINHOLE_TRY(c.patch_size, gguf_integer(file, v + "patch_size", 1, 256));
  PINHOLE_TRY(c.layer_norm_eps,
              file.gguf().number_or(v + "attention.layer_norm_epsilon", c.layer_norm_eps));
  PINHOLE_TRY(c.downsample_side, gguf_integer_or(file, v + "projector.scale_factor", 2, 1, 16));
  c.attention_bias = file.find("v.blk.0.attn_q.bias") != nullptr;
  c.use_qk_norm = file.find("v.blk.0.attn_q_norm.weight") != nullptr;
  c.is_rms_norm = file.find("v.blk.0.ln1.bias") == nullptr;
  c.has_final_norm = file.find("v.post_ln.weight") != nullptr;
  c.suffix = ".weight";
  PINHOLE_CHECK(check(c, file.path()));
  return c;
}

Status describe_internvit(Graph& g, const ModelFile& file, const InternVitConfig& c,
                          int64_t text_size) {
  WeightTable tower(file, g, kVisionNames, {"vision_tower.", "model.vision_tower."});
  const ValueId x = describe_tower(g, tower, c);
  PINHOLE_CHECK(tower.status());
  WeightTable projector(file, g, kProjectorNames,
                        {"multi_modal_projector.", "model.multi_modal_projector."});
  describe_projector(g, projector, c, text_size, x);
  return projector.status();
}

} // namespace pinhole
