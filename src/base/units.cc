#include "base/units.h"

#include <fmt/format.h>

namespace pinhole {

std::string format_bytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", value, kUnits[unit]);
}

std::string format_count(uint64_t count) {
  std::string out = std::to_string(count);
  for (int64_t i = static_cast<int64_t>(out.size()) - 3; i > 0; i -= 3) {
    out.insert(static_cast<size_t>(i), 1, ',');
  }
  return out;
}

std::string format_millis(double millis) {
  if (millis < 1000)
    return fmt::format("{:.0f} ms", millis);
  if (millis < 60000)
    return fmt::format("{:.1f} s", millis / 1000);
  const auto seconds = static_cast<int64_t>(millis / 1000);
  return fmt::format("{} min {:02} s", seconds / 60, seconds % 60);
}

} // namespace pinhole
