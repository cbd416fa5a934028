// tokenizer.json, read in one pass without a tree of its 150,000 tokens.
//
// Vocabulary and merges are packed into byte strings smaller than the JSON they come from; the
// rest, which is small, becomes a Json. Format: Hugging Face tokenizers,
// tokenizer/serialization.rs.
#pragma once

#include "base/function_ref.h"
#include "base/json.h"
#include "base/result.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

// A sequence of texts and numbers, each text with its length before it.
class PackedTexts {
 public:
  void add_text(std::string_view text);
  void add_number(uint32_t number);

  class Cursor {
   public:
    explicit Cursor(std::string_view bytes) : bytes_(bytes) {}
    bool done() const { return at_ == bytes_.size(); }
    uint32_t number();
    std::string_view text();              // a view into the packed bytes
    size_t offset() const { return at_; } // after text(): its end

   private:
    std::string_view bytes_;
    size_t at_ = 0;
  };
  void shrink() { bytes_.shrink_to_fit(); }
  std::string_view bytes() const { return bytes_; }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

struct AddedTokenEntry {
  int64_t id = -1;
  std::string content;
  bool special = false, single_word = false, lstrip = false, rstrip = false, normalized = true;
};

struct TokenizerFile {
  Json root = Json::object(); // "normalizer", "pre_tokenizer", "post_processor", "decoder" and
                              // "model" without its vocabulary and merges
  PackedTexts vocabulary;     // text, id; text, id; …
  size_t vocabulary_count = 0;
  PackedTexts merges; // left, right; left, right; …
  size_t merge_count = 0;
  std::vector<AddedTokenEntry> added;
};

Result<TokenizerFile> read_tokenizer_json(std::string_view text, const std::string& where);

// The fields of an added token, of tokenizer.json or of tokenizer_config.json.
Result<AddedTokenEntry> parse_added_token(const Json& json, const std::string& where);

} // namespace pinhole
