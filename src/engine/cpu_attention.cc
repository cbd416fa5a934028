// Attention on the CPU, and the caches of keys and values that it reads.
#include "engine/op_runner.h"

#include <algorithm>

namespace pinhole {

using kernels::AttentionArgs;
using kernels::AttentionKernel;
using kernels::KvType;

void OpRunner::kv_store(const Op& op, int thread_idx) {
  const KvCache& cache = *context_.cache;
  const Rows k = rows(op.a);
  const Rows v = rows(op.b);
  const Share part = share(k.rows, 1, thread_idx);
  for (const SequenceRows& of : context_.sequences) {
    const int64_t begin = std::max(part.begin, of.first_row);
    const int64_t end = std::min(part.end, of.first_row + of.rows);
    const int64_t first_place =
        of.past_tokens - cache.first_token(of.sequence, op.layer) - of.first_row;
    std::byte* keys = cache.keys(of.sequence, op.layer);
    std::byte* values = cache.values(of.sequence, op.layer);
    for (int64_t head = 0; head < op.kv_heads; ++head) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t offset =
            head * cache.head_bytes(op.layer) + (first_place + i) * cache.row_bytes();
        kernels_.table->store_kv(cache.type(), k.row(i) + head * op.head_dim, keys + offset,
                                 op.head_dim);
        kernels_.table->store_kv(cache.type(), v.row(i) + head * op.head_dim, values + offset,
                                 op.head_dim);
      }
    }
  }
}

void OpRunner::store_picture_keys(const Op& op, int thread_idx) {
  const PictureCache& cache = *context_.pictures;
  const Rows k = rows(op.a);
  const Rows v = rows(op.b);
  const Share part = share(context_.picture_rows, 1, thread_idx);
  for (int64_t head = 0; head < op.kv_heads; ++head) {
    for (int64_t i = part.begin; i < part.end; ++i) {
      const int64_t offset =
          head * cache.head_bytes() + (context_.picture_row + i) * cache.row_bytes();
      kernels_.table->store_kv(cache.type(), k.row(i) + head * op.head_dim,
                               cache.keys(op.layer) + offset, op.head_dim);
      kernels_.table->store_kv(cache.type(), v.row(i) + head * op.head_dim,
                               cache.values(op.layer) + offset, op.head_dim);
    }
  }
}

AttentionArgs OpRunner::attention_args(const Op& op, const SequenceRows& part) const {
  const Rows q = rows(op.x);
  const Rows y = rows(op.y);
  AttentionArgs args{};
  args.q = q.row(part.first_row);
  args.q_stride = q.stride;
  if (op.of_pictures) {
    const PictureCache& cache = *context_.pictures;
    args.k = cache.keys(op.layer);
    args.v = cache.values(op.layer);
    args.k_row_bytes = args.v_row_bytes = cache.row_bytes();
    args.k_head_bytes = args.v_head_bytes = cache.head_bytes();
    args.kv_type = cache.type();
    args.num_kv = context_.picture_rows;
  } else if (op.layer >= 0) {
    const KvCache& cache = *context_.cache;
    args.k = cache.keys(part.sequence, op.layer);
    args.v = cache.values(part.sequence, op.layer);
    args.k_row_bytes = args.v_row_bytes = cache.row_bytes();
    args.k_head_bytes = args.v_head_bytes = cache.head_bytes(op.layer);
    args.kv_type = cache.type();
    args.num_kv = part.past_tokens - cache.first_token(part.sequence, op.layer) + part.rows;
  } else {
    const Rows k = rows(op.a);
    const Rows v = rows(op.residual);
    args.k = k.data;
    args.v = v.data;
    args.k_row_bytes = k.stride * 4;
    args.v_row_bytes = v.stride * 4;
    args.k_head_bytes = args.v_head_bytes = op.head_dim * 4;
    args.kv_type = KvType::kF32;
    args.num_kv = k.rows;
  }
  args.key_begin = indices(op.b) + part.first_row;
  args.key_end = indices(op.c) + part.first_row;
  args.out = y.row(part.first_row);
  args.out_stride = y.stride;
  args.num_heads = op.heads;
  args.num_kv_heads = op.kv_heads;
  args.head_dim = op.head_dim;
  args.scale = op.scale;
  return args;
}

void OpRunner::attention(const Op& op, Deal& pieces, std::byte* work, int thread_idx) {
  const SequenceRows all{0, 0, rows(op.x).rows, 0};
  const std::span<const SequenceRows> sequences =
      op.layer >= 0 && !op.of_pictures ? context_.sequences : std::span(&all, 1);
  // Threads are in different sequences at the same time: each has scratch for the largest.
  int64_t scratch_bytes = 0;
  for (const SequenceRows& part : sequences) {
    const AttentionArgs args = attention_args(op, part);
    const AttentionKernel* kernel =
        kernels_.table->attention(args.kv_type, part.rows, kernels_.exact);
    scratch_bytes =
        std::max(scratch_bytes, kernel->scratch_bytes(part.rows, args.num_kv, op.head_dim));
  }

  // A piece is a head of keys with its query heads; where there are few, part of its queries.
  constexpr int64_t kPerThread = 4;
  const int64_t group = op.heads / op.kv_heads;
  const int64_t wanted = kernels_.num_threads == 1 ? 1 : kPerThread * kernels_.num_threads;
  int64_t first = 0; // piece of the sequence
  int64_t piece = pieces.next();
  for (const SequenceRows& sequence : sequences) {
    AttentionArgs args = attention_args(op, sequence);
    const AttentionKernel* kernel =
        kernels_.table->attention(args.kv_type, sequence.rows, kernels_.exact);
    args.scratch = work + thread_idx * round_up(scratch_bytes, kAlignment);
    const int64_t steps = ceil_div(sequence.rows, kernel->q_step);
    const int64_t parts = std::min(steps, ceil_div(wanted, op.kv_heads));
    for (; piece < first + op.kv_heads * parts; piece = pieces.next()) {
      const int64_t head = (piece - first) % op.kv_heads;
      // A causal prompt's last part is longest.
      const int64_t part = parts - 1 - (piece - first) / op.kv_heads;
      args.head_begin = head * group;
      args.head_end = (head + 1) * group;
      args.q_begin = std::min(steps * part / parts * kernel->q_step, sequence.rows);
      args.q_end = std::min(steps * (part + 1) / parts * kernel->q_step, sequence.rows);
      kernel->run(args);
    }
    first += op.kv_heads * parts;
  }
}

} // namespace pinhole
