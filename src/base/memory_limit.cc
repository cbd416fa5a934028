#include "base/memory_limit.h"

#include "base/mapped_file.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>

namespace pinhole {

namespace {

// cgroup v1 writes "no limit" as a number near 2^63; nothing real is above this.
constexpr int64_t kNoLimit = int64_t{1} << 60;

std::optional<int64_t> number_in(const std::string& path) {
  return leading_number(read_kernel_file(path));
}

// Calls fn(line) for each line.
template <class Fn> void for_each_line(std::string_view text, Fn fn) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    fn(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
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

std::string read_kernel_file(const std::string& path) {
  return read_text_file(path, 1 << 20).value_or(std::string());
}

std::optional<int64_t> leading_number(std::string_view text) {
  int64_t value = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || value < 0)
    return std::nullopt;
  return value;
}

std::optional<int64_t> meminfo_bytes(std::string_view meminfo, std::string_view key) {
  std::optional<int64_t> bytes;
  for_each_line(meminfo, [&](std::string_view line) {
    if (bytes || !line.starts_with(key) || !line.substr(key.size()).starts_with(":"))
      return;
    line.remove_prefix(key.size() + 1);
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    const auto kib = leading_number(line);
    if (kib && *kib < kNoLimit / 1024)
      bytes = *kib * 1024;
  });
  return bytes;
}

int64_t page_cache_bytes(std::string_view memory_stat) {
  int64_t bytes = 0, with_children = 0;
  for_each_line(memory_stat, [&](std::string_view line) {
    const size_t space = std::min(line.find(' '), line.size());
    const std::string_view name = line.substr(0, space);
    const auto value = leading_number(line.substr(std::min(space + 1, line.size())));
    if (!value || *value >= kNoLimit)
      return;
    if (name == "inactive_file" || name == "active_file")
      bytes += *value;
    if (name == "total_inactive_file" || name == "total_active_file")
      with_children += *value;
  });
  return std::max(bytes, with_children);
}

int64_t MemoryLimit::usable_bytes() const {
  if (!cgroup_bytes)
    return available_bytes;
  return std::min(available_bytes, std::max<int64_t>(*cgroup_bytes - cgroup_in_use.value_or(0), 0));
}

MemoryLimit memory_limit_at(const std::string& root) {
  MemoryLimit out;
  const std::string meminfo = read_kernel_file(root + "/proc/meminfo");
  out.total_bytes = meminfo_bytes(meminfo, "MemTotal").value_or(0);
  out.available_bytes = meminfo_bytes(meminfo, "MemAvailable").value_or(0);
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
      out.limit_file = folder + group->limit_file;
      out.usage_file = folder + group->usage_file;
      out.stat_file = folder + "memory.stat";
      out.cgroup_in_use = number_in(out.usage_file);
      if (out.cgroup_in_use)
        *out.cgroup_in_use = std::max<int64_t>(
            *out.cgroup_in_use - page_cache_bytes(read_kernel_file(out.stat_file)), 0);
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
