// One request to another HTTP server, and its reply as it comes: bytes are handed out while more
// are on their way.
//
// Invariant: only http:// is spoken, no proxy is asked and no redirect followed; silence, the whole
// time and the bytes of the reply are bounded. Nothing runs between two calls: who does not read
// holds the sender back.
#pragma once

#include "base/result.h"
#include "serve/http.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace pinhole::serve {

struct ExchangeLimits {
  std::chrono::milliseconds connect{5'000};
  std::chrono::milliseconds silence{600'000}; // without a byte
  std::chrono::milliseconds whole{3'600'000};
  uint64_t max_bytes = uint64_t{256} << 20;
};

struct ExchangeRequest {
  std::string method = "GET";
  std::string url;
  HttpHeaders headers;
  std::string body; // of POST
};

struct ExchangeHead {
  int status = 0;
  HttpHeaders headers;
};

class Exchange {
 public:
  // `is_over`: the exchange ends with kCancelled; asked often, from within the calls.
  static Result<std::unique_ptr<Exchange>>
  create(ExchangeRequest request, const ExchangeLimits& limits, std::function<bool()> is_over);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  // Waits for the reply's head. kNotFound: nothing listens there; kBusy: silence for too long;
  // kTooLarge: too many bytes; kIo: it broke off.
  Result<ExchangeHead> head();
  // Waits for the next bytes of the body; empty: it has ended. Errors as of head().
  Result<std::string> next();
  // The whole body.
  Result<std::string> rest();

 private:
  struct Impl;
  explicit Exchange(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

} // namespace pinhole::serve
