// Integer formats by many rows of x, on AVX2 and AVX-512: lanes are rows of W.
//
// A panel of kPanelRows rows of W is unpacked once into scratch, so that the codes of 4
// neighbouring elements of a row (2, as words) are one 32-bit lane, and used for all rows of x,
// whose codes are broadcast: no sums across lanes, scales of W are vectors. x has a scale per 32
// elements and int8 codes (int16 where words are multiplied, below). The products of a group of 16
// or 32 elements are summed as integers, then scaled.
//
// Codes of W are unsigned for the byte products (vpdpbusd; vpmaddubsw and vpmaddwd on AVX2) and
// their middle is taken back in the sums' start: minus the middle times the sum of x. AVX2 has no
// byte product that holds 8-bit codes of both; there signed formats are multiplied as words.

namespace pinhole::kernels {
namespace {

constexpr int64_t kPanelRows = 2 * kLanes;
// 512 KiB of unpacked W; with half of an L2 of 1 MiB left for x and y.
constexpr int64_t kPanelStage = 512 * 1024;
// Elements of k at a time: the shorter, the more rows of W fit, and the less often x passes by.
constexpr int64_t kPanelChunk = 2048;
#if defined(PINHOLE_KERNEL_AVX2)
constexpr int kPanelTile = 3; // rows of x in registers: 6 sums and 6 partial sums of 16 registers
#else
constexpr int kPanelTile = 6; // 12 sums and 12 partial sums of 32
#endif

struct PanelBytes { // 32 elements of a row of x
  alignas(64) int8_t q[32];
  float d;
  float sum, sum_16[2];       // d times the sum of the codes: of all, of each half
  int32_t minus, minus_16[2]; // minus the sum of the codes
  int32_t unused;
};
struct PanelWords {
  alignas(32) int16_t q[32];
  float d;
  float unused[7];
};
static_assert(sizeof(PanelBytes) == 64 && sizeof(PanelWords) == 96);
constexpr float kWordsTop = 32767.0f; // largest code of x as a word; 32 * 128 * 32767 < 2^31

template <bool words> struct PanelXOf { using Type = PanelBytes; };
template <> struct PanelXOf<true> { using Type = PanelWords; };

// How a format goes into a panel.
template <FormatId f> struct PanelTraits {
#if defined(PINHOLE_KERNEL_AVX2)
  static constexpr bool kWords = kIntSigned<f>;
#else
  static constexpr bool kWords = false;
#endif
  static constexpr bool kBy16 = kIntGroup<f> == 16;
  // Offsets that are no multiple of the scale: they need a product of their own.
  static constexpr bool kOffset = f == FormatId::kQ4_1 || f == FormatId::kQ5_1 ||
                                  f == FormatId::kQ2_K || f == FormatId::kQ4_K ||
                                  f == FormatId::kQ5_K;
  // The middle of the codes is 1 << kMiddle (0 where there is none: words, formats with kOffset).
  static constexpr int kMiddle = kWords || kOffset      ? 0
                                 : kIntSigned<f>        ? 7
                                 : f == FormatId::kQ6_K ? 5
                                 : f == FormatId::kQ5_0 ? 4
                                 : f == FormatId::kQ4_0 ? 3
                                                        : 2; // Q3_K
  // Products of bytes that vpmaddubsw's 16 bits can add up: 2 * largest code * 127 a step.
  static constexpr int kDepth =
      f == FormatId::kQ6_K                                                   ? 2
      : f == FormatId::kQ5_0 || f == FormatId::kQ5_1 || f == FormatId::kQ5_K ? 4
                                                                             : 8;
  using X = typename PanelXOf<kWords>::Type;
  static constexpr int kSteps = kWords ? 16 : 8; // vectors of codes in 32 elements
  static constexpr int kSubs = kBy16 ? 2 : 1;    // scales in 32 elements
  static constexpr int64_t kVectorBytes = kLanes * 4;
  static constexpr int64_t kCodeBytes = kSteps * 2 * kVectorBytes;
  static constexpr int64_t kScaleBytes = kSubs * 2 * kVectorBytes;
  static constexpr int64_t kGroupBytes = kCodeBytes + kScaleBytes * (kOffset ? 2 : 1);
};

PINHOLE_INLINE int64_t panel_groups(int64_t k) { return (k + 31) / 32; }

template <class X> int64_t panel_x_bytes(int64_t m, int64_t k) {
  return round_up_to(m, kPanelTile) * panel_groups(k) * static_cast<int64_t>(sizeof(X));
}

PINHOLE_INLINE void pack_32(const float* x, int64_t count, PanelBytes& to) {
  to.d = round_32(x, count, to.q);
  for (int h = 0; h < 2; ++h) {
    int32_t sum = sum_16(to.q + 16 * h);
    to.minus_16[h] = -sum;
    to.sum_16[h] = to.d * static_cast<float>(sum);
  }
  to.minus = to.minus_16[0] + to.minus_16[1];
  to.sum = to.sum_16[0] + to.sum_16[1];
  to.unused = 0;
}

PINHOLE_INLINE void pack_32(const float* x, int64_t count, PanelWords& to) {
  alignas(64) float values[32];
  to.d = copy_32(x, count, values) * (1.0f / kWordsTop);
  Vec inverse = v_set(to.d > 0.0f ? 1.0f / to.d : 0.0f);
  Vec low = v_set(-kWordsTop), high = v_set(kWordsTop);
  for (int i = 0; i < 32; i += kLanes) {
    Vec v = v_min(v_max(v_mul(v_load(values + i), inverse), low), high);
    iv_store_words(to.q + i, iv_from_float(v));
  }
}

// Packed x: [blocks of kPanelTile rows][groups][kPanelTile]; rows beyond m are zeros.
template <class X>
void panel_pack_x(const float* x, int64_t x_stride, int64_t m, int64_t k, int64_t row_begin,
                  int64_t row_end, void* packed) {
  int64_t groups = panel_groups(k);
  int64_t end = row_end == m ? round_up_to(m, kPanelTile) : row_end;
  for (int64_t row = row_begin; row < end; ++row) {
    X* to = static_cast<X*>(packed) + row / kPanelTile * kPanelTile * groups + row % kPanelTile;
    if (row >= m) {
      for (int64_t g = 0; g < groups; ++g)
        memset(static_cast<void*>(to + g * kPanelTile), 0, sizeof(X));
      continue;
    }
    for (int64_t g = 0; g < groups; ++g)
      pack_32(x + row * x_stride + g * 32, k - g * 32, to[g * kPanelTile]);
  }
}

template <FormatId f> PINHOLE_INLINE int64_t panel_bytes(int64_t k) {
  return panel_groups(k) * PanelTraits<f>::kGroupBytes;
}

template <FormatId f> PINHOLE_INLINE int64_t panels_staged(int64_t chunk) {
  return max_of(kPanelStage / panel_bytes<f>(chunk), 1);
}

template <FormatId f> int64_t panel_scratch_bytes(int64_t, int64_t k) {
  auto strip = [](int64_t chunk) { return panels_staged<f>(chunk) * panel_bytes<f>(chunk); };
  return max_of(strip(min_of(k, kPanelChunk)), strip(k)); // chunk_of() may keep k whole
}

// 128 bits of each of kLanes / 4 rows: part t from row 4 * t + j.
template <class Load> PINHOLE_INLINE IVec rows_every_4(int j, Load load) {
#if defined(PINHOLE_KERNEL_AVX2)
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load(j)), load(4 + j), 1);
#else
  __m512i x = _mm512_castsi128_si512(load(j));
  x = _mm512_inserti32x4(x, load(4 + j), 1);
  x = _mm512_inserti32x4(x, load(8 + j), 2);
  return _mm512_inserti32x4(x, load(12 + j), 3);
#endif
}

