// Kernels on f32 rows over the SIMD shim: norms, activations, RoPE, softmax, argmax, KV stores.
#include "kernels/table.h"
#include "quant/q8_0.h"

namespace pinhole::kernels {
namespace {

// Sums keep f32 lanes for at most this many steps and are then added up in double: the rounding
// error of a row does not grow with its length.
constexpr int64_t kSumSteps = 16;

// The sum over n values by s = f(x, s), lane by lane.
template <class F> PINHOLE_INLINE double sum_row(const float* x, int64_t n, F f) {
  double total = 0.0;
  int64_t i = 0;
  while (i + kLanes <= n) {
    int64_t end = i + kSumSteps * kLanes;
    end = end < n ? end : n;
    Vec sum = v_zero();
    for (; i + kLanes <= end; i += kLanes)
      sum = f(v_load(x + i), sum);
    total += static_cast<double>(v_reduce_add(sum));
  }
  if (i < n) {
    alignas(64) float tail[kLanes] = {};
    v_store_n(tail, f(v_load_n(x + i, n - i), v_zero()), n - i);
    for (float value : tail)
      total += static_cast<double>(value);
  }
  return total;
}

// f(i, count) for every kLanes of n values and for the count that remains.
template <class F> PINHOLE_INLINE void for_lanes(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    f(i, static_cast<int64_t>(kLanes));
  if (i < n)
    f(i, n - i);
}
PINHOLE_INLINE Vec load_lanes(const float* p, int64_t count) {
  return count == kLanes ? v_load(p) : v_load_n(p, count);
}
PINHOLE_INLINE void store_lanes(float* p, Vec x, int64_t count) {
  if (count == kLanes) {
    v_store(p, x);
  } else {
    v_store_n(p, x, count);
  }
}

void rms_norm(const float* x, int64_t x_stride, const float* w, float eps, int64_t rows, int64_t n,
              float* y, int64_t y_stride) {
  for (int64_t row = 0; row < rows; ++row, x += x_stride, y += y_stride) {
    double sum = sum_row(x, n, [](Vec v, Vec s) { return v_fma(v, v, s); });
    double mean = sum / static_cast<double>(n) + static_cast<double>(eps);
    Vec scale = v_set(static_cast<float>(1.0 / __builtin_sqrt(mean)));
    for_lanes(n, [&](int64_t i, int64_t count) {
      Vec v = v_mul(load_lanes(x + i, count), scale);
      store_lanes(y + i, v_mul(v, load_lanes(w + i, count)), count);
    });
  }
}

void layer_norm(const float* x, int64_t x_stride, const float* w, const float* b, float eps,
                int64_t rows, int64_t n, float* y, int64_t y_stride) {
  for (int64_t row = 0; row < rows; ++row, x += x_stride, y += y_stride) {
    double count_all = static_cast<double>(n);
    double about = sum_row(x, n, [](Vec v, Vec s) { return v_add(v, s); }) / count_all;
    // Deviations from a float near the mean; their own mean then corrects it. One float alone would
    // leave its rounding, and that of a sum of large values, in every x - mean.
    Vec high = v_set(static_cast<float>(about));
    double rest =
        sum_row(x, n, [high](Vec v, Vec s) { return v_add(v_sub(v, high), s); }) / count_all;
    Vec low = v_set(static_cast<float>(rest));
    auto centred = [high, low](Vec v) { return v_sub(v_sub(v, high), low); };
    double squares = sum_row(x, n, [centred](Vec v, Vec s) {
      Vec d = centred(v);
      return v_fma(d, d, s);
    });
    double variance = squares / count_all + static_cast<double>(eps);
    Vec scale = v_set(static_cast<float>(1.0 / __builtin_sqrt(variance)));
    for_lanes(n, [&](int64_t i, int64_t count) {
      Vec v = v_mul(centred(load_lanes(x + i, count)), scale);
      Vec bias = b != nullptr ? load_lanes(b + i, count) : v_zero();
      store_lanes(y + i, v_fma(v, load_lanes(w + i, count), bias), count);
    });
  }
}

void add(const float* a, const float* b, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t count) {
    store_lanes(y + i, v_add(load_lanes(a + i, count), load_lanes(b + i, count)), count);
  });
}

void mul_add(const float* a, float s, float* y, int64_t n) {
  Vec scale = v_set(s);
  for_lanes(n, [&](int64_t i, int64_t count) {
    store_lanes(y + i, v_fma(load_lanes(a + i, count), scale, load_lanes(y + i, count)), count);
  });
}

template <Activation activation> void activate_row(const float* x, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t count) {
    store_lanes(y + i, v_activate<activation>(load_lanes(x + i, count)), count);
  });
}

