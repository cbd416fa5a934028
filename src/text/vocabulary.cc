#include "text/vocabulary.h"

#include "text/hash.h"
#include "text/utf8.h"

#include <algorithm>
#include <fmt/format.h>
#include <random>

namespace pinhole {

namespace {

constexpr size_t kMaxArenaBytes = UINT32_MAX;

} // namespace

std::string shown_text(std::string_view text) {
  std::string out;
  utf8_append_lossy(out, text.substr(0, 60));
  if (text.size() > 60)
    out += "…";
  return out;
}

uint64_t hash_seed() {
  static const uint64_t seed = [] {
    std::random_device device;
    return static_cast<uint64_t>(device()) << 32 | device();
  }();
  return seed;
}

Vocabulary::Vocabulary(size_t size, size_t tokens, std::string arena)
    : arena_(std::move(arena)), tokens_(size), kinds_(size, TokenKind::kAbsent),
      slots_(tokens + tokens / 4 + 8), seed_(hash_seed()) {}

Status Vocabulary::add(const Entry& entry, const std::string& where) {
  return add(entry, prefetch(view(entry.offset, entry.length)), where);
}

Status Vocabulary::add_all(std::span<const Entry> entries, const std::string& where) {
  // Slots are far apart: each is asked for kAhead entries before it is needed.
  constexpr size_t kAhead = 16;
  uint64_t hashes[kAhead];
  const auto hash = [&](size_t i) {
    hashes[i % kAhead] = prefetch(view(entries[i].offset, entries[i].length));
  };
  for (size_t i = 0; i < std::min(kAhead, entries.size()); ++i)
    hash(i);
  for (size_t i = 0; i < entries.size(); ++i) {
    PINHOLE_CHECK(add(entries[i], hashes[i % kAhead], where));
    if (i + kAhead < entries.size())
      hash(i + kAhead);
  }
  return {};
}

Status Vocabulary::add(const Entry& entry, uint64_t hash, const std::string& where) {
  const std::string_view text = view(entry.offset, entry.length);
  const TokenId id = entry.id;
  if (id < 0) {
    return fail(ErrorCode::kInvalidInput, fmt::format("token id {} is negative", id), where);
  }
  if (text.size() > kMaxTextBytes) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("token {} has {} bytes, at most {} are supported", id, text.size(),
                            kMaxTextBytes),
                where);
  }
  const auto index = static_cast<size_t>(id);
  if (index >= tokens_.size()) {
    tokens_.resize(index + 1);
    kinds_.resize(index + 1, TokenKind::kAbsent);
  }
  if (kinds_[index] != TokenKind::kAbsent) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("token id {} is given to '{}' and to '{}'", id,
                            shown_text(this->text(id)), shown_text(text)),
                where);
  }
  if (!text.empty()) {
    const TokenId other = insert(id, text, hash);
    if (other != id) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("token '{}' has two ids, {} and {}", shown_text(text), other, id),
                  where);
    }
  }
  const auto length = static_cast<uint16_t>(text.size());
  tokens_[index] = {entry.offset, entry.offset, length, length};
  kinds_[index] = entry.kind;
  max_text_bytes_ = std::max(max_text_bytes_, text.size());
  ++count_;
  return {};
}

Status Vocabulary::append(TokenId id, std::string_view text, TokenKind kind,
                          const std::string& where) {
  if (arena_.size() + text.size() > kMaxArenaBytes) {
    return fail(ErrorCode::kTooLarge, "the vocabulary has more than 4 GiB of text", where);
  }
  const auto offset = static_cast<uint32_t>(arena_.size());
  arena_ += text;
  return add({offset, static_cast<uint32_t>(text.size()), id, kind}, where);
}

TokenId Vocabulary::insert(TokenId id, std::string_view text, uint64_t hash) {
  if (8 * (count_ + 1) > 7 * slots_.size())
    grow();
  const auto capacity = static_cast<uint32_t>(slots_.size());
  const auto tag = static_cast<uint32_t>(hash);
  for (uint32_t i = hash_slot(hash, capacity);; i = i + 1 == capacity ? 0 : i + 1) {
    Slot& slot = slots_[i];
    if (slot.id == kNoToken) {
      slot = {tag, id};
      return id;
    }
    if (slot.tag == tag && this->text(slot.id) == text)
      return slot.id;
  }
}

void Vocabulary::grow() {
  const std::vector<Slot> old = std::move(slots_);
  slots_.assign(old.size() + old.size() / 2 + 8, Slot{});
  const auto capacity = static_cast<uint32_t>(slots_.size());
  for (const Slot& slot : old) {
    if (slot.id == kNoToken)
      continue;
    uint32_t i = hash_slot(hash_text(text(slot.id), seed_), capacity);
    while (slots_[i].id != kNoToken)
      i = i + 1 == capacity ? 0 : i + 1;
    slots_[i] = slot;
  }
}

TokenId Vocabulary::find(std::string_view text) const {
  if (text.empty() || text.size() > max_text_bytes_)
    return kNoToken;
  return find(text, hash_text(text, seed_));
}

uint64_t Vocabulary::prefetch(std::string_view text) const {
  const uint64_t hash = hash_text(text, seed_);
  __builtin_prefetch(&slots_[hash_slot(hash, static_cast<uint32_t>(slots_.size()))]);
  return hash;
}

TokenId Vocabulary::find(std::string_view text, uint64_t hash) const {
  const auto capacity = static_cast<uint32_t>(slots_.size());
  const auto tag = static_cast<uint32_t>(hash);
  for (uint32_t i = hash_slot(hash, capacity);; i = i + 1 == capacity ? 0 : i + 1) {
    const Slot& slot = slots_[i];
    if (slot.id == kNoToken)
      return kNoToken;
    if (slot.tag == tag && this->text(slot.id) == text)
      return slot.id;
  }
}

TokenId Vocabulary::find_joined(std::string_view left, std::string_view right,
                                TokenId guess) const {
  const size_t length = left.size() + right.size();
  if (length > max_text_bytes_)
    return kNoToken;
  if (contains(guess)) {
    const std::string_view whole = text(guess);
    if (whole.size() == length && whole.starts_with(left) && whole.ends_with(right))
      return guess;
  }
  std::string joined;
  joined.reserve(length);
  joined.append(left).append(right);
  return find(joined);
}

void Vocabulary::set_piece(TokenId id, std::string_view piece) {
  Token& token = tokens_[static_cast<size_t>(id)];
  if (piece == text(id)) {
    token.piece = token.text;
    token.piece_bytes = token.text_bytes;
    return;
  }
  if (arena_.size() > UINT32_MAX - kMaxTextBytes)
    piece = {}; // add() has bounded the texts, so that this takes 4 GiB of replaced ones
  token.piece = static_cast<uint32_t>(arena_.size());
  token.piece_bytes = static_cast<uint16_t>(std::min(piece.size(), kMaxTextBytes));
  arena_.append(piece, 0, token.piece_bytes);
}

} // namespace pinhole
