// Text to token ids and back.
//
// Two algorithms cover the model families here: byte-level BPE (gpt-2, llama-bpe, qwen2: a
// pre-tokeniser regex, then merges by rank) and SentencePiece-style (llama: merges by score over
// characters with byte fallback; gemma's tokenizer.json: BPE merges with byte fallback).
#pragma once

#include "base/json.h"
#include "base/result.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

using TokenId = int32_t;

// What a GGUF says about its tokenizer (tokenizer.ggml.*), in plain values: the caller reads the
// file.
struct GgufTokenizerSpec {
  std::string model;                    // "gpt2" (byte-level BPE) or "llama" (SentencePiece)
  std::string pre;                      // "qwen2", "llama-bpe", "gpt-2", …; empty for "llama"
  std::vector<std::string_view> tokens; // by id
  std::vector<int32_t> token_types; // 1 normal 2 unknown 3 control 4 user-defined 5 unused 6 byte
  std::vector<float> scores;        // "llama" only
  std::vector<std::string_view> merges; // "left right"
  std::optional<TokenId> bos, eos, unknown, padding;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
};

class Tokenizer {
 public:
  static Result<Tokenizer> from_gguf(const GgufTokenizerSpec& spec, const std::string& where);
  // The texts of tokenizer.json and, when there is one, tokenizer_config.json.
  static Result<Tokenizer> from_json(std::string_view tokenizer_json, const Json& tokenizer_config,
                                     const std::string& where);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // parse_special: special tokens written in the text ("<|im_start|>") become their ids; otherwise
  // they are ordinary text (what users type must not forge a turn). add_bos: prepend BOS (append
  // EOS) where the tokenizer's own settings say so.
  std::vector<TokenId> encode(std::string_view text, bool parse_special,
                              bool add_bos = false) const;

  // The bytes that a token stands for; empty for an id outside the vocabulary. Special tokens give
  // their text.
  std::string_view piece(TokenId id) const;
  bool is_special(TokenId id) const; // control tokens: not part of an answer's text
  std::string decode(std::span<const TokenId> ids, bool skip_special) const;

  std::optional<TokenId> find(std::string_view token) const; // exact token text
  int64_t vocab_size() const;
  // Of all tables, in memory; the same for the same file.
  int64_t table_bytes() const;
  std::optional<TokenId> bos() const;
  std::optional<TokenId> eos() const;
  bool adds_bos() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Turns ids into text as they come, holding back bytes until they are whole UTF-8 characters.
class StreamDecoder {
 public:
  // `at_start`: a space that the encoder put before the text is not part of it.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool at_start = true)
      : tokenizer_(&tokenizer), at_start_(at_start) {}
  std::string push(TokenId id); // text that is now complete; special tokens give nothing
  std::string finish();         // what was held back, invalid bytes as U+FFFD

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;
  bool at_start_; // SentencePiece: the first space is not part of the text
};

} // namespace pinhole
