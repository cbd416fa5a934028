// Qwen3-VL, dense and mixture of experts.
// Source: transformers models/qwen3_vl/modeling_qwen3_vl.py and
// qwen3_vl_moe/modeling_qwen3_vl_moe.py; the reference's line stands above each call. GGUF:
// architectures qwen3vl, qwen3vlmoe, projector type qwen3vl_merger.
#include "model/blocks.h"
#include "model/family.h"
#include "model/picture_config.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole {

namespace {

// --- config ---

struct VisionConfig {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t depth = 0;
  int64_t num_heads = 0;
  int64_t patch_size = 16;
  int64_t spatial_merge_size = 2;
  int64_t temporal_patch_size = 2;
  int64_t out_hidden_size = 0;
  int64_t table_side = 0; // sqrt(num_position_embeddings)
  std::vector<int64_t> deepstack_visual_indexes;
};

constexpr float kNormEps = 1e-6f; // nn.LayerNorm(…, eps=1e-6) throughout the tower

Status check(const VisionConfig& c, const std::string& where) {
  if (c.hidden_size % c.num_heads != 0 || (c.hidden_size / c.num_heads) % 4 != 0) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("vision hidden_size {} over num_heads {} is not a multiple of 4, which "
                            "2D rope needs",
                            c.hidden_size, c.num_heads),
                where);
  }
  for (const int64_t layer : c.deepstack_visual_indexes) {
    if (layer >= c.depth) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("deepstack layer {} is not below depth {}", layer, c.depth), where);
    }
  }
  return {};
}

Result<int64_t> square_side(int64_t positions, const std::string& where) {
  for (int64_t side = 1; side * side <= positions; ++side) {
    if (side * side == positions)
      return side;
  }
  return fail(ErrorCode::kInvalidInput,
              fmt::format("{} position embeddings are not a square number", positions), where);
}

Result<VisionConfig> vision_config_from_hf(const ModelFile& file) {
  const std::string where = file.config_path() + ", vision_config";
  const Json* vision = json_find(file.config(), "vision_config");
  if (vision == nullptr)
    return fail(ErrorCode::kNotFound, "vision_config is missing", where);
  const HfReaderScope read(*vision, where);
  VisionConfig c;
  PINHOLE_TRY(c.hidden_size, read.integer("hidden_size", 1, kMaxWidth));
  PINHOLE_TRY(c.intermediate_size, read.integer("intermediate_size", 1, kMaxWidth));
  PINHOLE_TRY(c.depth, read.integer("depth", 1, kMaxCount));
  PINHOLE_TRY(c.num_heads, read.integer("num_heads", 1, kMaxCount));
  PINHOLE_TRY(c.patch_size, read.integer_or("patch_size", 16, 1, 256));
  PINHOLE_TRY(c.spatial_merge_size, read.integer_or("spatial_merge_size", 2, 1, 16));
  PINHOLE_TRY(c.temporal_patch_size, read.integer_or("temporal_patch_size", 2, 1, 8));
  PINHOLE_TRY(c.out_hidden_size, read.integer("out_hidden_size", 1, kMaxWidth));
  PINHOLE_TRY(const int64_t positions,
              read.integer_or("num_position_embeddings", 2304, 1, kMaxVocab));
  PINHOLE_TRY(c.table_side, square_side(positions, where));
  PINHOLE_TRY(c.deepstack_visual_indexes,
              read.integers_or("deepstack_visual_indexes", {8, 16, 24}, 0, kMaxCount));
  PINHOLE_CHECK(check(c, where));
  return c;
}

