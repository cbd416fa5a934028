// Mistral's decoders behind a Pixtral tower: Pixtral 12B (in LLaVA's layout), Mistral Small 3.x and
// Ministral 3. Sources: transformers models/mistral/modeling_mistral.py and models/ministral3/
// modeling_ministral3.py (decoders), models/pixtral/processing_pixtral.py (pictures); the tower is
// in model/pixtral.h. GGUF: architecture llama or mistral3, rows of q and k in the order of
// interleaved rope.
#include "model/pixtral.h"
#include "model/blocks.h"
#include "model/family.h"
#include "model/picture_config.h"
#include "model/yarn.h"

#include <fmt/format.h>

namespace pinhole {

namespace {

// --- config ---

// MistralConfig, Ministral3Config: what is left out.
TextConfig text_defaults(bool is_ministral3) {
  TextConfig c;
  c.vocab_size = is_ministral3 ? 131072 : 32000;
  c.hidden_size = 4096;
  c.intermediate_size = 14336;
  c.num_hidden_layers = is_ministral3 ? 34 : 32;
  c.num_attention_heads = 32;
  c.num_key_value_heads = 8;
  c.head_dim = is_ministral3 ? 128 : 0;
  c.max_position_embeddings = is_ministral3 ? 262144 : 131072;
  return c;
}

struct DecoderConfig {
  TextConfig text;
  YarnRope rope;
  bool interleaved_rope = false;
};

Result<DecoderConfig> decoder_config_from_hf(const ModelFile& file) {
  const Json* nested = json_find(file.config(), "text_config");
  const Json& object = nested != nullptr ? *nested : file.config();
  const std::string where = file.config_path() + (nested != nullptr ? ", text_config" : "");
  const Json* type = json_find(object, "model_type");
  const bool is_ministral3 = type != nullptr && *type == "ministral3";
  if (!is_ministral3)
    PINHOLE_CHECK(expect_json(object, "model_type", "mistral", where));
  PINHOLE_CHECK(expect_json(object, "hidden_act", "silu", where));
  DecoderConfig c;
  PINHOLE_TRY(c.text, text_config_from_hf(file, text_defaults(is_ministral3), RopeKeys::kOfFamily));
  tie_as_the_file_does(file, c.text);
  const HfReaderScope read(object, where);
  PINHOLE_TRY(c.rope, yarn_rope_from_hf(read, c.text.max_position_embeddings));
  // MistralConfig's own default is a window; published files of these models say null.
  const bool says_nothing = !is_ministral3 && !object.contains("sliding_window");
  PINHOLE_TRY(const int64_t window,
              read.integer_or("sliding_window", says_nothing ? 4096 : kMaxContext, 1, kMaxContext));
  if (window < c.text.max_position_embeddings) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("sliding_window {} is less than max_position_embeddings {}; here all "
                            "tokens attend to all before them",
                            window, c.text.max_position_embeddings),
                where);
  }
  return c;
}

Result<DecoderConfig> decoder_config_from_gguf(const ModelFile& file) {
  PINHOLE_TRY(const std::string_view arch, file.gguf().string("general.architecture"));
  DecoderConfig c;
  PINHOLE_TRY(c.text, text_config_from_gguf(file, std::string(arch)));
  PINHOLE_TRY(c.rope, yarn_rope_from_gguf(file, std::string(arch), c.text.max_position_embeddings));
  c.interleaved_rope = true;
  if (c.text.num_experts > 0 || file.find("rope_freqs.weight") != nullptr) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("'{}' files with {} are not supported here", arch,
                            c.text.num_experts > 0 ? "experts" : "'rope_freqs.weight' (Llama 3)"),
                file.path());
  }
  return c;
}

// --- text ---

