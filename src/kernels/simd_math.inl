// exp, erf and the activations over the SIMD shim, included after it. In f32: exp errs by at most 1
// ulp and erf by 2 (over all inputs, when they were fitted); the scalar shim has libm's instead.
//
// Polynomials: minimax fits (Remez exchange in double) of e^r on |r| <= ln(2)/2, of erf(x)/x on
// [0, 0.9375] as a function of x^2, and of ln(erfc(x)) on [0.9375, 4]; erf(4) rounds to 1 in f32.
#include "kernels/table.h"

namespace pinhole::kernels {
namespace {

constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

#if !defined(PINHOLE_KERNEL_SCALAR)
PINHOLE_INLINE Vec v_exp(Vec x) {
  x = v_min(v_set(89.0f), v_max(v_set(-104.5f), x)); // beyond these: infinity and 0; NaN stays
  Vec n = v_round(v_mul(x, v_set(1.44269504f)));
  Vec r = v_fnma(n, v_set(0.693359375f), x); // ln 2 in two parts, the first with 9 bits: exact
  r = v_fnma(n, v_set(-2.12194440e-4f), r);
  Vec p = v_set(0.00138144671f);
  p = v_fma(p, r, v_set(0.00836878041f));
  p = v_fma(p, r, v_set(0.0416683942f));
  p = v_fma(p, r, v_set(0.166665201f));
  p = v_fma(p, r, v_set(0.499999934f));
  p = v_fma(v_mul(r, r), p, r);
  return v_ldexp(v_add(p, v_set(1.0f)), n);
}

PINHOLE_INLINE Vec v_erf(Vec x) {
  Vec t = v_abs(x);
  Vec s = v_mul(x, x);
  Vec p = v_set(8.26746185e-05f);
  p = v_fma(p, s, v_set(-0.000811807547f));
  p = v_fma(p, s, v_set(0.00519882986f));
  p = v_fma(p, s, v_set(-0.0268584971f));
  p = v_fma(p, s, v_set(0.11283679f));
  p = v_fma(p, s, v_set(-0.376126326f));
  p = v_fma(p, s, v_set(0.128379167f));
  Vec small = v_fma(p, x, x);

  t = v_min(v_set(4.0f), t);
  Vec q = v_set(-2.13059283e-05f);
  q = v_fma(q, t, v_set(0.000436905826f));
  q = v_fma(q, t, v_set(-0.00418293036f));
  q = v_fma(q, t, v_set(0.0251507665f));
  q = v_fma(q, t, v_set(-0.108328708f));
  q = v_fma(q, t, v_set(-0.63330257f));
  q = v_fma(q, t, v_set(-1.12953695f));
  q = v_fma(q, t, v_set(0.000179283047f));
  Vec large = v_copysign(v_sub(v_set(1.0f), v_exp(q)), x);
  return v_select(v_lt(t, v_set(0.9375f)), small, large);
}
#endif

// x * sigmoid(z) = x / (1 + e^-z): full relative precision where 0.5 * (1 + tanh(z / 2)) cancels.
PINHOLE_INLINE Vec times_sigmoid(Vec x, Vec z) {
  return v_div(x, v_add(v_set(1.0f), v_exp(v_sub(v_zero(), z))));
}

template <Activation activation> PINHOLE_INLINE Vec v_activate(Vec x) {
  if (activation == Activation::kGeluTanh) {
    // 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), torch's gelu(approximate="tanh")
    Vec inner = v_fma(v_mul(v_mul(x, x), v_set(0.044715f)), x, x);
    return times_sigmoid(x, v_mul(inner, v_set(1.59576912f)));
  }
  if (activation == Activation::kGeluErf) {
    Vec half = v_mul(x, v_set(0.5f));
    return v_fma(half, v_erf(v_mul(x, v_set(0.707106781f))), half);
  }
  if (activation == Activation::kSilu)
    return times_sigmoid(x, x);
  return x;
}

PINHOLE_INLINE Vec v_activate(Activation activation, Vec x) {
  switch (activation) {
  case Activation::kGeluTanh:
    return v_activate<Activation::kGeluTanh>(x);
  case Activation::kGeluErf:
    return v_activate<Activation::kGeluErf>(x);
  case Activation::kSilu:
    return v_activate<Activation::kSilu>(x);
  default:
    return x;
  }
}

} // namespace
} // namespace pinhole::kernels
