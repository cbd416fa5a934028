// Cuts text into the words within which merges happen.
//
// A chain of steps, as in tokenizer.json's "pre_tokenizer"; a GGUF names one of llama.cpp's chains
// by tokenizer.ggml.pre. Source: Hugging Face tokenizers, pre_tokenizers/ and
// SplitDelimiterBehavior.
#pragma once

#include "base/function_ref.h"
#include "base/json.h"
#include "base/result.h"
#include "text/regex.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

// What a match does to the text around it.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

class PreTokenizer {
 public:
  // `json` is the value of "pre_tokenizer", null for none.
  static Result<PreTokenizer> parse(const Json& json, const std::string& where);

  // The regular expressions of a GGUF's chain, each splitting what the one before has left.
  Status add_split(std::string_view regex, const std::string& where);
  void set_byte_level(bool value) { byte_level_ = value; }

  // Words are bytes, to be looked up by GPT-2's byte alphabet; else they are spelled as the
  // vocabulary spells them.
  bool byte_level() const { return byte_level_; }

  // The scratch memory of one text; the PreTokenizer must outlive it.
  class Session {
   public:
    Session(const PreTokenizer& owner, size_t text_bytes);
    // Calls on_word for each word of `text`; `at_start`: nothing of the whole text precedes it.
    void split(std::string_view text, bool at_start, FunctionRef<void(std::string_view)> on_word);

   private:
    struct Range {
      size_t begin, end;
    };
    struct Match {
      Range range;
      bool is_match;
    };
    void split_valid(std::string_view text, bool at_start, FunctionRef<void(std::string_view)>);
    void find_matches(size_t step, std::string_view subject);
    void emit(size_t step, size_t base);
    void rewrite(size_t step, bool at_start);

    const PreTokenizer& owner_;
    std::vector<RegexMatcher> matchers_; // one per step that has a regex
    std::vector<size_t> matcher_of_;     // by step
    std::string text_;                   // a copy that steps may rewrite
    std::vector<Range> words_, next_;
    std::vector<Match> matches_;
  };

 private:
  enum class Kind {
    kSplit,      // at matches
    kByteLevel,  // rewrite into GPT-2's alphabet
    kSpaceFirst, // a space before each word that has none
    kMetaspace,  // spaces become `literal`
  };
  struct Step {
    Kind kind;
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;
    std::string literal;
    std::shared_ptr<const Regex> regex;
    enum class Prepend { kNever, kFirst, kAlways } prepend = Prepend::kNever;
  };
  Status parse_step(const Json& json, int depth, const std::string& where);
  Status parse_split(const Json& json, const std::string& where);
  Status parse_metaspace(const Json& json, const std::string& where);
  Status add_regex(std::string_view regex, SplitBehavior behavior, bool invert,
                   const std::string& where);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

// What tokenizer.ggml.pre stands for.
struct GgufPreTokenizer {
  std::vector<std::string_view> regexes;
  bool ignore_merges = false; // a word that is a token is that token, whatever the merges
  bool add_bos = false;       // unless tokenizer.ggml.add_bos_token says otherwise
};
Result<GgufPreTokenizer> gguf_pre_tokenizer(std::string_view pre, const std::string& where);

// GPT-2's byte alphabet: each byte as a printable character (UTF-8, 1 or 2 bytes).
std::string_view byte_level_character(uint8_t byte);
// The byte of a character below U+0180 of that alphabet, or -1.
int byte_level_byte(uint32_t code_point);

} // namespace pinhole
