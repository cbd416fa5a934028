// Integer formats against x rounded to int8, with a scale per 32 elements: x as it is packed, the
// products of 256 elements, and how the rows of W are walked (matmul_few.inl multiplies them). The
// offsets of a format (minima, or the middle of its codes) multiply sums that x carries along.

namespace pinhole::kernels {
namespace {

constexpr int64_t kIntRows = 4; // rows of W that are read at the same time

PINHOLE_INLINE int64_t int_blocks(int64_t k) { return (k + 255) / 256; }

// 32 elements times `inverse` to the nearest codes of at most 127.
PINHOLE_INLINE void quantize_32(const float* x, float inverse_scale, int8_t* q) {
  Vec inverse = v_set(inverse_scale), low = v_set(-127.0f), high = v_set(127.0f);
#if defined(PINHOLE_KERNEL_AVX512) || defined(PINHOLE_KERNEL_AMX)
  for (int i = 0; i < 32; i += kLanes) {
    Vec v = v_min(v_max(v_mul(v_load(x + i), inverse), low), high);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + i), _mm512_cvtepi32_epi8(iv_from_float(v)));
  }
#elif defined(PINHOLE_KERNEL_AVX2)
  __m256i codes[4];
  for (int i = 0; i < 4; ++i) {
    Vec v = v_mul(v_load(x + i * kLanes), inverse);
    codes[i] = iv_from_float(v_min(v_max(v, low), high));
  }
  __m256i words0 = _mm256_packs_epi32(codes[0], codes[1]);
  __m256i words1 = _mm256_packs_epi32(codes[2], codes[3]);
  __m256i mixed = _mm256_packs_epi16(words0, words1); // packs work within 128 bits
  mixed = _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), mixed);
#else
  alignas(64) float values[32];
  for (int i = 0; i < 32; i += kLanes) {
    Vec v = v_round_lanes(v_mul(v_load(x + i), inverse));
    v_store(values + i, v_min(v_max(v, low), high));
  }
  for (int i = 0; i < 32; ++i)
    q[i] = static_cast<int8_t>(static_cast<int32_t>(values[i]));
#endif
}

// Up to 32 elements of x, the rest zeros; returns the largest magnitude.
PINHOLE_INLINE float copy_32(const float* x, int64_t count, float* values) {
  Vec top = v_zero();
  for (int i = 0; i < 32; i += kLanes) {
    Vec v = count - i >= kLanes ? v_load(x + i) : v_load_n(x + i, max_of(count - i, 0));
    v_store(values + i, v);
    top = v_max(top, v_abs(v));
  }
  return v_reduce_max(top);
}

// Up to 32 elements of x to int8, the rest zeros; returns their scale. NaN and infinity end up in
// the scale or the codes.
PINHOLE_INLINE float round_32(const float* x, int64_t count, int8_t* q) {
  alignas(64) float values[32];
  float d = copy_32(x, count, values) * (1.0f / 127.0f);
  quantize_32(values, d > 0.0f ? 1.0f / d : 0.0f, q);
  return d;
}

PINHOLE_INLINE int32_t sum_16(const int8_t* q) {
#if defined(__SSE4_1__)
  __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
  x = _mm_sad_epu8(_mm_xor_si128(x, _mm_set1_epi8(static_cast<char>(0x80))), _mm_setzero_si128());
  return _mm_cvtsi128_si32(x) + _mm_extract_epi32(x, 2) - 16 * 128;
#else
  int32_t sum = 0;
  for (int i = 0; i < 16; ++i)
    sum += q[i];
  return sum;
#endif
}

#if defined(PINHOLE_KERNEL_AVX512) || defined(PINHOLE_KERNEL_AMX) || defined(PINHOLE_KERNEL_AVX2)

// Lane p has codes of group lane_group(p) of 16, four from each of q's rows.
#if defined(PINHOLE_KERNEL_AVX2)
enum Order { kOrderPlain };
template <FormatId> constexpr Order vnni_order() { return kOrderPlain; }
template <Order> constexpr int lane_group(int p) { return 4 * (p % 4) + p / 4; }