Result<VisionConfig> vision_config_from_gguf(const ModelFile& file) {
  VisionConfig c;
  const std::string v = "clip.vision.";
  PINHOLE_TRY(const std::string_view type, file.gguf().string("clip.projector_type"));
  if (type != "qwen3vl_merger") {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("clip.projector_type is '{}', expected 'qwen3vl_merger'", type),
                file.path(), "give the projector of this model with --mmproj");
  }
  PINHOLE_TRY(c.hidden_size, gguf_integer(file, v + "embedding_length", 1, kMaxWidth));
  PINHOLE_TRY(c.intermediate_size, gguf_integer(file, v + "feed_forward_length", 1, kMaxWidth));
  PINHOLE_TRY(c.depth, gguf_integer(file, v + "block_count", 1, kMaxCount));
  PINHOLE_TRY(c.num_heads, gguf_integer(file, v + "attention.head_count", 1, kMaxCount));
  PINHOLE_TRY(c.patch_size, gguf_integer(file, v + "patch_size", 1, 256));
  PINHOLE_TRY(c.spatial_merge_size, gguf_integer_or(file, v + "spatial_merge_size", 2, 1, 16));
  PINHOLE_TRY(c.out_hidden_size, gguf_integer(file, v + "projection_dim", 1, kMaxWidth));
  c.temporal_patch_size = 1; // one kernel per frame, see patch_embed
  const Tensor* table = file.find("v.position_embd.weight");
  if (table == nullptr) {
    return fail(ErrorCode::kNotFound, "tensor 'v.position_embd.weight' is missing", file.path());
  }
  PINHOLE_TRY(c.table_side, square_side(table->rows(), file.path()));
  if (file.gguf().find(v + "is_deepstack_layers") != nullptr) {
    PINHOLE_TRY(const GgufArray* flags, file.gguf().array(v + "is_deepstack_layers"));
    PINHOLE_TRY(const std::vector<int64_t> is_deepstack, flags->integers());
    for (size_t layer = 0; layer < is_deepstack.size(); ++layer) {
      if (is_deepstack[layer] != 0) {
        c.deepstack_visual_indexes.push_back(static_cast<int64_t>(layer));
      }
    }
  }
  PINHOLE_CHECK(check(c, file.path()));
  return c;
}

// --- tensors ---

// The deepstack mergers are numbered 0, 1, 2 … on the hub and by their vision layer in GGUF.
constexpr TensorName kVisionNames[] = {
    {"patch_embed.proj", "v.patch_embd", Role::kVisionEmbedding},
    {"pos_embed", "v.position_embd", Role::kVisionEmbedding},
    {"blocks.{}.norm1", "v.blk.{}.ln1", Role::kVisionNorm},
    {"blocks.{}.norm2", "v.blk.{}.ln2", Role::kVisionNorm},
    {"blocks.{}.attn.qkv", "v.blk.{}.attn_qkv", Role::kVisionAttention},
    {"blocks.{}.attn.q", "v.blk.{}.attn_q", Role::kVisionAttention},
    {"blocks.{}.attn.k", "v.blk.{}.attn_k", Role::kVisionAttention},
    {"blocks.{}.attn.v", "v.blk.{}.attn_v", Role::kVisionAttention},
    {"blocks.{}.attn.proj", "v.blk.{}.attn_out", Role::kVisionAttention},
    {"blocks.{}.mlp.linear_fc1", "v.blk.{}.ffn_up", Role::kVisionMlp},
    {"blocks.{}.mlp.linear_fc2", "v.blk.{}.ffn_down", Role::kVisionMlp},
    {"merger.norm", "v.post_ln", Role::kProjector},
    {"merger.linear_fc1", "mm.0", Role::kProjector},
    {"merger.linear_fc2", "mm.2", Role::kProjector},
    {"deepstack_merger_list.{}.norm", "v.deepstack.{}.norm", Role::kProjector},
    {"deepstack_merger_list.{}.linear_fc1", "v.deepstack.{}.fc1", Role::kProjector},
    {"deepstack_merger_list.{}.linear_fc2", "v.deepstack.{}.fc2", Role::kProjector},
};

// --- vision ---

// Qwen3VLVisionPatchMerger: [patches, hidden] -> [patches / merge^2, out_hidden]
ValueId patch_merger(Graph& g, WeightTable& w, const VisionConfig& c, const std::string& name,
                     int index, bool use_postshuffle_norm, ValueId x) {
  const int64_t unit = c.spatial_merge_size * c.spatial_merge_size;
  const int64_t wide = c.hidden_size * unit;
  const int64_t norm_size = use_postshuffle_norm ? wide : c.hidden_size;
  const WeightId norm = w.vector(name + "norm", norm_size, index);
  const WeightId norm_bias = w.bias(name + "norm", norm_size, index);
  const WeightId fc1 = w.matrix(name + "linear_fc1", wide, wide, index);
  const WeightId fc1_bias = w.bias(name + "linear_fc1", wide, index);
  const WeightId fc2 = w.matrix(name + "linear_fc2", c.out_hidden_size, wide, index);
  const WeightId fc2_bias = w.bias(name + "linear_fc2", c.out_hidden_size, index);
  if (!w.status())
    return kNoValue;
  // x = self.norm(x.view(-1, self.hidden_size) if self.use_postshuffle_norm else x)
  ValueId y = use_postshuffle_norm ? g.layer_norm(g.merge_rows(x, unit), norm, norm_bias, kNormEps)
                                   : g.merge_rows(g.layer_norm(x, norm, norm_bias, kNormEps), unit);
  // x = self.linear_fc2(self.act_fn(self.linear_fc1(x)))   with act_fn = nn.GELU()
  y = g.matmul(y, fc1, fc1_bias, Activation::kGeluErf);
  return g.matmul(y, fc2, fc2_bias);
}

