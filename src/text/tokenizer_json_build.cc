// A tokenizer from what tokenizer.json and tokenizer_config.json say.
//
// Source: Hugging Face tokenizers (models/bpe, tokenizer/added_vocabulary.rs, processors/,
// decoders/) and transformers (tokenization_utils_tokenizers.py: what the configuration overrides).
#include "text/tokenizer_impl.h"
#include "text/tokenizer_json.h"

#include <algorithm>
#include <fmt/format.h>
#include <unordered_map>
#include <unordered_set>

namespace pinhole {

namespace {

constexpr size_t kMaxTemplateTokens = 16;
constexpr int kMaxDepth = 16;
constexpr size_t kGroup = 4096; // tokens added at once

// What the "decoder" does to the text of each token and to the whole.
struct Decoder {
  bool byte_level = false;
  bool byte_fallback = false;
  TokenizerModel::FirstSpace first_space = TokenizerModel::FirstSpace::kKeep;
  std::vector<std::pair<std::string, std::string>> replacements;
};

class JsonBuilder {
 public:
  JsonBuilder(TokenizerFile file, const Json& config, const std::string& where)
      : file_(std::move(file)), config_(config), where_(where) {}

  Status build(TokenizerModel& model) {
    PINHOLE_CHECK(read_model_settings(model));
    PINHOLE_CHECK(collect_added());
    PINHOLE_CHECK(add_vocabulary(model));
    PINHOLE_CHECK(add_merges(model));
    PINHOLE_TRY(model.normalizer, Normalizer::parse(member("normalizer"), where_));
    PINHOLE_TRY(model.pre_tokenizer, PreTokenizer::parse(member("pre_tokenizer"), where_));
    PINHOLE_CHECK(add_added(model));
    PINHOLE_CHECK(read_decoder(model));
    PINHOLE_CHECK(read_post_processor(member("post_processor"), 0, model));
    PINHOLE_CHECK(read_config(model));
    model.finish();
    return {};
  }

 private:
  tl::unexpected<Error> invalid(std::string message) const {
    return fail(ErrorCode::kInvalidInput, std::move(message), where_);
  }
  tl::unexpected<Error> unsupported(std::string message) const {
    return fail(ErrorCode::kUnsupported, std::move(message), where_);
  }
  const Json& member(std::string_view key) const {
    static const Json null;
    const Json* found = json_find(file_.root, key);
    return found == nullptr ? null : *found;
  }

  Status read_model_settings(TokenizerModel& model) {
    const Json& settings = member("model");
    if (!settings.is_object())
      return invalid("'model' is missing");
    std::string type = "BPE"; // older files leave it out
    if (json_find(settings, "type") != nullptr) {
      PINHOLE_TRY(type, json_string(settings, "type", where_));
    }
    if (type != "BPE") {
      return unsupported(fmt::format("a tokenizer model of type '{}', expected BPE", type));
    }
    PINHOLE_TRY(const double dropout, json_double_or(settings, "dropout", 0, where_));
    if (dropout != 0)
      return unsupported("a BPE model with dropout");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const Json* affix = json_find(settings, key);
      if (affix != nullptr && *affix != "") {
        return unsupported(fmt::format("a BPE model with '{}'", key));
      }
    }
    PINHOLE_TRY(model.byte_fallback, json_bool_or(settings, "byte_fallback", false, where_));
    PINHOLE_TRY(model.fuse_unknown, json_bool_or(settings, "fuse_unk", false, where_));
    PINHOLE_TRY(model.ignore_merges, json_bool_or(settings, "ignore_merges", false, where_));
    if (file_.vocabulary_count == 0)
      return invalid("'model.vocab' is missing or empty");
    return {};
  }

