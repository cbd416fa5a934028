// AVX2 + FMA + F16C (Haswell, Zen and later).
// Compiled with the flags of its row in isa.def: includes nothing but intrinsics, block headers and
// the kernel bodies.
#define PINHOLE_KERNEL_AVX2 1
#define PINHOLE_KERNEL_NAME "avx2"

#include "kernels/simd_avx2.h"

#include "kernels/bodies.inl"

namespace pinhole::kernels {

extern const Table avx2_table;
const Table avx2_table = kTable;

} // namespace pinhole::kernels
