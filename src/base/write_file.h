// Files written so that a reader finds the old content or the new, never a part.
#pragma once

#include "base/result.h"

#include <string>
#include <string_view>

namespace pinhole {

// Writes beside `path`, syncs and renames; makes missing folders. After an error `path` is as
// before.
Status write_file(const std::string& path, std::string_view content);

} // namespace pinhole
