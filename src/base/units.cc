#include "base/units.h"

#include <cmath>
#include <fmt/format.h>

namespace pinhole {

std::string format_bytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  // 1023.995 would be shown as 1024.00: the next unit's 1.00.
  while (value >= (unit == 0 ? 1024 : 1023.995) && unit + 1 < std::size(kUnits)) {
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
  // Each unit ends where its own rounding would reach the next one.
  if (millis < 999.5)
    return fmt::format("{:.0f} ms", millis);
  if (millis < 59950)
    return fmt::format("{:.1f} s", millis / 1000);
  const int64_t seconds = std::llround(millis / 1000);
  return fmt::format("{} min {:02} s", seconds / 60, seconds % 60);
}

} // namespace pinhole