// Qwen3VLVisionModel.forward
void describe_vision(Graph& g, WeightTable& w, const VisionConfig& c, bool is_gguf) {
  const int64_t patch_elements = 3 * c.temporal_patch_size * c.patch_size * c.patch_size;
  const ValueId patches = g.input(InputKind::kPatches, patch_elements, ElementType::kF32);
  const ValueId positions = g.input(InputKind::kPatchPositions, 2, ElementType::kI32);
  const ValueId table_rows = g.input(InputKind::kTableRows, 4, ElementType::kI32, {}, c.table_side);
  const ValueId table_weights =
      g.input(InputKind::kTableWeights, 4, ElementType::kF32, {}, c.table_side);
  const Graph::KeyRange keys{g.input(InputKind::kKeyBegin, 1, ElementType::kI32),
                             g.input(InputKind::kKeyEnd, 1, ElementType::kI32)};

  // hidden_states = self.patch_embed(hidden_states)
  const ValueId x =
      patch_embed(g, w, true, c.hidden_size, c.patch_size, c.temporal_patch_size, patches);
  const WeightId pos_embed = w.matrix("pos_embed", c.table_side * c.table_side, c.hidden_size);
  if (!w.status())
    return;
  // hidden_states = hidden_states + self.fast_pos_embed_interpolate(grid_thw)
  g.gather_weighted(x, table_rows, table_weights, pos_embed);
  // rotary_pos_emb = self.rot_pos_emb(grid_thw)
  const VisionAttention attention{c.hidden_size, c.num_heads,
                                  vision_rope(g, positions, c.hidden_size / c.num_heads), keys};
  int32_t slot = 1;
  for (int layer = 0; layer < c.depth; ++layer) {
    g.begin_block(layer);
    const WeightId norm1 = w.vector("blocks.{}.norm1", c.hidden_size, layer);
    const WeightId norm1_bias = w.bias("blocks.{}.norm1", c.hidden_size, layer);
    const WeightId norm2 = w.vector("blocks.{}.norm2", c.hidden_size, layer);
    const WeightId norm2_bias = w.bias("blocks.{}.norm2", c.hidden_size, layer);
    const WeightId fc1 =
        w.matrix("blocks.{}.mlp.linear_fc1", c.intermediate_size, c.hidden_size, layer);
    const WeightId fc1_bias = w.bias("blocks.{}.mlp.linear_fc1", c.intermediate_size, layer);
    const WeightId fc2 =
        w.matrix("blocks.{}.mlp.linear_fc2", c.hidden_size, c.intermediate_size, layer);
    const WeightId fc2_bias = w.bias("blocks.{}.mlp.linear_fc2", c.hidden_size, layer);
    if (!w.status())
      return;
    // hidden_states = hidden_states + self.attn(self.norm1(hidden_states), …)
    vision_attention(g, w, attention, layer, x, g.layer_norm(x, norm1, norm1_bias, kNormEps));
    // hidden_states = hidden_states + self.mlp(self.norm2(hidden_states))   act gelu_pytorch_tanh
    const ValueId normed = g.layer_norm(x, norm2, norm2_bias, kNormEps);
    const ValueId hidden = g.matmul(normed, fc1, fc1_bias, Activation::kGeluTanh);
    g.matmul(hidden, fc2, fc2_bias, Activation::kNone, x);
    // if layer_num in self.deepstack_visual_indexes: deepstack_feature_lists.append(…)
    const auto& deepstack = c.deepstack_visual_indexes;
    const auto it = std::find(deepstack.begin(), deepstack.end(), layer);
    if (it != deepstack.end()) {
      const int index = is_gguf ? layer : static_cast<int>(it - deepstack.begin());
      const ValueId feature = patch_merger(g, w, c, "deepstack_merger_list.{}.", index, true, x);
      if (!w.status())
        return;
      g.output(feature, fmt::format("features.{}", slot++));
    }
  }
  g.begin_block(-1);
  // merged_hidden_states = self.merger(hidden_states)
  const ValueId merged = patch_merger(g, w, c, "merger.", -1, false, x);
  if (merged != kNoValue)
    g.output(merged, "features.0");
}