struct IntX { // as VnniX
  int8_t q[4][64];
  float d[16];
  float sum[16];
};
#else
template <Order order> constexpr int lane_group(int p) { return kOrder[order][p % 4][p / 4]; }

using IntX = VnniX;
using IntW = VnniW;
#endif

// Of 256 elements: codes q in natural order, scales of 32, to the order that a format wants.
template <Order order> PINHOLE_INLINE void place_x(const int8_t* q, const float* d, IntX& to) {
  for (int p = 0; p < 16; ++p) {
    int group = lane_group<order>(p);
    for (int j = 0; j < 4; ++j)
      memcpy(to.q[j] + 4 * p, q + 16 * group + 4 * j, 4);
    to.d[p] = d[group / 2];
    to.sum[p] = d[group / 2] * static_cast<float>(sum_16(q + 16 * group));
  }
}

#endif

#if defined(PINHOLE_KERNEL_AVX512) || defined(PINHOLE_KERNEL_AMX)

template <FormatId f> PINHOLE_INLINE void load_w(const uint8_t* w, int64_t elements, IntW& to) {
  if (elements >= 256)
    vnni_load<f>(w, to);
  else
    vnni_load_part<f>(w, elements, to);
}

typedef __m512 IntSum;
PINHOLE_INLINE IntSum sum_zero() { return _mm512_setzero_ps(); }

template <FormatId> PINHOLE_INLINE IntSum add_dot(IntSum sum, const IntW& w, const IntX& x) {
  __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w.q[0], _mm512_load_si512(x.q[0]));
  dot = _mm512_dpbusd_epi32(dot, w.q[1], _mm512_load_si512(x.q[1]));
  dot = _mm512_dpbusd_epi32(dot, w.q[2], _mm512_load_si512(x.q[2]));
  dot = _mm512_dpbusd_epi32(dot, w.q[3], _mm512_load_si512(x.q[3]));
  __m512 scale = _mm512_mul_ps(w.scale, _mm512_load_ps(x.d));
  sum = _mm512_fmadd_ps(w.offset, _mm512_load_ps(x.sum), sum);
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sum);
}

PINHOLE_INLINE float sum_lanes(IntSum sum) { return _mm512_reduce_add_ps(sum); }

#elif defined(PINHOLE_KERNEL_AVX2)

// Registers h, 2 + h, 4 + h and 6 + h of q have lanes 8 * h to 8 * h + 7.
struct IntW {
  __m256i q[8];
  __m256 scale[2], offset[2];
};

typedef __m256 IntSum;
PINHOLE_INLINE IntSum sum_zero() { return _mm256_setzero_ps(); }

template <FormatId f> PINHOLE_INLINE IntSum add_dot(IntSum sum, const IntW& w, const IntX& x) {
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    __m256i pairs[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      __m256i a = w.q[2 * j + h];
      __m256i b = _mm256_load_si256(reinterpret_cast<const __m256i*>(x.q[j] + 32 * h));
      // Signed codes: |w| * (x with w's sign), so that the first factor is unsigned.
      pairs[j] = kIntSigned<f> ? _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a))
                               : _mm256_maddubs_epi16(a, b);
    }
    __m256i dot;
    if constexpr (kIntSigned<f>) {
      dot = _mm256_add_epi32(
          _mm256_add_epi32(_mm256_madd_epi16(pairs[0], ones), _mm256_madd_epi16(pairs[1], ones)),
          _mm256_add_epi32(_mm256_madd_epi16(pairs[2], ones), _mm256_madd_epi16(pairs[3], ones)));
    } else {
      __m256i first = _mm256_add_epi16(pairs[0], pairs[1]); // of codes of at most 63
      __m256i second = _mm256_add_epi16(pairs[2], pairs[3]);
      if constexpr (f == FormatId::kQ6_K)
        dot = _mm256_add_epi32(_mm256_madd_epi16(first, ones), _mm256_madd_epi16(second, ones));
      else // of at most 31
        dot = _mm256_madd_epi16(_mm256_add_epi16(first, second), ones);
    }
    __m256 scale = _mm256_mul_ps(w.scale[h], _mm256_load_ps(x.d + 8 * h));
    if constexpr (!kIntNoOffset<f>)
      sum = _mm256_fmadd_ps(w.offset[h], _mm256_load_ps(x.sum + 8 * h), sum);
    sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, sum);
  }
  return sum;
}

