#include "plan/speed.h"

#include "plan/machine.h"

#include <algorithm>
#include <cmath>

namespace pinhole {

namespace {

constexpr double kCacheShare = 0.75; // of the shared cache that weights may count on
// Reading a PNG of a page and resizing it: 17 to 22 ns a pixel on one core of a Zen 4 (ask --json,
// timings_ms.picture).
constexpr double kSecondsPerPixel = 20e-9;
// A process' first work finds cold caches and a core that wakes up: 10 to 25 ms there.
constexpr double kStartSeconds = 0.012;
constexpr double kCacheGigabytes = 1e6; // GB/s: no limit beside the kernels' own

double per_giga(double amount, double giga_per_s) {
  return giga_per_s > 0 ? amount * 1e-9 / giga_per_s : 0;
}

// Bytes that an op without a matmul reads and writes.
double moved_bytes(const Graph& graph, const Op& op, const RowBinding& rows) {
  double bytes = 0;
  for (const ValueId id : {op.x, op.y, op.a}) {
    if (id == kNoValue)
      continue;
    const Value& value = graph.value(id);
    bytes += 4.0 * static_cast<double>(rows.count(value.rows) * value.cols);
  }
  return bytes;
}

// Rows of x that one matrix meets: those of the run, or of one expert's group.
double rows_of(const Graph& graph, const Op& op, const WorkShape& shape) {
  const auto rows = static_cast<double>(shape.rows.count(graph.value(op.x).rows));
  if (op.kind != OpKind::kMoe)
    return rows;
  const auto experts = static_cast<double>(graph.weight(op.gate).experts);
  return std::max(1.0, rows * static_cast<double>(graph.value(op.a).cols) / experts);
}

// Two things that overlap, but not wholly: near each other they cost more than the larger.
double overlapped(double a, double b) { return std::cbrt(a * a * a + b * b * b); }

double stream_seconds(double bytes, const KernelRates& rates) {
  return per_giga(bytes, kStreamShare * rates.read_gb_per_s);
}

// One row of x by so many bytes of weights: as it was measured on as many, or from what memory and
// the kernel do on their own.
double one_row_seconds(double bytes, const FormatRate& rate, const KernelRates& rates) {
  if (rate.memory_gb_per_s > 0)
    return per_giga(bytes, kStepShare * rate.memory_gb_per_s);
  return overlapped(stream_seconds(bytes, rates), per_giga(bytes, rate.one_gb_per_s));
}

// A matrix (or several experts). One row's kernel is judged by the bytes that it gets through;
// several rows share what one row costs until arithmetic binds.
double matrix_seconds(const Work& work, double rows, double out_bytes, const FormatRate& rate,
                      const KernelRates& rates) {
  const double one_row = one_row_seconds(work.weight_bytes, rate, rates);
  if (rows <= 1)
    return one_row;
  const double many =
      (per_giga(work.flops, rate.many_gflop_per_s) + per_giga(out_bytes, rate.out_gb_per_s)) /
          kRunShare +
      per_giga(work.weight_bytes, kColdShare * rate.unpack_gb_per_s);
  return std::max(one_row, many);
}

double op_seconds(const Graph& graph, const Op& op, const WorkShape& shape,
                  const KernelRates& rates) {
  if (is_skipped(op, shape))
    return 0;
  switch (op.kind) {
  case OpKind::kMatmul: {
    const double rows = rows_of(graph, op, shape);
    const FormatRate& first = rates.of(graph.weight(op.parts.front().weight).format);
    double seconds = rows > 1 ? per_giga(4.0 * rows * static_cast<double>(graph.value(op.x).cols),
                                         first.pack_gb_per_s)
                              : 0;
    for (const MatmulPart& part : op.parts) {
      const Work work = part_work(graph, op, part, shape);
      const double out_bytes = 4.0 * rows * static_cast<double>(graph.value(part.y).cols);
      seconds +=
          matrix_seconds(work, rows, out_bytes, rates.of(graph.weight(part.weight).format), rates);
      if (op.activation != Activation::kNone)
        seconds += per_giga(4.0 * rows * static_cast<double>(graph.value(part.y).cols),
                            rates.activation_gb_per_s);
    }
    return seconds;
  }
  case OpKind::kMoe: {
    const Work work = op_work(graph, op, shape);
    return matrix_seconds(work, rows_of(graph, op, shape), 0,
                          rates.of(graph.weight(op.gate).format), rates);
  }
  case OpKind::kAttention: {
    const Work work = op_work(graph, op, shape);
    if (rows_of(graph, op, shape) > static_cast<double>(shape.conversations))
      return per_giga(work.flops, kRunShare * rates.attention_gflop_per_s);
    if (shape.cached && rates.cached_gb_per_s > 0)
      return per_giga(work.cache_bytes, rates.cached_gb_per_s);
    return overlapped(stream_seconds(work.cache_bytes, rates),
                      per_giga(work.cache_bytes, rates.cache_gb_per_s));
  }
  default:
    return per_giga(moved_bytes(graph, op, shape.rows), rates.elementwise_gb_per_s);
  }
}

WorkShape text_shape(int64_t tokens, int64_t past, kernels::KvType kv_type) {
  WorkShape shape;
  shape.rows = {tokens, 1};
  shape.past_tokens = past;
  shape.kv_type = kv_type;
  return shape;
}

// A token of each of so many conversations.
WorkShape step_shape(int64_t conversations, int64_t past, kernels::KvType kv_type) {
  WorkShape shape = text_shape(conversations, past, kv_type);
  shape.rows.outputs = conversations;
  shape.conversations = conversations;
  return shape;
}

Work run_work(const Graph& graph, const WorkShape& shape) {
  Work work;
  for (const Op& op : graph.ops())
    work += op_work(graph, op, shape);
  return work;
}

// Bytes of experts that a run of so many tokens reads from the disk, when all are chosen equally
// often: those that it uses, less what it finds in the cache; a long prompt uses them all in turn
// and finds none of what it dropped.
double missed_expert_bytes(const Graph& graph, const WorkShape& shape, const Residency& residency) {
  if (residency.expert_cache_bytes == 0 || residency.expert_bytes == 0)
    return 0;
  double used = 0;
  for (const Op& op : graph.ops()) {
    if (op.kind == OpKind::kMoe)
      used += op_work(graph, op, shape).weight_bytes;
  }
  const double all = static_cast<double>(residency.expert_bytes);
  const double held = static_cast<double>(residency.expert_cache_bytes);
  return used > held ? used : used * (1 - std::min(held / all, 1.0));
}

// The rates of one thread, which waits for nobody.
KernelRates rates_alone(const KernelRates& rates) {
  KernelRates out = rates;
  const double threads = rates.num_threads;
  for (double* one : {&out.read_gb_per_s, &out.attention_gflop_per_s, &out.cache_gb_per_s,
                      &out.cached_gb_per_s, &out.elementwise_gb_per_s, &out.activation_gb_per_s})
    *one /= threads;
  for (FormatRate& rate : out.formats) {
    for (double* one : {&rate.many_gflop_per_s, &rate.unpack_gb_per_s, &rate.pack_gb_per_s,
                        &rate.one_gb_per_s, &rate.out_gb_per_s})
      *one /= threads;
    rate.memory_gb_per_s = rate.alone_gb_per_s;
  }
  out.op_seconds = kNextOpSeconds;
  return out;
}

// Predicts runs of one model where Placement puts it.
class Predictor {
 public:
  Predictor(const Model& model, kernels::KvType kv_type, const Placement& placement)
      : model_(model), at_(placement), cpu_(placement.cpu) {
    // Weights that stay in the shared cache from token to token are read at the kernels' own rates.
    if (run_work(model.text, text_shape(1, 0, kv_type)).weight_bytes <
        kCacheShare * static_cast<double>(cpu_.shared_cache_bytes))
      cpu_.read_gb_per_s = kCacheGigabytes;
    alone_ = rates_alone(cpu_);
  }

