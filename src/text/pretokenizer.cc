#include "text/pretokenizer.h"

#include "text/normalizer.h"
#include "text/utf8.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace pinhole {

namespace {

constexpr int kMaxDepth = 16;
constexpr size_t kMaxSteps = 64;
// U+2581 and the like; bounds how much a text can grow.
constexpr size_t kMaxReplacementBytes = 4;

constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct ByteAlphabet {
  std::array<std::string, 256> characters;
  std::array<int16_t, 0x180> bytes{};

  ByteAlphabet() {
    bytes.fill(-1);
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
      const uint32_t code_point = printable ? byte : next++;
      utf8_append(characters[byte], code_point);
      bytes[code_point] = static_cast<int16_t>(byte);
    }
  }
};

const ByteAlphabet& byte_alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

Result<SplitBehavior> parse_behavior(const Json& json, const std::string& where) {
  PINHOLE_TRY(const std::string name, json_string(json, "behavior", where));
  if (name == "Removed")
    return SplitBehavior::kRemoved;
  if (name == "Isolated")
    return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious")
    return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext")
    return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous")
    return SplitBehavior::kContiguous;
  return fail(ErrorCode::kInvalidInput,
              fmt::format("'behavior' is '{}', expected Removed, Isolated, MergedWithPrevious, "
                          "MergedWithNext or Contiguous",
                          name),
              where);
}

} // namespace

std::string_view byte_level_character(uint8_t byte) { return byte_alphabet().characters[byte]; }

int byte_level_byte(uint32_t code_point) {
  const auto& bytes = byte_alphabet().bytes;
  return code_point < bytes.size() ? bytes[code_point] : -1;
}

Result<PreTokenizer> PreTokenizer::parse(const Json& json, const std::string& where) {
  PreTokenizer out;
  if (json.is_null())
    return out;
  PINHOLE_CHECK(out.parse_step(json, 0, where + ", pre_tokenizer"));
  // Bytes need no spelling when nothing looks at the words afterwards.
  if (!out.steps_.empty() && out.steps_.back().kind == Kind::kByteLevel &&
      std::count_if(out.steps_.begin(), out.steps_.end(),
                    [](const Step& step) { return step.kind == Kind::kByteLevel; }) == 1) {
    out.steps_.pop_back();
    out.byte_level_ = true;
  }
  return out;
}

Status PreTokenizer::parse_step(const Json& json, int depth, const std::string& where) {
  if (depth > kMaxDepth || steps_.size() > kMaxSteps) {
    return fail(ErrorCode::kTooLarge, "too many nested or chained pre_tokenizers", where);
  }
  PINHOLE_TRY(const std::string type, json_string(json, "type", where));
  if (type == "Sequence") {
    const Json* list = json_find(json, "pretokenizers");
    if (list == nullptr || !list->is_array()) {
      return fail(ErrorCode::kInvalidInput, "a Sequence without an array 'pretokenizers'", where);
    }
    for (const Json& item : *list)
      PINHOLE_CHECK(parse_step(item, depth + 1, where));
    return {};
  }
  if (type == "Split")
    return parse_split(json, where);
  if (type == "Metaspace")
    return parse_metaspace(json, where);
  if (type == "ByteLevel") {
    PINHOLE_TRY(const bool prefix, json_bool_or(json, "add_prefix_space", true, where));
    PINHOLE_TRY(const bool use_regex, json_bool_or(json, "use_regex", true, where));
    if (prefix)
      steps_.push_back({Kind::kSpaceFirst});
    if (use_regex) {
      PINHOLE_CHECK(add_regex(kGpt2Regex, SplitBehavior::kIsolated, false, where));
    }
    steps_.push_back({Kind::kByteLevel});
    return {};
  }
  if (type == "Digits") {
    PINHOLE_TRY(const bool individual, json_bool_or(json, "individual_digits", false, where));
    return add_regex(R"(\p{N})", individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous,
                     false, where);
  }
  if (type == "Punctuation") {
    SplitBehavior behavior = SplitBehavior::kIsolated;
    if (json_find(json, "behavior") != nullptr) {
      PINHOLE_TRY(behavior, parse_behavior(json, where));
    }
    return add_regex(R"([!-/:-@\[-`{-~\p{P}])", behavior, false, where);
  }
  if (type == "Whitespace") { // \w+|[^\w\s]+ of Rust's regex crate, whose \w is this
    return add_regex(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+|)"
                     R"([^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}\s]+)",
                     SplitBehavior::kRemoved, true, where);
  }
  if (type == "WhitespaceSplit") {
    return add_regex(R"(\s)", SplitBehavior::kRemoved, false, where);
  }
  return fail(ErrorCode::kUnsupported, fmt::format("pre_tokenizer '{}' is not supported", type),
              where);
}

