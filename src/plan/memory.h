// What a run will hold in memory, by part, before anything is loaded. The engine reserves exactly
// these bytes.
#pragma once

#include "base/result.h"
#include "model/model.h"
#include "plan/layout.h"

#include <cstdint>
#include <string>
#include <vector>

namespace pinhole {

struct RunShape {
  int64_t context_tokens = 4096; // rows of the KV cache, of each conversation
  int64_t parallel = 1;          // conversations that have a cache at the same time
  // Tokens that one prefill step takes at most; where a picture must be read at once, a plan has at
  // least its tokens and one of every other conversation.
  int64_t chunk_tokens = 512;
  int64_t output_rows = 1;      // rows of a chunk whose logits are wanted, at most
  int64_t max_patches = 0;      // of the largest picture; 0: no pictures
  int64_t feature_tokens = 0;   // picture tokens kept at once, as embeddings or as keys and values
  int64_t picture_io_bytes = 0; // decoded and resized pixels of the largest picture
};

struct MemoryPart {
  std::string name;
  int64_t bytes = 0;
};

struct MemoryPlan {
  RunShape shape;
  Layout text;
  Layout vision;
  // One conversation's text and vision graphs take turns in it; with several, the vision graph has
  // its part from vision_offset_bytes on, so that others go on while a picture is encoded.
  int64_t arena_bytes = 0;
  int64_t vision_offset_bytes = 0;
  int64_t kv_cache_bytes = 0;
  int64_t picture_cache_bytes = 0; // keys and values of pictures, of cross-attention layers
  int64_t features_bytes = 0;      // picture embeddings, all slots
  int64_t picture_io_bytes = 0;
  int64_t fixed_bytes = 0; // program, graph, vocabulary tables (an allowance, not a reservation)
  // Weights that the run maps, reclaimable: without the vision part where there are no pictures.
  int64_t mapped_bytes = 0;
  // Weights that it does not map: an embedding of which only rows are looked up, which come through
  // a buffer.
  int64_t looked_up_bytes = 0;
  // The program's own code and libraries, and what stands before the weights in their files: mapped
  // as well.
  int64_t program_mapped_bytes = 0;

  int64_t anonymous_bytes() const {
    return arena_bytes + kv_cache_bytes + picture_cache_bytes + features_bytes + picture_io_bytes +
           fixed_bytes;
  }
  // The anonymous ones, in the order above; the picture cache where there is one.
  std::vector<MemoryPart> parts() const;
};

// Bytes of one row of head_dim values of a cached key (or value).
int64_t kv_row_bytes(kernels::KvType type, int64_t head_dim);
// A sliding layer keeps, before the tokens of a chunk, the window that the first of them sees, and
// so many more: that many tokens can be taken back without reading the prompt anew.
inline constexpr int64_t kSpareTokens = 256;
// Tokens whose keys and values a layer holds at once; none in cross-attention layers.
int64_t kv_rows(const CacheSpec& cache, int64_t layer, const RunShape& shape);
// The cache of a run.
int64_t kv_cache_bytes(const CacheSpec& cache, kernels::KvType type, const RunShape& shape);
// Keys and values of one token in all layers, while no window has passed it.
int64_t kv_bytes_per_token(const CacheSpec& cache, kernels::KvType type);
// Keys and values of one token of a picture in all cross-attention layers.
int64_t picture_bytes_per_token(const CacheSpec& cache, kernels::KvType type);

// Reserved memory that is touched by the time a prompt of so many tokens is read: in a layer, keys
// and values of each head begin in a large page of their own, or share it with their neighbours.
int64_t touched_bytes(const MemoryPlan& plan, const CacheSpec& cache, kernels::KvType type,
                      int64_t prompt_tokens);

// What of anonymous memory a first question has touched at its peak, when its answer fills the
// context: pixels are gone before the cache is filled, a short prompt leaves rows of its chunk
// untouched. Later questions come up to plan.anonymous_bytes().
int64_t first_question_bytes(const Model& model, const MemoryPlan& plan, int64_t prompt_tokens);

Result<MemoryPlan> plan_memory(const Model& model, const RunShape& shape,
                               const KernelChoice& kernels);

} // namespace pinhole
