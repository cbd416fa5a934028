// The front of the server: one thread holds all connections with epoll and reads requests; a worker
// gets a connection only when a whole request, head and body, has arrived.
//
// Invariant: what a slow or silent client costs is a file descriptor and what it has sent so far;
// all bodies together are bounded, and heads, bodies and idle times have deadlines. While a worker
// answers, the front watches the connection, and sets Wire::gone() when the client hangs up.
#pragma once

#include "base/result.h"
#include "serve/http_head.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace pinhole::serve {

struct FrontOptions {
  std::string host = "127.0.0.1"; // an address, no name
  uint16_t port = 0;              // 0: any free one
  size_t max_connections = 16384; // less where the system allows fewer files
  size_t max_workers = 96;
  size_t max_waiting = 256; // requests that wait for a worker
  uint64_t max_body_bytes = 64 << 20;
  uint64_t max_buffered_bytes = 256 << 20;        // of all requests that are being read or answered
  std::chrono::milliseconds head_timeout{10'000}; // from its first byte
  std::chrono::milliseconds idle_timeout{75'000}; // without any byte
  // A body has this long, and more by what has arrived of it: a byte at a time does not keep up.
  std::chrono::milliseconds body_timeout{15'000};
  uint64_t min_body_bytes_per_s = 32 << 10;
  std::chrono::milliseconds write_timeout{30'000}; // a client that does not read
};

// The connection, as a worker has it: writes wait for the client.
class Wire {
 public:
  Wire(int fd, std::atomic<bool>& gone, std::chrono::milliseconds timeout)
      : fd_(fd), gone_(gone), timeout_(timeout) {}
  bool write(std::string_view bytes); // false: the client has gone, or does not read
  std::atomic<bool>& gone() { return gone_; }

 private:
  int fd_;
  std::atomic<bool>& gone_;
  std::chrono::milliseconds timeout_;
};

struct WholeRequest {
  RequestHead head;
  std::string body;
  bool close = false; // the reply is the connection's last one
};

struct FrontHandlers {
  // Whether a request may go on, before its body is read. A reply ends it.
  std::function<std::optional<HttpReply>(const RequestHead&)> check;
  // What is said of a request that cannot be read (`path` as far as it is known).
  std::function<HttpReply(const HttpProblem&, std::string_view path)> refuse;
  // On a worker's thread. False: the connection must be closed.
  std::function<bool(WholeRequest&, Wire&)> answer;
};

struct FrontStatus {
  size_t connections = 0;
  size_t answering = 0;
  uint64_t buffered_bytes = 0;
  uint64_t accepted = 0, refused = 0, timed_out = 0, disconnected = 0;
};

class Front {
 public:
  static Result<std::unique_ptr<Front>> create(const FrontOptions& options, FrontHandlers handlers);
  ~Front();
  Front(const Front&) = delete;
  Front& operator=(const Front&) = delete;

  uint16_t port() const;
  FrontStatus status() const;
  // Takes no new connection and no new request; requests that are answered have until the deadline,
  // then they are told to end. Returns when all have.
  void stop(std::chrono::milliseconds deadline);

 private:
  struct Impl;
  explicit Front(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

} // namespace pinhole::serve
