// Byte-pair encoding by rank: pairs of ids, the lowest rank first, the leftmost of equal ranks.
//
// The merges lie in one open-addressing table. Short words are merged in place; long ones through a
// heap over a linked list, so that a text without word boundaries takes O(n log n).
// Source: Hugging Face tokenizers, models/bpe (Word::merge_all).
#pragma once

#include "text/tokenizer.h"

#include <cstdint>
#include <vector>

namespace pinhole {

class MergeTable {
 public:
  explicit MergeTable(size_t merges = 0);

  struct Merge {
    uint32_t rank, id;
  };
  static constexpr uint32_t kNoRank = UINT32_MAX;

  // `replace`: what becomes of a pair that is listed twice.
  void add(TokenId left, TokenId right, Merge merge, bool replace);
  void prefetch(TokenId left, TokenId right) const; // asks for the cache line that add() needs
  // rank kNoRank: the pair does not merge.
  Merge find(TokenId left, TokenId right) const;
  size_t size() const { return count_; }
  size_t table_bytes() const { return slots_.size() * sizeof(Slot); }

 private:
  struct Slot {
    uint64_t pair = UINT64_MAX; // left << 32 | right; all ones: free
    Merge merge{kNoRank, 0};
  };
  Slot& place(std::vector<Slot>& slots, uint64_t pair) const;

  std::vector<Slot> slots_;
  uint64_t seed_;
  size_t count_ = 0;
};

// Scratch memory for merging, kept over the words of a text.
class BpeMerger {
 public:
  // Merges `symbols` in place.
  void merge(const MergeTable& merges, std::vector<TokenId>& symbols);

 private:
  void merge_short(const MergeTable& merges, std::vector<TokenId>& symbols);
  void merge_long(const MergeTable& merges, std::vector<TokenId>& symbols);

  struct Link {
    MergeTable::Merge merge; // of this symbol and the next
    uint32_t previous, next;
  };
  std::vector<MergeTable::Merge> pairs_;
  std::vector<Link> links_;
  std::vector<uint64_t> heap_; // rank << 32 | position
};

} // namespace pinhole
