// AVX-512 with AMX tiles (Sapphire Rapids and later); what has no tile form is the AVX-512 body.
// Compiled with the flags of its row in isa.def: includes nothing but intrinsics, block headers and
// the kernel bodies.
#define PINHOLE_KERNEL_AMX 1
#define PINHOLE_KERNEL_NAME "amx"

#include "kernels/simd_avx512.h"

#include "kernels/bodies.inl"

namespace pinhole::kernels {

extern const Table amx_table;
const Table amx_table = kTable;

} // namespace pinhole::kernels
