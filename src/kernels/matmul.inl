// Matmul of every format in f32: each weight row is decoded and multiplied with all rows of x.
#include "kernels/table.h"

namespace pinhole::kernels {
namespace {

int64_t plain_x_bytes(int64_t m, int64_t k) { return m * k * 4; }
int64_t plain_scratch_bytes(int64_t, int64_t k) { return k * 4; }

void plain_pack_x(const float* x, int64_t x_stride, int64_t, int64_t k, int64_t row_begin,
                  int64_t row_end, void* packed) {
  float* out = static_cast<float*>(packed);
  for (int64_t row = row_begin; row < row_end; ++row) {
    memcpy(out + row * k, x + row * x_stride, static_cast<size_t>(k) * 4);
  }
}

template <FormatId id> void plain_run(const MatmulArgs& args) {
  float* w = static_cast<float*>(args.scratch);
  for (int64_t col = 0; col < args.n; ++col) {
    decode(id, static_cast<const char*>(args.w) + col * args.w_row_bytes, w, args.k);
    for (int64_t row = 0; row < args.m; ++row) {
      const float* x = static_cast<const float*>(args.x) + row * args.k;
      float y = args.bias != nullptr ? args.bias[col] : 0.0f;
      int64_t i = 0;
      Vec sum = v_zero();
      for (; i + kLanes <= args.k; i += kLanes) sum = v_fma(v_load(x + i), v_load(w + i), sum);
      if (i < args.k) sum = v_fma(v_load_n(x + i, args.k - i), v_load_n(w + i, args.k - i), sum);
      y += v_reduce_add(sum);
      activate(args.activation, &y, &y, 1);
      if (args.residual != nullptr) y += args.residual[row * args.residual_stride + col];
      args.y[row * args.y_stride + col] = y;
    }
  }
}

const MatmulKernel kPlainMatmul[] = {
#define PINHOLE_FORMAT(id, name, gguf_type, block_elements, block_bytes, header)                   \
  {name ".f32." PINHOLE_KERNEL_NAME, 1, plain_x_bytes, 1, plain_pack_x, plain_scratch_bytes,       \
   plain_run<FormatId::id>},
#include "quant/formats.def"
#undef PINHOLE_FORMAT
};

const MatmulKernel* pick_matmul(FormatId format, int64_t m, bool exact) {
  (void)m, (void)exact;
  return &kPlainMatmul[static_cast<int>(format)];
}

} // namespace
} // namespace pinhole::kernels
