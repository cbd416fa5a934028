// Tokenizers from tokenizer.ggml.* metadata.
//
// Defaults as in llama.cpp (src/llama-vocab.cpp): "llama" is SentencePiece's BPE with a space
// before the text and BOS; "gpt2" is byte-level BPE whose pre-tokeniser decides about BOS.
#include "text/tokenizer_impl.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <set>

namespace pinhole {

namespace {

constexpr size_t kGroup = 4096;               // tokens added at once
constexpr std::string_view kSpace = "\u2581"; // how SentencePiece spells a space

// Texts that are control tokens whatever their type says: old conversions mark some of them as
// user-defined, and a user must not be able to write them.
bool looks_like_control(std::string_view text) {
  if (text.size() < 7 || text[0] != '<')
    return false;
  static const std::set<std::string_view> texts = {
      "<|im_start|>",       "<|im_end|>",      "<|endoftext|>",     "<|eot_id|>",
      "<|eom_id|>",         "<|end_of_text|>", "<|begin_of_text|>", "<|start_header_id|>",
      "<|end_header_id|>",  "<|end|>",         "<start_of_turn>",   "<end_of_turn>",
      "<end_of_utterance>", "<|fim_prefix|>",  "<|fim_middle|>",    "<|fim_suffix|>",
      "<|fim_pad|>",        "<|repo_name|>",   "<|file_sep|>"};
  return texts.contains(text);
}

class GgufBuilder {
 public:
  GgufBuilder(const GgufTokenizerSpec& spec, const std::string& where)
      : spec_(spec), where_(where) {}

  Status build(TokenizerModel& model) {
    bool add_bos = false, space_prefix = false;
    if (spec_.model == "llama") {
      model.algorithm = TokenizerModel::Algorithm::kSpm;
      model.byte_fallback = true;
      add_bos = true;
      space_prefix = spec_.add_space_prefix.value_or(true);
      if (space_prefix)
        model.normalizer.add_prepend(std::string(kSpace));
      model.normalizer.add_replace(" ", std::string(kSpace));
      if (space_prefix)
        model.first_space = TokenizerModel::FirstSpace::kDropOne;
    } else if (spec_.model == "gpt2") {
      PINHOLE_TRY(const GgufPreTokenizer pre, gguf_pre_tokenizer(spec_.pre, where_));
      for (const std::string_view regex : pre.regexes) {
        PINHOLE_CHECK(model.pre_tokenizer.add_split(regex, where_));
      }
      model.pre_tokenizer.set_byte_level(true);
      model.ignore_merges = pre.ignore_merges;
      add_bos = pre.add_bos;
    } else {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("tokenizer.ggml.model is '{}', expected gpt2 or llama", spec_.model),
                  where_, "a Hugging Face folder with tokenizer.json may work");
    }
    PINHOLE_CHECK(check_sizes());
    PINHOLE_CHECK(add_tokens(model.vocabulary));
    PINHOLE_CHECK(set_special(model));
    PINHOLE_CHECK(set_pieces(model));
    if (model.algorithm == TokenizerModel::Algorithm::kSpm) {
      model.scores = spec_.scores;
    } else {
      PINHOLE_CHECK(add_merges(model));
    }
    if (spec_.add_bos.value_or(add_bos) && model.bos)
      model.prefix = {*model.bos};
    if (spec_.add_eos.value_or(false) && model.eos)
      model.suffix = {*model.eos};
    model.finish();
    return {};
  }

 private:
  tl::unexpected<Error> invalid(std::string message) const {
    return fail(ErrorCode::kInvalidInput, std::move(message), where_);
  }

  Status check_sizes() const {
    const size_t count = spec_.tokens.size();
    if (count == 0)
      return invalid("tokenizer.ggml.tokens is empty");
    if (count > INT32_MAX / 4)
      return invalid(fmt::format("{} tokens are too many", count));
    if (!spec_.token_types.empty() && spec_.token_types.size() != count) {
      return invalid(fmt::format("tokenizer.ggml.token_type has {} entries, expected {}",
                                 spec_.token_types.size(), count));
    }
    if (spec_.model != "llama")
      return {};
    if (spec_.scores.size() != count) {
      return invalid(fmt::format("tokenizer.ggml.scores has {} entries, expected {}",
                                 spec_.scores.size(), count));
    }
    for (size_t i = 0; i < count; ++i) {
      if (std::isnan(spec_.scores[i]))
        return invalid(fmt::format("the score of token {} is NaN", i));
    }
    return {};
  }

  Status add_tokens(Vocabulary& vocabulary) const {
    uint64_t bytes = 0;
    for (const std::string_view text : spec_.tokens)
      bytes += text.size();
    if (bytes > UINT32_MAX / 2)
      return invalid(fmt::format("{} bytes of tokens are too many", bytes));
    std::string arena;
    arena.reserve(bytes + bytes / 2); // the pieces follow
    for (const std::string_view text : spec_.tokens)
      arena += text;
    vocabulary = Vocabulary(spec_.tokens.size(), spec_.tokens.size(), std::move(arena));
    std::vector<Vocabulary::Entry> group;
    uint32_t offset = 0;
    for (size_t i = 0; i < spec_.tokens.size(); ++i) {
      const auto length = static_cast<uint32_t>(spec_.tokens[i].size());
      group.push_back({offset, length, static_cast<TokenId>(i), kind_of(i)});
      offset += length;
      if (group.size() == kGroup || i + 1 == spec_.tokens.size()) {
        PINHOLE_CHECK(vocabulary.add_all(group, where_));
        group.clear();
      }
    }
    return {};
  }

