// Loops that do nothing but one kind of arithmetic, or read memory: what this CPU can reach with
// this instruction set. `pinhole perf` holds the kernels against them.

namespace pinhole::kernels {
namespace {

// Keeps the compiler from moving work on `x` out of a loop, or dropping it.
template <class T> PINHOLE_INLINE void keep(T& x) {
#if defined(PINHOLE_KERNEL_NEON)
  asm volatile("" : "+w"(x));
#elif defined(PINHOLE_KERNEL_AVX512) || defined(PINHOLE_KERNEL_AMX)
  asm volatile("" : "+v"(x));
#else
  asm volatile("" : "+x"(x));
#endif
}

constexpr int kPeakSums = 12; // independent sums: latency times throughput of an FMA, and spare

void peak_f32(int64_t rounds) {
  Vec sums[kPeakSums], a = v_set(1.0f), b = v_set(0.0f);
  for (Vec& sum : sums)
    sum = v_zero();
  for (int64_t i = 0; i < rounds; ++i) {
    keep(a);
#pragma GCC unroll 12
    for (Vec& sum : sums)
      sum = v_fma(a, b, sum);
  }
  for (Vec& sum : sums)
    keep(sum);
}

#if defined(PINHOLE_KERNEL_AVX512) || defined(PINHOLE_KERNEL_AMX)

constexpr int64_t kPeakInt8Ops = int64_t{kPeakSums} * 64 * 2;

void peak_int8(int64_t rounds) {
  __m512i sums[kPeakSums], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(0);
  for (__m512i& sum : sums)
    sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < rounds; ++i) {
    keep(a);
#pragma GCC unroll 12
    for (__m512i& sum : sums)
      sum = _mm512_dpbusd_epi32(sum, a, b);
  }
  for (__m512i& sum : sums)
    keep(sum);
}

#elif defined(PINHOLE_KERNEL_AVX2)

constexpr int64_t kPeakDepth = 8; // products of 4-bit codes that 16 bits add up
constexpr int64_t kPeakInt8Ops = int64_t{kPeakSums} * kPeakDepth * 32 * 2;

void peak_int8(int64_t rounds) { // as AVX2 has it: bytes to words, eight of these to sums
  __m256i sums[kPeakSums], a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(0);
  const __m256i ones = _mm256_set1_epi16(1);
  for (__m256i& sum : sums)
    sum = _mm256_setzero_si256();
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (__m256i& sum : sums) {
      keep(b); // a product with a known zero would be left out
      __m256i words = _mm256_maddubs_epi16(a, b);
#pragma GCC unroll 8
      for (int64_t step = 1; step < kPeakDepth; ++step) {
        keep(b);
        words = iv_add_words(words, _mm256_maddubs_epi16(a, b));
      }
      sum = iv_dot_words(sum, words, ones);
    }
  }
  for (__m256i& sum : sums)
    keep(sum);
}

#endif

#if defined(PINHOLE_KERNEL_AMX)

constexpr int64_t kPeakTiles = 4; // 2 x 2 sums: each of four loads is used twice

template <bool int8> void peak_tiles(int64_t rounds) {
  alignas(64) static const uint8_t operands[16384] = {};
  amx_configure();
  for (int64_t i = 0; i < rounds; ++i) {
    const uint8_t* p = operands + i % 4 * 4096;
    _tile_loadd(4, p, 64);
    _tile_loadd(5, p + 1024, 64);
    _tile_loadd(6, p + 2048, 64);
    _tile_loadd(7, p + 3072, 64);
    if (int8) {
      _tile_dpbssd(0, 4, 5);
      _tile_dpbssd(1, 6, 5);
      _tile_dpbssd(2, 4, 7);
      _tile_dpbssd(3, 6, 7);
    } else {
      _tile_dpbf16ps(0, 4, 5);
      _tile_dpbf16ps(1, 6, 5);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 6, 7);
    }
  }
  amx_release();
}

#endif

constexpr PeakLoop kPeaks[] = {
    {"f32", int64_t{kPeakSums} * kLanes * 2, peak_f32},
#if defined(PINHOLE_KERNEL_AVX2) || defined(PINHOLE_KERNEL_AVX512) || defined(PINHOLE_KERNEL_AMX)
    {"int8", kPeakInt8Ops, peak_int8},
#endif
#if defined(PINHOLE_KERNEL_AMX)
    {"bf16 tiles", kPeakTiles * 16 * 16 * 32 * 2, peak_tiles<false>},
    {"int8 tiles", kPeakTiles * 16 * 16 * 64 * 2, peak_tiles<true>},
#endif
};

// Four places at once: one stream does not fill a core's outstanding misses.
uint64_t read_memory(const void* data, int64_t bytes) {
  constexpr int64_t kLine = 64, kAhead = 1024;
  int64_t quarter = bytes / 4 / kLine * kLine;
  const uint8_t* base = static_cast<const uint8_t*>(data);
  Vec sums[4];
  for (Vec& sum : sums)
    sum = v_zero();
  for (int64_t i = 0; i < quarter; i += kLine) {
#pragma GCC unroll 4
    for (int64_t s = 0; s < 4; ++s) {
      const uint8_t* p = base + s * quarter + i;
      __builtin_prefetch(p + kAhead);
      for (int64_t j = 0; j < kLine; j += kLanes * 4)
        sums[s] = v_add(sums[s], v_load(reinterpret_cast<const float*>(p + j)));
    }
  }
  return v_reduce_add(v_add(v_add(sums[0], sums[1]), v_add(sums[2], sums[3]))) > 0.0f;
}

} // namespace
} // namespace pinhole::kernels
