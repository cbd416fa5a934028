// AVX-512 with VNNI (Ice Lake, Zen 4 and later). bf16 dot products are not used: vdpbf16ps has half
// the rate of f32 FMAs where it was measured (Xeon with AMX). Compiled with the flags of its row in
// isa.def: includes nothing but intrinsics, block headers and the kernel bodies.
#define PINHOLE_KERNEL_AVX512 1
#define PINHOLE_KERNEL_NAME "avx512"

#include "kernels/simd_avx512.h"

#include "kernels/bodies.inl"

namespace pinhole::kernels {

extern const Table avx512_table;
const Table avx512_table = kTable;

} // namespace pinhole::kernels
