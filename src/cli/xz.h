// Unpacks .xz files of golden collections, bounded.
#pragma once

#include "base/result.h"

#include <cstdint>
#include <string>

namespace pinhole::cli {

// The unpacked content of an .xz file; more than `max_bytes` is an error.
Result<std::string> read_xz_file(const std::string& path, uint64_t max_bytes);

} // namespace pinhole::cli
