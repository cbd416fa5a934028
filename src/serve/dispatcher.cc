#include "serve/dispatcher.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <httplib.h>

namespace pinhole::serve {

namespace {

// The client that the handler on this thread answers.
thread_local std::atomic<bool>* t_gone = nullptr;

// A request in memory; the reply goes to `write`.
class MemoryStream : public httplib::Stream {
 public:
  MemoryStream(std::string_view head, std::string_view body, const std::atomic<bool>& gone,
               const std::function<bool(std::string_view)>& write)
      : parts_{head, body}, gone_(gone), write_(write) {}

  bool is_readable() const override { return !parts_[0].empty() || !parts_[1].empty(); }
  bool is_writable() const override { return !gone_; }
  ssize_t read(char* out, size_t size) override {
    std::string_view& part = parts_[parts_[0].empty() ? 1 : 0];
    const size_t take = std::min(size, part.size());
    std::memcpy(out, part.data(), take);
    part.remove_prefix(take);
    return static_cast<ssize_t>(take);
  }
  ssize_t write(const char* bytes, size_t size) override {
    return write_({bytes, size}) ? static_cast<ssize_t>(size) : -1;
  }
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return -1; }

 private:
  std::string_view parts_[2];
  const std::atomic<bool>& gone_;
  const std::function<bool(std::string_view)>& write_;
};

// Headers of the connection, and offers that are not taken up.
bool is_dropped(std::string_view name) {
  constexpr std::string_view kDropped[] = {
      "connection", "keep-alive", "transfer-encoding", "content-length",
      "expect",     "te",         "accept-encoding",   "range",
      "upgrade",    "trailer",    "if-range",          "content-encoding",
  };
  return std::any_of(std::begin(kDropped), std::end(kDropped),
                     [&](std::string_view other) { return equals_ignoring_case(name, other); });
}

// The head as httplib is to see it: the body has a length and is as it is, nothing is compressed,
// cut into ranges, or taken for a web form of at most 8 KiB (curl's -d says that of JSON).
std::string plain_head(const WholeRequest& request) {
  const RequestHead& head = request.head;
  std::string out = fmt::format("{} {} HTTP/1.1\r\n", head.method, head.target);
  for (const auto& [name, value] : head.headers) {
    if (is_dropped(name))
      continue;
    const bool is_type = equals_ignoring_case(name, "content-type");
    if (is_type && equals_ignoring_case(value.substr(0, 33), "application/x-www-form-urlencoded"))
      out += "Content-Type: application/octet-stream\r\n";
    else
      out += fmt::format("{}: {}\r\n", name, value);
  }
  if (!request.body.empty() || request.head.has_length || request.head.is_chunked ||
      head.method == "POST" || head.method == "PUT" || head.method == "PATCH")
    out += fmt::format("Content-Length: {}\r\n", request.body.size());
  return out + "\r\n";
}

HttpRequest from_library(const httplib::Request& in) {
  HttpRequest out;
  out.method = in.method;
  out.path = in.path;
  for (const auto& [name, value] : in.headers)
    out.headers.emplace_back(name, value);
  // httplib owns the request and does not read it again.
  auto& owned = const_cast<httplib::Request&>(in);
  out.body = std::move(owned.body);
  for (auto& [name, part] : owned.files) {
    out.parts.emplace(name, HttpPart{std::move(part.filename), std::move(part.content_type),
                                     std::move(part.content)});
  }
  out.gone = t_gone;
  return out;
}

class LibrarySink : public HttpSink {
 public:
  explicit LibrarySink(httplib::DataSink& sink) : sink_(sink) {}
  bool write(std::string_view bytes) override {
    return bytes.empty() || sink_.write(bytes.data(), bytes.size());
  }

