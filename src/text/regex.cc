#include "text/regex.h"

#include "text/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <algorithm>
#include <cctype>
#include <fmt/format.h>
#include <pcre2.h>
#include <set>
#include <utility>

namespace pinhole {

namespace {

constexpr size_t kMaxPatternBytes = 16 << 10; // the longest in use (deepseek-llm) has 1.3 KB
// A search first gets the small limit; one that needs more (a long word in a pattern with groups)
// is tried again with the next and charged for it.
constexpr uint32_t kFreeSteps = 2'000;
constexpr uint32_t kStepFactor = 16;
constexpr uint64_t kBaseBudget = 20'000'000;
constexpr uint64_t kBudgetPerByte = 64;
// Steps that any probe of compile() may take; patterns in use need fewer than 5,000.
constexpr uint32_t kProbeSteps = 100'000;
constexpr size_t kProbeRepeats = 64;
constexpr size_t kMaxProbes = 64;
constexpr size_t kJitStackBytes = 1 << 20;

// White_Space, which is what \s means to Oniguruma; PCRE2 adds U+180E.
constexpr std::string_view kSpaces =
    R"(\t-\r\x20\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// What \w means to Oniguruma; PCRE2 leaves out marks and connectors.
constexpr std::string_view kWord = R"(\p{L}\p{M}\p{N}\p{Pc})";

// Rewrites Oniguruma's syntax into PCRE2's.
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where)
      : pattern_(pattern), where_(where) {}

  Result<std::string> run() {
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '\\') {
        PINHOLE_CHECK(escape(false));
      } else if (pattern_[at_] == '[') {
        PINHOLE_CHECK(set());
      } else if (starts("(*")) {
        return unsupported("(*");
      } else if (starts("{,") && at_ + 2 < pattern_.size() && pattern_[at_ + 2] >= '0' &&
                 pattern_[at_ + 2] <= '9') {
        out_ += "{0,";
        at_ += 2;
      } else {
        out_ += pattern_[at_++];
      }
    }
    return std::move(out_);
  }

 private:
  bool starts(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }

  tl::unexpected<Error> unsupported(std::string_view what) const {
    return fail(
        ErrorCode::kUnsupported,
        fmt::format("'{}' at byte {} of the regular expression is not supported", what, at_),
        where_);
  }

  Status escape(bool in_set) {
    if (at_ + 1 >= pattern_.size())
      return unsupported("\\");
    const char c = pattern_[at_ + 1];
    at_ += 2;
    if (c == 's') {
      out_ += in_set ? std::string(kSpaces) : fmt::format("[{}]", kSpaces);
    } else if (c == 'S' && !in_set) {
      out_ += fmt::format("[^{}]", kSpaces);
    } else if (c == 'w') {
      out_ += in_set ? std::string(kWord) : fmt::format("[{}]", kWord);
    } else if (c == 'W' && !in_set) {
      out_ += fmt::format("[^{}]", kWord);
    } else if (c == 'b' && !in_set) {
      out_ += fmt::format("(?:(?<=[{0}])(?![{0}])|(?<![{0}])(?=[{0}]))", kWord);
    } else if (c == 'B' && !in_set) {
      out_ += fmt::format("(?:(?<=[{0}])(?=[{0}])|(?<![{0}])(?![{0}]))", kWord);
    } else if (c == 'h') {
      out_ += in_set ? "0-9A-Fa-f" : "[0-9A-Fa-f]";
    } else if (c == 'H' && !in_set) {
      out_ += "[^0-9A-Fa-f]";
    } else if (c == 'u') {
      if (at_ + 4 > pattern_.size())
        return unsupported("\\u");
      out_ += fmt::format("\\x{{{}}}", pattern_.substr(at_, 4));
      at_ += 4;
    } else if (std::string_view("WBHQECGgKkXyYOU").find(c) != std::string_view::npos) {
      at_ -= 2;
      return unsupported(std::string{'\\', c});
    } else {
      out_ += '\\';
      out_ += c;
    }
    return {};
  }

  // A bracketed set; sets within sets and intersections exist in Oniguruma only.
  Status set() {
    out_ += pattern_[at_++];
    if (at_ < pattern_.size() && pattern_[at_] == '^')
      out_ += pattern_[at_++];
    if (at_ < pattern_.size() && pattern_[at_] == ']') {
      out_ += '\\';
      out_ += pattern_[at_++];
    }
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == ']') {
        out_ += pattern_[at_++];
        return {};
      }
      if (pattern_[at_] == '\\') {
        PINHOLE_CHECK(escape(true));
      } else if (starts("[:")) {
        const size_t end = pattern_.find(":]", at_);
        if (end == std::string_view::npos)
          return unsupported("[:");
        out_ += pattern_.substr(at_, end + 2 - at_);
        at_ = end + 2;
      } else if (pattern_[at_] == '[') {
        return unsupported("[ in a set");
      } else if (starts("&&")) {
        return unsupported("&& in a set");
      } else {
        out_ += pattern_[at_++];
      }
    }
    return unsupported("[ without ]");
  }

  std::string_view pattern_;
  const std::string& where_;
  size_t at_ = 0;
  std::string out_;
};

std::string message_of(int code) {
  PCRE2_UCHAR buffer[256];
  const int length = pcre2_get_error_message(code, buffer, sizeof buffer);
  return length < 0
             ? fmt::format("PCRE2 error {}", code)
             : std::string(reinterpret_cast<const char*>(buffer), static_cast<size_t>(length));
}

