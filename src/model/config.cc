#include "model/config.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace pinhole {

namespace {

Result<int64_t> in_range(int64_t value, std::string_view key, int64_t low, int64_t high,
                         const std::string& where) {
  if (value < low || value > high) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("'{}' is {}, expected {} to {}", key, value, low, high), where);
  }
  return value;
}

// eos_token_id is one number or a list of them.
void add_eos(const Json& object, std::vector<int64_t>& ids) {
  const Json* eos = json_find(object, "eos_token_id");
  if (eos == nullptr)
    return;
  const auto add = [&ids](const Json& id) {
    if (!id.is_number_integer())
      return;
    const auto value = id.get<int64_t>();
    if (std::find(ids.begin(), ids.end(), value) == ids.end())
      ids.push_back(value);
  };
  if (eos->is_array()) {
    for (const Json& id : *eos)
      add(id);
  } else {
    add(*eos);
  }
}

Status check(const TextConfig& config, const std::string& where) {
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("num_attention_heads {} is not a multiple of num_key_value_heads {}",
                            config.num_attention_heads, config.num_key_value_heads),
                where);
  }
  if (config.head_dim % 2 != 0) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("head_dim {} is odd, expected an even number", config.head_dim), where);
  }
  int64_t sum = 0;
  for (const int64_t section : config.mrope_section)
    sum += section;
  if (sum != 0 && sum != config.head_dim / 2) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("mrope_section [{}] sums to {}, expected head_dim / 2 = {}",
                            fmt::join(config.mrope_section, ", "), sum, config.head_dim / 2),
                where);
  }
  if (config.num_experts > 0 && config.num_experts_per_tok > config.num_experts) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("num_experts_per_tok {} exceeds num_experts {}",
                            config.num_experts_per_tok, config.num_experts),
                where);
  }
  return {};
}

// transformers 5: rope_parameters {rope_theta, mrope_section, …}; before: rope_theta beside
// rope_scaling {mrope_section, …}.
Status read_rope(const Json& text, const std::string& where, TextConfig& config) {
  const HfReaderScope read(text, where);
  PINHOLE_TRY(config.rope_theta, read.number_or("rope_theta", 10000.0));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* rope = json_find(text, key);
    if (rope == nullptr)
      continue;
    if (!rope->is_object()) {
      return fail(ErrorCode::kInvalidInput, fmt::format("'{}' is not an object", key), where);
    }
    const HfReaderScope scope(*rope, where + ", " + key);
    PINHOLE_TRY(config.rope_theta, scope.number_or("rope_theta", config.rope_theta));
    PINHOLE_TRY(const auto sections, scope.integers_or("mrope_section", {}, 0, kMaxWidth));
    if (sections.size() == 3)
      std::copy_n(sections.begin(), 3, config.mrope_section.begin());
    for (const char* type_key : {"rope_type", "type"}) {
      const Json* type = json_find(*rope, type_key);
      if (type != nullptr && *type != "default" && *type != "mrope") {
        return fail(ErrorCode::kUnsupported,
                    fmt::format("rope type {} is not supported here, only 'default' and 'mrope'",
                                type->dump(-1, ' ', false, Json::error_handler_t::replace)),
                    where);
      }
    }
  }
  return {};
}

} // namespace

bool TextConfig::is_sparse(int64_t layer) const {
  return num_experts > 0 && (layer + 1) % decoder_sparse_step == 0 &&
         std::find(mlp_only_layers.begin(), mlp_only_layers.end(), layer) == mlp_only_layers.end();
}

Result<int64_t> HfReaderScope::integer(std::string_view key, int64_t low, int64_t high) const {
  PINHOLE_TRY(const int64_t value, json_int(object_, key, where_));
  return in_range(value, key, low, high, where_);
}

Result<int64_t> HfReaderScope::integer_or(std::string_view key, int64_t fallback, int64_t low,
                                          int64_t high) const {
  PINHOLE_TRY(const int64_t value, json_int_or(object_, key, fallback, where_));
  return in_range(value, key, low, high, where_);
}

Result<std::vector<int64_t>> HfReaderScope::integers_or(std::string_view key,
                                                        std::vector<int64_t> fallback, int64_t low,
                                                        int64_t high) const {
  const Json* list = json_find(object_, key);
  if (list == nullptr)
    return fallback;
  if (!list->is_array() || list->size() > static_cast<size_t>(kMaxCount)) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("'{}' is not a list of at most {} integers", key, kMaxCount), where_);
  }
  std::vector<int64_t> out;
  for (const Json& item : *list) {
    if (!item.is_number_integer()) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("'{}' holds something else than integers", key), where_);
    }
    PINHOLE_TRY(const int64_t value, in_range(item.get<int64_t>(), key, low, high, where_));
    out.push_back(value);
  }
  return out;
}

