// Which matmul kernel multiplies a weight format, given the rows of x and the arithmetic allowed.
#include "kernels/table.h"
#include "quant/blocks.h"

// clang-format off
#include "kernels/matmul_common.inl"
#include "kernels/matmul_unpack.inl"
#include "kernels/matmul_f32.inl"
#if defined(PINHOLE_KERNEL_AVX512) || defined(PINHOLE_KERNEL_AMX)
#include "kernels/matmul_vnni.inl"
#endif
#include "kernels/matmul_int8.inl"
#if defined(PINHOLE_KERNEL_AVX2) || defined(PINHOLE_KERNEL_AVX512) || defined(PINHOLE_KERNEL_AMX)
#define PINHOLE_DECODE 1
#include "kernels/matmul_decode.inl"
#include "kernels/matmul_decode_32.inl"
#include "kernels/matmul_decode_k4.inl"
#endif
#if defined(PINHOLE_KERNEL_AVX2)
#include "kernels/matmul_few_unpack.inl"
#endif
#include "kernels/matmul_few.inl"
#if defined(PINHOLE_KERNEL_AVX2) || defined(PINHOLE_KERNEL_AVX512)
#define PINHOLE_PANELS 1
#include "kernels/matmul_panel.inl"
#endif
#if defined(PINHOLE_KERNEL_AMX)
#include "kernels/matmul_amx.inl"
#endif
// clang-format on

namespace pinhole::kernels {
namespace {

// The table of a format, where it has such a kernel: none for the other formats.
template <FormatId f> constexpr MatmulKernel float_kernel(const char* name) {
  if constexpr (is_float_format(f))
    return {name, 4, f32_x_bytes, 1, f32_pack_x, no_scratch_bytes, float_run<f>};
  else
    return {};
}
template <FormatId f> constexpr MatmulKernel int_kernel(const char* name) {
  if constexpr (is_int_format(f))
    return {name, 4, int_x_bytes, 1, int_pack_x<vnni_order<f>()>, no_scratch_bytes, few_run<f>};
  else
    return {};
}
template <FormatId f> constexpr MatmulKernel one_row_kernel(const char* name) {
#if defined(PINHOLE_DECODE)
  if constexpr (f == FormatId::kQ4_K || f == FormatId::kQ5_K)
    return {name, 4, k_x_bytes, 1, k_pack_x<vnni_order<f>()>, no_scratch_bytes, k4_run_1<f>};
  else if constexpr (is_k_format(f))
    return {name, 4, k_x_bytes, 1, k_pack_x<vnni_order<f>()>, no_scratch_bytes, k_run_1<f>};
  else if constexpr (is_format_of_32(f))
    return {name,          4, eight_x_bytes, 1, eight_pack_x<vnni_order<f>()>, no_scratch_bytes,
            run_1_of_32<f>};
#endif
  return int_kernel<f>(name);
}

#if defined(PINHOLE_PANELS)
template <FormatId f> constexpr MatmulKernel panel_kernel(const char* bytes, const char* words) {
  if constexpr (is_int_format(f)) {
    using X = typename PanelTraits<f>::X;
    return {PanelTraits<f>::kWords ? words : bytes,
            kPanelRows,
            panel_x_bytes<X>,
            kPanelTile,
            panel_pack_x<X>,
            panel_scratch_bytes<f>,
            panel_run<f>};
  } else {
    return {};
  }
}
#endif

struct FormatKernels {
  MatmulKernel exact;    // f32 on decoded weights
  MatmulKernel in_place; // F32, F16 and BF16: few rows, f32
  MatmulKernel int_1;    // one row of x as int8
  MatmulKernel int_any;
#if defined(PINHOLE_KERNEL_AMX)
  MatmulKernel tiles; // bf16
#elif defined(PINHOLE_PANELS)
  MatmulKernel panel; // many rows of x as int8, or int16
#endif
};

constexpr FormatKernels kMatmul[] = {
#if defined(PINHOLE_KERNEL_AMX)
#define PINHOLE_TILES(id, name)                                                                    \
  , {                                                                                              \
    name ".bf16.amx", kAmxBlock, amx_x_bytes, kAmxBlock, amx_pack_x, amx_scratch_bytes,            \
        amx_run<FormatId::id>                                                                      \
  }
#elif defined(PINHOLE_PANELS)
#define PINHOLE_TILES(id, name)                                                                    \
  , panel_kernel<FormatId::id>(name ".int8xN." PINHOLE_KERNEL_NAME,                                \
                               name ".int16xN." PINHOLE_KERNEL_NAME)
#else
#define PINHOLE_TILES(id, name)
#endif
#define PINHOLE_FORMAT(id, name, gguf_type, block_elements, block_bytes, header)                   \
  {{name ".f32." PINHOLE_KERNEL_NAME, 4, f32_x_bytes, 1, f32_pack_x, f32_scratch_bytes,            \
    f32_run<FormatId::id>},                                                                        \
   float_kernel<FormatId::id>(name ".in_place." PINHOLE_KERNEL_NAME),                              \
   one_row_kernel<FormatId::id>(name ".int8x1." PINHOLE_KERNEL_NAME),                              \
   int_kernel<FormatId::id>(name ".int8." PINHOLE_KERNEL_NAME) PINHOLE_TILES(id, name)},
#include "quant/formats.def"
#undef PINHOLE_FORMAT
#undef PINHOLE_TILES
};

// Rows of x from which tiles (or f32 tiles) beat the kernels for few rows.
constexpr int64_t kFewRows = 8;

const MatmulKernel* pick_matmul(FormatId format, int64_t m, bool exact) {
  const FormatKernels& kernels = kMatmul[static_cast<int>(format)];
  if (kernels.in_place.run != nullptr && m <= kFewRows)
    return &kernels.in_place;
  if (exact || format == FormatId::kF32)
    return &kernels.exact;
#if defined(PINHOLE_KERNEL_AMX)
  if (m > kFewRows)
    return &kernels.tiles;
#endif
  if (kernels.int_1.run == nullptr)
    return &kernels.exact;
  if (m == 1)
    return &kernels.int_1;
#if defined(PINHOLE_PANELS)
  return m <= kFewRows ? &kernels.int_any : &kernels.panel;
#else
  // Without VNNI a byte product costs as many instructions as an f32 one.
  return m <= kFewRows ? &kernels.int_any : &kernels.exact;
#endif
}

} // namespace
} // namespace pinhole::kernels
