// The numbers that shape a model, under Hugging Face's config.json names, read from either
// container and checked (positive, within bounds that keep 64-bit size arithmetic exact).
#pragma once

#include "base/result.h"
#include "file/model_file.h"

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace pinhole {

struct TextConfig {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000;
  std::array<int64_t, 3> mrope_section{}; // time, height, width; sum is head_dim / 2
  bool tie_word_embeddings = false;
  // Mixture of experts; num_experts 0: none.
  int64_t num_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t moe_intermediate_size = 0;
  int64_t decoder_sparse_step = 1;
  std::vector<int64_t> mlp_only_layers;
  bool norm_topk_prob = true;
  std::vector<int64_t> eos_token_ids;

  bool is_sparse(int64_t layer) const; // this layer's MLP is a mixture of experts
};

// `config` is config.json whole: the text part is its text_config, or itself (flat, older files).
// Reads rope_parameters (transformers 5) or rope_theta and rope_scaling (before).
// What a configuration leaves out takes its value from `defaults`; a size that is 0 there must be
// given. With RopeKeys::kOfFamily the family reads the rope's keys itself.
enum class RopeKeys { kUsual, kOfFamily };
Result<TextConfig> text_config_from_hf(const ModelFile& file, const TextConfig& defaults = {},
                                       RopeKeys rope_keys = RopeKeys::kUsual);
// Where a configuration does not say whether embeddings are tied: they are when the file has no
// lm_head. (What is left out has had more than one meaning.)
void tie_as_the_file_does(const ModelFile& file, TextConfig& config);
// Keys "<arch>.embedding_length" and so on; vocab_size from the embedding's shape.
Result<TextConfig> text_config_from_gguf(const ModelFile& file, const std::string& arch);

// Reads checked integers: every value must lie in [low, high].
class HfReaderScope {
 public:
  HfReaderScope(const Json& object, std::string where)
      : object_(object), where_(std::move(where)) {}
  Result<int64_t> integer(std::string_view key, int64_t low, int64_t high) const;
  Result<int64_t> integer_or(std::string_view key, int64_t fallback, int64_t low,
                             int64_t high) const;
  Result<std::vector<int64_t>> integers_or(std::string_view key, std::vector<int64_t> fallback,
                                           int64_t low, int64_t high) const;
  Result<double> number_or(std::string_view key, double fallback) const;
  const Json& object() const { return object_; }
  const std::string& where() const { return where_; }

 private:
  const Json& object_;
  std::string where_;
};

// An error unless the value of `key`, where there is one, is `wanted`: a variant that is not
// computed here.
Status expect_json(const Json& object, const char* key, const Json& wanted,
                   const std::string& where);

Result<int64_t> gguf_integer(const ModelFile& file, const std::string& key, int64_t low,
                             int64_t high);
Result<int64_t> gguf_integer_or(const ModelFile& file, const std::string& key, int64_t fallback,
                                int64_t low, int64_t high);

// Upper bounds for the numbers above.
inline constexpr int64_t kMaxWidth = 1 << 20; // hidden sizes
inline constexpr int64_t kMaxCount = 1 << 12; // layers, heads, experts
inline constexpr int64_t kMaxVocab = 1 << 24;
inline constexpr int64_t kMaxContext = 1 << 26;

} // namespace pinhole
