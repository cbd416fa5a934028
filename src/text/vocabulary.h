// The tokens of a vocabulary: id -> text, id -> bytes it stands for, text -> id.
//
// 150,000 tokens without an allocation per token: all text lies in one arena, and the index is an
// open-addressing table of ids. The text is the file's own spelling ("\u0120the", "\u2581the",
// "<0x0A>"); the piece is what it means (" the", " the", a newline).
#pragma once

#include "base/result.h"
#include "text/tokenizer.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

inline constexpr TokenId kNoToken = -1;

// The kinds of tokenizer.ggml.token_type; kAbsent is an id that no token has.
enum class TokenKind : uint8_t {
  kAbsent,
  kNormal,
  kUnknown,
  kControl,
  kUserDefined,
  kUnused,
  kByte,
};

// A token's text as errors show it: valid UTF-8, cut to 60 bytes.
std::string shown_text(std::string_view text);

class Vocabulary {
 public:
  // `arena` holds the texts that add() refers to; ids are below `size`, and `tokens` of them
  // follow.
  Vocabulary(size_t size, size_t tokens, std::string arena);
  Vocabulary() : Vocabulary(0, 0, {}) {}

  struct Entry {
    uint32_t offset, length; // of the text in the arena
    TokenId id;
    TokenKind kind;
  };
  // An id or a text that is already there is an error, and so is a text above kMaxTextBytes; an
  // empty text is kept but cannot be found.
  static constexpr size_t kMaxTextBytes = UINT16_MAX;
  Status add(const Entry& entry, const std::string& where);
  Status add_all(std::span<const Entry> entries, const std::string& where);
  // The same for a text that is not in the arena yet.
  Status append(TokenId id, std::string_view text, TokenKind kind, const std::string& where);

  TokenId find(std::string_view text) const; // kNoToken when absent
  // The same in two steps, for many look-ups at once: the first asks for the cache line.
  uint64_t prefetch(std::string_view text) const;
  TokenId find(std::string_view text, uint64_t hash) const;

  // The token spelled left + right; `guess` is tried before the index (merges are listed in the
  // order of the ids that they make).
  TokenId find_joined(std::string_view left, std::string_view right, TokenId guess) const;

  size_t size() const { return tokens_.size(); } // ids are below it; some may be absent
  size_t count() const { return count_; }
  size_t table_bytes() const {
    return arena_.size() + tokens_.size() * (sizeof(Token) + sizeof(TokenKind)) +
           slots_.size() * sizeof(Slot);
  }
  size_t max_text_bytes() const { return max_text_bytes_; }
  bool contains(TokenId id) const {
    return id >= 0 && static_cast<size_t>(id) < tokens_.size() &&
           kinds_[static_cast<size_t>(id)] != TokenKind::kAbsent;
  }
  TokenKind kind(TokenId id) const { return kinds_[static_cast<size_t>(id)]; }
  void set_kind(TokenId id, TokenKind kind) { kinds_[static_cast<size_t>(id)] = kind; }
  std::string_view text(TokenId id) const {
    const Token& token = tokens_[static_cast<size_t>(id)];
    return view(token.text, token.text_bytes);
  }
  std::string_view piece(TokenId id) const {
    const Token& token = tokens_[static_cast<size_t>(id)];
    return view(token.piece, token.piece_bytes);
  }

  std::string_view arena() const { return arena_; }

  // A piece equals the text until it is set; it is cut to kMaxTextBytes.
  void set_piece(TokenId id, std::string_view piece);

 private:
  struct Token {                  // 12 bytes: there are many
    uint32_t text = 0, piece = 0; // offsets in the arena
    uint16_t text_bytes = 0, piece_bytes = 0;
  };
  struct Slot {
    uint32_t tag = 0;
    TokenId id = kNoToken;
  };
  std::string_view view(uint32_t offset, uint32_t length) const {
    return {arena_.data() + offset, length};
  }

  // Inserts, or returns the id that has this text already.
  TokenId insert(TokenId id, std::string_view text, uint64_t hash);
  Status add(const Entry& entry, uint64_t hash, const std::string& where);
  void grow();

  std::string arena_;
  std::vector<Token> tokens_;
  std::vector<TokenKind> kinds_;
  std::vector<Slot> slots_;
  uint64_t seed_;
  size_t count_ = 0;
  size_t max_text_bytes_ = 0;
};

} // namespace pinhole
