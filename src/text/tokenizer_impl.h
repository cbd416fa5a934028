// What a Tokenizer is made of; built from a GGUF's metadata or from tokenizer.json.
#pragma once

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pretokenizer.h"
#include "text/spm.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

#include <array>
#include <optional>
#include <string>
#include <vector>

namespace pinhole {

struct TokenizerModel {
  enum class Algorithm { kBpe, kSpm };

  Algorithm algorithm = Algorithm::kBpe;
  Vocabulary vocabulary;

  // Encoding, in this order.
  AddedTokens added;            // cut out of the raw text
  Normalizer normalizer;        // of what lies between them
  AddedTokens added_normalized; // cut out of the normalised text (its texts are normalised too)
  PreTokenizer pre_tokenizer;
  MergeTable merges;          // kBpe
  std::vector<float> scores;  // kSpm, by id
  bool ignore_merges = false; // a word that is a token is that token
  bool byte_fallback = false; // what no token spells becomes byte tokens
  bool fuse_unknown = false;  // a run of unknown characters becomes one token
  TokenId unknown = kNoToken;
  std::array<TokenId, 256> byte_tokens{};     // "<0x0A>"
  std::array<TokenId, 256> alphabet_tokens{}; // a byte in GPT-2's alphabet

  // Around the text, where the caller asks for it.
  std::vector<TokenId> prefix, suffix;
  std::optional<TokenId> bos, eos;

  // Decoding: the first space of a text was put there by the encoder.
  bool strip_first_space = false;

  // Fills the tables above from the vocabulary; the last step of building.
  void finish();
};

struct Tokenizer::Impl : TokenizerModel {};

// Sets the piece of a token that is spelled in GPT-2's byte alphabet; a text with other characters
// stands for itself.
void set_byte_level_piece(Vocabulary& vocabulary, TokenId id);
// Adds the merge `left` `right`; an error when one of them or what they make is not in the
// vocabulary. `made` is the id that the merge before made, and becomes that of this one.
Status add_merge(MergeTable& merges, const Vocabulary& vocabulary, std::string_view left,
                 std::string_view right, uint32_t rank, bool replace, TokenId& made,
                 const std::string& where);
// The value of "<0x0A>", or -1.
int byte_token_value(std::string_view text);

} // namespace pinhole
