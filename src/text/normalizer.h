// The normaliser of a tokenizer.json: what happens to the text before it is cut into words.
//
// Works on any bytes: what is not valid UTF-8 passes through unchanged. Kinds that are not here are
// errors that name them. Source: Hugging Face tokenizers, normalizers/.
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "text/regex.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

class Normalizer {
 public:
  // `json` is the value of "normalizer", null for none.
  static Result<Normalizer> parse(const Json& json, const std::string& where);

  bool empty() const { return steps_.empty(); }
  std::string normalize(std::string_view text) const;

  // For the GGUF route, which has no JSON: every `from` becomes `to`; `prefix` before each text.
  void add_replace(std::string from, std::string to);
  void add_prepend(std::string prefix);

 private:
  enum class Kind { kUnicode, kPrepend, kReplace, kReplaceRegex };
  struct Step {
    Kind kind;
    int form = 0;         // kUnicode: utf8proc options
    std::string from, to; // kPrepend: `to`
    std::shared_ptr<const Regex> regex;
  };
  Status parse_step(const Json& json, int depth, const std::string& where);

  std::vector<Step> steps_;
};

// The pattern of a Split or Replace, {"String": "..."} or {"Regex": "..."}: one of them is set.
struct TextPattern {
  std::string literal;
  std::shared_ptr<const Regex> regex;
  static Result<TextPattern> parse(const Json& owner, const std::string& where);
};

} // namespace pinhole
