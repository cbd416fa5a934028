#include "text/added_tokens.h"

#include "text/utf8.h"

#include <algorithm>
#include <fmt/format.h>
#include <utf8proc.h>

namespace pinhole {

namespace {

// The whole character that ends before text[end], 0 for none or an invalid one.
size_t character_before(std::string_view text, size_t end) {
  for (size_t length = 1; length <= std::min<size_t>(4, end); ++length) {
    if (utf8_sequence(text, end - length) == length)
      return length;
  }
  return 0;
}

bool is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// \w of the Rust regex crate: letters, marks, decimal digits, connectors, joiners.
bool is_word(uint32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
  case UTF8PROC_CATEGORY_LU:
  case UTF8PROC_CATEGORY_LL:
  case UTF8PROC_CATEGORY_LT:
  case UTF8PROC_CATEGORY_LM:
  case UTF8PROC_CATEGORY_LO:
  case UTF8PROC_CATEGORY_MN:
  case UTF8PROC_CATEGORY_MC:
  case UTF8PROC_CATEGORY_ME:
  case UTF8PROC_CATEGORY_ND:
  case UTF8PROC_CATEGORY_NL:
  case UTF8PROC_CATEGORY_PC:
    return true;
  default:
    return c == 0x200C || c == 0x200D;
  }
}

bool word_before(std::string_view text, size_t at) {
  const size_t length = character_before(text, at);
  return length != 0 && is_word(utf8_decode(text, at - length, length));
}

bool word_at(std::string_view text, size_t at) {
  const size_t length = at < text.size() ? utf8_sequence(text, at) : 0;
  return length != 0 && is_word(utf8_decode(text, at, length));
}

} // namespace

Status AddedTokens::add(AddedToken token, std::string_view text, const std::string& where) {
  if (text.empty())
    return {};
  if (text.size() > kMaxBytes) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("added token {} has {} bytes, at most {} are supported", token.id,
                            text.size(), kMaxBytes),
                where);
  }
  token.offset = static_cast<uint32_t>(arena_.size());
  token.length = static_cast<uint32_t>(text.size());
  arena_ += text;
  tokens_.push_back(token);
  return {};
}

void AddedTokens::mark_special(const std::unordered_set<TokenId>& ids) {
  for (AddedToken& token : tokens_)
    token.special |= ids.contains(token.id);
}

void AddedTokens::finish() {
  std::sort(tokens_.begin(), tokens_.end(),
            [&](const AddedToken& a, const AddedToken& b) { return text_of(a) < text_of(b); });
  uint32_t next = 0;
  for (size_t byte = 0; byte < 256; ++byte) {
    first_[byte] = next;
    while (next < tokens_.size() && static_cast<uint8_t>(text_of(tokens_[next])[0]) == byte)
      ++next;
  }
  first_[256] = next;
}

const AddedToken* AddedTokens::longest_at(std::string_view text, size_t at) const {
  const auto first_byte = static_cast<uint8_t>(text[at]);
  auto low = tokens_.begin() + first_[first_byte];
  auto high = tokens_.begin() + first_[first_byte + 1u];
  const AddedToken* longest = nullptr;
  // [low, high) are the tokens that share text[at, at + depth); the first may be just that.
  for (size_t depth = 1; low != high; ++depth) {
    if (low->length == depth)
      longest = &*low++;
    if (at + depth >= text.size())
      break;
    const auto byte = static_cast<uint8_t>(text[at + depth]);
    const auto byte_of = [&](const AddedToken& token) {
      return static_cast<uint8_t>(arena_[token.offset + depth]);
    };
    low = std::partition_point(low, high, [&](const AddedToken& t) { return byte_of(t) < byte; });
    high = std::partition_point(low, high, [&](const AddedToken& t) { return byte_of(t) == byte; });
  }
  return longest;
}

void AddedTokens::split(std::string_view text, bool parse_special,
                        FunctionRef<void(std::string_view part, size_t offset)> on_text,
                        FunctionRef<void(TokenId id)> on_token) const {
  size_t done = 0;                         // everything before it has been handed out
  size_t spaces_begin = 1, spaces_end = 0; // the run of whitespace found last
  for (size_t at = 0; at < text.size();) {
    const AddedToken* token = tokens_.empty() ? nullptr : longest_at(text, at);
    if (token == nullptr) {
      if (tokens_.empty())
        break;
      ++at;
      continue;
    }
    size_t begin = at, end = at + token->length;
    at = end;
    if (token->special && !parse_special)
      continue;
    if (token->single_word && (word_before(text, begin) || word_at(text, end)))
      continue;
    while (token->lstrip && begin > done) {
      const size_t length = character_before(text, begin);
      if (length == 0 || length > begin - done ||
          !is_space(utf8_decode(text, begin - length, length))) {
        break;
      }
      begin -= length;
    }
    if (token->rstrip && (end < spaces_begin || end > spaces_end)) {
      spaces_begin = spaces_end = end;
      while (spaces_end < text.size()) {
        const size_t length = utf8_sequence(text, spaces_end);
        if (length == 0 || !is_space(utf8_decode(text, spaces_end, length)))
          break;
        spaces_end += length;
      }
    }
    if (token->rstrip)
      end = spaces_end;
    if (begin > done)
      on_text(text.substr(done, begin - done), done);
    on_token(token->id);
    done = end; // a token within the whitespace that this one took counts as well
  }
  if (done < text.size())
    on_text(text.substr(done), done);
}

} // namespace pinhole
