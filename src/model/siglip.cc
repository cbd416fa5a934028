#include "model/siglip.h"

#include <cmath>
#include <fmt/format.h>

namespace pinhole {

namespace {

constexpr TensorName kSiglipNames[] = {
    {"embeddings.patch_embedding", "v.patch_embd", Role::kVisionEmbedding},
    {"embeddings.position_embedding", "v.position_embd", Role::kVisionEmbedding},
    {"encoder.layers.{}.layer_norm1", "v.blk.{}.ln1", Role::kVisionNorm},
    {"encoder.layers.{}.layer_norm2", "v.blk.{}.ln2", Role::kVisionNorm},
    {"encoder.layers.{}.self_attn.q_proj", "v.blk.{}.attn_q", Role::kVisionAttention},
    {"encoder.layers.{}.self_attn.k_proj", "v.blk.{}.attn_k", Role::kVisionAttention},
    {"encoder.layers.{}.self_attn.v_proj", "v.blk.{}.attn_v", Role::kVisionAttention},
    {"encoder.layers.{}.self_attn.out_proj", "v.blk.{}.attn_out", Role::kVisionAttention},
    {"encoder.layers.{}.mlp.fc1", "v.blk.{}.ffn_up", Role::kVisionMlp},
    {"encoder.layers.{}.mlp.fc2", "v.blk.{}.ffn_down", Role::kVisionMlp},
    {"post_layernorm", "v.post_ln", Role::kVisionNorm},
};

constexpr int64_t kMaxSide = 1 << 14; // of a picture, in pixels

Status check(const SiglipConfig& c, const std::string& where) {
  if (c.hidden_size % c.num_attention_heads != 0) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("vision hidden_size {} is not a multiple of num_attention_heads {}",
                            c.hidden_size, c.num_attention_heads),
                where);
  }
  if (c.image_size % c.patch_size != 0) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("image_size {} is not a multiple of patch_size {}", c.image_size, c.patch_size),
        where);
  }
  if (!(c.layer_norm_eps >= 0) || !std::isfinite(c.layer_norm_eps)) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("layer_norm_eps is {}, expected a small number", c.layer_norm_eps),
                where);
  }
  return {};
}

} // namespace

std::span<const TensorName> siglip_tensor_names() { return kSiglipNames; }

Result<SiglipConfig> siglip_config_from_hf(const ModelFile& file) {
  const std::string where = file.config_path() + ", vision_config";
  const Json* vision = json_find(file.config(), "vision_config");
  if (vision == nullptr)
    return fail(ErrorCode::kNotFound, "vision_config is missing", where);
  const HfReaderScope read(*vision, where);
  SiglipConfig c;
  PINHOLE_TRY(c.hidden_size, read.integer_or("hidden_size", 768, 1, kMaxWidth));
  PINHOLE_TRY(c.intermediate_size, read.integer_or("intermediate_size", 3072, 1, kMaxWidth));
  PINHOLE_TRY(c.num_hidden_layers, read.integer_or("num_hidden_layers", 12, 1, kMaxCount));
  PINHOLE_TRY(c.num_attention_heads, read.integer_or("num_attention_heads", 12, 1, kMaxCount));
  PINHOLE_TRY(c.image_size, read.integer_or("image_size", 224, 1, kMaxSide));
  PINHOLE_TRY(c.patch_size, read.integer_or("patch_size", 16, 1, 256));
  PINHOLE_TRY(c.layer_norm_eps, read.number_or("layer_norm_eps", 1e-6));
  PINHOLE_CHECK(check(c, where));
  return c;
}

Result<SiglipConfig> siglip_config_from_gguf(const ModelFile& file) {
  SiglipConfig c;
  const std::string v = "clip.vision.";
  PINHOLE_TRY(c.hidden_size, gguf_integer(file, v + "embedding_length", 1, kMaxWidth));
  PINHOLE_TRY(c.intermediate_size, gguf_integer(file, v + "feed_forward_length", 1, kMaxWidth));
  PINHOLE_TRY(c.num_hidden_layers, gguf_integer(file, v + "block_count", 1, kMaxCount));
  PINHOLE_TRY(c.num_attention_heads, gguf_integer(file, v + "attention.head_count", 1, kMaxCount));
  PINHOLE_TRY(c.image_size, gguf_integer(file, v + "image_size", 1, kMaxSide));
  PINHOLE_TRY(c.patch_size, gguf_integer(file, v + "patch_size", 1, 256));
  PINHOLE_TRY(c.layer_norm_eps,
              file.gguf().number_or(v + "attention.layer_norm_epsilon", c.layer_norm_eps));
  const Tensor* up = file.find("v.blk.0.ffn_up.weight");
  c.swapped_mlp_names = up != nullptr && up->rows() == c.hidden_size &&
                        up->cols() == c.intermediate_size && c.hidden_size != c.intermediate_size;
  PINHOLE_CHECK(check(c, file.path()));
  return c;
}

