// Integer formats by a few rows of x: answers decoded together. As with one row, W is read once,
// straight from the file, in four streams; 256 elements of a row of W are unpacked into registers
// (or the first-level cache) and multiplied with all rows of x before the next ones are looked at.

namespace pinhole::kernels {
namespace {

// kRows rows of x by kStreams rows of W at w[]: out[i][r] = x row i . W row r.
template <FormatId f, int kRows, int kStreams>
PINHOLE_INLINE void few_dots(const IntX* const* x, const uint8_t* const* w, int64_t k,
                             float (*out)[kIntRows]) {
  constexpr int64_t kBytes = 256 / elements_of(f) * bytes_of(f);
  IntSum sums[kRows][kStreams];
  for (int i = 0; i < kRows; ++i)
    for (int r = 0; r < kStreams; ++r)
      sums[i][r] = sum_zero();
  int64_t full = k / 256;
  for (int64_t b = 0; b < full; ++b) {
#pragma GCC unroll 4
    for (int r = 0; r < kStreams; ++r) {
      const uint8_t* block = w[r] + b * kBytes;
      for (int64_t line = 0; line < kBytes; line += 64)
        __builtin_prefetch(block + kPrefetchBytes + line);
      IntW codes;
      load_w<f>(block, 256, codes);
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i)
        sums[i][r] = add_dot<f>(sums[i][r], codes, x[i][b]);
    }
  }
  if (k % 256 != 0) {
    for (int r = 0; r < kStreams; ++r) {
      IntW codes;
      load_w<f>(w[r] + full * kBytes, k % 256, codes);
      for (int i = 0; i < kRows; ++i)
        sums[i][r] = add_dot<f>(sums[i][r], codes, x[i][full]);
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int r = 0; r < kStreams; ++r)
      out[i][r] = sum_lanes(sums[i][r]);
}

// m = kRows, or less: then the last row of x stands in for those that are missing.
template <FormatId f, int kRows> void few_run_of(const MatmulArgs& args) {
  const IntX* x[kRows];
  for (int i = 0; i < kRows; ++i)
    x[i] = static_cast<const IntX*>(args.x) + min_of(i, args.m - 1) * int_blocks(args.k);
  run_streams<kRows>(args, [&](const uint8_t* const* w, float(*out)[kIntRows]) {
    // As many sums as registers hold.
    constexpr int kStreams = kRows > 4 ? kIntRows / 2 : kIntRows;
    for (int r = 0; r < kIntRows; r += kStreams) {
      float some[kRows][kIntRows];
      few_dots<f, kRows, kStreams>(x, w + r, args.k, some);
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kStreams; ++j)
          out[i][r + j] = some[i][j];
    }
  });
}

template <FormatId f> void few_run(const MatmulArgs& args) {
  if (args.m == 1)
    few_run_of<f, 1>(args);
  else if (args.m == 2)
    few_run_of<f, 2>(args);
  else if (args.m == 3)
    few_run_of<f, 3>(args);
  else if (args.m == 4)
    few_run_of<f, 4>(args);
  else if (args.m <= 6)
    few_run_of<f, 6>(args);
  else
    few_run_of<f, 8>(args);
}

} // namespace
} // namespace pinhole::kernels