PINHOLE_INLINE float sum_lanes(IntSum sum) { return v_reduce_add(sum); }

#else

struct IntX {
  int8_t q[256];
  float d[8];
  float sum32[8];
  float sum16[16];
};
using IntW = Codes;
enum Order { kOrderPlain };
template <FormatId> constexpr Order vnni_order() { return kOrderPlain; }

template <Order> PINHOLE_INLINE void place_x(const int8_t* q, const float* d, IntX& to) {
  memcpy(to.q, q, 256);
  memcpy(to.d, d, 32);
  for (int g = 0; g < 16; ++g)
    to.sum16[g] = d[g / 2] * static_cast<float>(sum_16(q + 16 * g));
  for (int g = 0; g < 8; ++g)
    to.sum32[g] = to.sum16[2 * g] + to.sum16[2 * g + 1];
}

template <FormatId f> PINHOLE_INLINE void load_w(const uint8_t* w, int64_t elements, IntW& to) {
  if (elements >= 256)
    unpack_codes<f>(w, 256, to);
  else
    unpack_codes<f>(w, elements, to);
}

#if defined(PINHOLE_KERNEL_NEON)

typedef float32x4_t IntSum;
PINHOLE_INLINE IntSum sum_zero() { return vdupq_n_f32(0.0f); }

template <FormatId f> PINHOLE_INLINE IntSum add_dot(IntSum sum, const IntW& w, const IntX& x) {
  for (int g = 0; g < 8; ++g) {
    // Codes below 128 are the same byte signed and unsigned.
    const int8_t* q = reinterpret_cast<const int8_t*>(w.q) + 32 * g;
    int32x4_t zero = vdupq_n_s32(0);
    int32x4_t dot = vdotq_s32(zero, vld1q_s8(q), vld1q_s8(x.q + 32 * g));
    if constexpr (kIntGroup<f> == 32) {
      dot = vdotq_s32(dot, vld1q_s8(q + 16), vld1q_s8(x.q + 32 * g + 16));
      sum = vfmaq_n_f32(sum, vcvtq_f32_s32(dot), w.scale[g] * x.d[g]);
    } else {
      int32x4_t second = vdotq_s32(zero, vld1q_s8(q + 16), vld1q_s8(x.q + 32 * g + 16));
      sum = vfmaq_n_f32(sum, vcvtq_f32_s32(dot), w.scale[2 * g] * x.d[g]);
      sum = vfmaq_n_f32(sum, vcvtq_f32_s32(second), w.scale[2 * g + 1] * x.d[g]);
    }
  }
  if constexpr (!kIntNoOffset<f>) {
    constexpr int kSums = kIntGroup<f> == 32 ? 8 : 16;
    for (int g = 0; g < kSums; g += 4)
      sum =
          vfmaq_f32(sum, vld1q_f32(w.offset + g), vld1q_f32((kSums == 8 ? x.sum32 : x.sum16) + g));
  }
  return sum;
}

PINHOLE_INLINE float sum_lanes(IntSum sum) { return vaddvq_f32(sum); }

#else

typedef float IntSum;
PINHOLE_INLINE IntSum sum_zero() { return 0.0f; }

