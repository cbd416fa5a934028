// SentencePiece's BPE: neighbouring symbols merge when together they spell a token, the highest
// score first, the leftmost of equal scores; what remains unknown falls back to byte tokens.
//
// Source: google/sentencepiece, bpe_model.cc (Model::SampleEncode), and llama.cpp's SPM tokenizer.
#pragma once

#include "text/vocabulary.h"

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace pinhole {

class SpmMerger {
 public:
  // Appends the tokens of `text` (spaces written as U+2581). `byte_tokens` [256] and `unknown` may
  // be kNoToken: what has neither is left out.
  void encode(const Vocabulary& vocabulary, std::span<const float> scores,
              std::span<const TokenId> byte_tokens, TokenId unknown, std::string_view text,
              std::vector<TokenId>& out);

 private:
  struct Symbol {
    uint32_t begin, bytes; // in the text; 0 bytes: merged into its left neighbour
    uint32_t previous, next;
  };
  struct Candidate {
    float score;
    uint32_t left, bytes; // of both symbols together: tells whether they are still what they were
    bool operator<(const Candidate& other) const {
      return score < other.score || (score == other.score && left > other.left);
    }
  };
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

} // namespace pinhole
