// What the system says that this process has in memory now.
#pragma once

#include <cstdint>
#include <string>

namespace pinhole::serve {

// RssAnon of /proc/self/status; 0 where that cannot be read.
int64_t anonymous_bytes_now();
// Whether /proc/self/maps has a mapping of this file.
bool is_mapped_now(const std::string& path);

} // namespace pinhole::serve
