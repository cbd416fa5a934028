// What is asked of a server on this machine: a free port for it, and whether it answers.
//
// Invariant: nothing but 127.0.0.1 is spoken to, and of an answer only its first line is read, at
// most kMaxStatusLine bytes of it. Source: RFC 9112, 4 (status line).
#pragma once

#include "base/result.h"

#include <cstdint>
#include <string>

namespace pinhole {

// A port that nobody listens on, in [first, last]; any for 0. Another program can still take it
// before it is used.
Result<uint16_t> free_loopback_port(uint16_t first = 0, uint16_t last = 0);

// The status (200) of GET `path` on 127.0.0.1, within `timeout_ms` in all.
Result<int> loopback_status(uint16_t port, const std::string& path, int64_t timeout_ms);

} // namespace pinhole
