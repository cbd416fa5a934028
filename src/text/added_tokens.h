// Tokens that are cut out of the text before anything else looks at it: special tokens and others
// that a tokenizer lists beside its vocabulary.
//
// The leftmost match counts, and of those the longest. Source: Hugging Face tokenizers,
// tokenizer/added_vocabulary.rs (find_matches).
#pragma once

#include "base/function_ref.h"
#include "base/result.h"
#include "text/tokenizer.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace pinhole {

struct AddedToken {
  TokenId id = -1;
  uint32_t offset = 0, length = 0;     // of its text, in the matcher's arena
  bool special = false;                // found only where special tokens are parsed
  bool single_word = false;            // not when a letter or digit stands beside it
  bool lstrip = false, rstrip = false; // takes the whitespace before / after it along
};

class AddedTokens {
 public:
  // Longer ones are refused: they make the search slow, and real ones have up to 60 bytes.
  static constexpr size_t kMaxBytes = 1024;

  // `token.offset` and `length` are set here. An empty text is never found.
  Status add(AddedToken token, std::string_view text, const std::string& where);
  void mark_special(const std::unordered_set<TokenId>& ids);
  void finish(); // after the last add()

  bool empty() const { return tokens_.empty(); }
  size_t size() const { return tokens_.size(); }

  // Calls on_text for what lies between matches (never empty; `offset` is its place in the text)
  // and on_token for each match, in order.
  void split(std::string_view text, bool parse_special,
             FunctionRef<void(std::string_view part, size_t offset)> on_text,
             FunctionRef<void(TokenId id)> on_token) const;

 private:
  std::string_view text_of(const AddedToken& token) const {
    return {arena_.data() + token.offset, token.length};
  }
  // The longest token that begins at text[at], or null.
  const AddedToken* longest_at(std::string_view text, size_t at) const;

  std::string arena_;
  std::vector<AddedToken> tokens_;    // sorted by text
  std::array<uint32_t, 257> first_{}; // tokens whose first byte is b: [first_[b], first_[b + 1])
};

} // namespace pinhole
