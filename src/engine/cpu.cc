#include "engine/cpu.h"

#include "engine/op_runner.h"
#include "engine/weight_stream.h"
#include "plan/speed.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <chrono>
#include <cmath>

namespace pinhole {

using kernels::MatmulArgs;
using kernels::MatmulKernel;

bool CpuBackend::run(const Graph& graph, const Layout& layout, const RowBinding& rows,
                     const RunContext& context) {
  assert(layout.kernels.num_threads == pool_.num_threads());
  const bool choose = pool_.num_threads() > 1 && rows.items <= kFewRows &&
                      context.stream == nullptr && context.experts == nullptr &&
                      context.first_op == 0 && context.end_op >= graph.ops().size();
  if (choose && (chosen_graph_ != &graph || chosen_rows_ != rows.items)) {
    choice_ = TeamChoice();
    chosen_graph_ = &graph;
    chosen_rows_ = rows.items;
  }
  const bool alone = choose && choice_.alone();
  OpRunner runner(graph, layout, rows, context, pool_, alone ? 1 : pool_.num_threads());
  const size_t num_ops = graph.ops().size();
  const size_t end_op = std::min(num_ops, context.end_op);
  if (profile_ != nullptr && profile_->size() < num_ops)
    profile_->resize(num_ops);
  bool finished = true;
  WeightStream* stream = context.stream;
  assert(stream == nullptr || (context.first_op == 0 && end_op == num_ops));
  if (stream != nullptr)
    stream->wait_for(0);
  using Clock = std::chrono::steady_clock;
  const auto run_ops = [&](int thread_idx) {
    Clock::time_point start = Clock::now();
    for (size_t i = context.first_op; i < end_op; ++i) {
      runner.run(i, thread_idx);
      if (thread_idx == 0) {
        stop_[i & 1].store(context.cancel != nullptr &&
                               context.cancel->load(std::memory_order_relaxed),
                           std::memory_order_relaxed);
        if (stream != nullptr && i + 1 < num_ops)
          stream->wait_for(i + 1); // the barrier keeps the others until it is there
      }
      pool_.barrier();
      if (thread_idx == 0 && stream != nullptr)
        stream->release(i);
      if (thread_idx == 0 && profile_ != nullptr) {
        const Clock::time_point now = Clock::now();
        (*profile_)[i] += std::chrono::duration<double>(now - start).count();
        start = now;
      }
      if (stop_[i & 1].load(std::memory_order_relaxed)) {
        if (thread_idx == 0)
          finished = false;
        return;
      }
    }
  };
  const Clock::time_point begin = Clock::now();
  if (alone)
    pool_.run_alone(run_ops);
  else
    pool_.run(run_ops);
  if (choose)
    choice_.ran(std::chrono::duration<double>(Clock::now() - begin).count());
  return finished;
}

const float* OpRunner::as_f32(WeightId id, std::byte* scratch) const {
  const Weight& weight = graph_.weight(id);
  if (weight.format == FormatId::kF32 &&
      reinterpret_cast<uintptr_t>(weight.data) % alignof(float) == 0) {
    return reinterpret_cast<const float*>(weight.data);
  }
  auto* out = reinterpret_cast<float*>(scratch);
  kernels_.table->decode(weight.format, weight.data, out, weight.cols);
  return out;
}

void OpRunner::turn_over(const Weight& weight, const std::byte* data, int64_t begin, int64_t count,
                         float* strip) const {
  const int64_t element_bytes = format_info(weight.format).block_bytes;
  float* line = strip + kTransposeStripRows * weight.cols;
  for (int64_t k = 0; k < weight.cols; ++k) {
    kernels_.table->decode(weight.format,
                           data + k * weight.row_stride_bytes + begin * element_bytes, line, count);
    for (int64_t i = 0; i < count; ++i)
      strip[i * weight.cols + k] = line[i];
  }
}

void OpRunner::run(size_t op_idx, int thread_idx) {
  const Op& op = graph_.ops()[op_idx];
  std::byte* work = workspace(op_idx);
  if (thread_idx == 0) { // nobody is in the op before any more, nor in the one after
    for (Deal& next : deals_[(op_idx + 1) % 2])
      next.reset();
  }
  if (op.needs_pictures && context_.picture_rows == 0)
    return;
  switch (op.kind) {
  case OpKind::kEmbed:
    return embed(op, thread_idx);
  case OpKind::kPutRows:
    return put_rows(op, thread_idx);
  case OpKind::kGatherRows:
    return gather_rows(op, thread_idx);
  case OpKind::kGatherWeighted:
    return gather_weighted(op, work, thread_idx);
  case OpKind::kPutVector:
  case OpKind::kScale:
    return with_vector(op, work, thread_idx);
  case OpKind::kRegroup:
    return regroup(op, thread_idx);
  case OpKind::kMatmul:
    return matmul(op, op_idx, work, thread_idx);
  case OpKind::kRmsNorm:
  case OpKind::kLayerNorm:
    return norm(op, work, thread_idx);
  case OpKind::kAdd:
  case OpKind::kActivate:
  case OpKind::kGated:
    return elementwise(op, thread_idx);
  case OpKind::kRopeTable:
    return rope_table(op, thread_idx);
  case OpKind::kRope:
    return rope(op, thread_idx);
  case OpKind::kKvStore:
    return op.of_pictures ? store_picture_keys(op, thread_idx) : kv_store(op, thread_idx);
  case OpKind::kAttention:
    return attention(op, deal(op_idx, 0), work, thread_idx);
  case OpKind::kRoute:
    return route(op, thread_idx);
  case OpKind::kMoe:
    return moe(op, op_idx, work, thread_idx);
  case OpKind::kAddGated:
    return add_gated(op, thread_idx);
  case OpKind::kAddTableRows:
    return add_table_rows(op, work, thread_idx);
  case OpKind::kPutColumns:
    return put_columns(op, thread_idx);
  }
}

void OpRunner::look_up(const Weight& table, int64_t row, float* y) const {
  const FileRange& unmapped = context_.unmapped_table;
  const std::byte* data = table.data + row * table.row_stride_bytes;
  if (unmapped.file == nullptr || unmapped.file->bytes().data() + unmapped.offset != table.data) {
    kernels_.table->decode(table.format, data, y, table.cols);
    return;
  }
  alignas(kAlignment) std::byte buffer[4096];
  const FormatInfo& format = format_info(table.format);
  const int64_t most =
      static_cast<int64_t>(sizeof buffer) / format.block_bytes * format.block_elements;
  for (int64_t begin = 0; begin < table.cols; begin += most) {
    const int64_t count = std::min(most, table.cols - begin);
    const int64_t at = row * table.row_stride_bytes + row_bytes(table.format, begin);
    const std::span piece(buffer, static_cast<size_t>(row_bytes(table.format, count)));
    const bool read = unmapped.file->read_at(unmapped.offset + static_cast<uint64_t>(at), piece);
    // What cannot be read is left to the mapping, whose errors end a run.
    kernels_.table->decode(table.format, read ? buffer : table.data + at, y + begin, count);
  }
}

void OpRunner::embed(const Op& op, int thread_idx) {
  const Rows y = rows(op.y);
  const int32_t* ids = indices(op.a);
  const Weight& table = graph_.weight(op.weight);
  const Share part = share(y.rows, 1, thread_idx);
  for (int64_t i = part.begin; i < part.end; ++i) {
    look_up(table, ids[i], y.row(i));
    if (op.scale != 1.0f) {
      for (int64_t c = 0; c < y.cols; ++c)
        y.row(i)[c] *= op.scale;
    }
  }
}

void OpRunner::put_rows(const Op& op, int thread_idx) {
  const Rows y = rows(op.y);
  const int32_t* from = indices(op.a);
  const Share part = share(y.rows, 1, thread_idx);
  for (int64_t i = part.begin; i < part.end; ++i) {
    if (from[i] < 0)
      continue;
    const float* source = context_.features.row(op.slot, from[i]);
    if (op.add)
      kernels_.table->add(y.row(i), source, y.row(i), y.cols);
    else
      std::memcpy(y.row(i), source, static_cast<size_t>(y.cols) * sizeof(float));
  }
}

void OpRunner::gather_rows(const Op& op, int thread_idx) {
  const Rows x = rows(op.x);
  const Rows y = rows(op.y);
  const int32_t* from = indices(op.a);
  const Share part = share(y.rows, 1, thread_idx);
  const size_t bytes = static_cast<size_t>(y.cols) * sizeof(float);
  for (int64_t i = part.begin; i < part.end; ++i) {
    if (from[i] < 0)
      std::memset(y.row(i), 0, bytes);
    else
      std::memcpy(y.row(i), x.row(from[i]), bytes);
  }
}

void OpRunner::gather_weighted(const Op& op, std::byte* work, int thread_idx) {
  const Rows y = rows(op.y);
  const int32_t* from = indices(op.a);
  const Rows weights = rows(op.b);
  const Weight& table = graph_.weight(op.weight);
  auto* decoded =
      reinterpret_cast<float*>(work + thread_idx * round_up(table.cols * 4, kAlignment));
  const Share part = share(y.rows, 1, thread_idx);
  for (int64_t i = part.begin; i < part.end; ++i) {
    for (int64_t j = 0; j < weights.cols; ++j) {
      const float weight = weights.row(i)[j];
      if (weight == 0.0f)
        continue;
      kernels_.table->decode(table.format,
                             table.data + from[i * weights.cols + j] * table.row_stride_bytes,
                             decoded, table.cols);
      kernels_.table->mul_add(decoded, weight, y.row(i), y.cols);
    }
  }
}

void OpRunner::with_vector(const Op& op, std::byte* work, int thread_idx) {
  const Rows y = rows(op.y);
  const Share part = share(y.rows, 1, thread_idx);
  if (part.begin == part.end)
    return;
  const float* vector = as_f32(op.weight, work + thread_idx * round_up(y.cols * 4, kAlignment));
  for (int64_t i = part.begin; i < part.end; ++i) {
    if (op.kind == OpKind::kScale)
      kernels_.table->gated(kernels::Activation::kNone, y.row(i), vector, y.row(i), y.cols);
    else if (op.add)
      kernels_.table->add(y.row(i), vector, y.row(i), y.cols);
    else
      std::memcpy(y.row(i), vector, static_cast<size_t>(y.cols) * sizeof(float));
  }
}

void OpRunner::regroup(const Op& op, int thread_idx) {
  const Rows x = rows(op.x);
  const Rows y = rows(op.y);
  const Share part = share(y.rows, 1, thread_idx);
  for (int64_t r = part.begin; r < part.end; ++r) {
    for (int64_t i = 0; i < op.group; ++i) {
      const float* from = x.row(r * op.group + i);
      float* to = y.row(r) + i;
      for (int64_t c = 0; c < x.cols; ++c)
        to[c * op.group] = from[c];
    }
  }
}

float OpRunner::gate_of(const Gate& gate) const {
  if (gate.weight == kNoWeight)
    return 1;
  const Weight& weight = graph_.weight(gate.weight);
  float value = 0;
  kernels_.table->decode(weight.format, weight.data, &value, 1);
  value = std::tanh(value);
  return gate.rest ? 1 - value : value;
}

void OpRunner::add_gated(const Op& op, int thread_idx) {
  const Rows y = rows(op.y);
  const Rows x = rows(op.a);
  const int32_t* marked = op.b == kNoValue ? nullptr : indices(op.b);
  const float gate = gate_of(op.factor);
  const Share part = share(y.rows, 1, thread_idx);
  for (int64_t i = part.begin; i < part.end; ++i) {
    if (marked == nullptr || marked[i] != 0)
      kernels_.table->mul_add(x.row(i), gate, y.row(i), y.cols);
  }
}

void OpRunner::add_table_rows(const Op& op, std::byte* work, int thread_idx) {
  const Rows y = rows(op.y);
  const int32_t* from = indices(op.a);
  const Weight& table = graph_.weight(op.weight);
  const float gate = gate_of(op.factor);
  auto* decoded =
      reinterpret_cast<float*>(work + thread_idx * round_up(table.cols * 4, kAlignment));
  const Share part = share(y.rows, 1, thread_idx);
  for (int64_t i = part.begin; i < part.end; ++i) {
    if (from[i] < 0)
      continue;
    kernels_.table->decode(table.format, table.data + from[i] * table.row_stride_bytes, decoded,
                           table.cols);
    kernels_.table->mul_add(decoded, gate, y.row(i), y.cols);
  }
}

void OpRunner::put_columns(const Op& op, int thread_idx) {
  const Rows x = rows(op.x);
  const Rows y = rows(op.y);
  const Share part = share(x.rows, 1, thread_idx);
  for (int64_t i = part.begin; i < part.end; ++i) {
    float* to = y.row(i) + op.begin;
    for (int64_t c = 0; c < x.cols; ++c)
      to[c * op.step] = x.row(i)[c];
  }
}

void OpRunner::matmul(const Op& op, size_t op_idx, std::byte* work, int thread_idx) {
  const Rows x = rows(op.x);
  if (x.rows == 0)
    return;
  const MatmulWorkspace sizes = matmul_workspace(graph_, op, x.rows, kernels_);
  std::byte* own = work + sizes.x_bytes + thread_idx * sizes.thread_bytes();

  // Pack x once for each way that the parts' kernels want it.
  std::array<decltype(MatmulKernel::pack_x), 8> packs{};
  std::array<std::byte*, 8> packed{};
  size_t num_packs = 0;
  std::byte* next = work;
  for (const MatmulPart& part : op.parts) {
    const Weight& weight = graph_.weight(part.weight);
    const MatmulKernel* kernel =
        kernels_.table->matmul(kernel_format(weight), x.rows, kernels_.exact);
    const auto end = packs.begin() + static_cast<std::ptrdiff_t>(num_packs);
    if (std::find(packs.begin(), end, kernel->pack_x) != end)
      continue;
    packs[num_packs] = kernel->pack_x;
    packed[num_packs++] = next;
    const Share part_rows = share(x.rows, kernel->x_row_step, thread_idx);
    if (part_rows.begin < part_rows.end) {
      kernel->pack_x(x.data, x.stride, x.rows, x.cols, part_rows.begin, part_rows.end, next);
    }
    next += round_up(kernel->x_bytes(x.rows, x.cols), kAlignment);
  }
  pool_.barrier();

  Deal& pieces = deal(op_idx, 0);
  int64_t first = 0; // piece of the part
  int64_t piece = pieces.next();
  for (const MatmulPart& part : op.parts) {
    const Weight& weight = graph_.weight(part.weight);
    const MatmulKernel* kernel =
        kernels_.table->matmul(kernel_format(weight), x.rows, kernels_.exact);
    const Pieces split = pieces_of(weight.rows, weight.row_stride_bytes, kernel->n_step,
                                   kernels_.num_threads, x.rows);
    const Rows y = rows(part.y);
    const auto* pack = std::find(packs.begin(), packs.end(), kernel->pack_x);
    const std::byte* data = weight.data;
    if (context_.stream != nullptr)
      data = context_.stream->resident(op_idx, data);
    for (; piece < first + split.count; piece = pieces.next()) {
      const int64_t begin = (piece - first) * split.rows;
      MatmulArgs args{};
      args.x = packed[static_cast<size_t>(pack - packs.begin())];
      args.w = data + begin * weight.row_stride_bytes;
      args.w_row_bytes = weight.row_stride_bytes;
      args.bias = part.bias == kNoWeight ? nullptr : as_f32(part.bias, own) + begin;
      args.y = y.data + begin;
      args.y_stride = y.stride;
      if (op.residual != kNoValue) {
        const Rows residual = rows(op.residual);
        args.residual = residual.data + begin;
        args.residual_stride = residual.stride;
      }
      args.m = x.rows;
      args.n = std::min(split.rows, weight.rows - begin);
      args.k = weight.cols;
      args.activation = kernel_activation(op.activation);
      args.scratch = own + sizes.vector_bytes;
      if (weight.transposed)
        multiply_transposed(weight, data, begin, own + sizes.vector_bytes + sizes.scratch_bytes,
                            *kernel, args);
      else
        kernel->run(args);
    }
    first += split.count;
  }
}

// The rows from `begin` on of a matrix that is stored turned over, a strip at a time.
void OpRunner::multiply_transposed(const Weight& weight, const std::byte* data, int64_t begin,
                                   std::byte* work, const MatmulKernel& kernel,
                                   MatmulArgs args) const {
  auto* strip = reinterpret_cast<float*>(work);
  args.w = strip;
  args.w_row_bytes = weight.cols * 4;
  for (const int64_t end = begin + args.n; begin < end; begin += kTransposeStripRows) {
    args.n = std::min(kTransposeStripRows, end - begin);
    turn_over(weight, data, begin, args.n, strip);
    kernel.run(args);
    args.y += args.n;
    args.bias = args.bias == nullptr ? nullptr : args.bias + args.n;
    args.residual = args.residual == nullptr ? nullptr : args.residual + args.n;
  }
}

void OpRunner::norm(const Op& op, std::byte* work, int thread_idx) {
  const Rows x = rows(op.x);
  const Rows y = rows(op.y);
  const int64_t vector_bytes = round_up(op.group * 4, kAlignment);
  std::byte* own = work + thread_idx * vector_bytes * (op.bias == kNoWeight ? 1 : 2);
  const Share part = share(x.rows, 1, thread_idx);
  if (part.begin == part.end)
    return;
  const float* w = as_f32(op.weight, own);
  if (op.offset != 0) {
    auto* moved = reinterpret_cast<float*>(own);
    for (int64_t i = 0; i < op.group; ++i)
      moved[i] = w[i] + op.offset;
    w = moved;
  }
  if (op.kind == OpKind::kLayerNorm) {
    const float* b = as_f32(op.bias, own + vector_bytes);
    kernels_.table->layer_norm(x.row(part.begin), x.stride, w, b, op.eps, part.end - part.begin,
                               x.cols, y.row(part.begin), y.stride);
  } else if (op.group == x.cols) {
    kernels_.table->rms_norm(x.row(part.begin), x.stride, w, op.eps, part.end - part.begin, x.cols,
                             y.row(part.begin), y.stride);
  } else {
    for (int64_t i = part.begin; i < part.end; ++i) { // heads of one row
      kernels_.table->rms_norm(x.row(i), op.group, w, op.eps, x.cols / op.group, op.group, y.row(i),
                               op.group);
    }
  }
}

void OpRunner::elementwise(const Op& op, int thread_idx) {
  const Rows x = rows(op.x);
  const Rows y = rows(op.y);
  const Share part = share(x.rows, 1, thread_idx);
  for (int64_t i = part.begin; i < part.end; ++i) {
    switch (op.kind) {
    case OpKind::kAdd:
      kernels_.table->add(x.row(i), rows(op.a).row(i), y.row(i), x.cols);
      break;
    case OpKind::kActivate:
      kernels_.table->activate(kernel_activation(op.activation), x.row(i), y.row(i), x.cols);
      break;
    default:
      kernels_.table->gated(kernel_activation(op.activation), x.row(i), rows(op.a).row(i), y.row(i),
                            x.cols);
      break;
    }
  }
}

void OpRunner::rope_table(const Op& op, int thread_idx) {
  const Rows cos = rows(op.b);
  const Rows sin = rows(op.c);
  const int32_t* positions = indices(op.a);
  const int64_t axes = graph_.value(op.a).cols;
  const Share part = share(cos.rows, 1, thread_idx);
  for (int64_t i = part.begin; i < part.end; ++i) {
    float scale = op.scale;
    if (op.growth != 0) {
      const auto steps = static_cast<float>(positions[i * axes] / op.growth_step);
      scale *= 1.0f + op.growth * std::log(1.0f + steps);
    }
    for (size_t j = 0; j < op.inv_freq.size(); ++j) {
      // As transformers: inv_freq (f32) times position (f32).
      const float angle = static_cast<float>(positions[i * axes + op.axis[j]]) * op.inv_freq[j];
      cos.row(i)[j] = std::cos(angle) * scale;
      sin.row(i)[j] = std::sin(angle) * scale;
    }
  }
}

void OpRunner::rope(const Op& op, int thread_idx) {
  const Rows x = rows(op.x);
  const Rows cos = rows(op.b);
  const Rows sin = rows(op.c);
  const Share part = share(x.rows, 1, thread_idx);
  kernels_.table->rope(x.row(part.begin), x.stride, part.end - part.begin, op.heads, op.head_dim,
                       op.rot_dim, cos.row(part.begin), sin.row(part.begin), op.interleaved);
}

} // namespace pinhole
