// Pictures of other servers, for requests that name an address: only where the server was started
// with --allow-fetch.
//
// Invariant: only http and https, only global addresses: each address is checked when its socket is
// made, so that neither a name that points elsewhere the second time nor a redirect leads to this
// machine or its network. Bytes, time and redirects are bounded; no proxy, no credentials.
#pragma once

#include "base/result.h"

#include <atomic>
#include <cstdint>
#include <string>

struct sockaddr;

namespace pinhole::serve {

struct FetchLimits {
  uint64_t max_bytes = 32 << 20;
  long max_seconds = 20;
  long max_redirects = 3;
  bool only_global = true; // false only in tests, whose servers are on this machine
};

// The body of a GET. `gone` ends it early.
Result<std::string> fetch_picture(const std::string& url, const FetchLimits& limits,
                                  const std::atomic<bool>& gone);

// Whether anybody on the internet can have this address (IANA special-purpose registries; an IPv6
// address that holds an IPv4 one is judged by that).
bool is_global_address(const sockaddr& address);

} // namespace pinhole::serve
