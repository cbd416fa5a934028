// Plain C++: runs everywhere, and is what the other instruction sets are tested against.
// Compiled with the flags of its row in isa.def: includes nothing but intrinsics, block headers and
// the kernel bodies.
#define PINHOLE_KERNEL_SCALAR 1
#define PINHOLE_KERNEL_NAME "scalar"

#include "kernels/simd_scalar.h"

#include "kernels/bodies.inl"

namespace pinhole::kernels {

extern const Table scalar_table;
const Table scalar_table = kTable;

} // namespace pinhole::kernels