 private:
  httplib::DataSink& sink_;
};

void to_library(HttpReply reply, httplib::Response& out) {
  out.status = reply.status;
  for (const auto& [name, value] : reply.headers)
    out.set_header(name, value);
  if (!reply.stream) {
    out.body = std::move(reply.body);
    if (!out.body.empty())
      out.set_header("Content-Type", reply.content_type);
    return;
  }
  out.set_chunked_content_provider(
      reply.content_type, [stream = std::move(reply.stream)](size_t, httplib::DataSink& sink) {
        LibrarySink lines(sink);
        if (!stream(lines))
          return false;
        sink.done();
        return true;
      });
}

std::string pattern_of(const std::string& path) {
  std::string out;
  for (const char c : path) {
    if (c == '*')
      out += "(.+)";
    else if (std::strchr(".+?()[]{}|^$\\", c) != nullptr)
      out += fmt::format("\\{}", c);
    else
      out += c;
  }
  return out;
}

} // namespace

struct Dispatcher::Impl : public httplib::Server {
  std::vector<HttpRoute> routes;
  DispatcherHooks hooks;

  Impl() {
    svr_sock_ = 0; // not listening means to it that it is shutting down
    set_keep_alive_timeout(75);
    set_keep_alive_max_count(1'000'000);
  }
  bool process(httplib::Stream& stream, bool close) {
    bool closed = false;
    return process_request(stream, close, closed, nullptr) && !closed;
  }
  // The methods that a path has, for those that come with another.
  std::string methods_of(std::string_view path) const {
    std::string out;
    for (const HttpRoute& route : routes) {
      const bool is_prefix = route.path.back() == '*';
      const std::string_view begin =
          std::string_view(route.path).substr(0, route.path.size() - (is_prefix ? 1 : 0));
      if (is_prefix ? path.size() > begin.size() && path.starts_with(begin) : path == begin)
        out += fmt::format("{}{}{}", out.empty() ? "" : ", ", route.method,
                           route.method == "GET" ? ", HEAD" : "");
    }
    return out;
  }
};

Dispatcher::Dispatcher(std::vector<HttpRoute> routes, DispatcherHooks hooks)
    : impl_(std::make_unique<Impl>()) {
  impl_->routes = std::move(routes);
  impl_->hooks = std::move(hooks);
  for (const HttpRoute& route : impl_->routes) {
    const auto handle = [handler = &route.handler](const httplib::Request& in,
                                                   httplib::Response& out) {
      HttpRequest request = from_library(in);
      to_library((*handler)(request), out);
    };
    const std::string pattern = pattern_of(route.path);
    if (route.method == "GET")
      impl_->Get(pattern, handle);
    else if (route.method == "POST")
      impl_->Post(pattern, handle);
    else if (route.method == "DELETE")
      impl_->Delete(pattern, handle);
  }
  impl_->set_exception_handler([this](const httplib::Request& in, httplib::Response& out,
                                      std::exception_ptr) {
    to_library(impl_->hooks.refuse({500, "this request met a bug of the server"}, in.path), out);
  });
  const httplib::Server::Handler on_error = [this](const httplib::Request& in,
                                                   httplib::Response& out) {
    if (!out.body.empty())
      return; // a handler's own
    HttpProblem why{out.status, "the request cannot be read"};
    std::string allowed;
    if (out.status == 404) {
      allowed = impl_->methods_of(in.path);
      why.message = fmt::format("there is nothing at {} {}", in.method, in.path);
      if (!allowed.empty())
        why = {405, fmt::format("{} takes {}, not {}", in.path, allowed, in.method)};
    }
    to_library(impl_->hooks.refuse(why, in.path), out);
    if (!allowed.empty())
      out.set_header("Allow", allowed);
  };
  impl_->set_error_handler(on_error);
  impl_->set_post_routing_handler([this](const httplib::Request& in, httplib::Response& out) {
    for (const auto& [name, value] : impl_->hooks.extra_headers(in.get_header_value("Origin")))
      out.set_header(name, value);
  });
}

Dispatcher::~Dispatcher() = default;

bool Dispatcher::answer(WholeRequest& request, std::atomic<bool>& gone,
                        const std::function<bool(std::string_view)>& write) {
  const std::string head = plain_head(request);
  MemoryStream stream(head, request.body, gone, write);
  t_gone = &gone;
  const bool alive = impl_->process(stream, request.close);
  t_gone = nullptr;
  return alive;
}

} // namespace pinhole::serve
