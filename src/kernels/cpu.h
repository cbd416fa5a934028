// What this CPU, the operating system and the hypervisor let a program use. A feature counts only
// when the CPU has the instructions and the system saves their registers (XGETBV; for AMX also
// arch_prctl's permission, which is asked for here).
#pragma once

#include <cstdint>
#include <string>

namespace pinhole::kernels {

// Groups of features, as the compiler flags in isa.def take them.
inline constexpr uint32_t kCpuHaswell = 1u << 0;    // AVX2, FMA, F16C, BMI1/2, LZCNT, MOVBE, POPCNT
inline constexpr uint32_t kCpuIceLake = 1u << 1;    // AVX-512 of Ice Lake servers
inline constexpr uint32_t kCpuAvx512Bf16 = 1u << 2; // AVX512_BF16
inline constexpr uint32_t kCpuAmx = 1u << 3;        // AMX tiles, int8, bf16
inline constexpr uint32_t kCpuDotProd = 1u << 4;    // arm64 SDOT/UDOT
inline constexpr uint32_t kCpuFp16 = 1u << 5;       // arm64 half-precision arithmetic

// Asked once, then remembered; thread-safe.
uint32_t cpu_features();

// "AVX2+FMA+F16C, AVX-512 (Ice Lake)": for messages.
std::string cpu_feature_names(uint32_t features);

} // namespace pinhole::kernels
