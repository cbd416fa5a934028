// f32 arithmetic on decoded weights: what `exact` asks for, and how formats without an integer or
// tile kernel are multiplied. A strip of W rows is decoded to f32 scratch, one chunk of k at a
// time, and used for every row of x. F32, F16 and BF16 weights with few rows of x are read in
// place.

namespace pinhole::kernels {
namespace {

// Tile shapes: kF32Rows x kF32Cols accumulators, with a column of loads, fit the register file.
#if defined(PINHOLE_KERNEL_AVX512) || defined(PINHOLE_KERNEL_AMX)
constexpr int kF32Rows = 6, kF32Cols = 4; // 24 of 32 registers
#elif defined(PINHOLE_KERNEL_NEON)
constexpr int kF32Rows = 4, kF32Cols = 4; // 16 of 32
#else
constexpr int kF32Rows = 3, kF32Cols = 4; // 12 of 16
#endif
constexpr int64_t kF32Strip = 64;   // W rows in scratch
constexpr int64_t kF32Chunk = 1024; // elements of k in scratch: 256 KiB with the strip, half an L2

PINHOLE_INLINE int64_t f32_x_stride(int64_t k) { return round_up_to(k, 16); }

int64_t f32_x_bytes(int64_t m, int64_t k) { return m * f32_x_stride(k) * 4; }

void f32_pack_x(const float* x, int64_t x_stride, int64_t, int64_t k, int64_t row_begin,
                int64_t row_end, void* packed) {
  int64_t stride = f32_x_stride(k);
  for (int64_t row = row_begin; row < row_end; ++row) {
    float* to = static_cast<float*>(packed) + row * stride;
    memcpy(to, x + row * x_stride, static_cast<size_t>(k) * 4);
    for (int64_t i = k; i < stride; ++i)
      to[i] = 0.0f;
  }
}

int64_t f32_scratch_bytes(int64_t, int64_t k) {
  return max_of(kF32Strip * kF32Chunk, f32_x_stride(k) * kF32Cols) * 4;
}

// sums[i * kF32Strip + j] = x row i . w row j, over `length` elements (a multiple of 16).
template <int kRows, int kCols>
PINHOLE_INLINE void f32_tile(const float* x, int64_t x_stride, const float* w, int64_t w_stride,
                             int64_t length, float* sums) {
  Vec acc[kRows][kCols];
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kCols; ++j)
      acc[i][j] = v_zero();
  for (int64_t p = 0; p < length; p += kLanes) {
    Vec b[kCols];
    for (int j = 0; j < kCols; ++j)
      b[j] = v_load(w + j * w_stride + p);
    for (int i = 0; i < kRows; ++i) {
      Vec a = v_load(x + i * x_stride + p);
      for (int j = 0; j < kCols; ++j)
        acc[i][j] = v_fma(a, b[j], acc[i][j]);
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kCols; ++j)
      sums[i * kF32Strip + j] = v_reduce_add(acc[i][j]);
}

template <int kRows>
void f32_rows(const float* x, int64_t x_stride, const float* w, int64_t w_stride, int64_t cols,
              int64_t length, float* sums) {
  int64_t j = 0;
  for (; j + kF32Cols <= cols; j += kF32Cols)
    f32_tile<kRows, kF32Cols>(x, x_stride, w + j * w_stride, w_stride, length, sums + j);
  for (; j < cols; ++j)
    f32_tile<kRows, 1>(x, x_stride, w + j * w_stride, w_stride, length, sums + j);
}

void f32_any_rows(int64_t rows, const float* x, int64_t x_stride, const float* w, int64_t w_stride,
                  int64_t cols, int64_t length, float* sums) {
  switch (rows) {
  case 1:
    return f32_rows<1>(x, x_stride, w, w_stride, cols, length, sums);
  case 2:
    return f32_rows<2>(x, x_stride, w, w_stride, cols, length, sums);
#if defined(PINHOLE_KERNEL_AVX512) || defined(PINHOLE_KERNEL_AMX) || defined(PINHOLE_KERNEL_NEON)
  case 3:
    return f32_rows<3>(x, x_stride, w, w_stride, cols, length, sums);
#if !defined(PINHOLE_KERNEL_NEON)
  case 4:
    return f32_rows<4>(x, x_stride, w, w_stride, cols, length, sums);
  case 5:
    return f32_rows<5>(x, x_stride, w, w_stride, cols, length, sums);
#endif
#endif
  default:
    return f32_rows<kF32Rows>(x, x_stride, w, w_stride, cols, length, sums);
  }
}

template <FormatId kFormat> void f32_run(const MatmulArgs& args) {
  int64_t chunk = chunk_of(args, kF32Chunk);
  int64_t stride = round_up_to(chunk, 16);
  // Few rows of x: a strip that stays in L1.
  int64_t strip = args.m < 16 ? kF32Cols : kF32Strip;
  strip = min_of(strip, f32_scratch_bytes(args.m, args.k) / 4 / stride);
  float* decoded = static_cast<float*>(args.scratch);
  const float* x = static_cast<const float*>(args.x);
  int64_t x_stride = f32_x_stride(args.k);
  const uint8_t* w = static_cast<const uint8_t*>(args.w);
  float sums[kF32Rows * kF32Strip];

  for (int64_t n0 = 0; n0 < args.n; n0 += strip) {
    int64_t cols = min_of(strip, args.n - n0);
    for (int64_t k0 = 0; k0 < args.k; k0 += chunk) {
      int64_t k1 = min_of(k0 + chunk, args.k);
      int64_t length = round_up_to(k1 - k0, 16);
      for (int64_t j = 0; j < cols; ++j) {
        float* row = decoded + j * stride;
        decode_row<kFormat>(w + (n0 + j) * args.w_row_bytes + bytes_before<kFormat>(k0), row,
                            k1 - k0);
        for (int64_t i = k1 - k0; i < length; ++i)
          row[i] = 0.0f;
      }
      Stage stage = stage_of(args, k0, k1);
      for (int64_t m0 = 0; m0 < args.m; m0 += kF32Rows) {
        int64_t rows = min_of(kF32Rows, args.m - m0);
        f32_any_rows(rows, x + m0 * x_stride + k0, x_stride, decoded, stride, cols, length, sums);
        for (int64_t i = 0; i < rows; ++i)
          write_row(args, stage, m0 + i, n0, cols, sums + i * kF32Strip);
      }
    }
  }
}

// F32, F16 and BF16 weights in place, for few rows of x: bandwidth decides, so several rows of W
// are read at once.
template <FormatId kFormat> PINHOLE_INLINE Vec float_load(const uint8_t* p) {
  if constexpr (kFormat == FormatId::kF32)
    return v_load(reinterpret_cast<const float*>(p));
  else if constexpr (kFormat == FormatId::kF16)
    return v_load_f16(p);
  else
    return v_load_bf16(p);
}

template <FormatId kFormat> PINHOLE_INLINE Vec float_load_n(const uint8_t* p, int64_t n) {
  if constexpr (kFormat == FormatId::kF32)
    return v_load_n(reinterpret_cast<const float*>(p), n);
  else if constexpr (kFormat == FormatId::kF16)
    return v_load_f16_n(p, n);
  else
    return v_load_bf16_n(p, n);
}

constexpr int64_t kPrefetchBytes = 1024; // ahead in each W row of a matrix-vector kernel

template <FormatId kFormat, int kRows, int kCols>
PINHOLE_INLINE void float_dots(const MatmulArgs& args, const float* x, int64_t x_stride,
                               const uint8_t* w, float* sums, int64_t sums_stride) {
  constexpr int64_t kBytes = kFormat == FormatId::kF32 ? 4 : 2;
  constexpr int64_t kLine = 64 / kBytes > kLanes ? 64 / kBytes : kLanes;
  Vec acc[kRows][kCols];
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kCols; ++j)
      acc[i][j] = v_zero();
  int64_t p = 0;
  for (; p + kLine <= args.k; p += kLine) {
    for (int j = 0; j < kCols; ++j)
      __builtin_prefetch(w + j * args.w_row_bytes + p * kBytes + kPrefetchBytes);
    for (int64_t q = p; q < p + kLine; q += kLanes) {
      for (int j = 0; j < kCols; ++j) {
        Vec b = float_load<kFormat>(w + j * args.w_row_bytes + q * kBytes);
        for (int i = 0; i < kRows; ++i)
          acc[i][j] = v_fma(v_load(x + i * x_stride + q), b, acc[i][j]);
      }
    }
  }
  for (; p < args.k; p += kLanes) { // x is padded with zeros to a multiple of 16
    int64_t rest = min_of(kLanes, args.k - p);
    for (int j = 0; j < kCols; ++j) {
      Vec b = float_load_n<kFormat>(w + j * args.w_row_bytes + p * kBytes, rest);
      for (int i = 0; i < kRows; ++i)
        acc[i][j] = v_fma(v_load(x + i * x_stride + p), b, acc[i][j]);
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kCols; ++j)
      sums[i * sums_stride + j] = v_reduce_add(acc[i][j]);
}

constexpr int kFloatCols = 4;

template <FormatId kFormat, int kRows> void float_rows(const MatmulArgs& args, int64_t m0) {
  int64_t x_stride = f32_x_stride(args.k);
  const float* x = static_cast<const float*>(args.x) + m0 * x_stride;
  const uint8_t* w = static_cast<const uint8_t*>(args.w);
  Stage stage = stage_of(args, 0, args.k);
  float sums[kRows][16];
  for (int64_t n0 = 0; n0 < args.n; n0 += 16) {
    int64_t cols = min_of(16, args.n - n0), j = 0;
    for (; j + kFloatCols <= cols; j += kFloatCols)
      float_dots<kFormat, kRows, kFloatCols>(args, x, x_stride, w + (n0 + j) * args.w_row_bytes,
                                             &sums[0][j], 16);
    for (; j < cols; ++j)
      float_dots<kFormat, kRows, 1>(args, x, x_stride, w + (n0 + j) * args.w_row_bytes, &sums[0][j],
                                    16);
    for (int i = 0; i < kRows; ++i)
      write_row(args, stage, m0 + i, n0, cols, sums[i]);
  }
}

template <FormatId kFormat> void float_run(const MatmulArgs& args) {
  int64_t m0 = 0;
  for (; m0 + 4 <= args.m; m0 += 4)
    float_rows<kFormat, 4>(args, m0);
  switch (args.m - m0) {
  case 3:
    return float_rows<kFormat, 3>(args, m0);
  case 2:
    return float_rows<kFormat, 2>(args, m0);
  case 1:
    return float_rows<kFormat, 1>(args, m0);
  }
}

int64_t no_scratch_bytes(int64_t, int64_t) { return 0; }

} // namespace
} // namespace pinhole::kernels
