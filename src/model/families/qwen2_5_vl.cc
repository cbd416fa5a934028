// Qwen2.5-VL. Source: transformers models/qwen2_5_vl/modeling_qwen2_5_vl.py; the reference's line
// stands above each call. GGUF: architecture qwen2vl, projector type qwen2.5vl_merger.
//
// The tower sorts patches by window, so that each window's keys are a contiguous range; every rope
// angle is sorted with them, and the merged rows are put back in picture order at the end.
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
  int64_t patch_size = 14;
  int64_t spatial_merge_size = 2;
  int64_t temporal_patch_size = 2;
  int64_t out_hidden_size = 0;
  int64_t window_size = 112;
  std::vector<int64_t> fullatt_block_indexes;
};

constexpr float kNormEps = 1e-6f; // Qwen2RMSNorm(…, eps=1e-6) throughout the tower

Status check(const VisionConfig& c, const std::string& where) {
  if (c.hidden_size % c.num_heads != 0 || (c.hidden_size / c.num_heads) % 4 != 0) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("vision hidden_size {} over num_heads {} is not a multiple of 4, which "
                            "2D rope needs",
                            c.hidden_size, c.num_heads),
                where);
  }
  if (c.window_size < c.patch_size * c.spatial_merge_size) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("window_size {} is smaller than a merged patch of {} pixels",
                            c.window_size, c.patch_size * c.spatial_merge_size),
                where);
  }
  return {};
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
  PINHOLE_TRY(c.patch_size, read.integer_or("patch_size", 14, 1, 256));
  PINHOLE_TRY(c.spatial_merge_size, read.integer_or("spatial_merge_size", 2, 1, 16));
  PINHOLE_TRY(c.temporal_patch_size, read.integer_or("temporal_patch_size", 2, 1, 8));
  PINHOLE_TRY(c.out_hidden_size, read.integer("out_hidden_size", 1, kMaxWidth));
  PINHOLE_TRY(c.window_size, read.integer_or("window_size", 112, 1, kMaxWidth));
  PINHOLE_TRY(c.fullatt_block_indexes,
              read.integers_or("fullatt_block_indexes", {7, 15, 23, 31}, 0, kMaxCount));
  PINHOLE_CHECK(check(c, where));
  return c;
}

Result<VisionConfig> vision_config_from_gguf(const ModelFile& file) {
  VisionConfig c;
  const std::string v = "clip.vision.";
  PINHOLE_TRY(const std::string_view type, file.gguf().string("clip.projector_type"));
  if (type != "qwen2.5vl_merger") {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("clip.projector_type is '{}', expected 'qwen2.5vl_merger'", type),
                file.path(), "give the projector of this model with --mmproj");
  }
  PINHOLE_TRY(c.hidden_size, gguf_integer(file, v + "embedding_length", 1, kMaxWidth));
  PINHOLE_TRY(c.intermediate_size, gguf_integer(file, v + "feed_forward_length", 1, kMaxWidth));
  PINHOLE_TRY(c.depth, gguf_integer(file, v + "block_count", 1, kMaxCount));
  PINHOLE_TRY(c.num_heads, gguf_integer(file, v + "attention.head_count", 1, kMaxCount));
  PINHOLE_TRY(c.patch_size, gguf_integer(file, v + "patch_size", 1, 256));
  PINHOLE_TRY(c.spatial_merge_size, gguf_integer_or(file, v + "spatial_merge_size", 2, 1, 16));
  PINHOLE_TRY(c.out_hidden_size, gguf_integer(file, v + "projection_dim", 1, kMaxWidth));
  PINHOLE_TRY(c.window_size, gguf_integer_or(file, v + "window_size", 112, 1, kMaxWidth));
  c.temporal_patch_size = 1; // one kernel per frame, see patch_embed
  // Every n-th block attends fully; no key, or 0: all do.
  PINHOLE_TRY(const int64_t pattern, gguf_integer_or(file, v + "n_wa_pattern", 0, 0, kMaxCount));
  for (int64_t block = 0; block < c.depth; ++block) {
    if (pattern == 0 || (block + 1) % pattern == 0)
      c.fullatt_block_indexes.push_back(block);
  }
  PINHOLE_CHECK(check(c, file.path()));
  return c;
}

// --- tensors ---