Status PreTokenizer::add_regex(std::string_view regex, SplitBehavior behavior, bool invert,
                               const std::string& where) {
  PINHOLE_TRY(Regex compiled, Regex::compile(regex, where));
  steps_.push_back(
      {Kind::kSplit, behavior, invert, {}, std::make_shared<const Regex>(std::move(compiled))});
  return {};
}

Status PreTokenizer::add_split(std::string_view regex, const std::string& where) {
  return add_regex(regex, SplitBehavior::kIsolated, false, where);
}

Status PreTokenizer::parse_split(const Json& json, const std::string& where) {
  PINHOLE_TRY(TextPattern pattern, TextPattern::parse(json, where));
  PINHOLE_TRY(const SplitBehavior behavior, parse_behavior(json, where));
  PINHOLE_TRY(const bool invert, json_bool_or(json, "invert", false, where));
  steps_.push_back(
      {Kind::kSplit, behavior, invert, std::move(pattern.literal), std::move(pattern.regex)});
  return {};
}

Status PreTokenizer::parse_metaspace(const Json& json, const std::string& where) {
  PINHOLE_TRY(const std::string replacement, json_string(json, "replacement", where));
  if (replacement.empty() || replacement.size() > kMaxReplacementBytes) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("Metaspace's 'replacement' has {} bytes, expected one character",
                            replacement.size()),
                where);
  }
  std::string scheme = "always";
  if (json_find(json, "prepend_scheme") != nullptr) {
    PINHOLE_TRY(scheme, json_string(json, "prepend_scheme", where));
  }
  PINHOLE_TRY(const bool prefix, json_bool_or(json, "add_prefix_space", true, where));
  PINHOLE_TRY(const bool split, json_bool_or(json, "split", true, where));
  Step step{Kind::kMetaspace};
  step.literal = replacement;
  if (scheme == "always") {
    step.prepend = prefix ? Step::Prepend::kAlways : Step::Prepend::kNever;
  } else if (scheme == "first") {
    step.prepend = Step::Prepend::kFirst;
  } else if (scheme != "never") {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("Metaspace's 'prepend_scheme' is '{}', expected always, first or never",
                            scheme),
                where);
  }
  steps_.push_back(step);
  if (split) {
    steps_.push_back({Kind::kSplit, SplitBehavior::kMergedWithNext, false, replacement, nullptr});
  }
  return {};
}

PreTokenizer::Session::Session(const PreTokenizer& owner, size_t text_bytes) : owner_(owner) {
  matcher_of_.reserve(owner.steps_.size());
  for (const PreTokenizer::Step& step : owner.steps_) {
    matcher_of_.push_back(matchers_.size());
    if (step.regex == nullptr)
      continue;
    matchers_.emplace_back(*step.regex);
    matchers_.back().add_budget(text_bytes);
  }
}

void PreTokenizer::Session::split(std::string_view text, bool at_start,
                                  FunctionRef<void(std::string_view)> on_word) {
  const bool rewrites_bytes =
      std::any_of(owner_.steps_.begin(), owner_.steps_.end(),
                  [](const PreTokenizer::Step& step) { return step.kind == Kind::kByteLevel; });
  while (!text.empty()) {
    const size_t valid = utf8_valid_prefix(text);
    if (valid != 0)
      split_valid(text.substr(0, valid), at_start, on_word);
    text.remove_prefix(valid);
    at_start = false;
    size_t invalid = 0;
    while (invalid < text.size() && utf8_sequence(text, invalid) == 0)
      ++invalid;
    if (invalid == 0)
      continue;
    if (rewrites_bytes) {
      text_.clear();
      for (const char c : text.substr(0, invalid)) {
        text_ += byte_level_character(static_cast<uint8_t>(c));
      }
      on_word(text_);
    } else {
      on_word(text.substr(0, invalid));
    }
    text.remove_prefix(invalid);
  }
}

