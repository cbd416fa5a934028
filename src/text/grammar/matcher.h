// Which tokens may come next, so that the answer stays a beginning of a text of the grammar.
//
// Works on the bytes of tokens: a token may hold several digits, end in the middle of a character,
// or close a string and open the next. Control tokens are never allowed, the tokens that end an
// answer exactly where the grammar may end.
#pragma once

#include "text/grammar/grammar.h"
#include "text/grammar/state_machine.h"
#include "text/tokenizer.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

// The texts of a vocabulary in the order of their bytes, each kept without what it shares with the
// one before: about 13 bytes a token. Made once for a model.
class TokenPieces {
 public:
  // `ends`: the tokens that end an answer. Ids from `num_logits` on, which the model cannot choose,
  // are left out. The tokenizer must outlive this.
  TokenPieces(const Tokenizer& tokenizer, std::span<const TokenId> ends,
              int64_t num_logits = INT64_MAX);

  size_t memory_bytes() const;
  size_t mask_words() const { return mask_words_; }

 private:
  friend class GrammarMatcher;
  const Tokenizer& tokenizer_;
  std::vector<TokenId> ids_;
  std::vector<uint32_t> suffix_begin_; // in suffixes_; one more than ids
  std::vector<uint16_t> shared_bytes_; // with the token before
  std::string suffixes_;
  std::vector<TokenId> ends_;
  size_t max_piece_bytes_ = 0;
  TokenId vocab_size_;
  size_t mask_words_ = 0;
};

// The state of one answer. Masks are made when they are asked for, and the last ones are kept: in
// the middle of a string or a number there is nothing to do.
class GrammarMatcher {
 public:
  // `pieces` must outlive this.
  GrammarMatcher(const Grammar& grammar, const TokenPieces& pieces);
  // What grammar, pieces and matcher take at most; mostly it is far less.
  static int64_t memory_bound(const Grammar& grammar, const Tokenizer& tokenizer);

  // Bit i % 64 of word i / 64: token i may come next. Valid until the next call of a function that
  // is not const.
  std::span<const uint64_t> allowed();
  // Goes on by a token that is allowed and is no end; false, and nothing changes, for others.
  bool accept(TokenId id);
  bool accept(std::string_view bytes);

  bool can_end() const { return machine_.accepts(state_); }
  bool can_continue() const { return machine_.reads(state_); }

 private:
  using State = grammar::StateMachine::State;
  struct Mask {
    State state = grammar::StateMachine::kDead; // whose it is
    std::vector<uint64_t> words;
  };
  void fill(Mask& mask);
  bool run(std::string_view bytes, size_t& alive);
  void make_room();

  const TokenPieces& pieces_;
  grammar::StateMachine machine_;
  State state_;
  std::vector<State> path_; // after each byte of the token looked at
  std::vector<Mask> masks_;
  size_t next_mask_ = 0;
};

} // namespace pinhole