constexpr TensorName kVisionNames[] = {
    {"patch_embed.proj", "v.patch_embd", Role::kVisionEmbedding},
    {"blocks.{}.norm1", "v.blk.{}.ln1", Role::kVisionNorm},
    {"blocks.{}.norm2", "v.blk.{}.ln2", Role::kVisionNorm},
    {"blocks.{}.attn.qkv", "v.blk.{}.attn_qkv", Role::kVisionAttention},
    {"blocks.{}.attn.q", "v.blk.{}.attn_q", Role::kVisionAttention},
    {"blocks.{}.attn.k", "v.blk.{}.attn_k", Role::kVisionAttention},
    {"blocks.{}.attn.v", "v.blk.{}.attn_v", Role::kVisionAttention},
    {"blocks.{}.attn.proj", "v.blk.{}.attn_out", Role::kVisionAttention},
    {"blocks.{}.mlp.gate_proj", "v.blk.{}.ffn_gate", Role::kVisionMlp},
    {"blocks.{}.mlp.up_proj", "v.blk.{}.ffn_up", Role::kVisionMlp},
    {"blocks.{}.mlp.down_proj", "v.blk.{}.ffn_down", Role::kVisionMlp},
    {"merger.ln_q", "v.post_ln", Role::kProjector},
    {"merger.mlp.0", "mm.0", Role::kProjector},
    {"merger.mlp.2", "mm.2", Role::kProjector},
};

// --- vision ---

// Qwen2_5_VLPatchMerger: [patches, hidden] -> [patches / merge^2, out_hidden]
ValueId patch_merger(Graph& g, WeightTable& w, const VisionConfig& c, ValueId x) {
  const int64_t unit = c.spatial_merge_size * c.spatial_merge_size;
  const int64_t wide = c.hidden_size * unit;
  const WeightId ln_q = w.vector("merger.ln_q", c.hidden_size);
  const WeightId fc1 = w.matrix("merger.mlp.0", wide, wide);
  const WeightId fc1_bias = w.bias("merger.mlp.0", wide);
  const WeightId fc2 = w.matrix("merger.mlp.2", c.out_hidden_size, wide);
  const WeightId fc2_bias = w.bias("merger.mlp.2", c.out_hidden_size);
  if (!w.status())
    return kNoValue;
  // x = self.mlp(self.ln_q(x).view(-1, self.hidden_size))   with nn.GELU() between the linears
  const ValueId y = g.merge_rows(g.rms_norm(x, ln_q, kNormEps), unit);
  return g.matmul(g.matmul(y, fc1, fc1_bias, Activation::kGeluErf), fc2, fc2_bias);
}

// Qwen2_5_VisionTransformerPretrainedModel.forward
void describe_vision(Graph& g, WeightTable& w, const VisionConfig& c) {
  const int64_t unit = c.spatial_merge_size * c.spatial_merge_size;
  const int64_t patch_elements = 3 * c.temporal_patch_size * c.patch_size * c.patch_size;
  const ValueId patches = g.input(InputKind::kPatches, patch_elements, ElementType::kF32);
  const ValueId positions = g.input(InputKind::kPatchPositions, 2, ElementType::kI32);
  const ValueId window_order = g.input(InputKind::kWindowOrder, 1, ElementType::kI32);
  const ValueId window_inverse =
      g.input(InputKind::kWindowInverse, 1, ElementType::kI32, {RowSymbol::kItems, unit});
  const auto keys = [&g](int64_t windowed) {
    return Graph::KeyRange{g.input(InputKind::kKeyBegin, 1, ElementType::kI32, {}, windowed),
                           g.input(InputKind::kKeyEnd, 1, ElementType::kI32, {}, windowed)};
  };
  const Graph::KeyRange all_keys = keys(0);
  const Graph::KeyRange window_keys = keys(1);

  // hidden_states = self.patch_embed(hidden_states)
  const ValueId embedded =
      patch_embed(g, w, false, c.hidden_size, c.patch_size, c.temporal_patch_size, patches);
  if (!w.status())
    return;
  // hidden_states = hidden_states[window_index, :, :]; the position input is in this order already
  const ValueId x = g.gather_rows(embedded, window_order, {});
  const Graph::RopeAngles angles = vision_rope(g, positions, c.hidden_size / c.num_heads);
  for (int layer = 0; layer < c.depth; ++layer) {
    g.begin_block(layer);
    const auto& full = c.fullatt_block_indexes;
    const bool attends_fully = std::find(full.begin(), full.end(), layer) != full.end();
    const WeightId norm1 = w.vector("blocks.{}.norm1", c.hidden_size, layer);
    const WeightId norm2 = w.vector("blocks.{}.norm2", c.hidden_size, layer);
    const MatmulPart gate_up_parts[] = {
        {w.matrix("blocks.{}.mlp.gate_proj", c.intermediate_size, c.hidden_size, layer),
         w.bias("blocks.{}.mlp.gate_proj", c.intermediate_size, layer)},
        {w.matrix("blocks.{}.mlp.up_proj", c.intermediate_size, c.hidden_size, layer),
         w.bias("blocks.{}.mlp.up_proj", c.intermediate_size, layer)}};
    const WeightId down =
        w.matrix("blocks.{}.mlp.down_proj", c.hidden_size, c.intermediate_size, layer);
    const WeightId down_bias = w.bias("blocks.{}.mlp.down_proj", c.hidden_size, layer);
    if (!w.status())
      return;
    // hidden_states = hidden_states + self.attn(self.norm1(hidden_states), cu_seqlens=…)
    const VisionAttention attention{c.hidden_size, c.num_heads, angles,
                                    attends_fully ? all_keys : window_keys};
    vision_attention(g, w, attention, layer, x, g.rms_norm(x, norm1, kNormEps));
    // hidden_states = hidden_states + self.mlp(self.norm2(hidden_states))
    const ValueId normed = g.rms_norm(x, norm2, kNormEps);
    const std::vector<ValueId> gate_up = g.matmul_shared(normed, gate_up_parts);
    const ValueId hidden = g.gated(gate_up[0], gate_up[1], Activation::kSilu);
    g.matmul(hidden, down, down_bias, Activation::kNone, x);
  }
  g.begin_block(-1);
  // merged_hidden_states = self.merger(hidden_states)[reverse_indices, :]
  const ValueId merged = patch_merger(g, w, c, x);
  if (merged == kNoValue)
    return;
  g.output(g.gather_rows(merged, window_inverse, {RowSymbol::kItems, unit}), "features.0");
}

