#include "engine/kv_cache.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace pinhole {

Result<KvCache> KvCache::create(const CacheSpec& spec, kernels::KvType type,
                                const RunShape& shape) {
  KvCache cache;
  cache.spec_ = spec;
  cache.type_ = type;
  cache.row_bytes_ = kv_row_bytes(type, spec.head_dim);
  int64_t bytes = 0;
  for (int32_t layer = 0; layer < spec.layers; ++layer) {
    cache.rows_.push_back(kv_rows(spec, layer, shape));
    cache.offset_bytes_.push_back(bytes);
    bytes += 2 * spec.kv_heads * cache.head_bytes(layer);
    if (spec.is_sliding(layer))
      cache.sliding_rows_ = cache.rows_.back();
  }
  assert(bytes == kv_cache_bytes(spec, type, shape));
  cache.sequence_bytes_ = bytes;
  cache.first_tokens_.resize(static_cast<size_t>(shape.parallel));
  PINHOLE_TRY(cache.memory_, AnonymousMemory::reserve(shape.parallel * bytes, "KV cache"));
  return cache;
}

void KvCache::make_room(int32_t sequence, int64_t length, int64_t count) {
  int64_t& first_token = first_tokens_[static_cast<size_t>(sequence)];
  if (sliding_rows_ == 0 || length - first_token + count <= sliding_rows_)
    return;
  const int64_t keep = std::min(length - first_token, spec_.window - 1 + kSpareTokens);
  const int64_t skip = length - first_token - keep;
  assert(keep + count <= sliding_rows_);
  for (int32_t layer = 0; layer < spec_.layers; ++layer) {
    if (!spec_.is_sliding(layer))
      continue;
    for (int64_t head = 0; head < 2 * spec_.kv_heads; ++head) { // keys', then values'
      std::byte* rows = keys(sequence, layer) + head * head_bytes(layer);
      std::memmove(rows, rows + skip * row_bytes_, static_cast<size_t>(keep * row_bytes_));
    }
  }
  first_token += skip;
}

int64_t KvCache::usable(int32_t sequence, int64_t length) const {
  if (sliding_rows_ == 0 ||
      first_sliding_token(sequence) <= std::max<int64_t>(0, length - (spec_.window - 1)))
    return length;
  return 0;
}

void KvCache::copy(int32_t from, int32_t to, int64_t length) {
  assert(usable(from, length) == length);
  first_tokens_[static_cast<size_t>(to)] = first_sliding_token(from);
  for (int32_t layer = 0; layer < spec_.layers; ++layer) {
    const auto bytes = static_cast<size_t>((length - first_token(from, layer)) * row_bytes_);
    for (int64_t head = 0; head < 2 * spec_.kv_heads; ++head) {
      std::memcpy(keys(to, layer) + head * head_bytes(layer),
                  keys(from, layer) + head * head_bytes(layer), bytes);
    }
  }
}

} // namespace pinhole
