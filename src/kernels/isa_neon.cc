// arm64 with half precision and dot products (Armv8.2: Neoverse N1, Apple M1 and later).
// Compiled with the flags of its row in isa.def: includes nothing but intrinsics, block headers and
// the kernel bodies.
#define PINHOLE_KERNEL_NEON 1
#define PINHOLE_KERNEL_NAME "neon"

#include "kernels/simd_neon.h"

#include "kernels/bodies.inl"

namespace pinhole::kernels {

extern const Table neon_table;
const Table neon_table = kTable;

} // namespace pinhole::kernels
