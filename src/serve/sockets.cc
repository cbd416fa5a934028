#include "serve/sockets.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

namespace pinhole::serve {

size_t sockets_allowed() {
  constexpr size_t kSpareFiles = 64; // for the model, pictures, other sockets
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0)
    return 1024 - kSpareFiles;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
  (void)::getrlimit(RLIMIT_NOFILE, &limit);
  const auto files = static_cast<size_t>(std::min<rlim_t>(limit.rlim_cur, rlim_t{1} << 20));
  return files > 2 * kSpareFiles ? files - kSpareFiles : files / 2;
}

Result<int> open_listener(const std::string& host, uint16_t port, uint16_t& bound_port) {
  sockaddr_storage address{};
  socklen_t length = 0;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
  if (::inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    length = sizeof *v4;
  } else if (::inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    length = sizeof *v6;
  } else {
    return fail(ErrorCode::kInvalidInput, fmt::format("'{}' is no address", host), "--host",
                "give one such as 127.0.0.1 or ::1");
  }
  const int fd = ::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return fail(ErrorCode::kIo, fmt::format("cannot make a socket: {}", std::strerror(errno)));
  const int on = 1;
  (void)::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), length) != 0 || ::listen(fd, 4096) != 0) {
    const int why = errno;
    ::close(fd);
    return fail(ErrorCode::kIo,
                fmt::format("cannot listen on {} port {}: {}", host, port, std::strerror(why)), {},
                why == EADDRINUSE ? "another program has the port: choose one with --port" : "");
  }
  (void)::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  bound_port = ntohs(address.ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
  return fd;
}

std::string serialise(const HttpReply& reply) {
  std::string out = fmt::format("HTTP/1.1 {} {}\r\nConnection: close\r\nContent-Length: {}\r\n",
                                reply.status, reason_phrase(reply.status), reply.body.size());
  if (!reply.body.empty())
    out += fmt::format("Content-Type: {}\r\n", reply.content_type);
  for (const auto& [name, value] : reply.headers)
    out += fmt::format("{}: {}\r\n", name, value);
  return out + "\r\n" + reply.body;
}

} // namespace pinhole::serve
