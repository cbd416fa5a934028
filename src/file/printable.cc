#include "file/printable.h"

#include <fmt/format.h>

namespace pinhole {

std::string printable(std::string_view text, size_t max_bytes) {
  std::string out = "'";
  for (const char c : text.substr(0, max_bytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  if (text.size() > max_bytes)
    out += "...";
  return out + "'";
}

} // namespace pinhole
