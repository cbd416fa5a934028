#include "text/tokenizer.h"

#include "text/tokenizer_impl.h"
#include "text/utf8.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole {

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'A' && c <= 'F')
    return c - 'A' + 10;
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  return -1;
}

// Positions within a word are 32 bits; longer words are cut.
constexpr size_t kMaxWordBytes = 1u << 30;

// The state of encoding one text.
class TextEncoder {
 public:
  TextEncoder(const TokenizerModel& impl, size_t text_bytes, std::vector<TokenId>& out)
      : impl_(impl), session_(impl.pre_tokenizer, text_bytes), out_(out) {}

  void encode(std::string_view text, bool at_start) {
    session_.split(text, at_start, [&](std::string_view word) {
      for (; word.size() > kMaxWordBytes; word.remove_prefix(kMaxWordBytes)) {
        encode_word(word.substr(0, kMaxWordBytes));
      }
      encode_word(word);
    });
  }

 private:
  void encode_word(std::string_view word) {
    if (impl_.algorithm == TokenizerModel::Algorithm::kSpm) {
      spm_.encode(impl_.vocabulary, impl_.scores, impl_.byte_tokens, impl_.unknown, word, out_);
      return;
    }
    if (impl_.ignore_merges) {
      const TokenId id = whole_word(word);
      if (id != kNoToken) {
        out_.push_back(id);
        return;
      }
    }
    symbols_.clear();
    if (impl_.pre_tokenizer.byte_level()) {
      for (const char byte : word) {
        put(impl_.alphabet_tokens[static_cast<uint8_t>(byte)]);
      }
    } else {
      for (size_t at = 0; at < word.size();) {
        const size_t length = std::max<size_t>(1, utf8_sequence(word, at));
        put_character(word.substr(at, length));
        at += length;
      }
    }
    flush_unknown();
    bpe_.merge(impl_.merges, symbols_);
    if (impl_.unlisted.count() == 0) {
      out_.insert(out_.end(), symbols_.begin(), symbols_.end());
      return;
    }
    for (const TokenId id : symbols_) {
      const auto listed = static_cast<TokenId>(impl_.vocabulary.size());
      if (id < listed) {
        out_.push_back(id);
        continue;
      }
      for (const char byte : impl_.unlisted.text(id - listed)) {
        const TokenId single = impl_.vocabulary.find({&byte, 1});
        if (single != kNoToken)
          out_.push_back(single);
      }
    }
  }

  // Control tokens do not come from words: text cannot forge them.
  TokenId whole_word(std::string_view word) {
    if (impl_.pre_tokenizer.byte_level()) {
      if (word.size() > impl_.vocabulary.max_text_bytes())
        return kNoToken;
      spelled_.clear();
      for (const char byte : word)
        spelled_ += byte_level_character(static_cast<uint8_t>(byte));
      word = spelled_;
    }
    const TokenId id = impl_.vocabulary.find(word);
    return id != kNoToken && impl_.vocabulary.kind(id) == TokenKind::kNormal ? id : kNoToken;
  }

  void put(TokenId id) {
    if (id != kNoToken) {
      flush_unknown();
      symbols_.push_back(id);
    } else if (impl_.unknown != kNoToken) { // else nothing in the vocabulary stands for it
      if (!impl_.fuse_unknown)
        flush_unknown();
      unknown_ = true;
    }
  }

  void flush_unknown() {
    if (unknown_)
      symbols_.push_back(impl_.unknown);
    unknown_ = false;
  }

  void put_character(std::string_view character) {
    const TokenId id = impl_.vocabulary.find(character);
    if (id == kNoToken && impl_.byte_fallback) {
      const auto byte_token = [&](char byte) {
        return impl_.byte_tokens[static_cast<uint8_t>(byte)];
      };
      if (std::all_of(character.begin(), character.end(),
                      [&](char byte) { return byte_token(byte) != kNoToken; })) {
        // An unknown token that waits comes after them, as in the reference.
        for (const char byte : character)
          symbols_.push_back(byte_token(byte));
        return;
      }
    }
    put(id);
  }

  const TokenizerModel& impl_;
  PreTokenizer::Session session_;
  BpeMerger bpe_;
  SpmMerger spm_;
  std::vector<TokenId> symbols_;
  std::string spelled_;
  bool unknown_ = false; // an unknown token is due before the next known one
  std::vector<TokenId>& out_;
};

} // namespace

int byte_token_value(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>')
    return -1;
  const int high = hex_digit(text[3]), low = hex_digit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

void set_byte_level_piece(Vocabulary& vocabulary, TokenId id) {
  const std::string_view text = vocabulary.text(id);
  if (std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7F; })) {
    return; // these characters stand for themselves
  }
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_sequence(text, at);
    const int byte = length == 0 ? -1 : byte_level_byte(utf8_decode(text, at, length));
    if (byte < 0)
      return;
    bytes.push_back(static_cast<char>(byte));
    at += length;
  }
  vocabulary.set_piece(id, bytes);
}

Status MergeReader::add(std::string_view left, std::string_view right) {
  group_[count_++] = {left, right, vocabulary_.prefetch(left), vocabulary_.prefetch(right), 0,
                      0,    0};
  return count_ == kGroup ? flush() : Status();
}