  // The added tokens of both files; the configuration's flags win, and what it names as a special
  // token is one.
  Status collect_added() {
    std::unordered_map<std::string_view, size_t> by_content;
    if (const Json* decoder = json_find(config_, "added_tokens_decoder");
        decoder != nullptr && decoder->is_object()) {
      std::vector<AddedTokenEntry> more;
      for (const AddedTokenEntry& token : file_.added) {
        by_content.emplace(token.content, static_cast<size_t>(&token - file_.added.data()));
      }
      for (const auto& [key, json] : decoder->items()) {
        PINHOLE_TRY(AddedTokenEntry token,
                    parse_added_token(json, where_ + ", added_tokens_decoder"));
        if (key.empty() || key.size() > 9 ||
            key.find_first_not_of("0123456789") != std::string::npos) {
          return invalid(fmt::format("added_tokens_decoder has the id '{}'", key));
        }
        token.id = std::stoi(key);
        const auto known = by_content.find(token.content);
        if (known == by_content.end()) {
          more.push_back(std::move(token));
        } else if (AddedTokenEntry& entry = file_.added[known->second]; entry.id == token.id) {
          entry.special = token.special;
          entry.single_word = token.single_word;
          entry.lstrip = token.lstrip;
          entry.rstrip = token.rstrip;
          entry.normalized = token.normalized;
        }
      }
      std::move(more.begin(), more.end(), std::back_inserter(file_.added));
    }
    return {};
  }

  Status add_vocabulary(TokenizerModel& model) {
    const size_t count = file_.vocabulary_count + file_.added.size();
    // Ids index arrays, so they must not be far above the number of tokens.
    const uint64_t limit = 2 * count + 1024;
    const auto check = [&](int64_t id, std::string_view text) -> Status {
      if (id >= 0 && static_cast<uint64_t>(id) < limit)
        return {};
      return invalid(fmt::format("token '{}' has id {}, expected less than {} for {} tokens",
                                 shown_text(text), id, limit, count));
    };
    // The packed vocabulary becomes the arena, so that the texts are not copied once more.
    PackedTexts packed = std::move(file_.vocabulary);
    uint64_t size = 0;
    for (PackedTexts::Cursor cursor(packed.bytes()); !cursor.done();) {
      const std::string_view text = cursor.text();
      const uint32_t id = cursor.number();
      PINHOLE_CHECK(check(id, text));
      size = std::max<uint64_t>(size, uint64_t{id} + 1);
    }
    for (const AddedTokenEntry& token : file_.added) {
      PINHOLE_CHECK(check(token.id, token.content));
      size = std::max(size, static_cast<uint64_t>(token.id) + 1);
    }
    vocabulary_size_ = size;
    std::string arena = packed.take();
    arena.reserve(arena.size() + arena.size() / 2); // the pieces follow
    model.vocabulary = Vocabulary(size, count, std::move(arena));
    std::vector<Vocabulary::Entry> group;
    for (PackedTexts::Cursor cursor(model.vocabulary.arena()); !cursor.done();) {
      const size_t length = cursor.text().size();
      const size_t end = cursor.offset();
      const auto id = static_cast<TokenId>(cursor.number());
      group.push_back({static_cast<uint32_t>(end - length), static_cast<uint32_t>(length), id,
                       TokenKind::kNormal});
      if (group.size() == kGroup || cursor.done()) {
        PINHOLE_CHECK(model.vocabulary.add_all(group, where_));
        group.clear();
      }
    }
    return {};
  }

  Status add_merges(TokenizerModel& model) {
    MergeReader reader(model.vocabulary, file_.merge_count, true, nullptr, where_);
    for (PackedTexts::Cursor cursor(file_.merges.bytes()); !cursor.done();) {
      const std::string_view left = cursor.text(), right = cursor.text();
      PINHOLE_CHECK(reader.add(left, right));
    }
    PINHOLE_TRY(model.merges, reader.finish());
    file_.merges = {};
    return {};
  }

  Status add_added(TokenizerModel& model) {
    Vocabulary& vocabulary = model.vocabulary;
    for (const AddedTokenEntry& entry : file_.added) {
      if (entry.content.empty())
        continue;
      const TokenKind kind = entry.special ? TokenKind::kControl : TokenKind::kUserDefined;
      TokenId id = vocabulary.find(entry.content); // which has the last word on the id
      if (id == kNoToken) {
        id = static_cast<TokenId>(entry.id);
        PINHOLE_CHECK(vocabulary.append(id, entry.content, kind, where_));
      } else {
        vocabulary.set_kind(id, kind);
      }
      AddedToken token;
      token.id = id;
      token.special = entry.special;
      token.single_word = entry.single_word;
      token.lstrip = entry.lstrip;
      token.rstrip = entry.rstrip;
      if (!entry.normalized) {
        PINHOLE_CHECK(model.added.add(token, entry.content, where_));
        continue;
      }
      const std::string normal = model.normalizer.normalize(entry.content);
      vocabulary.set_piece(id, normal);
      PINHOLE_CHECK(model.added_normalized.add(token, normal, where_));
    }
    return add_named(model);
  }

