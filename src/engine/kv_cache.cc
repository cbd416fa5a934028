#include "engine/kv_cache.h"

namespace pinhole {

Result<KvCache> KvCache::create(const CacheSpec& spec, kernels::KvType type,
                                int64_t context_tokens) {
  KvCache cache;
  cache.spec_ = spec;
  cache.type_ = type;
  cache.context_tokens_ = context_tokens;
  cache.row_bytes_ = kv_row_bytes(type, spec.head_dim);
  PINHOLE_TRY(cache.memory_, AnonymousMemory::reserve(
                                 context_tokens * kv_bytes_per_token(spec, type), "KV cache"));
  return cache;
}

} // namespace pinhole