  double map_seconds() const {
    const int64_t on_gpu = at_.offload.weight_bytes;
    const int64_t mapped =
        at_.residency.streams() ? at_.residency.resident_bytes : at_.mapped_bytes;
    const int64_t uncached = at_.residency.streams() ? 0 : at_.uncached_bytes;
    return per_giga(static_cast<double>(mapped - on_gpu), cpu_.map_gb_per_s) +
           per_giga(static_cast<double>(on_gpu), at_.gpu.map_gb_per_s) +
           per_giga(static_cast<double>(uncached), cpu_.disk_gb_per_s);
  }

  double encode_seconds(int64_t patches) const {
    WorkShape shape;
    shape.rows = {patches, 0};
    if (model_.pictures && model_.pictures->window_size_px > 0) {
      const int64_t side = model_.pictures->window_size_px / model_.pictures->patch_size;
      shape.window_keys = side * side;
    }
    return std::max(
        run_seconds(model_.vision, shape, at_.offload.vision ? at_.gpu : cpu_),
        per_giga(static_cast<double>(at_.residency.streamed_vision_bytes), cpu_.disk_gb_per_s));
  }

  // Experts are read when they are chosen, beside which nothing runs; the rest is read ahead.
  double text_seconds(WorkShape shape) const {
    shape.cached = run_work(model_.text, shape).cache_bytes < kCachedBytes;
    const double seconds = op_sum(shape, rates_for(shape));
    return std::max(seconds, per_giga(static_cast<double>(at_.residency.streamed_text_bytes),
                                      cpu_.disk_gb_per_s)) +
           per_giga(missed_expert_bytes(model_.text, shape, at_.residency), cpu_.disk_gb_per_s);
  }

