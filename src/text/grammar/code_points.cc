#include "text/grammar/code_points.h"

#include "text/utf8.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole::grammar {

namespace {

constexpr uint32_t kFirstSurrogate = 0xD800, kLastSurrogate = 0xDFFF;

} // namespace

void CodePointSet::add(const CodePointSet& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
}

void CodePointSet::normalise() {
  std::vector<std::pair<uint32_t, uint32_t>> split;
  for (const auto& [first, last] : ranges_) {
    if (first < kFirstSurrogate)
      split.emplace_back(first, std::min(last, kFirstSurrogate - 1));
    if (last > kLastSurrogate)
      split.emplace_back(std::max(first, kLastSurrogate + 1), last);
  }
  std::sort(split.begin(), split.end());
  ranges_.clear();
  for (const auto& [first, last] : split) {
    if (!ranges_.empty() && first <= ranges_.back().second + 1)
      ranges_.back().second = std::max(ranges_.back().second, last);
    else
      ranges_.emplace_back(first, last);
  }
}

CodePointSet CodePointSet::complement() const {
  CodePointSet sorted = *this;
  sorted.normalise();
  CodePointSet out;
  uint32_t next = 0;
  for (const auto& [first, last] : sorted.ranges_) {
    if (first > next)
      out.add(next, first - 1);
    next = last + 1;
  }
  if (next <= kLast)
    out.add(next, kLast);
  out.normalise();
  return out;
}

CodePointSet CodePointSet::all() { return CodePointSet().complement(); }

std::string json_escape(uint32_t code_point) {
  switch (code_point) {
  case '"':
    return "\\\"";
  case '\\':
    return "\\\\";
  case '\b':
    return "\\b";
  case '\f':
    return "\\f";
  case '\n':
    return "\\n";
  case '\r':
    return "\\r";
  case '\t':
    return "\\t";
  default:
    return code_point < 0x20 ? fmt::format("\\u{:04x}", code_point) : std::string();
  }
}

// Splits a range until all its code points have the same length and all but the lead bytes that
// they share run over whole ranges; then byte i of any of them is between byte i of the first and
// of the last. The scheme is that of RE2 and of Rust's utf8-ranges.
NodeId CodePointNodes::utf8(uint32_t first, uint32_t last, NodeId next) {
  for (const uint32_t end : {0x7Fu, 0x7FFu, 0xFFFFu}) {
    if (first <= end && end < last)
      return builder_.either(utf8(first, end, next), utf8(end + 1, last, next));
  }
  if (last > 0x7F) {
    for (const uint32_t low : {0x3Fu, 0xFFFu, 0x3FFFFu}) {
      if ((first & ~low) == (last & ~low))
        break;
      if ((first & low) != 0)
        return builder_.either(utf8(first, first | low, next), utf8((first | low) + 1, last, next));
      if ((last & low) != low) {
        const uint32_t end = (last & ~low) - 1;
        return builder_.either(utf8(first, end, next), utf8(end + 1, last, next));
      }
    }
  }
  std::string from, to;
  utf8_append(from, first);
  utf8_append(to, last);
  for (size_t i = from.size(); i-- > 0;)
    next = builder_.range(static_cast<uint8_t>(from[i]), static_cast<uint8_t>(to[i]), next);
  return next;
}

NodeId CodePointNodes::one_of(const CodePointSet& set, Spelling spelling, NodeId next) {
  ByteSet plain; // of ASCII, what stands for itself
  std::vector<std::string> escaped;
  const auto stands_for_itself = [&](uint32_t c) {
    return spelling == Spelling::kText || json_escape(c).empty();
  };
  bool ascii = true;
  for (const auto& [first, last] : set.ranges()) {
    for (uint32_t c = first; c <= last && c < 0x80; ++c) {
      if (stands_for_itself(c))
        plain.set(c);
      else
        escaped.push_back(json_escape(c));
    }
    ascii = ascii && last < 0x80;
  }
  if (ascii && escaped.empty())
    return builder_.bytes(plain, next);
  const auto [it, is_new] = rules_.try_emplace({set.ranges(), spelling}, 0);
  if (is_new) {
    it->second = builder_.add_rule();
    NodeId start = builder_.literals(std::move(escaped), kEndNode);
    for (const auto& [first, last] : set.ranges()) {
      if (last >= 0x80)
        start = builder_.either(utf8(std::max(first, 0x80u), last, kEndNode), start);
    }
    builder_.define(it->second, builder_.either(builder_.bytes(plain, kEndNode), start));
  }
  return builder_.call(it->second, next);
}

} // namespace pinhole::grammar