Result<double> HfReaderScope::number_or(std::string_view key, double fallback) const {
  return json_double_or(object_, key, fallback, where_);
}

Result<int64_t> gguf_integer(const ModelFile& file, const std::string& key, int64_t low,
                             int64_t high) {
  PINHOLE_TRY(const int64_t value, file.gguf().integer(key));
  return in_range(value, key, low, high, file.path());
}

Result<int64_t> gguf_integer_or(const ModelFile& file, const std::string& key, int64_t fallback,
                                int64_t low, int64_t high) {
  PINHOLE_TRY(const int64_t value, file.gguf().integer_or(key, fallback));
  return in_range(value, key, low, high, file.path());
}

Result<TextConfig> text_config_from_hf(const ModelFile& file, const TextConfig& defaults,
                                       RopeKeys rope_keys) {
  const std::string where = file.config_path();
  const Json& whole = file.config();
  const Json* nested = json_find(whole, "text_config");
  const Json& text = nested != nullptr ? *nested : whole;
  const HfReaderScope read(text, where);
  const auto size = [&read](const char* key, int64_t fallback, int64_t high) {
    return fallback > 0 ? read.integer_or(key, fallback, 1, high) : read.integer(key, 1, high);
  };
  const auto either = [](int64_t given, int64_t otherwise) {
    return given > 0 ? given : otherwise;
  };

  TextConfig config;
  PINHOLE_TRY(config.hidden_size, size("hidden_size", defaults.hidden_size, kMaxWidth));
  PINHOLE_TRY(config.intermediate_size,
              size("intermediate_size", defaults.intermediate_size, kMaxWidth));
  PINHOLE_TRY(config.num_hidden_layers,
              size("num_hidden_layers", defaults.num_hidden_layers, kMaxCount));
  PINHOLE_TRY(config.num_attention_heads,
              size("num_attention_heads", defaults.num_attention_heads, kMaxCount));
  PINHOLE_TRY(config.num_key_value_heads,
              size("num_key_value_heads",
                   either(defaults.num_key_value_heads, config.num_attention_heads), kMaxCount));
  PINHOLE_TRY(
      config.head_dim,
      read.integer_or("head_dim",
                      either(defaults.head_dim, config.hidden_size / config.num_attention_heads), 1,
                      kMaxWidth));
  PINHOLE_TRY(config.vocab_size, size("vocab_size", defaults.vocab_size, kMaxVocab));
  PINHOLE_TRY(config.max_position_embeddings,
              size("max_position_embeddings", either(defaults.max_position_embeddings, 32768),
                   kMaxContext));
  PINHOLE_TRY(config.rms_norm_eps, read.number_or("rms_norm_eps", 1e-6));
  if (rope_keys == RopeKeys::kUsual)
    PINHOLE_CHECK(read_rope(text, where, config));

  PINHOLE_TRY(const bool outer_tie,
              json_bool_or(whole, "tie_word_embeddings", defaults.tie_word_embeddings, where));
  PINHOLE_TRY(config.tie_word_embeddings,
              json_bool_or(text, "tie_word_embeddings", outer_tie, where));
  // The whole and its text part may disagree; then the file decides.
  if (config.tie_word_embeddings != outer_tie) {
    config.tie_word_embeddings =
        std::none_of(file.tensors().begin(), file.tensors().end(),
                     [](const Tensor& tensor) { return tensor.name.ends_with("lm_head.weight"); });
  }

  // transformers 5 writes num_local_experts, the hub's configs have num_experts.
  PINHOLE_TRY(config.num_experts, read.integer_or("num_local_experts", 0, 0, kMaxCount));
  PINHOLE_TRY(config.num_experts, read.integer_or("num_experts", config.num_experts, 0, kMaxCount));
  if (config.num_experts > 0) {
    PINHOLE_TRY(config.num_experts_per_tok, read.integer("num_experts_per_tok", 1, kMaxCount));
    PINHOLE_TRY(config.moe_intermediate_size, read.integer("moe_intermediate_size", 1, kMaxWidth));
    PINHOLE_TRY(config.decoder_sparse_step,
                read.integer_or("decoder_sparse_step", 1, 1, kMaxCount));
    PINHOLE_TRY(config.mlp_only_layers, read.integers_or("mlp_only_layers", {}, 0, kMaxCount));
    PINHOLE_TRY(config.norm_topk_prob, json_bool_or(text, "norm_topk_prob", true, where));
  }
  add_eos(text, config.eos_token_ids);
  add_eos(whole, config.eos_token_ids);
  add_eos(file.generation_config(), config.eos_token_ids);
  PINHOLE_CHECK(check(config, where));
  return config;
}