// --- text ---

// Qwen3VLTextModel.forward
void describe_text(Graph& g, WeightTable& w, const TextConfig& c, int32_t num_deepstack) {
  const TextInputs in = text_inputs(g, 3);
  const WeightId embed_tokens = w.matrix("embed_tokens", c.vocab_size, c.hidden_size);
  if (!w.status())
    return;
  // inputs_embeds = inputs_embeds.masked_scatter(image_mask, image_embeds)
  const ValueId x = g.embed(in.ids, embed_tokens);
  g.put_rows(x, in.feature_rows, 0, false);
  // position_embeddings = self.rotary_emb(hidden_states, position_ids)
  const Graph::RopeAngles angles =
      g.rope_table(in.positions, rope_inv_freq(c.rope_theta, c.head_dim), mrope_axes(c, true));
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    decoder_layer(g, w, c, {.qk_norm = true}, layer, x, angles, in.keys);
    if (!w.status())
      return;
    // if layer_idx in range(len(deepstack_visual_embeds)): hidden_states =
    // self._deepstack_process(…)
    if (layer < num_deepstack)
      g.put_rows(x, in.feature_rows, layer + 1, true);
  }
  text_head(g, w, c, x, in.output_rows);
}

Result<Model> describe(const ModelFiles& files, const std::string& gguf_arch) {
  const bool is_gguf = files.text.container() == Container::kGguf;
  TextConfig text;
  if (is_gguf) {
    PINHOLE_TRY(text, text_config_from_gguf(files.text, gguf_arch));
  } else {
    PINHOLE_TRY(text, text_config_from_hf(files.text));
  }
  Model model;
  const ModelFile* vision_file = nullptr;
  if (!is_gguf)
    vision_file = &files.text;
  if (files.projector)
    vision_file = &*files.projector;

  int32_t num_deepstack = 0;
  if (vision_file != nullptr) {
    const bool vision_gguf = vision_file->container() == Container::kGguf;
    VisionConfig vision;
    if (vision_gguf) {
      PINHOLE_TRY(vision, vision_config_from_gguf(*vision_file));
    } else {
      PINHOLE_TRY(vision, vision_config_from_hf(*vision_file));
    }
    if (vision.out_hidden_size != text.hidden_size) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("the projector gives features of {} numbers, the text model has "
                              "hidden_size {}",
                              vision.out_hidden_size, text.hidden_size),
                  vision_file->path(), "take the projector that belongs to this model (--mmproj)");
    }
    num_deepstack = static_cast<int32_t>(vision.deepstack_visual_indexes.size());
    WeightTable w(*vision_file, model.vision, kVisionNames, {"model.visual.", "visual."});
    describe_vision(model.vision, w, vision, vision_gguf);
    PINHOLE_CHECK(w.status());
    PictureSpec spec;
    spec.patch_size = vision.patch_size;
    spec.merge_size = vision.spatial_merge_size;
    spec.frames = vision.temporal_patch_size;
    spec.feature_size = text.hidden_size;
    spec.feature_slots = 1 + num_deepstack;
    spec.image_token = "<|image_pad|>";
    spec.before = "<|vision_start|>";
    spec.after = "<|vision_end|>";
    spec.min_pixels = 65536;
    spec.max_pixels = 16777216;
    if (vision_gguf) {
      PINHOLE_CHECK(read_clip_config(*vision_file, spec));
    } else {
      PINHOLE_CHECK(read_preprocessor_config(vision_file->preprocessor_config(),
                                             vision_file->path() + "/preprocessor_config.json",
                                             spec));
    }
    model.pictures = spec;
  }
  WeightTable w(
      files.text, model.text, decoder_tensor_names(),
      {"model.language_model.", "model.", "language_model.model.", "language_model.", ""});
  describe_text(model.text, w, text, num_deepstack);
  PINHOLE_CHECK(w.status());
  set_text_config(model, text, 3);
  return model;
}

} // namespace

Result<Model> describe_qwen3_vl(const ModelFiles& files) { return describe(files, "qwen3vl"); }
Result<Model> describe_qwen3_vl_moe(const ModelFiles& files) {
  return describe(files, "qwen3vlmoe");
}

} // namespace pinhole