// The codes of one group of kLanes rows to lanes: step s at to + s * 2 * kLanes * 4.
template <FormatId f>
PINHOLE_INLINE void panel_transpose(const Codes* codes, int64_t at, uint8_t* to) {
  constexpr int64_t kStep = 2 * PanelTraits<f>::kVectorBytes;
  constexpr bool kWords = PanelTraits<f>::kWords;
  constexpr int kCodes = kWords ? 8 : 16; // in 128 bits
  for (int h = 0; h < 32 / kCodes; ++h) {
    auto load = [&](int row) {
      const uint8_t* q = codes[row].q + at + h * kCodes;
      if (kWords)
        return _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q)));
      return _mm_load_si128(reinterpret_cast<const __m128i*>(q));
    };
    IVec steps[4];
    iv_transpose_4(rows_every_4(0, load), rows_every_4(1, load), rows_every_4(2, load),
                   rows_every_4(3, load), steps);
    for (int i = 0; i < 4; ++i) {
      if (kIntSigned<f> && !kWords)
        steps[i] = iv_flip_bytes(steps[i]);
      iv_store(to + (4 * h + i) * kStep, steps[i]);
    }
  }
}

// Rows [0, rows) of W to a panel; lanes beyond them repeat the last one.
template <FormatId f>
void panel_unpack(const uint8_t* w, int64_t row_bytes, int64_t rows, int64_t k, uint8_t* panel) {
  using T = PanelTraits<f>;
  for (int half = 0; half < 2; ++half) {
    for (int64_t k0 = 0; k0 < k; k0 += 256) {
      int64_t elements = min_of(256, k - k0);
      Codes codes[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        int64_t row = min_of(half * kLanes + r, rows - 1);
        unpack_codes<f>(w + row * row_bytes + bytes_before<f>(k0), elements, codes[r]);
      }
      uint8_t* to = panel + k0 / 32 * T::kGroupBytes + half * T::kVectorBytes;
      for (int g = 0; g < elements / 32; ++g, to += T::kGroupBytes) {
        panel_transpose<f>(codes, 32 * g, to);
        float* scales = reinterpret_cast<float*>(to + T::kCodeBytes);
        float* offsets = reinterpret_cast<float*>(to + T::kCodeBytes + T::kScaleBytes);
        for (int sub = 0; sub < T::kSubs; ++sub) {
          for (int r = 0; r < kLanes; ++r) {
            scales[sub * kPanelRows + r] = codes[r].scale[g * T::kSubs + sub];
            if (T::kOffset)
              offsets[sub * kPanelRows + r] = codes[r].offset[g * T::kSubs + sub];
          }
        }
      }
    }
  }
}

