// A root folder with the files that memory is watched through.
#pragma once

#include "base/memory_pressure.h"
#include "support/temp_dir.h"

#include <filesystem>
#include <string>

namespace pinhole::testing {

class MemoryRoot {
 public:
  MemoryRoot() { set_available_mib(8192); }

  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(folder_.file(name)).parent_path());
    folder_.write(name, text);
  }
  // Of a machine with 16 GiB.
  void set_available_mib(int64_t mib) const { set_kib(mib * 1024, 16 << 20); }
  void set_kib(int64_t available, int64_t total) const {
    write("proc/meminfo", "MemTotal:       " + std::to_string(total) +
                              " kB\nMemFree: 1 kB\nMemAvailable:    " + std::to_string(available) +
                              " kB\nBuffers: 1 kB\n");
  }
  void set_stall(const std::string& some, const std::string& full) const {
    write("proc/pressure/memory", "some avg10=" + some + " avg60=0.00 avg300=0.00 total=9\n" +
                                      "full avg10=" + full + " avg60=0.00 avg300=0.00 total=9\n");
  }
  const std::string& path() const { return folder_.path(); }
  // Every question about it is a reading.
  MemoryWatchOptions options() const { return {path(), std::chrono::milliseconds(0)}; }

 private:
  TempDir folder_;
};

} // namespace pinhole::testing
