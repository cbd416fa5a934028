// f16 (IEEE 754 binary16) and bf16 (the upper half of an f32) to and from f32, by integer
// arithmetic, rounding to nearest even. `static` on purpose: kernel translation units include this,
// and the linker must never be offered a copy that was compiled for another CPU.
#pragma once

#include <stdint.h>
#include <string.h>

namespace pinhole {

static inline float f32_from_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

static inline uint32_t f32_to_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}

static inline float f16_to_f32(uint16_t h) {
  uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  uint32_t exponent = (h >> 10) & 31u;
  uint32_t mantissa = h & 0x3ffu;
  if (exponent == 0) { // zero and subnormals: mantissa * 2^-24
    return f32_from_bits(sign | f32_to_bits(static_cast<float>(mantissa) * 0x1p-24f));
  }
  if (exponent == 31) { // infinity; NaN, made quiet as the CPUs' own conversions do
    return f32_from_bits(sign | 0x7f800000u | mantissa << 13 | (mantissa ? 0x400000u : 0u));
  }
  return f32_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

static inline uint16_t f32_to_f16(float x) {
  uint32_t bits = f32_to_bits(x);
  uint32_t sign = (bits >> 16) & 0x8000u;
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { // NaN keeps its upper mantissa bits, made quiet
    return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  }
  if (magnitude >= 0x477ff000u)
    return static_cast<uint16_t>(sign | 0x7c00u); // rounds to 2^16
  if (magnitude < 0x38800000u) { // below 2^-14: a multiple of 2^-24, rounded by the addition of 0.5
    uint32_t rounded = f32_to_bits(f32_from_bits(magnitude) + 0.5f) - f32_to_bits(0.5f);
    return static_cast<uint16_t>(sign | rounded);
  }
  uint32_t odd = (magnitude >> 13) & 1u;
  uint32_t rounded = magnitude - (112u << 23) + 0xfffu + odd;
  return static_cast<uint16_t>(sign | rounded >> 13);
}

static inline float bf16_to_f32(uint16_t h) {
  return f32_from_bits(static_cast<uint32_t>(h) << 16);
}

static inline uint16_t f32_to_bf16(float x) {
  uint32_t bits = f32_to_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Little-endian 16 bits at any address.
static inline uint16_t load_u16(const void* p) {
  uint16_t x;
  memcpy(&x, p, 2);
  return x;
}

static inline uint32_t load_u32(const void* p) {
  uint32_t x;
  memcpy(&x, p, 4);
  return x;
}

} // namespace pinhole
