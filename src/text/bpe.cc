#include "text/bpe.h"

#include "text/hash.h"

#include <algorithm>
#include <functional>

namespace pinhole {

namespace {

// Below it a scan of all pairs for each merge beats the heap (measured on words of one letter, Xeon
// model 167: equal at 90 symbols).
constexpr size_t kShortSymbols = 64;
constexpr uint32_t kNone = UINT32_MAX;

uint64_t pair_key(TokenId left, TokenId right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

} // namespace

MergeTable::MergeTable(size_t merges) : slots_(merges + merges / 4 + 8), seed_(hash_seed()) {}

MergeTable::Slot& MergeTable::place(std::vector<Slot>& slots, uint64_t pair) const {
  const uint64_t hash =
      hash_pair(static_cast<uint32_t>(pair >> 32), static_cast<uint32_t>(pair), seed_);
  const auto capacity = static_cast<uint32_t>(slots.size());
  uint32_t i = hash_slot(hash, capacity);
  while (slots[i].pair != pair && slots[i].pair != UINT64_MAX)
    i = i + 1 == capacity ? 0 : i + 1;
  return slots[i];
}

void MergeTable::add(TokenId left, TokenId right, Merge merge, bool replace) {
  if (8 * (count_ + 1) > 7 * slots_.size()) {
    std::vector<Slot> larger(slots_.size() + slots_.size() / 2 + 8);
    for (const Slot& slot : slots_) {
      if (slot.pair != UINT64_MAX)
        place(larger, slot.pair) = slot;
    }
    slots_ = std::move(larger);
  }
  const uint64_t pair = pair_key(left, right);
  Slot& slot = place(slots_, pair);
  if (slot.pair == UINT64_MAX)
    ++count_;
  if (slot.pair == UINT64_MAX || replace)
    slot = {pair, merge};
}

void MergeTable::prefetch(TokenId left, TokenId right) const {
  const uint64_t hash = hash_pair(static_cast<uint32_t>(left), static_cast<uint32_t>(right), seed_);
  __builtin_prefetch(&slots_[hash_slot(hash, static_cast<uint32_t>(slots_.size()))]);
}

MergeTable::Merge MergeTable::find(TokenId left, TokenId right) const {
  const uint64_t pair = pair_key(left, right);
  const uint64_t hash = hash_pair(static_cast<uint32_t>(left), static_cast<uint32_t>(right), seed_);
  const auto capacity = static_cast<uint32_t>(slots_.size());
  for (uint32_t i = hash_slot(hash, capacity);; i = i + 1 == capacity ? 0 : i + 1) {
    const Slot& slot = slots_[i];
    if (slot.pair == pair)
      return slot.merge;
    if (slot.pair == UINT64_MAX)
      return {kNoRank, 0};
  }
}

void BpeMerger::merge(const MergeTable& merges, std::vector<TokenId>& symbols) {
  if (symbols.size() < 2)
    return;
  if (symbols.size() <= kShortSymbols) {
    merge_short(merges, symbols);
  } else {
    merge_long(merges, symbols);
  }
}

void BpeMerger::merge_short(const MergeTable& merges, std::vector<TokenId>& symbols) {
  pairs_.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    pairs_.push_back(merges.find(symbols[i], symbols[i + 1]));
  }
  while (!pairs_.empty()) {
    size_t best = 0;
    for (size_t i = 1; i < pairs_.size(); ++i) {
      if (pairs_[i].rank < pairs_[best].rank)
        best = i;
    }
    if (pairs_[best].rank == MergeTable::kNoRank)
      break;
    symbols[best] = static_cast<TokenId>(pairs_[best].id);
    const auto offset = static_cast<std::ptrdiff_t>(best);
    symbols.erase(symbols.begin() + offset + 1);
    pairs_.erase(pairs_.begin() + offset);
    if (best < pairs_.size())
      pairs_[best] = merges.find(symbols[best], symbols[best + 1]);
    if (best > 0)
      pairs_[best - 1] = merges.find(symbols[best - 1], symbols[best]);
  }
}

void BpeMerger::merge_long(const MergeTable& merges, std::vector<TokenId>& symbols) {
  const auto count = static_cast<uint32_t>(symbols.size());
  links_.resize(count);
  heap_.clear();
  const auto key = [&](uint32_t i) {
    return static_cast<uint64_t>(links_[i].merge.rank) << 32 | i;
  };
  for (uint32_t i = 0; i < count; ++i) {
    Link& link = links_[i];
    link = {{MergeTable::kNoRank, 0}, i - 1, i + 1 == count ? kNone : i + 1};
    if (link.next != kNone)
      link.merge = merges.find(symbols[i], symbols[i + 1]);
    if (link.merge.rank != MergeTable::kNoRank)
      heap_.push_back(key(i));
  }
  const auto later = std::greater<>();
  std::make_heap(heap_.begin(), heap_.end(), later);
  const auto update = [&](uint32_t i) {
    Link& link = links_[i];
    link.merge = link.next == kNone ? MergeTable::Merge{MergeTable::kNoRank, 0}
                                    : merges.find(symbols[i], symbols[link.next]);
    if (link.merge.rank == MergeTable::kNoRank)
      return;
    heap_.push_back(key(i));
    std::push_heap(heap_.begin(), heap_.end(), later);
  };
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const uint64_t top = heap_.back();
    heap_.pop_back();
    const auto i = static_cast<uint32_t>(top);
    Link& link = links_[i];
    if (link.merge.rank != static_cast<uint32_t>(top >> 32))
      continue; // the pair is gone
    symbols[i] = static_cast<TokenId>(link.merge.id);
    const uint32_t gone = link.next;
    link.next = links_[gone].next;
    if (link.next != kNone)
      links_[link.next].previous = i;
    links_[gone].merge.rank = MergeTable::kNoRank;
    update(i);
    if (link.previous != kNone)
      update(link.previous);
  }
  size_t kept = 0;
  for (uint32_t i = 0; i != kNone; i = links_[i].next)
    symbols[kept++] = symbols[i];
  symbols.resize(kept);
}

} // namespace pinhole
