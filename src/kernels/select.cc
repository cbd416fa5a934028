// The tables of isa.def's rows, and which of them this CPU runs. PINHOLE_HAVE_ISA_<name> (0 or 1)
// comes from cmake/kernels.cmake: was that row compiled for this architecture?
#include "kernels/select.h"

#include "kernels/cpu.h"

#include <cstdlib>
#include <fmt/format.h>
#include <string>

namespace pinhole::kernels {

#define PINHOLE_DECLARE_0(name)
#define PINHOLE_DECLARE_1(name) extern const Table name##_table;
#define PINHOLE_ISA(name, arch, needs, flags)                                                      \
  PINHOLE_CONCAT(PINHOLE_DECLARE_, PINHOLE_HAVE_ISA_##name)(name)
#include "kernels/isa.def"
#undef PINHOLE_ISA

namespace {

struct Row {
  std::string_view name;
  uint32_t needs;
  const Table* table; // null: not compiled in
};

#define PINHOLE_TABLE_0(name) nullptr
#define PINHOLE_TABLE_1(name) &name##_table
constexpr Row kRows[] = {
#define PINHOLE_ISA(name, arch, needs, flags)                                                      \
  {#name, needs, PINHOLE_CONCAT(PINHOLE_TABLE_, PINHOLE_HAVE_ISA_##name)(name)},
#include "kernels/isa.def"
#undef PINHOLE_ISA
};

bool runs(const Row& row) {
  return row.table != nullptr && (cpu_features() & row.needs) == row.needs;
}

std::string available_names() {
  std::string out;
  for (std::string_view name : available())
    out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

} // namespace

std::vector<std::string_view> available() {
  std::vector<std::string_view> names;
  for (const Row& row : kRows) {
    if (runs(row))
      names.push_back(row.name);
  }
  return names;
}

Result<const Table*> find(std::string_view name) {
  for (const Row& row : kRows) {
    if (row.name != name)
      continue;
    if (runs(row))
      return row.table;
    std::string why = row.table == nullptr
                          ? std::string("this build does not contain it")
                          : fmt::format("it needs {}, of which this machine lacks {}",
                                        cpu_feature_names(row.needs),
                                        cpu_feature_names(row.needs & ~cpu_features()));
    return fail(ErrorCode::kUnsupported,
                fmt::format("kernels '{}' cannot run here: {}", row.name, why), {},
                "available: " + available_names());
  }
  return fail(ErrorCode::kInvalidInput,
              fmt::format("no kernels are called '{}'", name.substr(0, 64)), {},
              "available: " + available_names());
}

Result<const Table*> select() {
  if (const char* forced = std::getenv("PINHOLE_ISA"); forced != nullptr && *forced != '\0') {
    Result<const Table*> table = find(forced);
    if (!table)
      return fail_in("environment variable PINHOLE_ISA", std::move(table.error()));
    return table;
  }
  return find(available().back());
}

} // namespace pinhole::kernels
