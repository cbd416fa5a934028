// Machines to plan for that are not this one (machines.def), and GPUs with their limits.
//
// Their rates are published peaks times the shares of them that runs usually reach: estimates,
// where this machine's own are measured (plan/rates.h).
#pragma once

#include "base/result.h"
#include "plan/rates.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace pinhole {

struct KnownMachine {
  std::string_view name, description;
  int64_t ram_bytes = 0;
  double memory_gb_per_s = 0, cpu_gflop_per_s = 0;
  int64_t vram_bytes = 0; // 0: no GPU, or one that shares the RAM
  double gpu_gb_per_s = 0, gpu_gflop_per_s = 0;
  double link_gb_per_s = 0; // from RAM to VRAM
  double disk_gb_per_s = 0;

  bool has_gpu() const { return gpu_gflop_per_s > 0; }
  bool unified() const { return has_gpu() && vram_bytes == 0; }
};

std::vector<KnownMachine> known_machines();
// An error lists the names.
Result<KnownMachine> find_machine(std::string_view name);

// Of a GPU's own memory what a program may count on: the rest is the driver's and the display's.
inline constexpr double kVramShare = 0.9;
// Of unified memory what macOS lets the GPU have, unless the user raises it
// (sysctl iogpu.wired_limit_mb; up to 0.85 to 0.9 leaves the system enough).
inline constexpr double kUnifiedShare = 0.7;

// What the planner expects of its CPU, and of its GPU.
KernelRates cpu_rates(const KnownMachine& machine);
KernelRates gpu_rates(const KnownMachine& machine);

} // namespace pinhole