Status expect_json(const Json& object, const char* key, const Json& wanted,
                   const std::string& where) {
  const Json* found = json_find(object, key);
  if (found == nullptr || *found == wanted)
    return {};
  return fail(ErrorCode::kUnsupported,
              fmt::format("'{}' is {}, here only {} is computed", key,
                          found->dump(-1, ' ', false, Json::error_handler_t::replace),
                          wanted.dump()),
              where);
}

void tie_as_the_file_does(const ModelFile& file, TextConfig& config) {
  const Json* text = json_find(file.config(), "text_config");
  for (const Json* object : {&file.config(), text}) {
    if (object != nullptr && json_find(*object, "tie_word_embeddings") != nullptr)
      return;
  }
  if (!file.config_only()) {
    config.tie_word_embeddings =
        std::none_of(file.tensors().begin(), file.tensors().end(),
                     [](const Tensor& tensor) { return tensor.name.ends_with("lm_head.weight"); });
  }
}

Result<TextConfig> text_config_from_gguf(const ModelFile& file, const std::string& arch) {
  const auto key = [&arch](const char* name) { return arch + "." + name; };
  TextConfig config;
  PINHOLE_TRY(config.hidden_size, gguf_integer(file, key("embedding_length"), 1, kMaxWidth));
  PINHOLE_TRY(config.intermediate_size,
              gguf_integer_or(file, key("feed_forward_length"), config.hidden_size, 0, kMaxWidth));
  PINHOLE_TRY(config.num_hidden_layers, gguf_integer(file, key("block_count"), 1, kMaxCount));
  PINHOLE_TRY(config.num_attention_heads,
              gguf_integer(file, key("attention.head_count"), 1, kMaxCount));
  PINHOLE_TRY(config.num_key_value_heads,
              gguf_integer_or(file, key("attention.head_count_kv"), config.num_attention_heads, 1,
                              kMaxCount));
  PINHOLE_TRY(config.head_dim,
              gguf_integer_or(file, key("attention.key_length"),
                              config.hidden_size / config.num_attention_heads, 1, kMaxWidth));
  PINHOLE_TRY(config.max_position_embeddings,
              gguf_integer_or(file, key("context_length"), 32768, 1, kMaxContext));
  PINHOLE_TRY(config.rms_norm_eps,
              file.gguf().number_or(key("attention.layer_norm_rms_epsilon"), 1e-6));
  PINHOLE_TRY(config.rope_theta, file.gguf().number_or(key("rope.freq_base"), 10000.0));
  if (file.gguf().find(key("rope.dimension_sections")) != nullptr) {
    PINHOLE_TRY(const GgufArray* array, file.gguf().array(key("rope.dimension_sections")));
    PINHOLE_TRY(const std::vector<int64_t> sections, array->integers());
    for (size_t i = 0; i < std::min<size_t>(3, sections.size()); ++i) {
      PINHOLE_TRY(config.mrope_section[i],
                  in_range(sections[i], key("rope.dimension_sections"), 0, kMaxWidth, file.path()));
    }
  }
  const Tensor* embedding = file.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    return fail(ErrorCode::kNotFound, "tensor 'token_embd.weight' [vocab, hidden] is missing",
                file.path());
  }
  PINHOLE_TRY(config.vocab_size, in_range(embedding->shape[0], "rows of token_embd.weight", 1,
                                          kMaxVocab, file.path()));
  config.tie_word_embeddings = file.find("output.weight") == nullptr;
  PINHOLE_TRY(config.num_experts, gguf_integer_or(file, key("expert_count"), 0, 0, kMaxCount));
  if (config.num_experts > 0) {
    PINHOLE_TRY(config.num_experts_per_tok,
                gguf_integer(file, key("expert_used_count"), 1, kMaxCount));
    PINHOLE_TRY(config.moe_intermediate_size,
                gguf_integer(file, key("expert_feed_forward_length"), 1, kMaxWidth));
  }
  PINHOLE_TRY(const int64_t eos,
              gguf_integer_or(file, "tokenizer.ggml.eos_token_id", -1, -1, kMaxVocab));
  if (eos >= 0)
    config.eos_token_ids.push_back(eos);
  PINHOLE_CHECK(check(config, file.path()));
  return config;
}

} // namespace pinhole
