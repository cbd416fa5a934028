#include "text/spm.h"

#include "text/utf8.h"

#include <algorithm>

namespace pinhole {

namespace {

constexpr uint32_t kNone = UINT32_MAX;

// SentencePiece keeps control, unknown and byte tokens out of the pieces that text can spell.
bool can_be_spelled(TokenKind kind) {
  return kind == TokenKind::kNormal || kind == TokenKind::kUserDefined ||
         kind == TokenKind::kUnused;
}

} // namespace

void SpmMerger::encode(const Vocabulary& vocabulary, std::span<const float> scores,
                       std::span<const TokenId> byte_tokens, TokenId unknown, std::string_view text,
                       std::vector<TokenId>& out) {
  symbols_.clear();
  heap_.clear();
  for (size_t at = 0; at < text.size();) {
    const size_t length = std::max<size_t>(1, utf8_sequence(text, at));
    const auto index = static_cast<uint32_t>(symbols_.size());
    symbols_.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(length), index - 1,
                        at + length == text.size() ? kNone : index + 1});
    at += length;
  }
  const auto spelled = [&](size_t begin, size_t bytes) {
    const TokenId id = vocabulary.find(text.substr(begin, bytes));
    return id != kNoToken && can_be_spelled(vocabulary.kind(id)) ? id : kNoToken;
  };
  // The candidate of a symbol and its right neighbour, when they spell a token.
  const auto consider = [&](uint32_t left) {
    const Symbol& symbol = symbols_[left];
    if (symbol.next == kNone)
      return false;
    const uint32_t bytes = symbol.bytes + symbols_[symbol.next].bytes;
    const TokenId id = spelled(symbol.begin, bytes);
    if (id == kNoToken)
      return false;
    heap_.push_back({scores[static_cast<size_t>(id)], left, bytes});
    return true;
  };
  for (uint32_t i = 0; i < symbols_.size(); ++i)
    consider(i);
  std::make_heap(heap_.begin(), heap_.end());
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end());
    const Candidate best = heap_.back();
    heap_.pop_back();
    Symbol& left = symbols_[best.left];
    if (left.bytes == 0 || left.next == kNone)
      continue;
    Symbol& right = symbols_[left.next];
    if (left.bytes + right.bytes != best.bytes)
      continue; // one of them has grown since
    left.bytes = best.bytes;
    right.bytes = 0;
    left.next = right.next;
    if (left.next != kNone)
      symbols_[left.next].previous = best.left;
    if (consider(best.left))
      std::push_heap(heap_.begin(), heap_.end());
    if (left.previous != kNone && consider(left.previous)) {
      std::push_heap(heap_.begin(), heap_.end());
    }
  }
  for (uint32_t i = symbols_.empty() ? kNone : 0; i != kNone; i = symbols_[i].next) {
    const Symbol& symbol = symbols_[i];
    const TokenId id = spelled(symbol.begin, symbol.bytes);
    if (id != kNoToken) {
      out.push_back(id);
      continue;
    }
    const std::string_view bytes = text.substr(symbol.begin, symbol.bytes);
    const auto byte_token = [&](char byte) { return byte_tokens[static_cast<uint8_t>(byte)]; };
    if (std::all_of(bytes.begin(), bytes.end(),
                    [&](char byte) { return byte_token(byte) != kNoToken; })) {
      for (const char byte : bytes)
        out.push_back(byte_token(byte));
    } else if (unknown != kNoToken) {
      out.push_back(unknown);
    }
  }
}

} // namespace pinhole
