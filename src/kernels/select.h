// Which kernel table runs here: CPUID, XGETBV (does the OS save the registers) and, for AMX, the
// kernel's permission (arch_prctl); PINHOLE_ISA=scalar|avx2|avx512|amx|neon forces one.
#pragma once

#include "base/result.h"
#include "kernels/table.h"

#include <string_view>
#include <vector>

namespace pinhole::kernels {

// The names of the tables that this CPU can run, slowest first ("scalar" is always there).
std::vector<std::string_view> available();

// The table called `name`; an error when it was not compiled in or this CPU cannot run it.
Result<const Table*> find(std::string_view name);

// PINHOLE_ISA when it is set (an error when that cannot run), else the best one.
Result<const Table*> select();

} // namespace pinhole::kernels