  TokenKind kind_of(size_t i) const {
    if (looks_like_control(spec_.tokens[i]))
      return TokenKind::kControl;
    if (spec_.token_types.empty())
      return TokenKind::kNormal;
    const int32_t type = spec_.token_types[i];
    return type >= 1 && type <= 6 ? static_cast<TokenKind>(type) : TokenKind::kUnused;
  }

  // An id of the metadata: checked when given, else SentencePiece's usual one if it is of that
  // kind.
  Result<std::optional<TokenId>> special(const Vocabulary& vocabulary, std::optional<TokenId> given,
                                         const char* key, TokenId usual, TokenKind kind) const {
    if (given && !vocabulary.contains(*given)) {
      return invalid(fmt::format("tokenizer.ggml.{}_token_id is {}, but there are {} tokens", key,
                                 *given, vocabulary.size()));
    }
    if (given)
      return given;
    if (spec_.model == "llama" && vocabulary.contains(usual) && vocabulary.kind(usual) == kind) {
      return std::optional(usual);
    }
    return std::optional<TokenId>();
  }

  Status set_special(TokenizerModel& model) const {
    Vocabulary& vocabulary = model.vocabulary;
    PINHOLE_TRY(model.bos, special(vocabulary, spec_.bos, "bos", 1, TokenKind::kControl));
    PINHOLE_TRY(model.eos, special(vocabulary, spec_.eos, "eos", 2, TokenKind::kControl));
    PINHOLE_TRY(const auto unknown,
                special(vocabulary, spec_.unknown, "unknown", 0, TokenKind::kUnknown));
    PINHOLE_CHECK(special(vocabulary, spec_.padding, "padding", kNoToken, TokenKind::kControl));
    model.unknown = unknown.value_or(kNoToken);
    for (const auto& id : {model.bos, model.eos}) {
      if (id)
        vocabulary.set_kind(*id, TokenKind::kControl);
    }
    for (size_t i = 0; i < vocabulary.size(); ++i) {
      const auto id = static_cast<TokenId>(i);
      const TokenKind kind = vocabulary.kind(id);
      const bool special = kind == TokenKind::kControl || kind == TokenKind::kUnknown;
      if (!special && kind != TokenKind::kUserDefined)
        continue;
      AddedToken token;
      token.id = id;
      token.special = special;
      PINHOLE_CHECK(model.added.add(token, vocabulary.text(id), where_));
    }
    return {};
  }

  Status set_pieces(TokenizerModel& model) const {
    Vocabulary& vocabulary = model.vocabulary;
    for (size_t i = 0; i < vocabulary.size(); ++i) {
      const auto id = static_cast<TokenId>(i);
      const std::string_view text = vocabulary.text(id);
      switch (vocabulary.kind(id)) {
      case TokenKind::kNormal:
        if (model.algorithm == TokenizerModel::Algorithm::kBpe) {
          set_byte_level_piece(vocabulary, id);
        } else if (text.find(kSpace) != std::string_view::npos) {
          vocabulary.set_piece(id, spaces_in(text));
        }
        break;
      case TokenKind::kByte: {
        const int byte = byte_token_value(text);
        if (byte < 0) {
          return invalid(
              fmt::format("byte token {} is '{}', expected the form <0x0A>", id, shown_text(text)));
        }
        const char value = static_cast<char>(byte);
        vocabulary.set_piece(id, {&value, 1});
        break;
      }
      case TokenKind::kUnused:
        vocabulary.set_piece(id, {});
        break;
      default:
        break;
      }
    }
    return {};
  }

  static std::string spaces_in(std::string_view text) {
    std::string out;
    while (!text.empty()) {
      const size_t at = std::min(text.find(kSpace), text.size());
      out += text.substr(0, at);
      text.remove_prefix(at);
      if (text.empty())
        break;
      out += ' ';
      text.remove_prefix(kSpace.size());
    }
    return out;
  }

  Status add_merges(TokenizerModel& model) const {
    if (spec_.merges.size() > INT32_MAX / 8)
      return invalid(fmt::format("{} merges are too many", spec_.merges.size()));
    MergeReader reader(model.vocabulary, spec_.merges.size(), false, &model.unlisted, where_);
    for (size_t i = 0; i < spec_.merges.size(); ++i) {
      const std::string_view merge = spec_.merges[i];
      const size_t space = merge.find(' ', 1); // the first character may be a space itself
      if (merge.empty() || space == std::string_view::npos) {
        return invalid(fmt::format("merge {} is '{}', expected two tokens and a space between", i,
                                   shown_text(merge)));
      }
      PINHOLE_CHECK(reader.add(merge.substr(0, space), merge.substr(space + 1)));
    }
    PINHOLE_TRY(model.merges, reader.finish());
    return {};
  }

  const GgufTokenizerSpec& spec_;
  const std::string& where_;
};

} // namespace

Result<Tokenizer> Tokenizer::from_gguf(const GgufTokenizerSpec& spec, const std::string& where) {
  auto impl = std::make_unique<Impl>();
  PINHOLE_CHECK(GgufBuilder(spec, where).build(*impl));
  return Tokenizer(std::move(impl));
}

} // namespace pinhole