// MistralModel.forward, Ministral3Model.forward
void describe_text(Graph& g, WeightTable& w, const DecoderConfig& config) {
  const TextConfig& c = config.text;
  const TextInputs in = text_inputs(g, 1);
  const WeightId embed_tokens = w.matrix("embed_tokens", c.vocab_size, c.hidden_size);
  if (!w.status())
    return;
  // inputs_embeds = inputs_embeds.masked_scatter(special_image_mask, image_features)
  const ValueId x = g.embed(in.ids, embed_tokens);
  g.put_rows(x, in.feature_rows, 0, false);
  // position_embeddings = self.rotary_emb(hidden_states, position_ids=position_ids)
  const YarnAngles angles = yarn_angles(g, in.positions, config.rope, c.head_dim);
  DecoderOptions options;
  options.interleaved_rope = config.interleaved_rope;
  // query_states = query_states * get_llama_4_attn_scale(position_ids, …)
  options.query_angles = angles.queries;
  for (int layer = 0; layer < c.num_hidden_layers && w.status(); ++layer)
    decoder_layer(g, w, c, options, layer, x, angles.keys, in.keys);
  if (w.status())
    text_head(g, w, c, x, in.output_rows);
}

// --- pictures ---

Result<PictureSpec> describe_pictures(const ModelFile& file, Graph& g, const TextConfig& text,
                                      bool is_mistral3) {
  const bool is_gguf = file.container() == Container::kGguf;
  PixtralConfig vision;
  if (is_gguf) {
    PINHOLE_TRY(vision, pixtral_config_from_gguf(file));
  } else {
    PINHOLE_TRY(vision, pixtral_config_from_hf(file, is_mistral3));
  }
  PINHOLE_CHECK(describe_pixtral(g, file, vision, text.hidden_size, text.rms_norm_eps));
  PictureSpec spec;
  spec.patch_size = vision.patch_size;
  spec.merge_size = vision.spatial_merge_size;
  spec.feature_size = text.hidden_size;
  // replace_tokens = [[image_token] * num_width_tokens + [image_break_token]] * num_height_tokens
  // replace_tokens[-1] = self.image_end_token
  spec.image_token = spec.picture_mark = "[IMG]";
  spec.row_break = "[IMG_BREAK]";
  spec.after = "[IMG_END]";
  spec.longest_px = vision.image_size;
  spec.mean = {0.48145466f, 0.4578275f, 0.40821073f};
  spec.std = {0.26862954f, 0.26130258f, 0.27577711f};
  if (is_gguf) {
    PINHOLE_CHECK(read_clip_config(file, spec));
  } else {
    PINHOLE_CHECK(read_processor_of(file, spec));
  }
  const int64_t side = spec.patch_size * spec.merge_size;
  spec.min_pixels = side * side;
  spec.max_pixels = spec.longest_px * spec.longest_px;
  return spec;
}

Result<Model> describe(const ModelFiles& files, bool has_pictures, bool is_mistral3) {
  const bool is_gguf = files.text.container() == Container::kGguf;
  DecoderConfig config;
  if (is_gguf) {
    PINHOLE_TRY(config, decoder_config_from_gguf(files.text));
  } else {
    PINHOLE_TRY(config, decoder_config_from_hf(files.text));
  }
  Model model;
  if (has_pictures) {
    PINHOLE_TRY(model.pictures, describe_pictures(files.projector ? *files.projector : files.text,
                                                  model.vision, config.text, is_mistral3));
  }
  WeightTable w(
      files.text, model.text, decoder_tensor_names(),
      {"language_model.model.", "model.language_model.", "language_model.", "model.", ""});
  describe_text(model.text, w, config);
  PINHOLE_CHECK(w.status());
  set_text_config(model, config.text, 1);
  return model;
}

} // namespace

Result<Model> describe_llava(const ModelFiles& files) { return describe(files, true, false); }

Result<Model> describe_mistral3(const ModelFiles& files) {
  return describe(files, files.projector || files.text.container() != Container::kGguf, true);
}

// The text model alone, or GGUF's architecture of both.
Result<Model> describe_ministral3(const ModelFiles& files) {
  return describe(files, files.projector.has_value(), true);
}

} // namespace pinhole
