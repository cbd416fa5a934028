// From a whole request to a handler and back: httplib reads the head again, splits forms, finds the
// route and writes the reply; it never sees the socket.
#pragma once

#include "serve/front.h"
#include "serve/http.h"

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

namespace pinhole::serve {

struct DispatcherHooks {
  // Of what no route takes, and of what httplib cannot read.
  std::function<HttpReply(const HttpProblem&, std::string_view path)> refuse;
  // Headers of every reply, by what the request says of its origin.
  std::function<HttpHeaders(std::string_view origin)> extra_headers;
};

class Dispatcher {
 public:
  Dispatcher(std::vector<HttpRoute> routes, DispatcherHooks hooks);
  ~Dispatcher();
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  // From any thread. Writes the reply to `write`, which returns false when nobody reads. False: the
  // connection must be closed.
  bool answer(WholeRequest& request, std::atomic<bool>& gone,
              const std::function<bool(std::string_view)>& write);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace pinhole::serve