Status MergeReader::flush() {
  const auto group = std::span(group_).first(count_);
  for (Item& item : group) {
    item.left_id = vocabulary_.find(item.left, item.left_hash);
    item.right_id = vocabulary_.find(item.right, item.right_hash);
    const auto rank = rank_ + static_cast<uint32_t>(&item - group.data());
    if (item.left_id == kNoToken) {
      PINHOLE_TRY(item.left_id, unlisted_id(item.left, rank, "names"));
    }
    if (item.right_id == kNoToken) {
      PINHOLE_TRY(item.right_id, unlisted_id(item.right, rank, "names"));
    }
    table_.prefetch(item.left_id, item.right_id);
    item.made = vocabulary_.find_joined(item.left, item.right, made_ + 1);
    if (item.made != kNoToken) {
      made_ = item.made;
    } else {
      const std::string text = std::string(item.left) + std::string(item.right);
      PINHOLE_TRY(item.made, unlisted_id(text, rank, "makes"));
    }
  }
  for (const Item& item : group) {
    table_.add(item.left_id, item.right_id, {rank_++, static_cast<uint32_t>(item.made)}, replace_);
  }
  count_ = 0;
  return {};
}

Result<TokenId> MergeReader::unlisted_id(std::string_view text, uint32_t rank, const char* verb) {
  if (unlisted_ == nullptr) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("merge {} {} '{}', which is not in the vocabulary", rank, verb,
                            shown_text(text)),
                where_);
  }
  TokenId id = unlisted_->find(text);
  if (id == kNoToken) {
    id = static_cast<TokenId>(unlisted_->count());
    PINHOLE_CHECK(unlisted_->append(id, text, TokenKind::kNormal, where_));
  }
  return id + static_cast<TokenId>(vocabulary_.size());
}

Result<MergeTable> MergeReader::finish() {
  PINHOLE_CHECK(flush());
  return std::move(table_);
}

void TokenizerModel::finish() {
  byte_tokens.fill(kNoToken);
  alphabet_tokens.fill(kNoToken);
  for (int byte = 0; byte < 256; ++byte) {
    constexpr std::string_view kHex = "0123456789ABCDEF";
    const char text[] = {
        '<', '0', 'x', kHex[static_cast<size_t>(byte / 16)], kHex[static_cast<size_t>(byte % 16)],
        '>'};
    byte_tokens[static_cast<size_t>(byte)] = vocabulary.find({text, sizeof text});
    alphabet_tokens[static_cast<size_t>(byte)] =
        vocabulary.find(byte_level_character(static_cast<uint8_t>(byte)));
  }
  added.finish();
  added_normalized.finish();
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

std::vector<TokenId> Tokenizer::encode(std::string_view text, bool parse_special,
                                       bool add_bos) const {
  std::vector<TokenId> out;
  out.reserve(text.size() / 3 + 8);
  if (add_bos)
    out = impl_->prefix;
  TextEncoder encoder(*impl_, text.size(), out);
  impl_->added.split(
      text, parse_special,
      [&](std::string_view part, size_t offset) {
        if (impl_->normalizer.empty() && impl_->added_normalized.empty()) {
          encoder.encode(part, offset == 0);
          return;
        }
        const std::string normal = impl_->normalizer.normalize(part);
        impl_->added_normalized.split(
            normal, parse_special,
            [&](std::string_view rest, size_t rest_offset) {
              encoder.encode(rest, offset == 0 && rest_offset == 0);
            },
            [&](TokenId id) { out.push_back(id); });
      },
      [&](TokenId id) { out.push_back(id); });
  if (add_bos)
    out.insert(out.end(), impl_->suffix.begin(), impl_->suffix.end());
  return out;
}

std::string_view Tokenizer::piece(TokenId id) const {
  if (!impl_->vocabulary.contains(id))
    return {};
  return impl_->vocabulary.piece(id);
}

bool Tokenizer::is_special(TokenId id) const {
  if (!impl_->vocabulary.contains(id))
    return false;
  const TokenKind kind = impl_->vocabulary.kind(id);
  return kind == TokenKind::kControl || kind == TokenKind::kUnknown;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  std::string out;
  bool first = impl_->first_space == TokenizerModel::FirstSpace::kDropInToken;
  for (const TokenId id : ids) {
    if (skip_special && is_special(id))
      continue;
    out += piece(id);
    if (first && !is_special(id))
      std::erase(out, ' ');
    first = false;
  }
  if (impl_->first_space == TokenizerModel::FirstSpace::kDropOne && out.starts_with(' '))
    out.erase(0, 1);
  return out;
}

std::optional<TokenId> Tokenizer::find(std::string_view token) const {
  const TokenId id = impl_->vocabulary.find(token);
  if (id == kNoToken)
    return std::nullopt;
  return id;
}

int64_t Tokenizer::table_bytes() const {
  constexpr int64_t kAddedTokenBytes = 160; // here, and in the lists of those who look for it
  const size_t tables = impl_->vocabulary.table_bytes() + impl_->unlisted.table_bytes() +
                        impl_->merges.table_bytes() + impl_->scores.size() * sizeof(float);
  return static_cast<int64_t>(tables) +
         kAddedTokenBytes *
             static_cast<int64_t>(impl_->added.size() + impl_->added_normalized.size());
}
int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(impl_->vocabulary.size()); }
std::optional<TokenId> Tokenizer::bos() const { return impl_->bos; }
std::optional<TokenId> Tokenizer::eos() const { return impl_->eos; }
bool Tokenizer::adds_bos() const { return !impl_->prefix.empty(); }

std::string StreamDecoder::push(TokenId id) {
  if (tokenizer_->is_special(id))
    return {};
  std::string_view piece = tokenizer_->piece(id);
  if (at_start_ && !piece.empty()) {
    pending_ = tokenizer_->decode({&id, 1}, true); // without the encoder's own first space
    at_start_ = false;
  } else {
    pending_ += piece;
  }
  const size_t kept = utf8_incomplete_suffix(pending_);
  std::string out;
  utf8_append_lossy(out, std::string_view(pending_).substr(0, pending_.size() - kept));
  pending_.erase(0, pending_.size() - kept);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  utf8_append_lossy(out, pending_);
  pending_.clear();
  at_start_ = true;
  return out;
}

} // namespace pinhole