  // The tokens that tokenizer_config.json names (bos_token, …) are special even where no list of
  // added tokens has them.
  Status add_named(TokenizerModel& model) {
    Vocabulary& vocabulary = model.vocabulary;
    std::unordered_set<TokenId> listed;
    const auto add = [&](const Json& json) -> Status {
      const std::optional<std::string> text = token_text(json);
      const TokenId id = text ? vocabulary.find(*text) : kNoToken;
      if (id == kNoToken || vocabulary.kind(id) == TokenKind::kControl)
        return {};
      const bool is_listed = vocabulary.kind(id) == TokenKind::kUserDefined;
      vocabulary.set_kind(id, TokenKind::kControl);
      if (is_listed) {
        listed.insert(id);
        return {};
      }
      AddedToken token;
      token.id = id;
      token.special = true;
      return model.added.add(token, *text, where_);
    };
    for (const char* key : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
                            "cls_token", "mask_token"}) {
      if (const Json* json = json_find(config_, key))
        PINHOLE_CHECK(add(*json));
    }
    for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
      const Json* list = json_find(config_, key);
      if (list == nullptr || !list->is_structured())
        continue;
      for (const Json& json : *list)
        PINHOLE_CHECK(add(json));
    }
    model.added.mark_special(listed);
    model.added_normalized.mark_special(listed);
    return {};
  }

  // A token in tokenizer_config.json: its text, or an object with it.
  static std::optional<std::string> token_text(const Json& json) {
    if (json.is_string())
      return json.get<std::string>();
    const Json* content = json_find(json, "content");
    if (content != nullptr && content->is_string())
      return content->get<std::string>();
    return std::nullopt;
  }

  Status read_decoder(TokenizerModel& model) {
    Decoder decoder;
    const Json& json = member("decoder");
    if (json.is_null())
      decoder.byte_level = model.pre_tokenizer.byte_level();
    else
      PINHOLE_CHECK(parse_decoder(json, 0, decoder));
    model.first_space = decoder.first_space;
    Vocabulary& vocabulary = model.vocabulary;
    for (size_t i = 0; i < vocabulary.size(); ++i) {
      const auto id = static_cast<TokenId>(i);
      const TokenKind kind = vocabulary.kind(id);
      if (kind != TokenKind::kNormal && kind != TokenKind::kUserDefined)
        continue;
      if (decoder.byte_level) {
        if (kind == TokenKind::kNormal)
          set_byte_level_piece(vocabulary, id);
        continue;
      }
      const int byte = decoder.byte_fallback && kind == TokenKind::kNormal
                           ? byte_token_value(vocabulary.text(id))
                           : -1;
      if (byte >= 0) {
        const char value = static_cast<char>(byte);
        vocabulary.set_piece(id, {&value, 1});
        vocabulary.set_kind(id, TokenKind::kByte);
      } else if (!decoder.replacements.empty()) {
        std::string piece(vocabulary.piece(id));
        for (const auto& [from, to] : decoder.replacements)
          replace_all(piece, from, to);
        vocabulary.set_piece(id, piece);
      }
    }
    return {};
  }

  static void replace_all(std::string& text, const std::string& from, const std::string& to) {
    for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
      text.replace(at, from.size(), to);
    }
  }

  Status parse_decoder(const Json& json, int depth, Decoder& out) const {
    const std::string where = where_ + ", decoder";
    if (depth > kMaxDepth)
      return invalid("too many nested decoders");
    PINHOLE_TRY(const std::string type, json_string(json, "type", where));
    if (type == "Sequence") {
      const Json* list = json_find(json, "decoders");
      if (list == nullptr || !list->is_array())
        return invalid("a decoder Sequence without 'decoders'");
      bool fused = false;
      for (const Json& item : *list) {
        PINHOLE_TRY(const std::string kind, json_string(item, "type", where));
        if (kind == "Fuse") {
          fused = true;
        } else if (kind == "Strip") {
          PINHOLE_CHECK(parse_strip(item, fused, out));
        } else {
          PINHOLE_CHECK(parse_decoder(item, depth + 1, out));
        }
      }
    } else if (type == "ByteLevel") {
      out.byte_level = true;
    } else if (type == "ByteFallback") {
      out.byte_fallback = true;
    } else if (type == "Replace") {
      PINHOLE_TRY(TextPattern pattern, TextPattern::parse(json, where));
      PINHOLE_TRY(std::string content, json_string(json, "content", where));
      if (pattern.regex != nullptr)
        return unsupported("a decoder Replace with a regular expression");
      // Pieces must not outgrow the file.
      if (content.size() > 2 * pattern.literal.size() || out.replacements.size() >= 8) {
        return unsupported(fmt::format("a decoder Replace of {} bytes by {}",
                                       pattern.literal.size(), content.size()));
      }
      if (!pattern.literal.empty()) {
        out.replacements.emplace_back(std::move(pattern.literal), std::move(content));
      }
    } else if (type == "Metaspace") {
      PINHOLE_TRY(std::string replacement, json_string(json, "replacement", where));
      if (replacement.empty())
        return invalid("Metaspace's 'replacement' is empty");
      out.replacements.emplace_back(std::move(replacement), " ");
      const Json* scheme = json_find(json, "prepend_scheme");
      PINHOLE_TRY(const bool prefix, json_bool_or(json, "add_prefix_space", true, where));
      if (prefix && (scheme == nullptr || *scheme != "never")) {
        out.first_space = TokenizerModel::FirstSpace::kDropInToken;
      }
    } else if (type != "Fuse") {
      return unsupported(fmt::format("decoder '{}' is not supported", type));
    }
    return {};
  }

  // Strip is known as SentencePiece's: one space at the start of the whole text.
  Status parse_strip(const Json& json, bool fused, Decoder& out) const {
    PINHOLE_TRY(const std::string content, json_string(json, "content", where_ + ", decoder"));
    PINHOLE_TRY(const int64_t start, json_int_or(json, "start", 0, where_));
    PINHOLE_TRY(const int64_t stop, json_int_or(json, "stop", 0, where_));
    if (start == 0 && stop == 0)
      return {};
    if (!fused || content != " " || start != 1 || stop != 0) {
      return unsupported(fmt::format("a decoder Strip of '{}' with start {}, stop {}, expected one "
                                     "leading space after Fuse",
                                     content, start, stop));
    }
    out.first_space = TokenizerModel::FirstSpace::kDropOne;
    return {};
  }

  Status read_post_processor(const Json& json, int depth, TokenizerModel& model) const {
    if (json.is_null())
      return {};
    const std::string where = where_ + ", post_processor";
    if (depth > kMaxDepth)
      return invalid("too many nested post_processors");
    PINHOLE_TRY(const std::string type, json_string(json, "type", where));
    if (type == "ByteLevel")
      return {}; // offsets only
    if (type == "Sequence") {
      const Json* list = json_find(json, "processors");
      if (list == nullptr || !list->is_array()) {
        return invalid("a post_processor Sequence without 'processors'");
      }
      for (const Json& item : *list)
        PINHOLE_CHECK(read_post_processor(item, depth + 1, model));
      return {};
    }
    if (type == "BertProcessing" || type == "RobertaProcessing") {
      PINHOLE_CHECK(add_pair(json, "cls", model.prefix));
      return add_pair(json, "sep", model.suffix);
    }
    if (type == "TemplateProcessing")
      return read_template(json, model);
    return unsupported(fmt::format("post_processor '{}' is not supported", type));
  }

  // ["[CLS]", 101]
  Status add_pair(const Json& json, const char* key, std::vector<TokenId>& out) const {
    const Json* pair = json_find(json, key);
    if (pair == nullptr || !pair->is_array() || pair->size() != 2) {
      return invalid(fmt::format("post_processor: '{}' is not a token and its id", key));
    }
    return add_template_id((*pair)[1], out);
  }

  Status add_template_id(const Json& json, std::vector<TokenId>& out) const {
    if (!json.is_number_unsigned() || json.get<uint64_t>() >= vocabulary_size_ ||
        out.size() >= kMaxTemplateTokens) {
      return invalid(
          fmt::format("post_processor: token id {}, expected less than {}, at most {} ids",
                      json.dump(), vocabulary_size_, kMaxTemplateTokens));
    }
    out.push_back(json.get<TokenId>());
    return {};
  }

  Status read_template(const Json& json, TokenizerModel& model) const {
    const Json* single = json_find(json, "single");
    if (single == nullptr || !single->is_array()) {
      return invalid("post_processor: TemplateProcessing without an array 'single'");
    }
    bool after = false; // the text itself has been seen
    for (const Json& item : *single) {
      if (json_find(item, "Sequence") != nullptr) {
        after = true;
        continue;
      }
      const Json* token = json_find(item, "SpecialToken");
      if (token == nullptr)
        return invalid("post_processor: a template item of an unknown kind");
      PINHOLE_TRY(const std::string name, json_string(*token, "id", where_ + ", post_processor"));
      const Json* tokens = json_find(json, "special_tokens");
      const Json* entry = tokens == nullptr ? nullptr : json_find(*tokens, name);
      const Json* ids = entry == nullptr ? nullptr : json_find(*entry, "ids");
      if (ids == nullptr || !ids->is_array()) {
        return invalid(fmt::format("post_processor: '{}' is not among 'special_tokens'", name));
      }
      for (const Json& id : *ids) {
        PINHOLE_CHECK(add_template_id(id, after ? model.suffix : model.prefix));
      }
    }
    return {};
  }

  Status read_config(TokenizerModel& model) const {
    const Vocabulary& vocabulary = model.vocabulary;
    const auto named = [&](const char* key) -> std::optional<TokenId> {
      const Json* json = json_find(config_, key);
      const std::optional<std::string> text = json == nullptr ? std::nullopt : token_text(*json);
      const TokenId id = text ? vocabulary.find(*text) : kNoToken;
      return id == kNoToken ? std::nullopt : std::optional(id);
    };
    model.bos = named("bos_token");
    model.eos = named("eos_token");
    if (!model.bos && model.prefix.size() == 1)
      model.bos = model.prefix[0];
    if (!model.eos && model.suffix.size() == 1)
      model.eos = model.suffix[0];
    // transformers rebuilds the template when the configuration has either key.
    const bool explicit_bos = json_find(config_, "add_bos_token") != nullptr;
    const bool explicit_eos = json_find(config_, "add_eos_token") != nullptr;
    if (explicit_bos || explicit_eos) {
      PINHOLE_TRY(const bool add_bos, json_bool_or(config_, "add_bos_token", false, where_));
      PINHOLE_TRY(const bool add_eos, json_bool_or(config_, "add_eos_token", false, where_));
      model.prefix.clear();
      model.suffix.clear();
      if (add_bos && model.bos)
        model.prefix = {*model.bos};
      if (add_eos && model.eos)
        model.suffix = {*model.eos};
    }
    const Json* unknown = json_find(member("model"), "unk_token");
    if (unknown != nullptr) {
      const TokenId id =
          unknown->is_string() ? vocabulary.find(unknown->get<std::string>()) : kNoToken;
      if (id == kNoToken) {
        return invalid(fmt::format("'unk_token' is {}, which is not in the vocabulary",
                                   unknown->dump(-1, ' ', false, Json::error_handler_t::replace)));
      }
      model.unknown = id;
    }
    return {};
  }

  TokenizerFile file_;
  const Json& config_;
  const std::string& where_;
  uint64_t vocabulary_size_ = 0;
};

} // namespace

Result<Tokenizer> Tokenizer::from_json(std::string_view tokenizer_json,
                                       const Json& tokenizer_config, const std::string& where) {
  PINHOLE_TRY(TokenizerFile file, read_tokenizer_json(tokenizer_json, where));
  auto impl = std::make_unique<Impl>();
  PINHOLE_CHECK(JsonBuilder(std::move(file), tokenizer_config, where).build(*impl));
  return Tokenizer(std::move(impl));
}

} // namespace pinhole
