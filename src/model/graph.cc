#include "model/graph.h"

#include <cassert>

namespace pinhole {

std::string_view role_name(Role role) {
  switch (role) {
  case Role::kTextEmbedding:
    return "text embedding";
  case Role::kTextAttention:
    return "text attention";
  case Role::kTextMlp:
    return "text mlp";
  case Role::kTextNorm:
    return "text norm";
  case Role::kTextRouter:
    return "text router";
  case Role::kTextExpert:
    return "text expert";
  case Role::kTextOutput:
    return "text output";
  case Role::kVisionEmbedding:
    return "vision embedding";
  case Role::kVisionAttention:
    return "vision attention";
  case Role::kVisionMlp:
    return "vision mlp";
  case Role::kVisionNorm:
    return "vision norm";
  case Role::kProjector:
    return "projector";
  }
  return "?";
}

Part part_of(Role role) {
  switch (role) {
  case Role::kVisionEmbedding:
  case Role::kVisionAttention:
  case Role::kVisionMlp:
  case Role::kVisionNorm:
    return Part::kVision;
  case Role::kProjector:
    return Part::kProjector;
  default:
    return Part::kText;
  }
}

std::string_view op_name(OpKind kind) {
  switch (kind) {
  case OpKind::kEmbed:
    return "embed";
  case OpKind::kPutRows:
    return "put_rows";
  case OpKind::kGatherRows:
    return "gather_rows";
  case OpKind::kGatherWeighted:
    return "gather_weighted";
  case OpKind::kPutVector:
    return "put_vector";
  case OpKind::kRegroup:
    return "regroup";
  case OpKind::kMatmul:
    return "matmul";
  case OpKind::kRmsNorm:
    return "rms_norm";
  case OpKind::kLayerNorm:
    return "layer_norm";
  case OpKind::kAdd:
    return "add";
  case OpKind::kScale:
    return "scale";
  case OpKind::kActivate:
    return "activate";
  case OpKind::kGated:
    return "gated";
  case OpKind::kRopeTable:
    return "rope_table";
  case OpKind::kRope:
    return "rope";
  case OpKind::kKvStore:
    return "kv_store";
  case OpKind::kAttention:
    return "attention";
  case OpKind::kRoute:
    return "route";
  case OpKind::kMoe:
    return "moe";
  case OpKind::kAddGated:
    return "add_gated";
  case OpKind::kAddTableRows:
    return "add_table_rows";
  case OpKind::kPutColumns:
    return "put_columns";
  }
  return "?";
}

Op& Graph::push(OpKind kind) {
  Op& op = ops_.emplace_back();
  op.kind = kind;
  op.block = block_;
  op.needs_pictures = pictures_only_;
  return op;
}

ValueId Graph::add_value(Value value) {
  values_.push_back(value);
  return static_cast<ValueId>(values_.size() - 1);
}

const Tensor* Graph::declare_tensor(Tensor tensor) {
  std::string name = tensor.name;
  return &declared_->emplace(std::move(name), std::move(tensor)).first->second;
}

WeightId Graph::add_weight(const Weight& weight) {
  weights_.push_back(weight);
  return static_cast<WeightId>(weights_.size() - 1);
}

ValueId Graph::new_value(RowCount rows, int64_t cols) {
  buffers_.push_back(Buffer{rows, cols, ElementType::kF32, false, false});
  return add_value({static_cast<BufferId>(buffers_.size() - 1), rows, cols, cols, 0});
}

void Graph::set_format(WeightId id, FormatId format) {
  Weight& weight = weights_[static_cast<size_t>(id)];
  weight.format = format;
  weight.row_stride_bytes = row_bytes(format, weight.cols);
  weight.expert_stride_bytes = weight.row_stride_bytes * weight.rows;
  weight.transposed = false;
}

ValueId Graph::input(InputKind kind, int64_t cols, ElementType type, RowCount rows,
                     int64_t parameter) {
  buffers_.push_back(Buffer{rows, cols, type, true, false});
  const ValueId id = add_value({static_cast<BufferId>(buffers_.size() - 1), rows, cols, cols, 0});
  inputs_.push_back(Input{kind, id, parameter});
  return id;
}

ValueId Graph::columns(ValueId id, int64_t begin, int64_t count) {
  Value view = value(id);
  assert(begin >= 0 && begin + count <= view.cols);
  view.offset += begin;
  view.cols = count;
  return add_value(view);
}

ValueId Graph::merge_rows(ValueId id, int64_t factor) {
  Value view = value(id);
  assert(view.cols == view.stride && view.rows.plus == 0);
  view.rows.divide *= factor;
  view.cols *= factor;
  view.stride *= factor;
  return add_value(view);
}

ValueId Graph::rows(ValueId id, int64_t begin, RowCount count) {
  Value view = value(id);
  view.offset += begin * view.stride;
  view.rows = count;
  return add_value(view);
}

ValueId Graph::embed(ValueId ids, WeightId table, float scale) {
  const ValueId y = new_value(value(ids).rows, weight(table).cols);
  Op& op = push(OpKind::kEmbed);
  op.a = ids;
  op.weight = table;
  op.y = y;
  op.scale = scale;
  return y;
}

void Graph::put_rows(ValueId x, ValueId rows, int32_t slot, bool add) {
  Op& op = push(OpKind::kPutRows);
  op.y = x;
  op.a = rows;
  op.slot = slot;
  op.add = add;
}

ValueId Graph::gather_rows(ValueId x, ValueId rows, RowCount count) {
  const ValueId y = new_value(count, value(x).cols);
  Op& op = push(OpKind::kGatherRows);
  op.x = x;
  op.a = rows;
  op.y = y;
  return y;
}

void Graph::gather_weighted(ValueId x, ValueId rows, ValueId weights, WeightId table) {
  Op& op = push(OpKind::kGatherWeighted);
  op.y = x;
  op.a = rows;
  op.b = weights;
  op.weight = table;
}

void Graph::put_vector(ValueId y, WeightId vector, bool add) {
  assert(weight(vector).cols == value(y).cols);
  Op& op = push(OpKind::kPutVector);
  op.y = y;
  op.weight = vector;
  op.add = add;
}

ValueId Graph::regroup(ValueId x, int64_t factor) {
  RowCount rows = value(x).rows;
  assert(rows.plus == 0);
  rows.divide *= factor;
  const ValueId y = new_value(rows, value(x).cols * factor);
  Op& op = push(OpKind::kRegroup);
  op.x = x;
  op.y = y;
  op.group = factor;
  return y;
}

void Graph::scale(ValueId x, WeightId vector) {
  assert(weight(vector).cols == value(x).cols);
  Op& op = push(OpKind::kScale);
  op.x = op.y = x;
  op.weight = vector;
}

void Graph::matmul_into(ValueId y, ValueId x, WeightId w, WeightId bias) {
  assert(weight(w).cols == value(x).cols && weight(w).rows == value(y).cols);
  Op& op = push(OpKind::kMatmul);
  op.x = x;
  op.y = y;
  op.parts = {{w, bias, y}};
}

ValueId Graph::matmul(ValueId x, WeightId w, WeightId bias, Activation activation,
                      ValueId residual) {
  assert(weight(w).cols == value(x).cols);
  const ValueId y = residual != kNoValue ? residual : new_value(value(x).rows, weight(w).rows);
  Op& op = push(OpKind::kMatmul);
  op.x = x;
  op.y = y;
  op.parts = {{w, bias, y}};
  op.activation = activation;
  op.residual = residual;
  return y;
}

std::vector<ValueId> Graph::matmul_shared(ValueId x, std::span<const MatmulPart> parts) {
  int64_t cols = 0;
  for (const MatmulPart& part : parts) {
    assert(weight(part.weight).cols == value(x).cols);
    cols += weight(part.weight).rows;
  }
  const ValueId all = new_value(value(x).rows, cols);
  std::vector<ValueId> results;
  Op op;
  op.kind = OpKind::kMatmul;
  int64_t offset = 0;
  for (MatmulPart part : parts) {
    part.y = columns(all, offset, weight(part.weight).rows);
    offset += weight(part.weight).rows;
    results.push_back(part.y);
    op.parts.push_back(part);
  }
  op.x = x;
  op.y = all;
  op.block = block_;
  op.needs_pictures = pictures_only_;
  ops_.push_back(std::move(op));
  return results;
}

ValueId Graph::rms_norm(ValueId x, WeightId w, float eps, float offset) {
  const ValueId y = new_value(value(x).rows, value(x).cols);
  Op& op = push(OpKind::kRmsNorm);
  op.x = x;
  op.y = y;
  op.weight = w;
  op.eps = eps;
  op.offset = offset;
  op.group = value(x).cols;
  return y;
}

void Graph::rms_norm_heads(ValueId x, WeightId w, float eps, int64_t head_dim, float offset) {
  Op& op = push(OpKind::kRmsNorm);
  op.x = op.y = x;
  op.weight = w;
  op.eps = eps;
  op.offset = offset;
  op.group = head_dim;
}

ValueId Graph::layer_norm(ValueId x, WeightId w, WeightId bias, float eps) {
  const ValueId y = new_value(value(x).rows, value(x).cols);
  Op& op = push(OpKind::kLayerNorm);
  op.x = x;
  op.y = y;
  op.weight = w;
  op.bias = bias;
  op.eps = eps;
  op.group = value(x).cols;
  return y;
}

void Graph::add(ValueId x, ValueId other) {
  Op& op = push(OpKind::kAdd);
  op.x = op.y = x;
  op.a = other;
}

void Graph::add_gated(ValueId x, ValueId other, Gate gate, ValueId rows) {
  Op& op = push(OpKind::kAddGated);
  op.x = op.y = x;
  op.a = other;
  op.b = rows;
  op.factor = gate;
}

void Graph::add_table_rows(ValueId x, ValueId rows, WeightId table, Gate gate) {
  assert(weight(table).cols == value(x).cols);
  Op& op = push(OpKind::kAddTableRows);
  op.y = x;
  op.a = rows;
  op.weight = table;
  op.factor = gate;
}

void Graph::put_columns(ValueId x, ValueId y, int64_t begin, int64_t step) {
  assert(begin + (value(x).cols - 1) * step < value(y).cols);
  Op& op = push(OpKind::kPutColumns);
  op.x = x;
  op.y = y;
  op.begin = begin;
  op.step = step;
}

ValueId Graph::gated(ValueId gate, ValueId up, Activation activation) {
  Op& op = push(OpKind::kGated);
  op.x = op.y = gate;
  op.a = up;
  op.activation = activation;
  return gate;
}

Graph::RopeAngles Graph::rope_table(ValueId positions, std::vector<float> inv_freq,
                                    std::vector<uint8_t> axis, const RopeScale& scale) {
  assert(inv_freq.size() == axis.size());
  const auto half = static_cast<int64_t>(inv_freq.size());
  const RowCount rows = value(positions).rows;
  const RopeAngles angles{new_value(rows, half), new_value(rows, half), 2 * half};
  Op& op = push(OpKind::kRopeTable);
  op.a = positions;
  op.b = angles.cos;
  op.c = angles.sin;
  op.inv_freq = std::move(inv_freq);
  op.axis = std::move(axis);
  op.scale = scale.factor;
  op.growth = scale.growth;
  op.growth_step = scale.step;
  return angles;
}

void Graph::rope(ValueId x, const RopeAngles& angles, int64_t head_dim, bool interleaved) {
  Op& op = push(OpKind::kRope);
  op.x = op.y = x;
  op.b = angles.cos;
  op.c = angles.sin;
  op.head_dim = head_dim;
  op.rot_dim = angles.rot_dim;
  op.heads = value(x).cols / head_dim;
  op.interleaved = interleaved;
}

void Graph::kv_store(ValueId k, ValueId v, int32_t layer, int64_t kv_heads, int64_t head_dim) {
  Op& op = push(OpKind::kKvStore);
  op.a = k;
  op.b = v;
  op.layer = layer;
  op.kv_heads = kv_heads;
  op.head_dim = head_dim;
}

ValueId Graph::attention_cached(ValueId q, KeyRange keys, int32_t layer, int64_t heads,
                                int64_t kv_heads, int64_t head_dim, float scale) {
  const ValueId y = new_value(value(q).rows, heads * head_dim);
  Op& op = push(OpKind::kAttention);
  op.x = q;
  op.y = y;
  op.b = keys.begin;
  op.c = keys.end;
  op.layer = layer;
  op.heads = heads;
  op.kv_heads = kv_heads;
  op.head_dim = head_dim;
  op.scale = scale;
  return y;
}

ValueId Graph::attention(ValueId q, ValueId k, ValueId v, KeyRange keys, int64_t heads,
                         int64_t head_dim, float scale) {
  const ValueId y = new_value(value(q).rows, heads * head_dim);
  Op& op = push(OpKind::kAttention);
  op.x = q;
  op.y = y;
  op.a = k;
  op.residual = v;
  op.b = keys.begin;
  op.c = keys.end;
  op.heads = op.kv_heads = heads;
  op.head_dim = head_dim;
  op.scale = scale;
  return y;
}

void Graph::store_picture_keys(ValueId k, ValueId v, int32_t layer, int64_t kv_heads,
                               int64_t head_dim) {
  kv_store(k, v, layer, kv_heads, head_dim);
  ops_.back().of_pictures = true;
}

ValueId Graph::attention_to_pictures(ValueId q, KeyRange keys, int32_t layer, int64_t heads,
                                     int64_t kv_heads, int64_t head_dim, float scale) {
  const ValueId y = attention_cached(q, keys, layer, heads, kv_heads, head_dim, scale);
  ops_.back().of_pictures = true;
  return y;
}

Graph::Routing Graph::route(ValueId router_logits, int64_t top_k, bool renormalise) {
  const RowCount rows = value(router_logits).rows;
  const Routing routing{new_value(rows, top_k), new_value(rows, top_k)};
  buffers_[static_cast<size_t>(value(routing.ids).buffer)].type = ElementType::kI32;
  Op& op = push(OpKind::kRoute);
  op.x = router_logits;
  op.a = routing.ids;
  op.b = routing.weights;
  op.top_k = top_k;
  op.renormalise = renormalise;
  return routing;
}

void Graph::moe(ValueId x, ValueId y, const Routing& routing, WeightId gate, WeightId up,
                WeightId down, Activation activation) {
  Op& op = push(OpKind::kMoe);
  op.x = x;
  op.y = y;
  op.a = routing.ids;
  op.b = routing.weights;
  op.gate = gate;
  op.up = up;
  op.down = down;
  op.top_k = value(routing.ids).cols;
  op.activation = activation;
}

void Graph::output(ValueId id, std::string name) {
  buffers_[static_cast<size_t>(value(id).buffer)].is_output = true;
  outputs_.push_back({id, std::move(name)});
}

} // namespace pinhole
