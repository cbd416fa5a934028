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
  MergeTable merges; // kBpe
  // kBpe: texts that merges make on their way although no token has them; their ids follow the
  // vocabulary's. One that is left over is spelled byte by byte, as llama.cpp does.
  Vocabulary unlisted;
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

  // Decoding: which spaces at the start of a text were put there by the encoder.
  enum class FirstSpace {
    kKeep,
    kDropOne,     // one at the very start
    kDropInToken, // all of the first token, as Metaspace's decoder does
  } first_space = FirstSpace::kKeep;

  // Fills the tables above from the vocabulary; the last step of building.
  void finish();
};

struct Tokenizer::Impl : TokenizerModel {};

// Sets the piece of a token that is spelled in GPT-2's byte alphabet; a text with other characters
// stands for itself.
void set_byte_level_piece(Vocabulary& vocabulary, TokenId id);
// Fills a merge table from the texts of merges, in the order of their ranks.
class MergeReader {
 public:
  // `replace`: of a pair that is listed twice the later rank counts, else the first. `unlisted`:
  // takes texts that are not in the vocabulary; null makes them an error.
  MergeReader(const Vocabulary& vocabulary, size_t merges, bool replace, Vocabulary* unlisted,
              const std::string& where)
      : vocabulary_(vocabulary), table_(merges), replace_(replace), unlisted_(unlisted),
        where_(where) {}

  // The texts must stay until finish().
  Status add(std::string_view left, std::string_view right);
  Result<MergeTable> finish();

 private:
  // Look-ups go in groups: they miss the caches, and a group waits for memory once.
  static constexpr size_t kGroup = 16;
  struct Item {
    std::string_view left, right;
    uint64_t left_hash, right_hash;
    TokenId left_id, right_id, made;
  };
  Status flush();
  Result<TokenId> unlisted_id(std::string_view text, uint32_t rank, const char* verb);

  const Vocabulary& vocabulary_;
  MergeTable table_;
  bool replace_;
  Vocabulary* unlisted_;
  const std::string& where_;
  std::array<Item, kGroup> group_{};
  size_t count_ = 0;
  uint32_t rank_ = 0;       // of group_[0]
  TokenId made_ = kNoToken; // by the merge before; they mostly make ids in order
};
// The value of "<0x0A>", or -1.
int byte_token_value(std::string_view text);

} // namespace pinhole
