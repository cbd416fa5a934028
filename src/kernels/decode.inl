// Weight rows to f32 over the SIMD shim: the formats that ordinary files hold by vectors, the
// others by the scalar decoder of their header. The arithmetic is that of quant/*.h.
#include "kernels/table.h"
#include "quant/blocks.h"

namespace pinhole::kernels {
namespace {

template <FormatId id> void decode_scalar(const void* src, float* dst, int64_t n) {
  constexpr int64_t kElements = kBlockElements[static_cast<int>(id)];
  const auto* blocks = static_cast<const typename BlockOf<id>::Type*>(src);
  for (int64_t i = 0; i < n / kElements; ++i)
    decode_block(blocks[i], dst + i * kElements);
}

template <FormatId id> struct Decoder {
  static void run(const void* src, float* dst, int64_t n) { decode_scalar<id>(src, dst, n); }
};

#if !defined(PINHOLE_KERNEL_SCALAR)

// y[0..count) = step * q - offset, count a multiple of kLanes.
PINHOLE_INLINE void scale_bytes(const uint8_t* q, float step, float offset, int count, float* y) {
  Vec s = v_set(step), o = v_set(offset);
  for (int i = 0; i < count; i += kLanes)
    v_store(y + i, v_sub(v_mul(v_load_u8(q + i), s), o));
}
PINHOLE_INLINE void scale_bytes(const int8_t* q, float step, int count, float* y) {
  Vec s = v_set(step);
  for (int i = 0; i < count; i += kLanes)
    v_store(y + i, v_mul(v_load_i8(q + i), s));
}

template <> struct Decoder<FormatId::kF32> {
  static void run(const void* src, float* dst, int64_t n) {
    memcpy(dst, src, static_cast<size_t>(n) * 4);
  }
};

template <> struct Decoder<FormatId::kF16> {
  static void run(const void* src, float* dst, int64_t n) {
    const char* p = static_cast<const char*>(src);
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
      v_store(dst + i, v_load_f16(p + i * 2));
    if (i < n)
      v_store_n(dst + i, v_load_f16_n(p + i * 2, n - i), n - i);
  }
};

template <> struct Decoder<FormatId::kBF16> {
  static void run(const void* src, float* dst, int64_t n) {
    const char* p = static_cast<const char*>(src);
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
      v_store(dst + i, v_load_bf16(p + i * 2));
    if (i < n)
      v_store_n(dst + i, v_load_bf16_n(p + i * 2, n - i), n - i);
  }
};

template <> struct Decoder<FormatId::kQ8_0> {
  static void run(const void* src, float* dst, int64_t n) {
    const BlockQ8_0* blocks = static_cast<const BlockQ8_0*>(src);
    for (int64_t i = 0; i < n / 32; ++i, dst += 32) {
      scale_bytes(blocks[i].qs, f16_scalar(blocks[i].d), 32, dst);
    }
  }
};

template <> struct Decoder<FormatId::kQ4_0> {
  static void run(const void* src, float* dst, int64_t n) {
    const BlockQ4_0* blocks = static_cast<const BlockQ4_0*>(src);
    for (int64_t i = 0; i < n / 32; ++i, dst += 32) {
      int8_t q[32];
      for (int j = 0; j < 16; ++j) {
        q[j] = static_cast<int8_t>((blocks[i].qs[j] & 15) - 8);
        q[j + 16] = static_cast<int8_t>((blocks[i].qs[j] >> 4) - 8);
      }
      scale_bytes(q, f16_scalar(blocks[i].d), 32, dst);
    }
  }
};

// Groups g and g + 1 of 32 elements each; `high` holds the fifth bit of group g at bit g, or is
// null.
PINHOLE_INLINE void decode_k_pair(const uint8_t* scales, const uint8_t* qs, const uint8_t* high,
                                  int g, float d, float dmin, float* y) {
  uint8_t q[64];
  for (int j = 0; j < 32; ++j) {
    q[j] = qs[j] & 15;
    q[j + 32] = qs[j] >> 4;
  }
  if (high != nullptr) {
    for (int j = 0; j < 32; ++j) {
      q[j] = static_cast<uint8_t>(q[j] | (high[j] >> g & 1) << 4);
      q[j + 32] = static_cast<uint8_t>(q[j + 32] | (high[j] >> (g + 1) & 1) << 4);
    }
  }
  for (int e = 0; e < 2; ++e) {
    int scale, minimum;
    unpack_k_scale(scales, g + e, &scale, &minimum);
    scale_bytes(q + 32 * e, d * static_cast<float>(scale), dmin * static_cast<float>(minimum), 32,
                y + 32 * e);
  }
}

template <> struct Decoder<FormatId::kQ4_K> {
  static void run(const void* src, float* dst, int64_t n) {
    const BlockQ4K* blocks = static_cast<const BlockQ4K*>(src);
    for (int64_t i = 0; i < n / 256; ++i) {
      const BlockQ4K& b = blocks[i];
      float d = f16_scalar(b.d), dmin = f16_scalar(b.dmin);
      for (int g = 0; g < 8; g += 2, dst += 64) {
        decode_k_pair(b.scales, b.qs + g * 16, nullptr, g, d, dmin, dst);
      }
    }
  }
};

template <> struct Decoder<FormatId::kQ5_K> {
  static void run(const void* src, float* dst, int64_t n) {
    const BlockQ5K* blocks = static_cast<const BlockQ5K*>(src);
    for (int64_t i = 0; i < n / 256; ++i) {
      const BlockQ5K& b = blocks[i];
      float d = f16_scalar(b.d), dmin = f16_scalar(b.dmin);
      for (int g = 0; g < 8; g += 2, dst += 64) {
        decode_k_pair(b.scales, b.qs + g * 16, b.qh, g, d, dmin, dst);
      }
    }
  }
};

template <> struct Decoder<FormatId::kQ6_K> {
  static void run(const void* src, float* dst, int64_t n) {
    const BlockQ6K* blocks = static_cast<const BlockQ6K*>(src);
    for (int64_t i = 0; i < n / 256; ++i) {
      const BlockQ6K& b = blocks[i];
      float d = f16_scalar(b.d);
      for (int half = 0; half < 2; ++half, dst += 128) {
        const uint8_t* ql = b.ql + half * 64;
        const uint8_t* qh = b.qh + half * 32;
        int8_t q[128];
        for (int l = 0; l < 32; ++l) {
          q[l] = static_cast<int8_t>(((ql[l] & 15) | (qh[l] & 3) << 4) - 32);
          q[l + 32] = static_cast<int8_t>(((ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4) - 32);
          q[l + 64] = static_cast<int8_t>((ql[l] >> 4 | (qh[l] >> 4 & 3) << 4) - 32);
          q[l + 96] = static_cast<int8_t>((ql[l + 32] >> 4 | (qh[l] >> 6) << 4) - 32);
        }
        for (int g = 0; g < 8; ++g) {
          float step = d * static_cast<float>(b.scales[half * 8 + g]);
          scale_bytes(q + g * 16, step, 16, dst + g * 16);
        }
      }
    }
  }
};

#endif

void decode(FormatId format, const void* src, float* dst, int64_t n) {
  switch (format) {
#define PINHOLE_FORMAT(id, name, gguf_type, block_elements, block_bytes, header)                   \
  case FormatId::id:                                                                               \
    return Decoder<FormatId::id>::run(src, dst, n);
#include "quant/formats.def"
#undef PINHOLE_FORMAT
  }
}

} // namespace
} // namespace pinhole::kernels
