#include "base/memory_limit.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <sstream>

namespace pinhole {

namespace {

// cgroup v1 writes "no limit" as a number near 2^63; nothing real is above this.
constexpr int64_t kNoLimit = int64_t{1} << 60;

std::optional<int64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (!(file >> value) || value < 0) // "max" is no number
    return std::nullopt;
  return value;
}

int64_t meminfo_bytes(const std::string& root, const std::string& key) {
  std::ifstream file(root + "/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string name;
    int64_t kib = 0;
    if (fields >> name >> kib && name == key + ":")
      return kib * 1024;
  }
  return 0;
}

// What the kernel takes back from a group before it runs out: its page cache, as memory.stat has it
// (v1 adds up groups below under names that begin with "total_").
int64_t page_cache_bytes(const std::string& path) {
  std::ifstream file(path);
  int64_t bytes = 0, with_children = 0;
  std::string name;
  for (int64_t value = 0; file >> name >> value;) {
    if (name == "inactive_file" || name == "active_file")
      bytes += value;
    if (name == "total_inactive_file" || name == "total_active_file")
      with_children += value;
  }
  return std::max(bytes, with_children);
}

struct Group {
  std::string mount, path, limit_file, usage_file;
};

// The memory controller's group: "0::/path" (v2), or "7:memory:/path" (v1), which wins where both
// are mounted.
std::optional<Group> group_of(const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  std::optional<Group> out;
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos)
      continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (controllers == ",," && !out)
      out = Group{root + "/sys/fs/cgroup", path, "memory.max", "memory.current"};
    if (controllers.find(",memory,") != std::string::npos)
      return Group{root + "/sys/fs/cgroup/memory", path, "memory.limit_in_bytes",
                   "memory.usage_in_bytes"};
  }
  return out;
}

} // namespace

int64_t MemoryLimit::usable_bytes() const {
  if (!cgroup_bytes)
    return available_bytes;
  return std::min(available_bytes, std::max<int64_t>(*cgroup_bytes - cgroup_in_use.value_or(0), 0));
}

MemoryLimit memory_limit_at(const std::string& root) {
  MemoryLimit out;
  out.total_bytes = meminfo_bytes(root, "MemTotal");
  out.available_bytes = meminfo_bytes(root, "MemAvailable");
  const std::optional<Group> group = group_of(root);
  if (!group)
    return out;
  // Limits of all groups up to the mount hold. Inside a container the path may not exist: its own
  // group is mounted as the root.
  std::string path = group->path;
  while (true) {
    const std::string folder = group->mount + (path == "/" ? "" : path) + "/";
    const auto limit = number_in(folder + group->limit_file);
    if (limit && *limit < kNoLimit && *limit < out.cgroup_bytes.value_or(kNoLimit)) {
      out.cgroup_bytes = limit;
      out.cgroup_in_use = number_in(folder + group->usage_file);
      if (out.cgroup_in_use)
        *out.cgroup_in_use =
            std::max<int64_t>(*out.cgroup_in_use - page_cache_bytes(folder + "memory.stat"), 0);
    }
    if (path.empty() || path == "/")
      return out;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

MemoryLimit memory_limit() { return memory_limit_at(""); }

std::optional<int64_t> parse_bytes(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || !std::isfinite(value) || value <= 0)
    return std::nullopt;
  std::string unit(rest, end);
  if (unit.ends_with("iB"))
    unit.resize(unit.size() - 2);
  else if (unit.size() > 1 && unit.ends_with("B"))
    unit.resize(unit.size() - 1);
  static constexpr std::string_view kUnits = "KMGT";
  double factor = 1;
  if (unit.size() == 1 && kUnits.find(unit[0]) != std::string_view::npos)
    factor = std::exp2(10.0 * static_cast<double>(kUnits.find(unit[0]) + 1));
  else if (!unit.empty() && unit != "B")
    return std::nullopt;
  const double bytes = value * factor;
  if (bytes < 1 || bytes >= static_cast<double>(kNoLimit))
    return std::nullopt;
  return static_cast<int64_t>(bytes);
}

} // namespace pinhole
