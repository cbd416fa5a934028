#include "serve/process_memory.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace pinhole::serve {

int64_t anonymous_bytes_now() {
  std::ifstream lines("/proc/self/status");
  constexpr std::string_view kKey = "RssAnon:";
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(kKey))
      return std::strtoll(line.c_str() + kKey.size(), nullptr, 10) * 1024;
  }
  return 0;
}

bool is_mapped_now(const std::string& path) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path, error);
  const std::string wanted = error ? path : real.string();
  std::ifstream lines("/proc/self/maps");
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with(wanted) && line.size() > wanted.size() &&
        line[line.size() - wanted.size() - 1] == ' ')
      return true;
  }
  return false;
}

} // namespace pinhole::serve