ValueId siglip_tower(Graph& g, WeightTable& w, const SiglipConfig& c) {
  const int64_t n = c.hidden_size;
  const int64_t side = c.patches_per_side();
  const auto eps = static_cast<float>(c.layer_norm_eps);
  const int64_t patch_elements = 3 * c.patch_size * c.patch_size;
  const ValueId patches = g.input(InputKind::kPatches, patch_elements, ElementType::kF32);
  // A grid of the table's own size: each patch has one corner, itself, of weight 1.
  const ValueId table_rows = g.input(InputKind::kTableRows, 4, ElementType::kI32, {}, side);
  const ValueId table_weights = g.input(InputKind::kTableWeights, 4, ElementType::kF32, {}, side);
  const Graph::KeyRange keys{g.input(InputKind::kKeyBegin, 1, ElementType::kI32),
                             g.input(InputKind::kKeyEnd, 1, ElementType::kI32)};
  const WeightId kernel = w.matrix("embeddings.patch_embedding", n, patch_elements);
  const WeightId kernel_bias = w.bias("embeddings.patch_embedding", n);
  const WeightId table = w.matrix("embeddings.position_embedding", side * side, n);
  const WeightId post = w.vector("post_layernorm", n);
  const WeightId post_bias = w.bias("post_layernorm", n);
  if (!w.status())
    return kNoValue;
  // embeddings = self.patch_embedding(pixel_values) + self.position_embedding(self.position_ids)
  const ValueId x = g.matmul(patches, kernel, kernel_bias);
  g.gather_weighted(x, table_rows, table_weights, table);

  const int64_t head_dim = n / c.num_attention_heads;
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  const auto* fc1_name =
      c.swapped_mlp_names ? "encoder.layers.{}.mlp.fc2" : "encoder.layers.{}.mlp.fc1";
  const auto* fc2_name =
      c.swapped_mlp_names ? "encoder.layers.{}.mlp.fc1" : "encoder.layers.{}.mlp.fc2";
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    g.begin_block(layer);
    const WeightId norm1 = w.vector("encoder.layers.{}.layer_norm1", n, layer);
    const WeightId norm1_bias = w.bias("encoder.layers.{}.layer_norm1", n, layer);
    const WeightId norm2 = w.vector("encoder.layers.{}.layer_norm2", n, layer);
    const WeightId norm2_bias = w.bias("encoder.layers.{}.layer_norm2", n, layer);
    std::vector<MatmulPart> qkv_parts;
    for (const char* name :
         {"encoder.layers.{}.self_attn.q_proj", "encoder.layers.{}.self_attn.k_proj",
          "encoder.layers.{}.self_attn.v_proj"}) {
      qkv_parts.push_back({w.matrix(name, n, n, layer), w.bias(name, n, layer)});
    }
    const WeightId out = w.matrix("encoder.layers.{}.self_attn.out_proj", n, n, layer);
    const WeightId out_bias = w.bias("encoder.layers.{}.self_attn.out_proj", n, layer);
    const WeightId fc1 = w.matrix(fc1_name, c.intermediate_size, n, layer);
    const WeightId fc1_bias = w.bias(fc1_name, c.intermediate_size, layer);
    const WeightId fc2 = w.matrix(fc2_name, n, c.intermediate_size, layer);
    const WeightId fc2_bias = w.bias(fc2_name, n, layer);
    if (!w.status())
      return kNoValue;
    // hidden_states = residual + self.self_attn(self.layer_norm1(hidden_states))
    const std::vector<ValueId> qkv =
        g.matmul_shared(g.layer_norm(x, norm1, norm1_bias, eps), qkv_parts);
    const ValueId attended =
        g.attention(qkv[0], qkv[1], qkv[2], keys, c.num_attention_heads, head_dim, scale);
    g.matmul(attended, out, out_bias, Activation::kNone, x);
    // hidden_states = residual + self.mlp(self.layer_norm2(hidden_states))   act gelu_pytorch_tanh
    const ValueId normed = g.layer_norm(x, norm2, norm2_bias, eps);
    const ValueId hidden = g.matmul(normed, fc1, fc1_bias, Activation::kGeluTanh);
    g.matmul(hidden, fc2, fc2_bias, Activation::kNone, x);
  }
  g.begin_block(-1);
  // last_hidden_state = self.post_layernorm(last_hidden_state)
  return g.layer_norm(x, post, post_bias, eps);
}

} // namespace pinhole