void PreTokenizer::Session::split_valid(std::string_view text, bool at_start,
                                        FunctionRef<void(std::string_view)> on_word) {
  const auto& steps = owner_.steps_;
  if (steps.empty())
    return on_word(text);
  if (steps.size() == 1 && steps[0].regex != nullptr &&
      steps[0].behavior == SplitBehavior::kIsolated) { // the usual chain, without copies
    size_t done = 0;
    matchers_[0].find_all(text, [&](size_t begin, size_t end) {
      if (begin > done)
        on_word(text.substr(done, begin - done));
      if (end > begin)
        on_word(text.substr(begin, end - begin));
      done = end;
    });
    if (done < text.size())
      on_word(text.substr(done));
    return;
  }
  text_ = text;
  words_.assign(1, {0, text_.size()});
  for (size_t step = 0; step < steps.size(); ++step) {
    if (steps[step].kind != Kind::kSplit) {
      rewrite(step, at_start);
      continue;
    }
    next_.clear();
    for (const Range& word : words_) {
      find_matches(step, std::string_view(text_).substr(word.begin, word.end - word.begin));
      emit(step, word.begin);
    }
    words_.swap(next_);
  }
  for (const Range& word : words_) {
    on_word(std::string_view(text_).substr(word.begin, word.end - word.begin));
  }
}

// The subject as a list of matches and of what lies between them.
void PreTokenizer::Session::find_matches(size_t step_index, std::string_view subject) {
  const PreTokenizer::Step& step = owner_.steps_[step_index];
  matches_.clear();
  size_t done = 0;
  const auto on_match = [&](size_t begin, size_t end) {
    if (begin > done)
      matches_.push_back({{done, begin}, step.invert});
    matches_.push_back({{begin, end}, !step.invert});
    done = end;
  };
  if (step.regex != nullptr) {
    matchers_[matcher_of_[step_index]].find_all(subject, on_match);
  } else if (!step.literal.empty()) {
    for (size_t at; (at = subject.find(step.literal, done)) != std::string_view::npos;) {
      on_match(at, at + step.literal.size());
    }
  }
  if (done < subject.size())
    matches_.push_back({{done, subject.size()}, step.invert});
}

// Turns matches into words according to the step's behaviour.
void PreTokenizer::Session::emit(size_t step_index, size_t base) {
  const SplitBehavior behavior = owner_.steps_[step_index].behavior;
  const size_t first = next_.size();
  const auto put = [&](Range range) { next_.push_back({base + range.begin, base + range.end}); };
  bool previous = false; // whether the neighbour already seen is a match
  switch (behavior) {
  case SplitBehavior::kRemoved:
  case SplitBehavior::kIsolated:
    for (const Match& match : matches_) {
      if (behavior == SplitBehavior::kIsolated || !match.is_match)
        put(match.range);
    }
    break;
  case SplitBehavior::kContiguous:
  case SplitBehavior::kMergedWithPrevious:
    for (const Match& match : matches_) {
      const bool joins = behavior == SplitBehavior::kContiguous ? match.is_match == previous
                                                                : match.is_match && !previous;
      if (joins && next_.size() > first)
        next_.back().end = base + match.range.end;
      else
        put(match.range);
      previous = match.is_match;
    }
    break;
  case SplitBehavior::kMergedWithNext:
    for (auto match = matches_.rbegin(); match != matches_.rend(); ++match) {
      if (match->is_match && !previous && next_.size() > first) {
        next_.back().begin = base + match->range.begin;
      } else {
        put(match->range);
      }
      previous = match->is_match;
    }
    std::reverse(next_.begin() + static_cast<std::ptrdiff_t>(first), next_.end());
    break;
  }
  next_.erase(std::remove_if(next_.begin() + static_cast<std::ptrdiff_t>(first), next_.end(),
                             [](const Range& range) { return range.begin == range.end; }),
              next_.end());
}

void PreTokenizer::Session::rewrite(size_t step_index, bool at_start) {
  const PreTokenizer::Step& step = owner_.steps_[step_index];
  std::string out;
  out.reserve(text_.size() + text_.size() / 2 + 8);
  for (Range& word : words_) {
    const std::string_view source =
        std::string_view(text_).substr(word.begin, word.end - word.begin);
    const bool first = at_start && word.begin == 0;
    const size_t begin = out.size();
    if (step.kind == Kind::kSpaceFirst) {
      if (!source.starts_with(' '))
        out += ' ';
      out += source;
    } else if (step.kind == Kind::kByteLevel) {
      for (const char c : source)
        out += byte_level_character(static_cast<uint8_t>(c));
    } else {
      const bool prepend = step.prepend == Step::Prepend::kAlways ||
                           (step.prepend == Step::Prepend::kFirst && first);
      if (prepend && !source.starts_with(' ') && !source.starts_with(step.literal)) {
        out += step.literal;
      }
      for (const char c : source) {
        if (c == ' ')
          out += step.literal;
        else
          out += c;
      }
    }
    word = {begin, out.size()};
  }
  text_ = std::move(out);
}

} // namespace pinhole