// What a hostile text for this pattern would repeat: characters and words that it names, and one
// character of each kind that its classes may hold.
std::set<std::string> probe_units(std::string_view pattern) {
  std::set<std::string> out = {"a", "A", "0", " ", "\n", ".", "\t", "\xC3\xA9", "\xE4\xB8\x80"};
  std::string word;
  for (size_t i = 0; i < pattern.size() && out.size() < kMaxProbes;) {
    const size_t length = std::max<size_t>(1, utf8_sequence(pattern, i));
    const std::string_view character = pattern.substr(i, length);
    out.emplace(character);
    if (std::isalnum(static_cast<unsigned char>(character[0])) != 0 && word.size() < 16) {
      word += character;
      if (word.size() > 1)
        out.emplace(word);
    } else {
      word.clear();
    }
    i += length;
  }
  return out;
}

} // namespace

void Regex::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

Result<Regex> Regex::compile(std::string_view pattern, const std::string& where) {
  if (pattern.size() > kMaxPatternBytes) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("a regular expression of {} bytes, at most {} are supported",
                            pattern.size(), kMaxPatternBytes),
                where);
  }
  if (utf8_valid_prefix(pattern) != pattern.size()) {
    return fail(ErrorCode::kInvalidInput, "a regular expression is not valid UTF-8", where);
  }
  PINHOLE_TRY(const std::string translated, Translator(pattern, where).run());
  int code = 0;
  PCRE2_SIZE offset = 0;
  Regex regex;
  regex.code_.reset(pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &offset, nullptr));
  if (regex.code_ == nullptr) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("regular expression '{}': {} at byte {}", pattern.substr(0, 200),
                            message_of(code), offset),
                where);
  }
  pcre2_jit_compile(regex.code_.get(), PCRE2_JIT_COMPLETE); // the interpreter serves where it fails

  const std::set<std::string> units = probe_units(pattern);
  // After the repeats something that stops a match, and all that a match could need to go on: PCRE2
  // does not even try where a required character is missing.
  std::string tail = "\x01";
  for (const std::string& unit : units)
    tail += unit;
  for (const std::string& unit : units) {
    std::string probe;
    for (size_t i = 0; i < kProbeRepeats; ++i)
      probe += unit;
    probe += tail;
    RegexMatcher matcher(regex);
    matcher.set_budget(kProbeSteps);
    matcher.find_all(probe, [](size_t, size_t) {});
    if (matcher.exhausted()) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("regular expression '{}' backtracks too much: more than {} steps for "
                              "'{}' repeated {} times",
                              pattern.substr(0, 200), kProbeSteps, unit, kProbeRepeats),
                  where);
    }
  }
  return regex;
}

RegexMatcher::RegexMatcher(const Regex& regex)
    : code_(regex.code_.get()), match_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr)) {
  pcre2_set_heap_limit(context_, 8 << 10); // KiB; the interpreter's frames
}

RegexMatcher::RegexMatcher(RegexMatcher&& other) noexcept
    : code_(other.code_), match_(std::exchange(other.match_, nullptr)),
      context_(std::exchange(other.context_, nullptr)),
      stack_(std::exchange(other.stack_, nullptr)), budget_steps_(other.budget_steps_),
      limit_(other.limit_), exhausted_(other.exhausted_) {}

RegexMatcher::~RegexMatcher() {
  pcre2_match_data_free(match_);
  pcre2_match_context_free(context_);
  pcre2_jit_stack_free(stack_);
}

void RegexMatcher::add_budget(size_t text_bytes) {
  budget_steps_ += kBaseBudget + kBudgetPerByte * text_bytes;
}

bool RegexMatcher::find(std::string_view subject, size_t from, size_t& begin, size_t& end) {
  uint32_t limit = kFreeSteps;
  while (!exhausted_) {
    if (limit != limit_) {
      pcre2_set_match_limit(context_, limit);
      limit_ = limit;
    }
    const int rc = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(),
                               from, PCRE2_NO_UTF_CHECK, match_, context_);
    if (rc >= 0) {
      const PCRE2_SIZE* span = pcre2_get_ovector_pointer(match_);
      // \K is refused, so the match cannot begin before `from`, nor end before it begins.
      begin = span[0];
      end = span[1];
      return true;
    }
    if (rc == PCRE2_ERROR_NOMATCH)
      return false;
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && stack_ == nullptr) {
      stack_ = pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr);
      pcre2_jit_stack_assign(context_, nullptr, stack_);
      if (stack_ != nullptr)
        continue;
    }
    if (rc == PCRE2_ERROR_MATCHLIMIT) {
      const uint64_t next = std::min<uint64_t>(uint64_t{limit} * kStepFactor, budget_steps_);
      if (next > limit) {
        budget_steps_ -= next;
        limit = static_cast<uint32_t>(next);
        continue;
      }
    }
    exhausted_ = true;
  }
  return false;
}

void RegexMatcher::find_all(std::string_view subject,
                            FunctionRef<void(size_t begin, size_t end)> on_match) {
  size_t last_end = SIZE_MAX;
  size_t begin = 0, end = 0;
  for (size_t from = 0; from <= subject.size() && find(subject, from, begin, end);) {
    from = end;
    if (begin == end && end == last_end) {
      from += end < subject.size() ? std::max<size_t>(1, utf8_sequence(subject, end)) : 1;
      continue;
    }
    last_end = end;
    on_match(begin, end);
  }
}

} // namespace pinhole
