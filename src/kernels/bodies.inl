// Every kernel body, each after what it uses; an isa_*.cc includes its SIMD shim and then this.
// clang-format off
#include "kernels/simd_math.inl"
#include "kernels/rows.inl"
#include "kernels/decode.inl"
#include "kernels/attention.inl"
#include "kernels/matmul.inl"
#include "kernels/ceilings.inl"
#include "kernels/table.inl"
