// How long a run will take: work counted from the graphs over the rates of the kernels.
#pragma once

#include "model/model.h"
#include "plan/memory.h"
#include "plan/rates.h"
#include "plan/residency.h"
#include "plan/work.h"

#include <vector>

namespace pinhole {

// Seconds of one run of a graph, op by op the larger of arithmetic and memory.
double run_seconds(const Graph& graph, const WorkShape& shape, const KernelRates& rates);

// The share of it that belongs to transformer block `block` (-1: what stands outside blocks).
struct BlockCost {
  int32_t block = -1;
  double weight_bytes = 0;
  double prefill_seconds = 0; // of the whole prompt
  double decode_seconds = 0;  // of one token
};

// A question: pictures, a prompt, an answer.
struct QuestionShape {
  std::vector<int64_t> picture_patches; // of each picture
  int64_t prompt_tokens = 0;            // the pictures' included
  int64_t context_tokens = 0;           // filled before the last token is decoded
  int64_t chunk_tokens = 512;
};

struct SpeedPlan {
  double map_seconds = 0;    // first touch of the weights, which the page cache is taken to hold
  double encode_seconds = 0; // all pictures
  double prefill_seconds = 0;
  double decode_seconds = 0;      // the first token after the prompt
  double decode_full_seconds = 0; // a token in a full context
  std::vector<BlockCost> blocks;  // of the text model

  double first_token_seconds() const { return map_seconds + encode_seconds + prefill_seconds; }
};

// `residency` says what is streamed: then a run takes as long as its bytes take from the disk, if
// that is longer.
SpeedPlan plan_speed(const Model& model, const QuestionShape& question, kernels::KvType kv_type,
                     const KernelRates& rates, const Residency& residency = {});

} // namespace pinhole