// dot[i][v] += codes of x row i times codes of W in vector v, over the steps of one scale.
template <FormatId f>
PINHOLE_INLINE void panel_dots(const typename PanelTraits<f>::X* x, const uint8_t* w, int step,
                               IVec (*dot)[2]) {
  using T = PanelTraits<f>;
  constexpr int kSteps = T::kSteps / T::kSubs;
#if defined(PINHOLE_KERNEL_AVX2)
  if constexpr (!T::kWords) {
    constexpr int kDepth = T::kDepth < kSteps ? T::kDepth : kSteps;
    const __m256i ones = _mm256_set1_epi16(1);
    for (int s0 = 0; s0 < kSteps; s0 += kDepth) {
      __m256i words[kPanelTile][2];
#pragma GCC unroll 8
      for (int s = s0; s < s0 + kDepth; ++s) {
        IVec w0 = iv_load(w + (step + s) * 2 * T::kVectorBytes);
        IVec w1 = iv_load(w + ((step + s) * 2 + 1) * T::kVectorBytes);
#pragma GCC unroll 4
        for (int i = 0; i < kPanelTile; ++i) {
          IVec codes = iv_set_from(x[i].q + 4 * (step + s));
          __m256i p0 = _mm256_maddubs_epi16(w0, codes), p1 = _mm256_maddubs_epi16(w1, codes);
          words[i][0] = s == s0 ? p0 : iv_add_words(words[i][0], p0);
          words[i][1] = s == s0 ? p1 : iv_add_words(words[i][1], p1);
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < kPanelTile; ++i) {
        dot[i][0] = iv_dot_words(dot[i][0], words[i][0], ones);
        dot[i][1] = iv_dot_words(dot[i][1], words[i][1], ones);
      }
    }
    return;
  }
#endif
#pragma GCC unroll 16
  for (int s = step; s < step + kSteps; ++s) {
    IVec w0 = iv_pinned(iv_load(w + s * 2 * T::kVectorBytes));
    IVec w1 = iv_pinned(iv_load(w + (s * 2 + 1) * T::kVectorBytes));
#pragma GCC unroll 8
    for (int i = 0; i < kPanelTile; ++i) {
      IVec codes = iv_set_from(reinterpret_cast<const uint8_t*>(x[i].q) + 4 * s);
      if constexpr (T::kWords) {
        dot[i][0] = iv_dot_words(dot[i][0], w0, codes);
        dot[i][1] = iv_dot_words(dot[i][1], w1, codes);
      } else {
        dot[i][0] = iv_dot_bytes(dot[i][0], w0, codes);
        dot[i][1] = iv_dot_bytes(dot[i][1], w1, codes);
      }
    }
  }
}

// sums [kPanelTile, kPanelRows] = x rows . panel rows
template <FormatId f>
void panel_tile(const typename PanelTraits<f>::X* x, const uint8_t* w, int64_t groups,
                float* sums) {
  using T = PanelTraits<f>;
  Vec acc[kPanelTile][2];
  for (int i = 0; i < kPanelTile; ++i)
    acc[i][0] = acc[i][1] = v_zero();
  for (int64_t g = 0; g < groups; ++g, x += kPanelTile, w += T::kGroupBytes) {
#pragma GCC unroll 2
    for (int sub = 0; sub < T::kSubs; ++sub) {
      IVec dot[kPanelTile][2];
#pragma GCC unroll 8
      for (int i = 0; i < kPanelTile; ++i) {
        dot[i][0] = iv_zero();
        if constexpr (T::kMiddle > 0)
          dot[i][0] = iv_shift_left(iv_set(T::kBy16 ? x[i].minus_16[sub] : x[i].minus), T::kMiddle);
        dot[i][1] = dot[i][0];
      }
      panel_dots<f>(x, w, sub * T::kSteps / T::kSubs, dot);
      const float* scales = reinterpret_cast<const float*>(w + T::kCodeBytes) + sub * kPanelRows;
      Vec s0 = v_load(scales), s1 = v_load(scales + kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < kPanelTile; ++i) {
        Vec d = v_set(x[i].d);
        acc[i][0] = v_fma(iv_to_float(dot[i][0]), v_mul(s0, d), acc[i][0]);
        acc[i][1] = v_fma(iv_to_float(dot[i][1]), v_mul(s1, d), acc[i][1]);
      }
      if constexpr (T::kOffset) {
        const float* offsets = scales + T::kScaleBytes / 4;
        Vec o0 = v_load(offsets), o1 = v_load(offsets + kLanes);
#pragma GCC unroll 8
        for (int i = 0; i < kPanelTile; ++i) {
          Vec sum = v_set(T::kBy16 ? x[i].sum_16[sub] : x[i].sum);
          acc[i][0] = v_fma(o0, sum, acc[i][0]);
          acc[i][1] = v_fma(o1, sum, acc[i][1]);
        }
      }
    }
  }
  for (int i = 0; i < kPanelTile; ++i) {
    v_store(sums + i * kPanelRows, acc[i][0]);
    v_store(sums + i * kPanelRows + kLanes, acc[i][1]);
  }
}

template <FormatId f> void panel_run(const MatmulArgs& args) {
  using X = typename PanelTraits<f>::X;
  const X* x = static_cast<const X*>(args.x);
  const uint8_t* w = static_cast<const uint8_t*>(args.w);
  uint8_t* staged = static_cast<uint8_t*>(args.scratch);
  int64_t chunk = chunk_of(args, kPanelChunk), all_groups = panel_groups(args.k);
  int64_t strip = panels_staged<f>(chunk) * kPanelRows;
  alignas(64) float sums[kPanelTile * kPanelRows];
  for (int64_t n0 = 0; n0 < args.n; n0 += strip) {
    int64_t n1 = min_of(n0 + strip, args.n);
    for (int64_t k0 = 0; k0 < args.k; k0 += chunk) {
      int64_t length = min_of(chunk, args.k - k0);
      int64_t groups = panel_groups(length), bytes = panel_bytes<f>(length);
      for (int64_t n = n0; n < n1; n += kPanelRows)
        panel_unpack<f>(w + n * args.w_row_bytes + bytes_before<f>(k0), args.w_row_bytes,
                        min_of(kPanelRows, n1 - n), length, staged + (n - n0) / kPanelRows * bytes);
      Stage stage = stage_of(args, k0, k0 + length);
      for (int64_t m0 = 0; m0 < args.m; m0 += kPanelTile) {
        const X* rows = x + m0 * all_groups + k0 / 32 * kPanelTile;
        // The next rows come from beyond L2: each panel fetches a part of them.
        const char* next = reinterpret_cast<const char*>(rows + kPanelTile * all_groups);
        int64_t next_bytes =
            m0 + kPanelTile < args.m ? groups * kPanelTile * static_cast<int64_t>(sizeof(X)) : 0;
        int64_t part = round_up_to(next_bytes * kPanelRows / (n1 - n0) + 1, 64), fetched = 0;
        for (int64_t n = n0; n < n1; n += kPanelRows) {
          for (int64_t end = min_of(fetched + part, next_bytes); fetched < end; fetched += 64)
            __builtin_prefetch(next + fetched);
          panel_tile<f>(rows, staged + (n - n0) / kPanelRows * bytes, groups, sums);
          for (int64_t i = 0; i < min_of(kPanelTile, args.m - m0); ++i)
            write_row(args, stage, m0 + i, n, min_of(kPanelRows, n1 - n), sums + i * kPanelRows);
        }
      }
    }
  }
}

} // namespace
} // namespace pinhole::kernels
