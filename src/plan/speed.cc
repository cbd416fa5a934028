#include "plan/speed.h"

#include <algorithm>

namespace pinhole {

namespace {

constexpr double kCacheShare = 0.75;    // of the shared cache that weights may count on
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

// A matrix (or several experts): the larger of arithmetic and memory. One row's kernel is judged by
// the bytes that it gets through; several rows share what one row costs until arithmetic binds.
double matrix_seconds(const Work& work, double rows, const FormatRate& rate,
                      const KernelRates& rates) {
  const double memory = per_giga(work.weight_bytes, rates.read_gb_per_s);
  const double one_row = per_giga(work.weight_bytes, rate.one_gb_per_s);
  if (rows <= 1)
    return std::max(memory, one_row);
  const double many = per_giga(work.flops, rate.many_gflop_per_s) +
                      per_giga(work.weight_bytes, rate.unpack_gb_per_s);
  return std::max({memory, one_row, many});
}

double op_seconds(const Graph& graph, const Op& op, const WorkShape& shape,
                  const KernelRates& rates) {
  switch (op.kind) {
  case OpKind::kMatmul: {
    const double rows = rows_of(graph, op, shape);
    const FormatRate& first = rates.of(graph.weight(op.parts.front().weight).format);
    double seconds = rows > 1 ? per_giga(4.0 * rows * static_cast<double>(graph.value(op.x).cols),
                                         first.pack_gb_per_s)
                              : 0;
    for (const MatmulPart& part : op.parts) {
      Op one = op;
      one.parts = {part};
      const Work work = op_work(graph, one, shape);
      seconds += matrix_seconds(work, rows, rates.of(graph.weight(part.weight).format), rates);
      if (op.activation != Activation::kNone)
        seconds += per_giga(4.0 * rows * static_cast<double>(graph.value(part.y).cols),
                            rates.activation_gb_per_s);
    }
    return seconds;
  }
  case OpKind::kMoe: {
    const Work work = op_work(graph, op, shape);
    return matrix_seconds(work, rows_of(graph, op, shape), rates.of(graph.weight(op.gate).format),
                          rates);
  }
  case OpKind::kAttention: {
    const Work work = op_work(graph, op, shape);
    if (rows_of(graph, op, shape) > 1)
      return per_giga(work.flops, rates.attention_gflop_per_s);
    return per_giga(work.cache_bytes, rates.cache_gb_per_s);
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
  return used > held ? used : used * (1 - held / all);
}

// Adds the seconds of a run to the cost of its blocks.
void add_blocks(const Graph& graph, const WorkShape& shape, const KernelRates& rates,
                double BlockCost::*seconds, std::vector<BlockCost>& blocks) {
  for (const Op& op : graph.ops()) {
    auto block = std::find_if(blocks.begin(), blocks.end(),
                              [&](const BlockCost& cost) { return cost.block == op.block; });
    if (block == blocks.end())
      block = blocks.insert(block, BlockCost{op.block});
    (*block).*seconds += op_seconds(graph, op, shape, rates);
  }
}

} // namespace

double run_seconds(const Graph& graph, const WorkShape& shape, const KernelRates& rates) {
  double seconds = 0;
  for (const Op& op : graph.ops())
    seconds += op_seconds(graph, op, shape, rates);
  return seconds;
}

SpeedPlan plan_speed(const Model& model, const QuestionShape& question, kernels::KvType kv_type,
                     const KernelRates& machine, const Residency& residency) {
  SpeedPlan plan;
  KernelRates rates = machine;
  // Weights that stay in the shared cache from token to token are read at the kernels' own rates.
  if (run_work(model.text, text_shape(1, 0, kv_type)).weight_bytes <
      kCacheShare * static_cast<double>(machine.shared_cache_bytes))
    rates.read_gb_per_s = kCacheGigabytes;
  // Experts are read when they are chosen, beside which nothing runs; the rest is read ahead.
  const auto text_seconds = [&](const WorkShape& shape) {
    return std::max(run_seconds(model.text, shape, rates),
                    per_giga(static_cast<double>(residency.streamed_text_bytes),
                             machine.disk_gb_per_s)) +
           per_giga(missed_expert_bytes(model.text, shape, residency), machine.disk_gb_per_s);
  };
  const double vision_disk =
      per_giga(static_cast<double>(residency.streamed_vision_bytes), machine.disk_gb_per_s);
  plan.map_seconds = per_giga(
      static_cast<double>(residency.streams() ? residency.resident_bytes : model.weight_bytes),
      machine.map_gb_per_s);
  for (const int64_t patches : question.picture_patches) {
    WorkShape shape;
    shape.rows = {patches, 0};
    if (model.pictures && model.pictures->window_size_px > 0) {
      const int64_t side = model.pictures->window_size_px / model.pictures->patch_size;
      shape.window_keys = side * side;
    }
    plan.encode_seconds += std::max(run_seconds(model.vision, shape, rates), vision_disk);
  }
  for (int64_t past = 0; past < question.prompt_tokens; past += question.chunk_tokens) {
    const int64_t tokens = std::min(question.chunk_tokens, question.prompt_tokens - past);
    const WorkShape shape = text_shape(tokens, past, kv_type);
    plan.prefill_seconds += text_seconds(shape);
    add_blocks(model.text, shape, rates, &BlockCost::prefill_seconds, plan.blocks);
  }
  const WorkShape first = text_shape(1, question.prompt_tokens, kv_type);
  plan.decode_seconds = text_seconds(first);
  add_blocks(model.text, first, rates, &BlockCost::decode_seconds, plan.blocks);
  plan.decode_full_seconds =
      text_seconds(text_shape(1, std::max<int64_t>(question.context_tokens - 1, 0), kv_type));
  for (BlockCost& cost : plan.blocks) {
    for (const Op& op : model.text.ops()) {
      if (op.block != cost.block)
        continue;
      for (const MatmulPart& part : op.parts) {
        const Weight& weight = model.text.weight(part.weight);
        cost.weight_bytes += static_cast<double>(row_bytes(weight.format, weight.cols)) *
                             static_cast<double>(weight.rows);
      }
      for (const WeightId id : {op.gate, op.up, op.down}) {
        if (id == kNoWeight)
          continue;
        const Weight& weight = model.text.weight(id);
        cost.weight_bytes += static_cast<double>(row_bytes(weight.format, weight.cols)) *
                             static_cast<double>(weight.rows * weight.experts);
      }
    }
  }
  return plan;
}

} // namespace pinhole
