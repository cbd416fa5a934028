// How long a run will take: work counted from the graphs over the rates of the kernels.
#pragma once

#include "model/model.h"
#include "plan/memory.h"
#include "plan/offload.h"
#include "plan/rates.h"
#include "plan/residency.h"
#include "plan/work.h"

#include <vector>

namespace pinhole {

// Of the best rate that a matmul or attention reaches alone, in a run: threads wait for each other
// after every op, and not every moment is the best. Qwen3-VL-2B and 4B (perf beside plan): Zen 4
// vision 0.86 to 0.9, prefill 0.8 to 0.88; Zen 5 0.75 to 0.82.
inline constexpr double kRunShare = 0.8;
// Of the rate at which weights in a cache are unpacked for many rows: in a run they come from
// mapped pages in memory. Zen 5, 64 beside 96 rows: 8.6 GB/s, 17 to 34 in the cache.
inline constexpr double kColdShare = 0.35;
// The same of the mean rate of one row of x by weights in memory: Zen 5 0.8 to 0.9 where the page
// cache holds the file in small pages, 1 in large ones.
inline constexpr double kStepShare = 0.93;
// Keys and values of one conversation that stay in the caches of the cores from token to token.
inline constexpr double kCachedBytes = 4 << 20;
// Of a plain stream's rate, for weights in mapped files; the engine's ops reached 0.83 to 0.91.
inline constexpr double kStreamShare = 0.9;

// Runs of few rows that take less than this are tried on one thread too, where no other must be
// waited for (engine/team_choice.h), and stay where they are faster.
inline constexpr int64_t kFewRows = 8;
inline constexpr double kLongRunSeconds = 0.02;

// Seconds of one run of a graph, op by op the larger of arithmetic and memory.
double run_seconds(const Graph& graph, const WorkShape& shape, const KernelRates& rates);

// The share of it that belongs to transformer block `block` (-1: what stands outside blocks).
struct BlockCost {
  int32_t block = -1;
  bool on_gpu = false;
  double weight_bytes = 0;
  double disk_seconds = 0;    // to read its weights from the disk; 0: no disk was measured
  double link_seconds = 0;    // to move them to the GPU that it lies on
  double prefill_seconds = 0; // of the whole prompt
  double decode_seconds = 0;  // of one token
};

// A question: pictures, a prompt, an answer.
struct QuestionShape {
  std::vector<int64_t> picture_patches; // of each picture, or piece of one
  int64_t picture_pixels = 0;           // of all their files
  int64_t parallel = 1;                 // conversations that decode at the same time
  int64_t picture_keys = 0;             // of pictures, that a token sees in cross-attention
  int64_t prompt_tokens = 0;            // the pictures' included
  int64_t context_tokens = 0;           // filled before the last token is decoded
  int64_t chunk_tokens = 512;
};

struct SpeedPlan {
  double map_seconds = 0;     // first touch of the weights, from the page cache or the disk
  double touch_seconds = 0;   // first touch of reserved memory
  double picture_seconds = 0; // decoding and resizing all pictures, and the start of a process
  double encode_seconds = 0;  // all pictures
  double prefill_seconds = 0;
  double decode_seconds = 0;      // the first token after the prompt, of every conversation
  double decode_full_seconds = 0; // a token in a full context
  std::vector<BlockCost> blocks;  // of the text model

  double first_token_seconds() const {
    return map_seconds + touch_seconds + picture_seconds + encode_seconds + prefill_seconds;
  }
};

// Where a run is computed: how fast, what is streamed, what lies on a GPU.
struct Placement {
  KernelRates cpu;
  int64_t mapped_bytes = 0;  // of weights, where none are streamed
  int64_t touched_bytes = 0; // of reserved memory, before the first token
  Residency residency; // a run that streams takes as long as its bytes from the disk, if longer
  Offload offload;
  KernelRates gpu;            // of what `offload` puts there
  int64_t uncached_bytes = 0; // of the model's files, which the first run reads from the disk
};

SpeedPlan plan_speed(const Model& model, const QuestionShape& question, kernels::KvType kv_type,
                     const Placement& placement);

} // namespace pinhole
