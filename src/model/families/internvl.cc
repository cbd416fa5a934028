// InternVL: InternViT over squares that pictures are cut into, and a Qwen decoder. Sources:
// transformers models/qwen2 and models/qwen3 (decoders), models/got_ocr2/
// image_processing_got_ocr2.py and models/internvl/processing_internvl.py (pictures); the tower is
// in model/internvit.h. GGUF: architecture qwen2.
#include "model/blocks.h"
#include "model/family.h"
#include "model/internvit.h"
#include "model/picture_config.h"
#include "model/yarn.h"

namespace pinhole {

namespace {

// --- config ---

struct DecoderConfig {
  TextConfig text;
  YarnRope rope;
  DecoderOptions options;
};

Result<DecoderConfig> decoder_config_from_hf(const ModelFile& file) {
  const Json* nested = json_find(file.config(), "text_config");
  const Json& object = nested != nullptr ? *nested : file.config();
  const std::string where = file.config_path() + ", text_config";
  DecoderConfig c;
  const Json* type = json_find(object, "model_type");
  c.options.qk_norm = type != nullptr && *type == "qwen3";
  if (!c.options.qk_norm)
    PINHOLE_CHECK(expect_json(object, "model_type", "qwen2", where));
  c.options.qkv_bias = !c.options.qk_norm;
  PINHOLE_CHECK(expect_json(object, "hidden_act", "silu", where));
  PINHOLE_CHECK(expect_json(object, "use_sliding_window", false, where));
  PINHOLE_CHECK(expect_json(object, "attention_bias", false, where));
  TextConfig defaults; // Qwen3Config; Qwen2 divides hidden_size
  defaults.head_dim = c.options.qk_norm ? 128 : 0;
  PINHOLE_TRY(c.text, text_config_from_hf(file, defaults, RopeKeys::kOfFamily));
  tie_as_the_file_does(file, c.text);
  PINHOLE_TRY(c.rope,
              yarn_rope_from_hf(HfReaderScope(object, where), c.text.max_position_embeddings));
  return c;
}

Result<DecoderConfig> decoder_config_from_gguf(const ModelFile& file) {
  DecoderConfig c;
  PINHOLE_TRY(c.text, text_config_from_gguf(file, "qwen2"));
  PINHOLE_TRY(c.rope, yarn_rope_from_gguf(file, "qwen2", c.text.max_position_embeddings));
  c.options.qkv_bias = true;
  return c;
}

// --- pictures ---

Result<PictureSpec> describe_pictures(const ModelFile& file, Graph& g, int64_t text_size) {
  const bool is_gguf = file.container() == Container::kGguf;
  InternVitConfig vision;
  if (is_gguf) {
    PINHOLE_TRY(vision, internvit_config_from_gguf(file));
  } else {
    PINHOLE_TRY(vision, internvit_config_from_hf(file));
  }
  PINHOLE_CHECK(describe_internvit(g, file, vision, text_size));
  PictureSpec spec;
  spec.patch_size = vision.patch_size;
  spec.merge_size = vision.downsample_side;
  spec.feature_size = text_size;
  spec.square_px = vision.image_size;
  spec.max_pieces = 12; // of the published processors
  spec.image_token = spec.picture_mark = "<IMG_CONTEXT>";
  spec.before = "<img>";
  spec.after = "</img>";
  spec.mean = {0.485f, 0.456f, 0.406f};
  spec.std = {0.229f, 0.224f, 0.225f};
  if (is_gguf) {
    PINHOLE_CHECK(read_clip_config(file, spec));
  } else {
    PINHOLE_CHECK(read_processor_of(file, spec));
  }
  spec.min_pixels = spec.square_px * spec.square_px;
  spec.max_pixels = spec.max_pieces * spec.min_pixels;
  return spec;
}

// --- text ---

// Qwen2Model.forward, Qwen3Model.forward
void describe_text(Graph& g, WeightTable& w, const DecoderConfig& config) {
  const TextConfig& c = config.text;
  const TextInputs in = text_inputs(g, 1);
  const WeightId embed_tokens = w.matrix("embed_tokens", c.vocab_size, c.hidden_size);
  if (!w.status())
    return;
  // inputs_embeds = inputs_embeds.masked_scatter(special_image_mask, image_features)
  const ValueId x = g.embed(in.ids, embed_tokens);
  g.put_rows(x, in.feature_rows, 0, false);
  const YarnAngles angles = yarn_angles(g, in.positions, config.rope, c.head_dim);
  for (int layer = 0; layer < c.num_hidden_layers && w.status(); ++layer)
    decoder_layer(g, w, c, config.options, layer, x, angles.keys, in.keys);
  if (w.status())
    text_head(g, w, c, x, in.output_rows);
}

} // namespace

Result<Model> describe_internvl(const ModelFiles& files) {
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
  WeightTable w(
      files.text, model.text, decoder_tensor_names(),
      {"language_model.model.", "model.language_model.", "language_model.", "model.", ""});
  describe_text(model.text, w, config);
  PINHOLE_CHECK(w.status());
  set_text_config(model, config.text, 1);
  return model;
}

} // namespace pinhole
