// What this process may use of the machine's memory, now.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pinhole {

struct MemoryLimit {
  int64_t total_bytes = 0;              // MemTotal
  int64_t available_bytes = 0;          // MemAvailable
  std::optional<int64_t> cgroup_bytes;  // the least limit of this process' cgroups, v1 or v2
  std::optional<int64_t> cgroup_in_use; // of the group that has it, without its page cache
  std::string limit_file, usage_file, stat_file; // of that group; empty without one
  // The least of MemAvailable and what is left under the cgroup's limit.
  int64_t usable_bytes() const;
};

MemoryLimit memory_limit();

// The same from another root ("" is the real one): root/proc/meminfo, root/proc/self/cgroup,
// root/sys/fs/cgroup/...
MemoryLimit memory_limit_at(const std::string& root);

// A file of /proc or of cgroups, a few KiB long; nothing where it cannot be read, which is at any
// moment while its process ends.
std::string read_kernel_file(const std::string& path);
// Bytes of an entry of the text of /proc/meminfo, such as "MemAvailable".
std::optional<int64_t> meminfo_bytes(std::string_view meminfo, std::string_view key);
// What the kernel takes back from a group before it runs out: the page cache in the text of its
// memory.stat. v1 adds up groups below under names that begin with "total_".
int64_t page_cache_bytes(std::string_view memory_stat);
// The number that a text begins with; nothing for other text ("max"), or below 0.
std::optional<int64_t> leading_number(std::string_view text);

// "16G", "512M", "1.5GiB", "800000000": binary units. Nothing for anything else, or zero.
std::optional<int64_t> parse_bytes(const std::string& text);

} // namespace pinhole
