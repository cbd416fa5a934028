// Bytes and times for people.
#pragma once

#include <cstdint>
#include <string>

namespace pinhole {

std::string format_bytes(uint64_t bytes); // "1.43 GiB", "512 B"
std::string format_count(uint64_t count); // "1,234,567"
std::string format_millis(double millis); // "850 ms", "12.3 s", "4 min 05 s"

} // namespace pinhole
