// Keys and values of one or more sequences: [sequence][layer][K, V][kv_head][rows][head_dim], so
// that a head's rows are contiguous. Reserved whole, touched as it fills. A full layer has a row
// for every token of the context; a sliding layer holds the last ones only, from first_token() on:
// when they run out, those that a window can still reach move to the front.
#pragma once

#include "base/result.h"
#include "engine/anonymous_memory.h"
#include "model/model.h"
#include "plan/memory.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pinhole {

class KvCache {
 public:
  // shape.parallel sequences.
  static Result<KvCache> create(const CacheSpec& spec, kernels::KvType type, const RunShape& shape);

  kernels::KvType type() const { return type_; }
  int64_t row_bytes() const { return row_bytes_; }
  // From one kv head to the next.
  int64_t head_bytes(int32_t layer) const { return row_bytes_ * rows_[static_cast<size_t>(layer)]; }
  std::byte* keys(int32_t sequence, int32_t layer) const {
    return memory_.data() + sequence * sequence_bytes_ + offset_bytes_[static_cast<size_t>(layer)];
  }
  std::byte* values(int32_t sequence, int32_t layer) const {
    return keys(sequence, layer) + spec_.kv_heads * head_bytes(layer);
  }

  // The token of a layer's first row; 0 in full layers.
  int64_t first_token(int32_t sequence, int32_t layer) const {
    return spec_.is_sliding(layer) ? first_sliding_token(sequence) : 0;
  }
  int64_t first_sliding_token(int32_t sequence) const {
    return first_tokens_[static_cast<size_t>(sequence)];
  }
  // Makes room for tokens [length, length + count) behind `length` others.
  void make_room(int32_t sequence, int64_t length, int64_t count);
  // How many tokens of the first `length` stay usable when the later ones are forgotten: all, or
  // none when what their windows reach is gone.
  int64_t usable(int32_t sequence, int64_t length) const;
  // The first `length` tokens of one sequence, all of them usable, in place of another's.
  void copy(int32_t from, int32_t to, int64_t length);
  void clear(int32_t sequence) { first_tokens_[static_cast<size_t>(sequence)] = 0; }

 private:
  CacheSpec spec_;
  kernels::KvType type_ = kernels::KvType::kF16;
  int64_t row_bytes_ = 0;
  int64_t sequence_bytes_ = 0;
  int64_t sliding_rows_ = 0;                 // 0: no layer slides
  std::vector<int64_t> first_tokens_;        // of sliding layers, by sequence
  std::vector<int64_t> rows_, offset_bytes_; // by layer
  AnonymousMemory memory_;
};

} // namespace pinhole
