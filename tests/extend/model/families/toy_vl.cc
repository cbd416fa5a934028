// toy_vl, made up for tests/extend: a decoder whose attention and MLP read the same LayerNorm
// (as GPT-J's), plain rope, and a picture tower of one layer whose patches are merged two by two.
// No family of the program has this shape; it is described here without touching another file.
#include "model/blocks.h"
#include "model/family.h"

#include <cmath>

namespace pinhole {

namespace {

constexpr float kNormEps = 1e-5f;
constexpr int64_t kPatchSize = 8;
constexpr int64_t kMergeSize = 2;
constexpr int64_t kVisionSize = 64;

constexpr TensorName kTextNames[] = {
    {"embed_tokens", "token_embd", Role::kTextEmbedding},
    {"layers.{}.norm", "blk.{}.norm", Role::kTextNorm},
    {"layers.{}.attn.qkv", "blk.{}.attn_qkv", Role::kTextAttention},
    {"layers.{}.attn.out", "blk.{}.attn_out", Role::kTextAttention},
    {"layers.{}.mlp.fc1", "blk.{}.ffn_up", Role::kTextMlp},
    {"layers.{}.mlp.fc2", "blk.{}.ffn_down", Role::kTextMlp},
    {"norm", "output_norm", Role::kTextNorm},
    {"lm_head", "output", Role::kTextOutput},
};
constexpr TensorName kVisionNames[] = {
    {"patch_embed", "v.patch_embd", Role::kVisionEmbedding},
    {"project", "mm.0", Role::kProjector},
};

void describe_vision(Graph& g, WeightTable& w, int64_t hidden_size) {
  const int64_t patch_elements = 3 * kPatchSize * kPatchSize;
  const ValueId patches = g.input(InputKind::kPatches, patch_elements, ElementType::kF32);
  const WeightId embed = w.matrix("patch_embed", kVisionSize, patch_elements);
  const WeightId embed_bias = w.bias("patch_embed", kVisionSize);
  const int64_t merged = kVisionSize * kMergeSize * kMergeSize;
  const WeightId project = w.matrix("project", hidden_size, merged);
  if (!w.status())
    return;
  // x = gelu(patch_embed(patches)); features = project(x.view(-1, 4 * 64))
  const ValueId x = g.matmul(patches, embed, embed_bias, Activation::kGeluTanh);
  g.output(g.matmul(g.merge_rows(x, kMergeSize * kMergeSize), project), "features.0");
}

void describe_text(Graph& g, WeightTable& w, const TextConfig& c) {
  const TextInputs in = text_inputs(g, 1);
  const WeightId embed_tokens = w.matrix("embed_tokens", c.vocab_size, c.hidden_size);
  const WeightId last_norm = w.vector("norm", c.hidden_size);
  const WeightId last_bias = w.bias("norm", c.hidden_size);
  const WeightId lm_head = w.matrix("lm_head", c.vocab_size, c.hidden_size);
  if (!w.status())
    return;
  const int64_t n = c.hidden_size;
  const int64_t head_dim = n / c.num_attention_heads;
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  const std::vector<uint8_t> one_axis(static_cast<size_t>(head_dim / 2), 0);
  const Graph::RopeAngles angles =
      g.rope_table(in.positions, rope_inv_freq(c.rope_theta, head_dim), one_axis);
  const ValueId x = g.embed(in.ids, embed_tokens);
  g.put_rows(x, in.feature_rows, 0, false);
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    const WeightId norm = w.vector("layers.{}.norm", n, layer);
    const WeightId norm_bias = w.bias("layers.{}.norm", n, layer);
    const WeightId qkv = w.matrix("layers.{}.attn.qkv", 3 * n, n, layer);
    const WeightId out = w.matrix("layers.{}.attn.out", n, n, layer);
    const WeightId fc1 = w.matrix("layers.{}.mlp.fc1", c.intermediate_size, n, layer);
    const WeightId fc1_bias = w.bias("layers.{}.mlp.fc1", c.intermediate_size, layer);
    const WeightId fc2 = w.matrix("layers.{}.mlp.fc2", n, c.intermediate_size, layer);
    if (!w.status())
      return;
    g.begin_block(layer);
    // x = x + attn(norm(x)) + mlp(norm(x))
    const ValueId normed = g.layer_norm(x, norm, norm_bias, kNormEps);
    const ValueId all = g.matmul(normed, qkv); // [tokens, 3 * hidden_size]
    const ValueId q = g.columns(all, 0, n);
    const ValueId k = g.columns(all, n, n);
    const ValueId v = g.columns(all, 2 * n, n);
    g.rope(q, angles, head_dim);
    g.rope(k, angles, head_dim);
    g.kv_store(k, v, layer, c.num_attention_heads, head_dim);
    const ValueId attended = g.attention_cached(q, in.keys, layer, c.num_attention_heads,
                                                c.num_attention_heads, head_dim, scale);
    g.matmul(attended, out, kNoWeight, Activation::kNone, x);
    const ValueId hidden = g.matmul(normed, fc1, fc1_bias, Activation::kGeluErf);
    g.matmul(hidden, fc2, kNoWeight, Activation::kNone, x);
  }
  g.begin_block(-1);
  const ValueId rows = g.gather_rows(x, in.output_rows, {RowSymbol::kOutputs, 1});
  g.output(g.matmul(g.layer_norm(rows, last_norm, last_bias, kNormEps), lm_head), "logits");
}

} // namespace

Result<Model> describe_toy_vl(const ModelFiles& files) {
  const bool is_gguf = files.text.container() == Container::kGguf;
  TextConfig config;
  if (is_gguf) {
    PINHOLE_TRY(config, text_config_from_gguf(files.text, "toyvl"));
  } else {
    PINHOLE_TRY(config, text_config_from_hf(files.text));
  }
  Model model;
  const ModelFile* vision_file = files.projector ? &*files.projector : &files.text;
  WeightTable vision(*vision_file, model.vision, kVisionNames, {"vision."});
  describe_vision(model.vision, vision, config.hidden_size);
  PINHOLE_CHECK(vision.status());
  PictureSpec spec;
  spec.patch_size = kPatchSize;
  spec.merge_size = kMergeSize;
  spec.feature_size = config.hidden_size;
  spec.min_pixels = 256;
  spec.max_pixels = 65536;
  spec.image_token = "<image>";
  model.pictures = spec;

  WeightTable text(files.text, model.text, kTextNames, {"model.", ""});
  describe_text(model.text, text, config);
  PINHOLE_CHECK(text.status());
  set_text_config(model, config, 1);
  return model;
}

} // namespace pinhole
