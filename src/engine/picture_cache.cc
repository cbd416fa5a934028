#include "engine/picture_cache.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace pinhole {

Result<PictureCache> PictureCache::create(const CacheSpec& spec, kernels::KvType type,
                                          int64_t rows) {
  PictureCache cache;
  cache.type_ = type;
  cache.row_bytes_ = kv_row_bytes(type, spec.head_dim);
  cache.kv_heads_ = spec.kv_heads;
  cache.layers_ = spec.cross_layers();
  cache.capacity_ = cache.layers_ > 0 ? rows : 0;
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    cache.offset_bytes_.push_back(bytes);
    if (spec.is_cross(layer))
      bytes += 2 * spec.kv_heads * cache.head_bytes();
  }
  assert(bytes == cache.capacity_ * picture_bytes_per_token(spec, type));
  cache.pieces_.reserve(static_cast<size_t>(2 * cache.capacity_ + 2));
  PINHOLE_TRY(cache.memory_, AnonymousMemory::reserve(bytes, "picture cache"));
  return cache;
}

template <class Fn> void PictureCache::for_strips(Fn fn) const {
  for (int64_t strip = 0; strip < layers_ * 2 * kv_heads_; ++strip)
    fn(memory_.data() + strip * head_bytes());
}

void PictureCache::rotate(int64_t begin, int64_t middle, int64_t end) {
  if (begin == middle || middle == end)
    return;
  for_strips([&](std::byte* rows) {
    std::rotate(rows + begin * row_bytes_, rows + middle * row_bytes_, rows + end * row_bytes_);
  });
}

int64_t PictureCache::begin_of(size_t piece) const {
  int64_t row = 0;
  for (size_t i = 0; i < piece; ++i)
    row += pieces_[i].rows;
  return row;
}

void PictureCache::move_piece(size_t from, size_t to) {
  assert(from >= to);
  const int64_t begin = begin_of(from);
  rotate(begin_of(to), begin, begin + pieces_[from].rows);
  const auto at = [this](size_t i) { return pieces_.begin() + static_cast<std::ptrdiff_t>(i); };
  std::rotate(at(to), at(from), at(from + 1));
}

size_t PictureCache::find(int64_t id, bool holds_it) const {
  size_t i = 0;
  while (i < pieces_.size() && (pieces_[i].picture != id || pieces_[i].holds_it != holds_it))
    ++i;
  assert(i < pieces_.size());
  return i;
}

void PictureCache::add(int64_t id, int64_t seen, int64_t rows) {
  assert(seen <= rows && used_ + rows <= capacity_);
  pieces_.push_back({id, true, seen});
  pieces_.push_back({id, false, rows - seen});
  used_ += rows;
}

void PictureCache::copy(int64_t id, int64_t new_id) {
  for (const bool holds_it : {true, false}) {
    const size_t piece = find(id, holds_it);
    const int64_t from = begin_of(piece);
    const int64_t rows = pieces_[piece].rows;
    assert(used_ + rows <= capacity_);
    for_strips([&](std::byte* strip) {
      std::memcpy(strip + used_ * row_bytes_, strip + from * row_bytes_,
                  static_cast<size_t>(rows * row_bytes_));
    });
    pieces_.push_back({new_id, holds_it, rows});
    used_ += rows;
  }
}

void PictureCache::remove(int64_t id) {
  for (const bool holds_it : {true, false}) {
    const size_t piece = find(id, holds_it);
    const int64_t begin = begin_of(piece);
    const int64_t rows = pieces_[piece].rows;
    for_strips([&](std::byte* strip) {
      std::memmove(strip + begin * row_bytes_, strip + (begin + rows) * row_bytes_,
                   static_cast<size_t>((used_ - begin - rows) * row_bytes_));
    });
    pieces_.erase(pieces_.begin() + static_cast<std::ptrdiff_t>(piece));
    used_ -= rows;
  }
}

int64_t PictureCache::rows_of(int64_t id) const {
  return pieces_[find(id, true)].rows + pieces_[find(id, false)].rows;
}

int64_t PictureCache::arrange(std::span<const int64_t> ids, std::span<int64_t> begins) {
  assert(begins.size() == ids.size() + 1);
  size_t at = 0;
  for (const bool holds_it : {true, false}) {
    for (const int64_t id : ids)
      move_piece(find(id, holds_it), at++);
  }
  int64_t row = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    begins[i] = row;
    row += pieces_[i].rows;
  }
  begins[ids.size()] = row;
  return begin_of(2 * ids.size());
}

void PictureCache::release_unused() {
  for_strips([&](std::byte* strip) {
    memory_.release_pages(strip - memory_.data() + used_ * row_bytes_,
                          (capacity_ - used_) * row_bytes_);
  });
}

} // namespace pinhole
