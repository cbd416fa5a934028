#include "answer/gguf_tokenizer.h"

#include <fmt/format.h>

namespace pinhole {

namespace {

std::string key_of(std::string_view name) { return fmt::format("tokenizer.ggml.{}", name); }

Result<std::vector<std::string_view>> strings(const GgufMeta& meta, const std::string& key) {
  if (meta.find(key) == nullptr)
    return std::vector<std::string_view>();
  PINHOLE_TRY(const GgufArray* array, meta.array(key));
  return array->strings();
}

Result<std::optional<TokenId>> token_id(const GgufMeta& meta, std::string_view name) {
  const std::string key = key_of(name);
  if (meta.find(key) == nullptr)
    return std::optional<TokenId>();
  PINHOLE_TRY(const int64_t id, meta.integer(key));
  // Some writers store "none" as -1 or as its unsigned form.
  if (id == -1 || id == UINT32_MAX)
    return std::optional<TokenId>();
  if (id < 0 || id > INT32_MAX) {
    return fail(ErrorCode::kInvalidInput, fmt::format("{} is {}, expected a token id", key, id));
  }
  return std::optional(static_cast<TokenId>(id));
}

Result<std::optional<bool>> flag(const GgufMeta& meta, std::string_view name) {
  const std::string key = key_of(name);
  if (meta.find(key) == nullptr)
    return std::optional<bool>();
  PINHOLE_TRY(const bool value, meta.boolean_or(key, false));
  return std::optional(value);
}

Result<Tokenizer> from_gguf(const ModelFile& model) {
  const GgufMeta& meta = model.gguf();
  GgufTokenizerSpec spec;
  PINHOLE_TRY(spec.model, meta.string(key_of("model")));
  if (meta.find(key_of("pre")) != nullptr) {
    PINHOLE_TRY(spec.pre, meta.string(key_of("pre")));
  }
  PINHOLE_TRY(spec.tokens, strings(meta, key_of("tokens")));
  PINHOLE_TRY(spec.merges, strings(meta, key_of("merges")));
  if (meta.find(key_of("token_type")) != nullptr) {
    PINHOLE_TRY(const GgufArray* array, meta.array(key_of("token_type")));
    PINHOLE_TRY(const std::vector<int64_t> types, array->integers());
    spec.token_types.reserve(types.size());
    // Beyond 32 bits there are no types: such a token is of an unknown one, 0.
    for (const int64_t type : types) {
      spec.token_types.push_back(type == static_cast<int32_t>(type) ? static_cast<int32_t>(type)
                                                                    : 0);
    }
  }
  if (meta.find(key_of("scores")) != nullptr) {
    PINHOLE_TRY(const GgufArray* array, meta.array(key_of("scores")));
    PINHOLE_TRY(const std::vector<double> scores, array->numbers());
    spec.scores.assign(scores.begin(), scores.end());
  }
  PINHOLE_TRY(spec.bos, token_id(meta, "bos_token_id"));
  PINHOLE_TRY(spec.eos, token_id(meta, "eos_token_id"));
  PINHOLE_TRY(spec.unknown, token_id(meta, "unknown_token_id"));
  PINHOLE_TRY(spec.padding, token_id(meta, "padding_token_id"));
  PINHOLE_TRY(spec.add_bos, flag(meta, "add_bos_token"));
  PINHOLE_TRY(spec.add_eos, flag(meta, "add_eos_token"));
  PINHOLE_TRY(spec.add_space_prefix, flag(meta, "add_space_prefix"));
  return Tokenizer::from_gguf(spec, model.path());
}

} // namespace

Result<Tokenizer> tokenizer_from_model(const ModelFile& model) {
  if (model.container() == Container::kGguf) {
    auto tokenizer = from_gguf(model);
    if (!tokenizer && tokenizer.error().location.empty()) {
      return fail_in(model.path(), std::move(tokenizer.error()));
    }
    return tokenizer;
  }
  if (!model.tokenizer_json()) {
    return fail(ErrorCode::kNotFound, "there is no tokenizer.json", model.path(),
                "a folder that has only tokenizer.model or vocab.json is not supported");
  }
  return Tokenizer::from_json(*model.tokenizer_json(), model.tokenizer_config(),
                              model.path() + "/tokenizer.json");
}

} // namespace pinhole