template <FormatId f> PINHOLE_INLINE IntSum add_dot(IntSum sum, const IntW& w, const IntX& x) {
  constexpr int kGroup = kIntGroup<f>;
  for (int g = 0; g < 256 / kGroup; ++g) {
    int32_t dot = 0;
    for (int i = g * kGroup; i < (g + 1) * kGroup; ++i)
      dot += (kIntSigned<f> ? static_cast<int8_t>(w.q[i]) : w.q[i]) * x.q[i];
    float d = x.d[g * kGroup / 32];
    sum += w.scale[g] * d * static_cast<float>(dot);
    if constexpr (!kIntNoOffset<f>)
      sum += w.offset[g] * (kGroup == 32 ? x.sum32[g] : x.sum16[g]);
  }
  return sum;
}

PINHOLE_INLINE float sum_lanes(IntSum sum) { return sum; }

#endif
#endif

static_assert(sizeof(IntX) == 384);

int64_t int_x_bytes(int64_t m, int64_t k) {
  return m * int_blocks(k) * static_cast<int64_t>(sizeof(IntX));
}

template <Order order>
void int_pack_x(const float* x, int64_t x_stride, int64_t, int64_t k, int64_t row_begin,
                int64_t row_end, void* packed) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    IntX* to = static_cast<IntX*>(packed) + row * int_blocks(k);
    for (int64_t k0 = 0; k0 < k; k0 += 256, ++to) {
      alignas(64) int8_t q[256];
      float d[8];
      for (int g = 0; g < 8; ++g) {
        int64_t left = k - k0 - 32 * g;
        d[g] = round_32(x + row * x_stride + (left > 0 ? k0 + 32 * g : 0), max_of(left, 0),
                        q + 32 * g);
      }
      place_x<order>(q, d, *to);
    }
  }
}

// kRows rows of x. Four rows of W that are a quarter of the share apart give the memory four
// streams. dots(w, out) multiplies those at w[] with all rows of x: out[i][r].
template <int kRows, class Dots>
PINHOLE_INLINE void run_streams(const MatmulArgs& args, Dots dots) {
  const uint8_t* w = static_cast<const uint8_t*>(args.w);
  Stage stage = stage_of(args, 0, args.k);
  int64_t quarter = args.n / kIntRows, rows_of_x = min_of(kRows, args.m);
  constexpr int64_t kRun = 16; // rows of each quarter between writes to y
  float sums[kRows][kIntRows][kRun];
  float out[kRows][kIntRows];
  for (int64_t n0 = 0; n0 < quarter; n0 += kRun) {
    int64_t run = min_of(kRun, quarter - n0);
    for (int64_t j = 0; j < run; ++j) {
      const uint8_t* rows[kIntRows];
      for (int r = 0; r < kIntRows; ++r)
        rows[r] = w + (r * quarter + n0 + j) * args.w_row_bytes;
      dots(rows, out);
      for (int i = 0; i < kRows; ++i)
        for (int r = 0; r < kIntRows; ++r)
          sums[i][r][j] = out[i][r];
    }
    for (int64_t i = 0; i < rows_of_x; ++i)
      for (int r = 0; r < kIntRows; ++r)
        write_row(args, stage, i, r * quarter + n0, run, sums[i][r]);
  }
  int64_t rest = args.n - quarter * kIntRows;
  if (rest > 0) {
    const uint8_t* rows[kIntRows];
    for (int r = 0; r < kIntRows; ++r)
      rows[r] = w + (quarter * kIntRows + min_of(r, rest - 1)) * args.w_row_bytes;
    dots(rows, out);
    alignas(64) float last[16] = {};
    for (int64_t i = 0; i < rows_of_x; ++i) {
      memcpy(last, out[i], sizeof out[i]);
      write_row(args, stage, i, quarter * kIntRows, rest, last);
    }
  }
}

template <class X, class Dots> PINHOLE_INLINE void run_one_row(const MatmulArgs& args, Dots dots) {
  const X* x = static_cast<const X*>(args.x);
  run_streams<1>(
      args, [&](const uint8_t* const* w, float(*out)[kIntRows]) { dots(x, w, args.k, out[0]); });
}

} // namespace
} // namespace pinhole::kernels