  // Adds the seconds of a run to the cost of its blocks.
  void add_blocks(WorkShape shape, double BlockCost::*seconds,
                  std::vector<BlockCost>& blocks) const {
    shape.cached = run_work(model_.text, shape).cache_bytes < kCachedBytes;
    const KernelRates& rates = rates_for(shape);
    for (const Op& op : model_.text.ops())
      block_of(op.block, blocks).*seconds += text_op_seconds(op, shape, rates);
  }

  void add_weights(std::vector<BlockCost>& blocks) const {
    for (const Op& op : model_.text.ops())
      block_of(op.block, blocks).weight_bytes +=
          static_cast<double>(op_weight_bytes(model_.text, op));
    for (BlockCost& block : blocks) {
      block.on_gpu = at_.offload.has_block(block.block);
      block.disk_seconds = per_giga(block.weight_bytes, cpu_.disk_gb_per_s);
      block.link_seconds = block.on_gpu ? per_giga(block.weight_bytes, at_.gpu.map_gb_per_s) : 0;
    }
  }

 private:
  double text_op_seconds(const Op& op, const WorkShape& shape, const KernelRates& cpu) const {
    const KernelRates& rates = at_.offload.has_block(op.block) ? at_.gpu : cpu;
    return op_seconds(model_.text, op, shape, rates) + rates.op_seconds;
  }

  double op_sum(const WorkShape& shape, const KernelRates& cpu) const {
    double seconds = 0;
    for (const Op& op : model_.text.ops())
      seconds += text_op_seconds(op, shape, cpu);
    return seconds;
  }

  // Of all threads or of one, as the engine will choose.
  const KernelRates& rates_for(const WorkShape& shape) const {
    const bool known = std::any_of(cpu_.formats.begin(), cpu_.formats.end(),
                                   [](const FormatRate& one) { return one.alone_gb_per_s > 0; });
    if (!known || shape.rows.items > kFewRows || at_.residency.streams())
      return cpu_;
    const double team = op_sum(shape, cpu_);
    return team <= kLongRunSeconds && op_sum(shape, alone_) < team ? alone_ : cpu_;
  }

  static BlockCost& block_of(int32_t block, std::vector<BlockCost>& blocks) {
    auto found = std::find_if(blocks.begin(), blocks.end(),
                              [&](const BlockCost& cost) { return cost.block == block; });
    if (found == blocks.end()) {
      found = blocks.insert(found, BlockCost{});
      found->block = block;
    }
    return *found;
  }

  const Model& model_;
  const Placement& at_;
  KernelRates cpu_, alone_;
};

} // namespace

double run_seconds(const Graph& graph, const WorkShape& shape, const KernelRates& rates) {
  double seconds = 0;
  for (const Op& op : graph.ops())
    seconds += op_seconds(graph, op, shape, rates) + rates.op_seconds;
  return seconds;
}

SpeedPlan plan_speed(const Model& model, const QuestionShape& question, kernels::KvType kv_type,
                     const Placement& placement) {
  const Predictor predict(model, kv_type, placement);
  SpeedPlan plan;
  plan.map_seconds = predict.map_seconds();
  plan.touch_seconds =
      per_giga(static_cast<double>(placement.touched_bytes), placement.cpu.touch_gb_per_s);
  plan.picture_seconds =
      kStartSeconds + kSecondsPerPixel * static_cast<double>(question.picture_pixels);
  for (const int64_t patches : question.picture_patches)
    plan.encode_seconds += predict.encode_seconds(patches);
  for (int64_t past = 0; past < question.prompt_tokens; past += question.chunk_tokens) {
    const int64_t tokens = std::min(question.chunk_tokens, question.prompt_tokens - past);
    WorkShape shape = text_shape(tokens, past, kv_type);
    shape.picture_keys = question.picture_keys;
    plan.prefill_seconds += predict.text_seconds(shape);
    predict.add_blocks(shape, &BlockCost::prefill_seconds, plan.blocks);
  }
  WorkShape first = step_shape(question.parallel, question.prompt_tokens, kv_type);
  first.picture_keys = question.picture_keys;
  plan.decode_seconds = predict.text_seconds(first);
  predict.add_blocks(first, &BlockCost::decode_seconds, plan.blocks);
  WorkShape full =
      step_shape(question.parallel, std::max<int64_t>(question.context_tokens - 1, 0), kv_type);
  full.picture_keys = question.picture_keys;
  plan.decode_full_seconds = predict.text_seconds(full);
  predict.add_weights(plan.blocks);
  return plan;
}

} // namespace pinhole
