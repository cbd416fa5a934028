// CPU features by CPUID, XGETBV and arch_prctl on x86-64 (Intel SDM vol. 1 section 13.3 and vol. 2
// CPUID; Linux Documentation/arch/x86/xstate.rst) and by the auxiliary vector on arm64.
#include "kernels/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace pinhole::kernels {
namespace {

#if defined(__x86_64__)

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0)
    return {};
  return r;
}

uint64_t xgetbv() { // needs OSXSAVE
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

constexpr bool all(uint64_t value, uint64_t bits) { return (value & bits) == bits; }

// Linux gives the 8 KiB tile state to those who ask; the permission is for the whole process.
bool request_amx() {
#if defined(__linux__)
  constexpr long kRequestXcompPerm = 0x1023; // ARCH_REQ_XCOMP_PERM
  constexpr long kXfeatureXtiledata = 18;
  return syscall(SYS_arch_prctl, kRequestXcompPerm, kXfeatureXtiledata) == 0;
#else
  return false;
#endif
}

uint32_t detect() {
  Registers basic = cpuid(1, 0), extended = cpuid(7, 0), more = cpuid(7, 1);
  Registers amd = cpuid(0x80000001u, 0);
  constexpr uint32_t kOsxsave = 1u << 27;
  if (!all(basic.ecx, kOsxsave))
    return 0;
  uint64_t saved = xgetbv();
  uint32_t features = 0;

  // SSE3, SSSE3, FMA, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT, AVX, F16C. Not RDRND, and below
  // not RDSEED: no compiler emits them unasked, and hypervisors hide RDSEED on Zen 5 (AMD-SB-7055).
  constexpr uint32_t kHaswellBasic = 1u << 0 | 1u << 9 | 1u << 12 | 1u << 13 | 1u << 19 | 1u << 20 |
                                     1u << 22 | 1u << 23 | 1u << 28 | 1u << 29;
  constexpr uint32_t kHaswellExtended = 1u << 3 | 1u << 5 | 1u << 8; // BMI1, AVX2, BMI2
  constexpr uint32_t kLzcnt = 1u << 5;
  constexpr uint64_t kSavedAvx = 0x6;        // XMM, YMM
  constexpr uint64_t kSavedAvx512 = 0xe6;    // and opmask, ZMM
  constexpr uint64_t kSavedAmx = 0x3u << 17; // tile configuration, tiles
  if (all(saved, kSavedAvx) && all(basic.ecx, kHaswellBasic) &&
      all(extended.ebx, kHaswellExtended) && all(amd.ecx, kLzcnt)) {
    features |= kCpuHaswell;
  }
  // AVX512 F, DQ, IFMA, CD, BW, VL; then VBMI, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG,
  // VPOPCNTDQ. AES, PCLMULQDQ, ADX and SHA come with these flags as well.
  constexpr uint32_t kIceLakeBasic = 1u << 1 | 1u << 25;
  constexpr uint32_t kIceLakeEbx =
      1u << 16 | 1u << 17 | 1u << 19 | 1u << 21 | 1u << 28 | 1u << 29 | 1u << 30 | 1u << 31;
  constexpr uint32_t kIceLakeEcx =
      1u << 1 | 1u << 6 | 1u << 8 | 1u << 9 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 14;
  if (all(saved, kSavedAvx512) && all(basic.ecx, kIceLakeBasic) && all(extended.ebx, kIceLakeEbx) &&
      all(extended.ecx, kIceLakeEcx)) {
    features |= kCpuIceLake;
    if (all(more.eax, 1u << 5))
      features |= kCpuAvx512Bf16;
  }
  constexpr uint32_t kAmxBf16TileInt8 = 1u << 22 | 1u << 24 | 1u << 25;
  if (all(saved, kSavedAvx512 | kSavedAmx) && all(extended.edx, kAmxBf16TileInt8) &&
      request_amx()) {
    features |= kCpuAmx;
  }
  return features;
}

#elif defined(__aarch64__) && defined(__linux__)

uint32_t detect() {
  unsigned long capabilities = getauxval(AT_HWCAP);
  uint32_t features = 0;
  if (capabilities & HWCAP_ASIMDDP)
    features |= kCpuDotProd;
  if ((capabilities & HWCAP_ASIMDHP) && (capabilities & HWCAP_FPHP))
    features |= kCpuFp16;
  return features;
}

#elif defined(__aarch64__) && defined(__APPLE__)

uint32_t detect() { return kCpuDotProd | kCpuFp16; } // every Apple arm64 CPU from the M1 on

#else

uint32_t detect() { return 0; }

#endif

} // namespace

uint32_t cpu_features() {
  static const uint32_t features = detect();
  return features;
}

std::string cpu_feature_names(uint32_t features) {
  constexpr struct {
    uint32_t feature;
    const char* name;
  } kNames[] = {
      {kCpuHaswell, "AVX2+FMA+F16C"},  {kCpuIceLake, "AVX-512 (Ice Lake)"},
      {kCpuAvx512Bf16, "AVX512-BF16"}, {kCpuAmx, "AMX"},
      {kCpuDotProd, "dot product"},    {kCpuFp16, "FP16"},
  };
  std::string out;
  for (const auto& row : kNames) {
    if ((features & row.feature) == 0)
      continue;
    if (!out.empty())
      out += ", ";
    out += row.name;
  }
  return out;
}

} // namespace pinhole::kernels
