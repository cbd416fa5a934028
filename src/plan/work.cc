#include "plan/work.h"

#include "plan/memory.h"

#include <algorithm>
#include <cmath>

namespace pinhole {

namespace {

double bytes_of(const Weight& weight) {
  return static_cast<double>(row_bytes(weight.format, weight.cols)) *
         static_cast<double>(weight.rows);
}

double size_of(const Weight& weight) {
  return static_cast<double>(weight.rows) * static_cast<double>(weight.cols);
}

// The parameter of the key range that begins there: 0 when all keys are seen.
int64_t window_of(const Graph& graph, ValueId key_begin) {
  for (const Input& input : graph.inputs()) {
    if (input.value == key_begin)
      return input.parameter;
  }
  return 0;
}

// Keys that `rows` rows see, each the `window` last ones up to its own at most, after `past`
// others.
double windowed_pairs(double rows, double past, double window) {
  const double growing = std::clamp(window - past, 0.0, rows); // rows that see all keys
  return growing * past + growing * (growing + 1) / 2 + (rows - growing) * window;
}

Work attention_work(const Graph& graph, const Op& op, const WorkShape& shape) {
  const auto rows = static_cast<double>(shape.rows.count(graph.value(op.x).rows));
  const auto past = static_cast<double>(shape.past_tokens);
  Work work;
  double pairs = rows * rows; // of query and key
  const double key_bytes = 2.0 * static_cast<double>(op.kv_heads) *
                           static_cast<double>(kv_row_bytes(shape.kv_type, op.head_dim));
  if (op.of_pictures) {
    pairs = rows * static_cast<double>(shape.picture_keys);
    work.cache_bytes = static_cast<double>(shape.conversations * shape.picture_keys) * key_bytes;
  } else if (op.layer >= 0) {
    const auto conversations = static_cast<double>(shape.conversations);
    const double own = rows / conversations; // row i of a conversation sees past + i + 1 keys
    const int64_t window = window_of(graph, op.b);
    double keys = past + own;
    pairs = own * past + own * (own + 1) / 2;
    if (window > 0) {
      pairs = windowed_pairs(own, past, static_cast<double>(window));
      keys = std::min(keys, own + static_cast<double>(window - 1));
    }
    pairs *= conversations;
    work.cache_bytes = conversations * keys * key_bytes;
  } else if (shape.window_keys > 0 && window_of(graph, op.b) > 0) {
    pairs = rows * std::min(rows, static_cast<double>(shape.window_keys));
  }
  // q k and p v, each a multiply-add
  work.flops = 4.0 * pairs * static_cast<double>(op.heads * op.head_dim);
  return work;
}

Work moe_work(const Graph& graph, const Op& op, const WorkShape& shape) {
  const auto rows = static_cast<double>(shape.rows.count(graph.value(op.x).rows));
  const auto experts = static_cast<double>(graph.weight(op.gate).experts);
  const auto chosen = static_cast<double>(graph.value(op.a).cols);
  const double read = experts * (1 - std::pow(1 - chosen / experts, rows));
  Work work;
  for (const WeightId id : {op.gate, op.up, op.down}) {
    work.flops += 2.0 * rows * chosen * size_of(graph.weight(id));
    work.weight_bytes += read * bytes_of(graph.weight(id));
  }
  return work;
}

} // namespace

Work& Work::operator+=(const Work& other) {
  flops += other.flops;
  weight_bytes += other.weight_bytes;
  cache_bytes += other.cache_bytes;
  return *this;
}

Work part_work(const Graph& graph, const Op& op, const MatmulPart& part, const WorkShape& shape) {
  const auto rows = static_cast<double>(shape.rows.count(graph.value(op.x).rows));
  const Weight& weight = graph.weight(part.weight);
  Work work;
  if (is_skipped(op, shape))
    return work;
  work.flops = 2.0 * rows * size_of(weight);
  work.weight_bytes = rows > 0 ? bytes_of(weight) : 0.0;
  return work;
}

bool is_skipped(const Op& op, const WorkShape& shape) {
  return op.needs_pictures && shape.picture_keys == 0;
}

Work op_work(const Graph& graph, const Op& op, const WorkShape& shape) {
  Work work;
  if (is_skipped(op, shape))
    return work;
  switch (op.kind) {
  case OpKind::kMatmul:
    for (const MatmulPart& part : op.parts)
      work += part_work(graph, op, part, shape);
    return work;
  case OpKind::kAttention:
    return attention_work(graph, op, shape);
  case OpKind::kMoe:
    return moe_work(graph, op, shape);
  default:
    return work;
  }
}

} // namespace pinhole