// --- text ---

// Qwen2_5_VLTextModel.forward
void describe_text(Graph& g, WeightTable& w, const TextConfig& c) {
  const TextInputs in = text_inputs(g, 3);
  const WeightId embed_tokens = w.matrix("embed_tokens", c.vocab_size, c.hidden_size);
  if (!w.status())
    return;
  // inputs_embeds = inputs_embeds.masked_scatter(image_mask, image_embeds)
  const ValueId x = g.embed(in.ids, embed_tokens);
  g.put_rows(x, in.feature_rows, 0, false);
  // apply_multimodal_rotary_pos_emb(…, mrope_section)
  const Graph::RopeAngles angles =
      g.rope_table(in.positions, rope_inv_freq(c.rope_theta, c.head_dim), mrope_axes(c, false));
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    decoder_layer(g, w, c, {.qkv_bias = true}, layer, x, angles, in.keys);
    if (!w.status())
      return;
  }
  text_head(g, w, c, x, in.output_rows);
}

} // namespace

Result<Model> describe_qwen2_5_vl(const ModelFiles& files) {
  const bool is_gguf = files.text.container() == Container::kGguf;
  TextConfig text;
  if (is_gguf) {
    PINHOLE_TRY(text, text_config_from_gguf(files.text, "qwen2vl"));
  } else {
    PINHOLE_TRY(text, text_config_from_hf(files.text));
  }
  Model model;
  const ModelFile* vision_file = nullptr;
  if (!is_gguf)
    vision_file = &files.text;
  if (files.projector)
    vision_file = &*files.projector;
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
    WeightTable w(*vision_file, model.vision, kVisionNames, {"model.visual.", "visual."});
    describe_vision(model.vision, w, vision);
    PINHOLE_CHECK(w.status());
    PictureSpec spec;
    spec.patch_size = vision.patch_size;
    spec.merge_size = vision.spatial_merge_size;
    spec.frames = vision.temporal_patch_size;
    spec.feature_size = text.hidden_size;
    spec.window_size_px = vision.window_size;
    spec.image_token = "<|image_pad|>";
    spec.before = "<|vision_start|>";
    spec.after = "<|vision_end|>";
    spec.mean = {0.48145466f, 0.4578275f, 0.40821073f};
    spec.std = {0.26862954f, 0.26130258f, 0.27577711f};
    spec.min_pixels = 3136;
    spec.max_pixels = 12845056;
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
  describe_text(model.text, w, text);
  PINHOLE_CHECK(w.status());
  set_text_config(model, text, 3);
  return model;
}

} // namespace pinhole
