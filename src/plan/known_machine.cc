#include "plan/known_machine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace pinhole {

namespace {

// Shares of published peaks. Memory: 0.8 of the data sheet is what reading streams reach on DDR,
// and decoding on GPUs. Arithmetic: matmuls of quantised weights on CPUs reached 0.4 to 0.6 of the
// peak of their instruction set (docs/performance.md), on GPUs about 0.4 with prompts of some
// hundred tokens.
constexpr double kMemoryShare = 0.8;
constexpr double kArithmeticShare = 0.4;
constexpr double kLinkShare = 0.8;
constexpr double kOpSeconds = 5e-6; // a barrier of many cores, or a kernel launch
constexpr double kNoLimit = 1e6;    // GB/s

constexpr int64_t gib(int64_t count) { return count << 30; }

KernelRates rates_from(std::string_view isa, double gb_per_s, double gflop_per_s) {
  KernelRates rates;
  rates.isa = isa;
  rates.read_gb_per_s = gb_per_s * kMemoryShare;
  rates.attention_gflop_per_s = gflop_per_s * kArithmeticShare;
  rates.cache_gb_per_s = rates.read_gb_per_s;
  rates.elementwise_gb_per_s = rates.read_gb_per_s;
  rates.activation_gb_per_s = rates.read_gb_per_s;
  rates.op_seconds = kOpSeconds;
  rates.map_gb_per_s = kNoLimit; // a page table entry is small beside the rest
  for (FormatRate& rate : rates.formats)
    rate = {gflop_per_s * kArithmeticShare, kNoLimit, kNoLimit, kNoLimit, kNoLimit};
  return rates;
}

} // namespace

std::vector<KnownMachine> known_machines() {
  return {
#define PINHOLE_MACHINE(name, description, ram, memory, cpu, vram, gpu_memory, gpu, link, disk)    \
  KnownMachine{name,      description, gib(ram),    memory, cpu,                                   \
               gib(vram), gpu_memory,  double(gpu), link,   disk},
#include "plan/machines.def"
#undef PINHOLE_MACHINE
  };
}

Result<KnownMachine> find_machine(std::string_view name) {
  std::vector<std::string_view> names;
  for (const KnownMachine& machine : known_machines()) {
    if (machine.name == name)
      return machine;
    names.push_back(machine.name);
  }
  return fail(ErrorCode::kInvalidInput,
              fmt::format("'{}' is not one of {}", name, fmt::join(names, ", ")), "--machine",
              "describe it with --ram and --vram");
}

KernelRates cpu_rates(const KnownMachine& machine) {
  KernelRates rates = rates_from("CPU", machine.memory_gb_per_s, machine.cpu_gflop_per_s);
  rates.cpu = machine.description;
  rates.disk_gb_per_s = machine.disk_gb_per_s;
  return rates;
}

KernelRates gpu_rates(const KnownMachine& machine) {
  KernelRates rates = rates_from("GPU", machine.gpu_gb_per_s, machine.gpu_gflop_per_s);
  rates.cpu = machine.description;
  rates.map_gb_per_s = machine.unified() ? kNoLimit : machine.link_gb_per_s * kLinkShare;
  rates.disk_gb_per_s = machine.disk_gb_per_s;
  return rates;
}

} // namespace pinhole
