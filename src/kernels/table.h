// The table of compute kernels: one per instruction set, chosen at run time (kernels/select.h).
//
// This header and everything that an isa_*.cc includes stays plain: fixed-width integers, structs
// and function pointers, no std containers. Sizes are elements unless a name says _bytes; pointers
// into weights may have any alignment (they point into mapped files); all others are 64-byte
// aligned. Matmul is y[m,n] = x[m,k] * W[n,k]^T. A kernel never allocates: what it needs beyond
// registers and a small stack frame, it states through *_bytes and is given.
#pragma once

#include <stdint.h>

#include "quant/format_id.h"

namespace pinhole::kernels {

enum class Activation : uint8_t { kNone, kGeluTanh, kGeluErf, kSilu };

// One thread's share of a matmul: rows [0, n) of `w` are rows of W that belong to this share.
struct MatmulArgs {
  const void* x;         // the whole x [m, k], packed by MatmulKernel::pack_x
  const void* w;         // first weight row of this share
  int64_t w_row_bytes;   // from one weight row to the next
  const float* bias;     // [n] of this share, or null
  float* y;              // column 0 of this share in row 0 of y
  int64_t y_stride;      // floats from one row of y to the next
  const float* residual; // added after bias and activation, laid out as y (may be y), or null
  int64_t residual_stride;
  int64_t m, n, k;
  Activation activation; // applied to x*W^T + bias
  void* scratch;         // scratch_bytes(m, k) for this thread
};

// How one weight format is multiplied. `max_m` separates kernels for few rows (decode: bandwidth)
// from those for many (prefill, vision: arithmetic).
struct MatmulKernel {
  const char* name;                         // "q4_k.int8.avx512", for -v, perf and tests
  int64_t n_step;                           // shares start at multiples of this many W rows
  int64_t (*x_bytes)(int64_t m, int64_t k); // size of packed x
  // Packs rows [row_begin, row_end) of x (stride in floats); threads call it on disjoint ranges
  // whose bounds are multiples of x_row_step (the last one ends at m).
  int64_t x_row_step;
  void (*pack_x)(const float* x, int64_t x_stride, int64_t m, int64_t k, int64_t row_begin,
                 int64_t row_end, void* packed);
  int64_t (*scratch_bytes)(int64_t m, int64_t k); // per thread
  void (*run)(const MatmulArgs& args);
};

enum class KvType : uint8_t { kF32, kF16, kQ8_0 };

// Attention for heads [head_begin, head_end) and queries [q_begin, q_end): softmax(q K^T * scale)
// V, computed in blocks of keys with a running maximum (memory does not grow with num_kv * num_q).
// Query i sees exactly the keys [key_begin[i], key_end[i]): causal, windows, segments and pictures
// that attend in both directions are all such ranges. An empty range gives zeros.
struct AttentionArgs {
  const float* q; // q [num_q, num_heads, head_dim], row stride q_stride floats
  int64_t q_stride;
  const void* k; // key j of kv head h at k + j*kv_row_bytes + h*kv_head_bytes
  const void* v;
  int64_t k_row_bytes, k_head_bytes;
  int64_t v_row_bytes, v_head_bytes;
  KvType kv_type;
  const int32_t* key_begin; // [num_q]
  const int32_t* key_end;   // [num_q]
  float* out;               // out [num_q, num_heads, head_dim], row stride out_stride floats
  int64_t out_stride;
  int64_t num_heads, num_kv_heads, head_dim; // num_heads is a multiple of num_kv_heads
  int64_t q_begin, q_end, head_begin, head_end;
  int64_t num_kv; // keys present, >= every key_end
  float scale;
  void* scratch; // scratch_bytes(...) for this thread
};

struct AttentionKernel {
  const char* name;
  int64_t q_step; // shares start at multiples of this many queries
  int64_t (*scratch_bytes)(int64_t num_q, int64_t num_kv, int64_t head_dim);
  void (*run)(const AttentionArgs& args);
};

// A loop of one kind of arithmetic on operands in registers or L1: a ceiling for kernels that do
// the same kind.
struct PeakLoop {
  const char* name;      // "f32", "int8", "bf16 tiles", "int8 tiles"
  int64_t ops_per_round; // multiplications and additions
  void (*run)(int64_t rounds);
};

// Kernels whose inputs and outputs are f32 rows; every function works on whole rows, the caller
// splits rows between threads.
struct Table {
  const char* isa; // "scalar", "avx2", "avx512", "amx", "neon"

  // Matmul for a weight format and m rows of x. `exact` asks for f32 arithmetic on decoded weights;
  // otherwise activations may be rounded to bf16 or to int8 blocks. Never null.
  const MatmulKernel* (*matmul)(FormatId format, int64_t m, bool exact);
  // The attention kernel for a query count; `exact` as above. Never null.
  const AttentionKernel* (*attention)(KvType kv_type, int64_t num_q, bool exact);

  // Decodes n elements (whole blocks) of one weight row.
  void (*decode)(FormatId format, const void* src, float* dst, int64_t n);
  // y = x / rms(x) * w over rows of n.
  void (*rms_norm)(const float* x, int64_t x_stride, const float* w, float eps, int64_t rows,
                   int64_t n, float* y, int64_t y_stride);
  // y = (x - mean) / sqrt(var + eps) * w + b over rows of n.
  void (*layer_norm)(const float* x, int64_t x_stride, const float* w, const float* b, float eps,
                     int64_t rows, int64_t n, float* y, int64_t y_stride);
  void (*add)(const float* a, const float* b, float* y, int64_t n);             // y = a + b
  void (*mul_add)(const float* a, float s, float* y, int64_t n);                // y += a * s
  void (*activate)(Activation activation, const float* x, float* y, int64_t n); // y = act(x)
  void (*gated)(Activation activation, const float* gate, const float* up, float* y,
                int64_t n); // y = act(gate) * up
  // In place on x [rows, heads, head_dim] (row stride x_stride): rotates the first rot_dim values
  // of each head by the angles of its row. interleaved false: pairs (i, i + rot_dim/2), as HF's
  // rotate_half; true: pairs (2i, 2i + 1). cos, sin [rows, rot_dim/2].
  void (*rope)(float* x, int64_t x_stride, int64_t rows, int64_t heads, int64_t head_dim,
               int64_t rot_dim, const float* cos, const float* sin, bool interleaved);
  // Stores n f32 values as kv_type (n a multiple of 32 for q8_0).
  void (*store_kv)(KvType kv_type, const float* src, void* dst, int64_t n);
  // Softmax over n values with temperature already applied; y may be x.
  void (*softmax)(const float* x, float* y, int64_t n);
  // Index of the largest value, the lowest index among equals.
  int64_t (*argmax)(const float* x, int64_t n);

  const PeakLoop* peaks;
  int64_t num_peaks;
  // Reads all of `data` (64-byte aligned, finite floats) as fast as one thread can.
  uint64_t (*read_memory)(const void* data, int64_t bytes);
};

} // namespace pinhole::kernels