void activate(Activation activation, const float* x, float* y, int64_t n) {
  switch (activation) {
  case Activation::kNone:
    return activate_row<Activation::kNone>(x, y, n);
  case Activation::kGeluTanh:
    return activate_row<Activation::kGeluTanh>(x, y, n);
  case Activation::kGeluErf:
    return activate_row<Activation::kGeluErf>(x, y, n);
  case Activation::kSilu:
    return activate_row<Activation::kSilu>(x, y, n);
  }
}

template <Activation activation>
void gated_row(const float* gate, const float* up, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t count) {
    Vec g = v_activate<activation>(load_lanes(gate + i, count));
    store_lanes(y + i, v_mul(g, load_lanes(up + i, count)), count);
  });
}

void gated(Activation activation, const float* gate, const float* up, float* y, int64_t n) {
  switch (activation) {
  case Activation::kNone:
    return gated_row<Activation::kNone>(gate, up, y, n);
  case Activation::kGeluTanh:
    return gated_row<Activation::kGeluTanh>(gate, up, y, n);
  case Activation::kGeluErf:
    return gated_row<Activation::kGeluErf>(gate, up, y, n);
  case Activation::kSilu:
    return gated_row<Activation::kSilu>(gate, up, y, n);
  }
}

void rope(float* x, int64_t x_stride, int64_t rows, int64_t heads, int64_t head_dim,
          int64_t rot_dim, const float* cos, const float* sin, bool interleaved) {
  int64_t half = rot_dim / 2;
  for (int64_t row = 0; row < rows; ++row, x += x_stride, cos += half, sin += half) {
    for (int64_t head = 0; head < heads; ++head) {
      float* p = x + head * head_dim;
      if (interleaved) {
        for (int64_t i = 0; i < half; ++i) {
          float a = p[2 * i], b = p[2 * i + 1];
          p[2 * i] = a * cos[i] - b * sin[i];
          p[2 * i + 1] = b * cos[i] + a * sin[i];
        }
        continue;
      }
      for_lanes(half, [&](int64_t i, int64_t count) {
        Vec a = load_lanes(p + i, count), b = load_lanes(p + half + i, count);
        Vec c = load_lanes(cos + i, count), s = load_lanes(sin + i, count);
        store_lanes(p + i, v_fnma(b, s, v_mul(a, c)), count);
        store_lanes(p + half + i, v_fma(a, s, v_mul(b, c)), count);
      });
    }
  }
}

void store_kv(KvType kv_type, const float* src, void* dst, int64_t n) {
  switch (kv_type) {
  case KvType::kF32:
    memcpy(dst, src, static_cast<size_t>(n) * 4);
    return;
  case KvType::kF16: {
    char* out = static_cast<char*>(dst);
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
      v_store_f16(out + i * 2, v_load(src + i));
    if (i < n)
      v_store_f16_n(out + i * 2, v_load_n(src + i, n - i), n - i);
    return;
  }
  case KvType::kQ8_0: {
    BlockQ8_0* blocks = static_cast<BlockQ8_0*>(dst);
    for (int64_t i = 0; i < n / 32; ++i)
      encode_block(src + i * 32, blocks[i]);
    return;
  }
  }
}

float max_row(const float* x, int64_t n) {
  float largest = -__builtin_inff();
  int64_t i = 0;
  if (n >= kLanes) {
    Vec m = v_load(x);
    for (i = kLanes; i + kLanes <= n; i += kLanes)
      m = v_max(m, v_load(x + i));
    largest = v_reduce_max(m);
  }
  for (; i < n; ++i)
    largest = x[i] > largest ? x[i] : largest;
  return largest;
}

void softmax(const float* x, float* y, int64_t n) {
  Vec largest = v_set(max_row(x, n));
  double total = 0.0;
  int64_t i = 0;
  while (i + kLanes <= n) {
    int64_t end = i + kSumSteps * kLanes;
    end = end < n ? end : n;
    Vec sum = v_zero();
    for (; i + kLanes <= end; i += kLanes) {
      Vec e = v_exp(v_sub(v_load(x + i), largest));
      v_store(y + i, e);
      sum = v_add(sum, e);
    }
    total += static_cast<double>(v_reduce_add(sum));
  }
  if (i < n) {
    v_store_n(y + i, v_exp(v_sub(v_load_n(x + i, n - i), largest)), n - i);
    for (; i < n; ++i)
      total += static_cast<double>(y[i]);
  }
  Vec scale = v_set(static_cast<float>(1.0 / total));
  for_lanes(n, [&](int64_t j, int64_t count) {
    store_lanes(y + j, v_mul(load_lanes(y + j, count), scale), count);
  });
}

int64_t argmax(const float* x, int64_t n) {
  float largest = max_row(x, n);
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] == largest)
      return i;
  }
  return 0; // nothing but NaN
}

} // namespace
} // namespace pinhole::kernels
