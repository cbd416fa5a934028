// Names from files, made safe for messages: control and non-ASCII bytes as \xNN, cut to a length.
#pragma once

#include <string>
#include <string_view>

namespace pinhole {

// 'text' in quotes, at most `max_bytes` of it followed by "...".
std::string printable(std::string_view text, size_t max_bytes = 80);

} // namespace pinhole
