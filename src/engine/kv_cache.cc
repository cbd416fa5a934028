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
  PINHOLE_TRY(cache.memory_, AnonymousMemory::reserve(bytes, "KV cache"));
  return cache;
}

void KvCache::make_room(int64_t length, int64_t count) {
  if (sliding_rows_ == 0 || length - first_token_ + count <= sliding_rows_)
    return;
  const int64_t keep = std::min(length - first_token_, spec_.window - 1 + kSpareTokens);
  const int64_t skip = length - first_token_ - keep;
  assert(keep + count <= sliding_rows_);
  for (int32_t layer = 0; layer < spec_.layers; ++layer) {
    if (!spec_.is_sliding(layer))
      continue;
    for (int64_t head = 0; head < 2 * spec_.kv_heads; ++head) { // keys', then values'
      std::byte* rows = keys(layer) + head * head_bytes(layer);
      std::memmove(rows, rows + skip * row_bytes_, static_cast<size_t>(keep * row_bytes_));
    }
  }
  first_token_ += skip;
}

int64_t KvCache::usable(int64_t length) const {
  if (sliding_rows_ == 0 || first_token_ <= std::max<int64_t>(0, length - (spec_.window - 1)))
    return length;
  return 0;
}

} // namespace pinhole
