// What the manager does with a model: the interface behind which a model in this process, a server
// in a process of its own, or a test's stand-in is loaded and unloaded.
//
// Invariant: all calls but interrupt() and those marked so come from one thread, one at a time. A
// load that has failed is followed by unload() too; unload() of what is not there does nothing.
#pragma once

#include "base/result.h"
#include "swap/policy.h"

#include <cstdint>
#include <optional>
#include <string>

namespace pinhole {

class ModelHost {
 public:
  virtual ~ModelHost() = default;

  // Returns what it takes when it is ready, at most `reserved`. Errors of kind kInvalidInput,
  // kNotFound, kUnsupported and kTooLarge are not tried again.
  virtual Result<MemoryBytes> load(uint64_t generation, const MemoryBytes& reserved) = 0;
  virtual Status unload(uint64_t generation) = 0;
  // After unload(), by looking again: nothing of that generation takes memory any more.
  virtual bool memory_released(uint64_t generation) = 0;
  virtual bool is_alive() = 0;
  // What it takes now, where that can be read.
  virtual std::optional<MemoryBytes> used_bytes() { return std::nullopt; }

  // From any thread: a load() or unload() of that generation that runs, or begins, ends soon.
  virtual void interrupt(uint64_t generation) = 0;
  // From any thread. False: requests in flight use its memory, unload() is called when they ended.
  virtual bool can_unload_in_use() const = 0;
  // From any thread, while a lease is held: where it listens; empty for one in this process.
  virtual std::string address() const { return {}; }
};

} // namespace pinhole
