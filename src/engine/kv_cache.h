// Keys and values of one sequence: [layer][K, V][kv_head][context_tokens][head_dim], so that a
// head's rows are contiguous. Reserved whole, touched as it fills.
#pragma once

#include "base/result.h"
#include "engine/anonymous_memory.h"
#include "model/model.h"
#include "plan/memory.h"

#include <cstddef>
#include <cstdint>

namespace pinhole {

class KvCache {
 public:
  static Result<KvCache> create(const CacheSpec& spec, kernels::KvType type,
                                int64_t context_tokens);

  kernels::KvType type() const { return type_; }
  int64_t context_tokens() const { return context_tokens_; }
  int64_t row_bytes() const { return row_bytes_; }
  int64_t head_bytes() const {
    return row_bytes_ * context_tokens_;
  } // from one kv head to the next
  std::byte* keys(int32_t layer) const { return layer_data(layer); }
  std::byte* values(int32_t layer) const {
    return layer_data(layer) + spec_.kv_heads * head_bytes();
  }

 private:
  std::byte* layer_data(int32_t layer) const {
    return memory_.data() + layer * 2 * spec_.kv_heads * head_bytes();
  }
  CacheSpec spec_;
  kernels::KvType type_ = kernels::KvType::kF16;
  int64_t context_tokens_ = 0;
  int64_t row_bytes_ = 0;
  AnonymousMemory memory_;
};

} // namespace pinhole
