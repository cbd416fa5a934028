// Shared by the matmul kernels of every instruction set: how partial sums reach y.
//
// A kernel walks k in chunks; the first chunk writes y, the others add to it, the last one applies
// bias and activation. A residual that is y itself must be read before y is first written, which is
// only right when no activation stands between: plan_chunks keeps k whole in the other case.

namespace pinhole::kernels {
namespace {

constexpr int64_t round_up_to(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

constexpr bool is_vnni() { // int8 products go through vpdpbusd on 512 bits
#if defined(PINHOLE_KERNEL_AVX512) || defined(PINHOLE_KERNEL_AMX)
  return true;
#else
  return false;
#endif
}

PINHOLE_INLINE Vec v_round_lanes(Vec x) { // to nearest, ties to even
#if defined(PINHOLE_KERNEL_SCALAR)
  return rintf(x);
#else
  return v_round(x);
#endif
}

// What a chunk of k does when its sums are written.
struct Stage {
  bool add_y;        // not the first chunk
  bool finish;       // the last chunk: bias and activation
  bool add_residual; // in the first chunk when there is no activation, else in the last
};

PINHOLE_INLINE Stage stage_of(const MatmulArgs& args, int64_t k_begin, int64_t k_end) {
  Stage stage;
  stage.add_y = k_begin > 0;
  stage.finish = k_end >= args.k;
  bool now = args.activation == Activation::kNone ? k_begin == 0 : stage.finish;
  stage.add_residual = args.residual != nullptr && now;
  return stage;
}

// The chunk length to use: `preferred`, or all of k where chunks would read a residual too late.
PINHOLE_INLINE int64_t chunk_of(const MatmulArgs& args, int64_t preferred) {
  bool late = args.activation != Activation::kNone && args.residual == args.y;
  return late ? args.k : min_of(preferred, args.k);
}

PINHOLE_INLINE Vec finish_lanes(const MatmulArgs& args, Stage stage, Vec sum, Vec bias, Vec old,
                                Vec residual) {
  if (stage.add_y)
    sum = v_add(sum, old);
  if (stage.finish) {
    sum = v_add(sum, bias);
    if (args.activation != Activation::kNone)
      sum = v_activate(args.activation, sum);
  }
  return v_add(sum, residual);
}

// y[row, col .. col + count) from the sums of one chunk.
PINHOLE_INLINE void write_row(const MatmulArgs& args, Stage stage, int64_t row, int64_t col,
                              int64_t count, const float* sums) {
  float* y = args.y + row * args.y_stride + col;
  const float* bias = stage.finish && args.bias != nullptr ? args.bias + col : nullptr;
  const float* residual =
      stage.add_residual ? args.residual + row * args.residual_stride + col : nullptr;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Vec b = bias != nullptr ? v_load(bias + i) : v_zero();
    Vec r = residual != nullptr ? v_load(residual + i) : v_zero();
    Vec old = stage.add_y ? v_load(y + i) : v_zero();
    v_store(y + i, finish_lanes(args, stage, v_load(sums + i), b, old, r));
  }
  if (i < count) {
    int64_t rest = count - i;
    Vec b = bias != nullptr ? v_load_n(bias + i, rest) : v_zero();
    Vec r = residual != nullptr ? v_load_n(residual + i, rest) : v_zero();
    Vec old = stage.add_y ? v_load_n(y + i, rest) : v_zero();
    v_store_n(y + i, finish_lanes(args, stage, v_load_n(sums + i, rest), b, old, r), rest);
  }
}

} // namespace
} // namespace pinhole::kernels
