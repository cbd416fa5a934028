#include "text/grammar/pattern_parser.h"

#include "text/grammar/grammar.h"
#include "text/utf8.h"

#include <algorithm>
#include <cctype>
#include <fmt/format.h>
#include <optional>

namespace pinhole::grammar {

namespace {

constexpr int kMaxDepth = 64; // of groups

CodePointSet of(std::initializer_list<std::pair<uint32_t, uint32_t>> ranges) {
  CodePointSet set;
  for (const auto& [first, last] : ranges)
    set.add(first, last);
  set.normalise();
  return set;
}

// CharacterClassEscape; \s is WhiteSpace and LineTerminator.
std::optional<CodePointSet> class_escape(uint32_t letter) {
  switch (letter) {
  case 'd':
    return of({{'0', '9'}});
  case 'w':
    return of({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
  case 's':
    return of({{0x09, 0x0D},
               {0x20, 0x20},
               {0xA0, 0xA0},
               {0x1680, 0x1680},
               {0x2000, 0x200A},
               {0x2028, 0x2029},
               {0x202F, 0x202F},
               {0x205F, 0x205F},
               {0x3000, 0x3000},
               {0xFEFF, 0xFEFF}});
  case 'D':
  case 'W':
  case 'S':
    return class_escape(letter + ('a' - 'A'))->complement();
  default:
    return std::nullopt;
  }
}

class PatternParser {
 public:
  explicit PatternParser(std::string_view text) : text_(text) {}

  Result<PatternTree> parse() {
    if (text_.size() > Grammar::kMaxPatternBytes) {
      return fail(ErrorCode::kTooLarge, fmt::format("the pattern has {} bytes, at most {}",
                                                    text_.size(), Grammar::kMaxPatternBytes));
    }
    if (utf8_valid_prefix(text_) != text_.size())
      return error(utf8_valid_prefix(text_), "invalid UTF-8");
    PINHOLE_TRY(tree_.root, alternatives(0));
    if (at_ < text_.size())
      return error(at_, "')' without '('");
    return std::move(tree_);
  }

 private:
  using Kind = PatternNode::Kind;

  static tl::unexpected<Error> error(size_t at, std::string what,
                                     ErrorCode code = ErrorCode::kInvalidInput) {
    return fail(code, std::move(what), fmt::format("byte {} of the pattern", at));
  }
  static tl::unexpected<Error> unsupported(size_t at, std::string what) {
    return error(at, std::move(what), ErrorCode::kUnsupported);
  }

  bool at_end() const { return at_ >= text_.size(); }
  bool looking_at(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  bool take(std::string_view what) {
    if (!looking_at(what))
      return false;
    at_ += what.size();
    return true;
  }
  uint32_t next_code_point() {
    const size_t length = utf8_sequence(text_, at_);
    const uint32_t out = utf8_decode(text_, at_, length);
    at_ += length;
    return out;
  }

  uint32_t add(PatternNode node) {
    tree_.nodes.push_back(std::move(node));
    return static_cast<uint32_t>(tree_.nodes.size() - 1);
  }
  uint32_t add_set(CodePointSet set, size_t at) {
    tree_.sets.push_back(std::move(set));
    PatternNode node{Kind::kSet, {}, static_cast<uint32_t>(tree_.sets.size() - 1)};
    node.at = at;
    return add(std::move(node));
  }

  Result<uint32_t> alternatives(int depth) {
    PatternNode out{Kind::kAlternatives};
    out.at = at_;
    do {
      PINHOLE_TRY(const uint32_t one, sequence(depth));
      out.children.push_back(one);
    } while (take("|"));
    return add(std::move(out));
  }

  Result<uint32_t> sequence(int depth) {
    PatternNode out{Kind::kSequence};
    out.at = at_;
    while (!at_end() && !looking_at("|") && !looking_at(")")) {
      PINHOLE_TRY(const uint32_t item, quantified(depth));
      out.children.push_back(item);
    }
    return add(std::move(out));
  }

  Result<uint32_t> quantified(int depth) {
    const size_t begin = at_;
    PINHOLE_TRY(const uint32_t item, atom(depth));
    const size_t at = at_;
    PatternNode repeat{Kind::kRepeat, {item}};
    repeat.at = at;
    if (take("*")) {
      repeat.max = -1;
    } else if (take("+")) {
      repeat.min = 1;
      repeat.max = -1;
    } else if (take("?")) {
      repeat.max = 1;
    } else if (const auto counts = braces()) {
      repeat.min = counts->first;
      repeat.max = counts->second;
      if (std::max(repeat.min, repeat.max) > Grammar::kMaxRepeat) {
        return error(at, fmt::format("more than {} repetitions", Grammar::kMaxRepeat),
                     ErrorCode::kTooLarge);
      }
      if (repeat.max >= 0 && repeat.min > repeat.max)
        return error(at, "the numbers in {} are out of order");
    } else {
      return item;
    }
    const Kind kind = tree_.nodes[item].kind;
    if (kind == Kind::kBegin || kind == Kind::kEnd)
      return error(begin, "an anchor cannot be repeated");
    if (!take("?") && looking_at("+"))
      return unsupported(at_, "possessive quantifiers are not supported");
    return add(std::move(repeat));
  }

  // {m}, {m,}, {m,n}; anything else stands for itself. Numbers too long for the limit are past it.
  std::optional<std::pair<int64_t, int64_t>> braces() {
    const size_t begin = at_;
    const auto number = [&]() -> std::optional<int64_t> {
      const size_t from = at_;
      int64_t value = 0;
      for (; !at_end() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
        value = std::min<int64_t>(value * 10 + (text_[at_] - '0'), Grammar::kMaxRepeat + 1);
      return at_ > from ? std::optional(value) : std::nullopt;
    };
    if (take("{")) {
      if (const auto min = number()) {
        if (take("}"))
          return std::pair(*min, *min);
        if (take(",")) {
          const auto max = number();
          if (take("}"))
            return std::pair(*min, max.value_or(-1));
        }
      }
    }
    at_ = begin;
    return std::nullopt;
  }

  Result<uint32_t> atom(int depth) {
    const size_t at = at_;
    if (take("^") || take("$")) {
      PatternNode anchor{text_[at] == '^' ? Kind::kBegin : Kind::kEnd};
      anchor.at = at;
      return add(std::move(anchor));
    }
    if (looking_at("*") || looking_at("+") || looking_at("?"))
      return error(at, fmt::format("nothing to repeat before '{}'", text_[at]));
    if (looking_at("{") && braces())
      return error(at, "nothing to repeat before '{'");
    if (take("("))
      return group(at, depth);
    if (take("["))
      return character_class(at);
    if (take("."))
      return add_set(of({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}).complement(), at);
    CodePointSet set;
    if (take("\\")) {
      PINHOLE_CHECK(escape(at, false, set));
    } else {
      const uint32_t c = next_code_point();
      set.add(c, c);
    }
    return add_set(std::move(set), at);
  }

  Result<uint32_t> group(size_t at, int depth) {
    if (depth >= kMaxDepth)
      return error(at, fmt::format("groups nested deeper than {}", kMaxDepth),
                   ErrorCode::kTooLarge);
    if (take("?")) {
      if (looking_at("=") || looking_at("!") || looking_at("<=") || looking_at("<!"))
        return unsupported(at, "lookaround is not supported");
      if (take("<") || take("P<")) {
        const size_t end = text_.find('>', at_);
        if (end == std::string_view::npos)
          return error(at, "the group's name has no '>'");
        at_ = end + 1;
      } else if (!take(":")) {
        return unsupported(at, "this kind of group is not supported");
      }
    }
    PINHOLE_TRY(const uint32_t inside, alternatives(depth + 1));
    if (!take(")"))
      return error(at, "'(' without ')'");
    return inside;
  }

  Result<uint32_t> hex(size_t at, int min_digits, int max_digits) {
    uint32_t value = 0;
    int digits = 0;
    for (; digits < max_digits && !at_end(); ++digits, ++at_) {
      const char c = text_[at_];
      const uint32_t digit = c >= '0' && c <= '9'   ? static_cast<uint32_t>(c - '0')
                             : c >= 'a' && c <= 'f' ? static_cast<uint32_t>(c - 'a' + 10)
                             : c >= 'A' && c <= 'F' ? static_cast<uint32_t>(c - 'A' + 10)
                                                    : 16;
      if (digit == 16)
        break;
      value = value * 16 + digit;
    }
    if (digits < min_digits)
      return error(at, "hexadecimal digits are missing");
    return value;
  }

  Result<uint32_t> unicode_escape(size_t at) {
    if (take("{")) {
      PINHOLE_TRY(const uint32_t value, hex(at, 1, 6));
      if (!take("}") || value > CodePointSet::kLast)
        return error(at, "\\u{...} names no code point");
      return value;
    }
    PINHOLE_TRY(uint32_t value, hex(at, 4, 4));
    if (value >= 0xD800 && value < 0xDC00 && take("\\u")) {
      PINHOLE_TRY(const uint32_t low, hex(at, 4, 4));
      if (low < 0xDC00 || low > 0xDFFF)
        return error(at, "half of a surrogate pair");
      value = 0x10000 + ((value - 0xD800) << 10) + (low - 0xDC00);
    }
    if (value >= 0xD800 && value <= 0xDFFF)
      return error(at, "half of a surrogate pair");
    return value;
  }

  // Behind the backslash at `at`. In a class \b is the backspace and \- stands for itself.
  Status escape(size_t at, bool in_class, CodePointSet& out) {
    if (at_end())
      return error(at, "a backslash at the end");
    const uint32_t c = next_code_point();
    if (auto set = class_escape(c)) {
      out = std::move(*set);
      return {};
    }
    const auto single = [&](uint32_t value) {
      out.add(value, value);
      return Status();
    };
    switch (c) {
    case 't':
      return single('\t');
    case 'n':
      return single('\n');
    case 'v':
      return single('\v');
    case 'f':
      return single('\f');
    case 'r':
      return single('\r');
    case '0':
      if (!at_end() && text_[at_] >= '0' && text_[at_] <= '9')
        return unsupported(at, "octal escapes are not supported");
      return single(0);
    case 'x': {
      PINHOLE_TRY(const uint32_t value, hex(at, 2, 2));
      return single(value);
    }
    case 'u': {
      PINHOLE_TRY(const uint32_t value, unicode_escape(at));
      return single(value);
    }
    case 'b':
      if (in_class)
        return single('\b');
      [[fallthrough]];
    case 'B':
      return unsupported(at, "word boundaries are not supported");
    case 'k':
      return unsupported(at, "backreferences are not supported");
    case 'p':
    case 'P':
      return unsupported(at, "Unicode properties are not supported");
    default:
      break;
    }
    if (c >= '1' && c <= '9')
      return unsupported(at, "backreferences are not supported");
    if (c < 0x80 && std::isalnum(static_cast<int>(c)) != 0)
      return unsupported(at,
                         fmt::format("the escape '\\{}' is not supported", static_cast<char>(c)));
    return single(c);
  }

  Result<uint32_t> character_class(size_t begin) {
    const bool negated = take("^");
    CodePointSet all;
    while (true) {
      if (at_end())
        return error(begin, "'[' without ']'");
      if (take("]"))
        break;
      PINHOLE_TRY(const CodePointSet first, class_item());
      if (looking_at("-") && !looking_at("-]") && single(first)) {
        const size_t at = at_++;
        if (at_end())
          return error(begin, "'[' without ']'");
        PINHOLE_TRY(const CodePointSet last, class_item());
        if (single(last)) {
          if (*single(first) > *single(last))
            return error(at, "the ends of a range are out of order");
          all.add(*single(first), *single(last));
          continue;
        }
        all.add('-', '-'); // [a-\d]
        all.add(last);
      }
      all.add(first);
    }
    all.normalise();
    return add_set(negated ? all.complement() : std::move(all), begin);
  }

  static std::optional<uint32_t> single(const CodePointSet& set) {
    const auto& ranges = set.ranges();
    if (ranges.size() != 1 || ranges[0].first != ranges[0].second)
      return std::nullopt;
    return ranges[0].first;
  }

  Result<CodePointSet> class_item() {
    const size_t at = at_;
    CodePointSet out;
    if (take("\\")) {
      PINHOLE_CHECK(escape(at, true, out));
    } else {
      const uint32_t c = next_code_point();
      out.add(c, c);
    }
    return out;
  }

  std::string_view text_;
  size_t at_ = 0;
  PatternTree tree_;
};

} // namespace

Result<PatternTree> parse_pattern(std::string_view pattern) {
  return PatternParser(pattern).parse();
}

} // namespace pinhole::grammar
