// A back end runs a graph's ops in a laid-out arena. It never sees families or files.
#pragma once

#include "base/mapped_file.h"
#include "engine/kv_cache.h"
#include "engine/picture_cache.h"
#include "model/graph.h"
#include "plan/layout.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace pinhole {

// Picture embeddings: slot s, row r at data + (s * capacity + r) * size.
struct FeatureRows {
  float* data = nullptr;
  int64_t capacity = 0;
  int64_t size = 0;
  float* row(int32_t slot, int64_t row_idx) const {
    return data + (slot * capacity + row_idx) * size;
  }
};

class ExpertCache;
class WeightStream;

// Rows [first_row, first_row + rows) of a run: the next tokens of one sequence.
struct SequenceRows {
  int32_t sequence = 0; // in the cache
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t past_tokens = 0; // that the cache holds of it
};

struct RunContext {
  std::byte* arena = nullptr;
  const KvCache* cache = nullptr;          // text graphs
  std::span<const SequenceRows> sequences; // text graphs: all rows, each sequence once
  FeatureRows features;                    // text graphs that read pictures
  PictureCache* pictures = nullptr;        // of cross-attention layers
  int64_t picture_row = 0;                 // vision graphs: where the picture's keys begin there
  int64_t picture_rows = 0; // of it; text graphs: of all that tokens may see, 0: no pictures
  const std::atomic<bool>* cancel = nullptr; // set: stop before the next op
  WeightStream* stream = nullptr;            // weights that do not stay in memory
  ExpertCache* experts = nullptr;            // experts of which not all stay
  // Set: a table whose rows are read from its file when they are looked up. Mapped, a row would
  // bring a large folio of the page cache into memory.
  FileRange unmapped_table;
  // Only these ops: a run in parts, between which others use other memory. Without `stream`.
  size_t first_op = 0;
  size_t end_op = SIZE_MAX;
};

class Backend {
 public:
  virtual ~Backend() = default;
  // Runs all ops for `rows` <= layout.max_rows. False when it was cancelled; results are then
  // garbage.
  virtual bool run(const Graph& graph, const Layout& layout, const RowBinding& rows,
                   const RunContext& context) = 0;
};

// The address of an input or output in the arena.
inline std::byte* value_data(const Graph& graph, const Layout& layout, std::byte* arena,
                             ValueId value) {
  const Value& v = graph.value(value);
  return arena + layout.buffer_offset_bytes[static_cast<size_t>(v.buffer)] + v.offset * 4;
}

} // namespace pinhole
