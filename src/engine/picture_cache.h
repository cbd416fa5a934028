// Keys and values of pictures for cross-attention: [layer][K, V][kv_head][rows][head_dim], as many
// rows as a picture has tokens, written once when it is encoded, whatever text follows.
//
// What a token sees must be one range of rows. So each picture has two pieces, the rows that hold
// it and those of tiles that it leaves empty, and before a conversation is read its pieces are
// brought to the front: the first pieces of its pictures in their order, then the second ones.
// Invariant: pieces follow each other without gaps from row 0 on.
#pragma once

#include "base/result.h"
#include "engine/anonymous_memory.h"
#include "model/model.h"
#include "plan/memory.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pinhole {

class PictureCache {
 public:
  // Of `rows` rows; nothing where they, or the model's cross-attention layers, are none.
  static Result<PictureCache> create(const CacheSpec& spec, kernels::KvType type, int64_t rows);

  kernels::KvType type() const { return type_; }
  int64_t row_bytes() const { return row_bytes_; }
  int64_t head_bytes() const { return row_bytes_ * capacity_; } // from one kv head to the next
  std::byte* keys(int32_t layer) const {
    return memory_.data() + offset_bytes_[static_cast<size_t>(layer)];
  }
  std::byte* values(int32_t layer) const { return keys(layer) + kv_heads_ * head_bytes(); }

  int64_t capacity() const { return capacity_; }
  int64_t used() const { return used_; } // rows; the next picture's begin here

  // The rows from used() on are those of picture `id`: `seen` that hold it, then the others.
  void add(int64_t id, int64_t seen, int64_t rows);
  // A second copy of a picture, for which there is room.
  void copy(int64_t id, int64_t new_id);
  void remove(int64_t id);
  int64_t rows_of(int64_t id) const;
  // Brings the pictures to the front, each named once. `begins` [ids + 1]: where the rows that hold
  // each begin, and where the last one's end. Returns the rows of all of them.
  int64_t arrange(std::span<const int64_t> ids, std::span<int64_t> begins);
  // Gives the memory behind the last picture back.
  void release_unused();

 private:
  struct Piece {
    int64_t picture = 0;
    bool holds_it = false;
    int64_t rows = 0;
  };
  // The rows [middle, end) come before [begin, middle).
  void rotate(int64_t begin, int64_t middle, int64_t end);
  int64_t begin_of(size_t piece) const;
  void move_piece(size_t from, size_t to); // from >= to
  size_t find(int64_t id, bool holds_it) const;
  template <class Fn> void for_strips(Fn fn) const; // each head's rows

  kernels::KvType type_ = kernels::KvType::kF16;
  int64_t row_bytes_ = 0;
  int64_t kv_heads_ = 0;
  int64_t capacity_ = 0;
  int64_t used_ = 0;
  int64_t layers_ = 0;
  std::vector<int64_t> offset_bytes_; // by layer of the model
  std::vector<Piece> pieces_;         // in the order of their rows
  AnonymousMemory memory_;
};

} // namespace pinhole
