// The whole server: the front that reads requests, who may ask, and the routes of all APIs.
#pragma once

#include "serve/access.h"
#include "serve/api.h"
#include "serve/dispatcher.h"
#include "serve/front.h"
#include "serve/registry.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <vector>

namespace pinhole::serve {

struct ServerOptions {
  FrontOptions front;
  AccessOptions access;
  ApiOptions api;
};

class Server {
 public:
  // `registry` must outlive the server. It listens when this returns.
  static Result<std::unique_ptr<Server>> create(const ServerOptions& options,
                                                ModelRegistry& registry);
  ~Server();

  uint16_t port() const { return front_->port(); }
  // As Front::stop().
  void stop(std::chrono::milliseconds deadline) { front_->stop(deadline); }
  Metrics& metrics() { return metrics_; }

 private:
  Server(const ServerOptions& options, ModelRegistry& registry);

  Access access_;
  Metrics metrics_;
  std::atomic<const Front*> listening_{nullptr}; // front_, once it is there
  Api api_;
  Dispatcher dispatcher_;
  std::unique_ptr<Front> front_; // ends before what its requests use
};

// The routes of all APIs, for the server and for tests without one. `api` must outlive them.
std::vector<HttpRoute> make_routes(Api& api);

} // namespace pinhole::serve
