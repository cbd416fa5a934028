#include "swap/loopback.h"

#include <arpa/inet.h>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <string_view>
#include <sys/socket.h>
#include <unistd.h>

namespace pinhole {

namespace {

constexpr size_t kMaxStatusLine = 256;

class Socket {
 public:
  Socket() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {}
  ~Socket() {
    if (fd_ >= 0)
      ::close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

sockaddr_in loopback_address(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

tl::unexpected<Error> system_error(std::string_view what, uint16_t port) {
  return fail(ErrorCode::kIo, fmt::format("{}: {}", what, std::strerror(errno)),
              fmt::format("127.0.0.1:{}", port));
}

bool can_bind(uint16_t port, uint16_t& bound) {
  const Socket socket;
  const int yes = 1;
  sockaddr_in address = loopback_address(port);
  socklen_t length = sizeof(address);
  if (socket.fd() < 0 ||
      ::setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) != 0 ||
      ::bind(socket.fd(), reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      ::getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return false;
  }
  bound = ntohs(address.sin_port);
  return true;
}

} // namespace

Result<uint16_t> free_loopback_port(uint16_t first, uint16_t last) {
  uint16_t bound = 0;
  for (uint32_t port = first; port <= last; ++port) {
    if (can_bind(static_cast<uint16_t>(port), bound))
      return bound;
  }
  return fail(ErrorCode::kBusy, fmt::format("no free port in {} to {}", first, last), "127.0.0.1",
              "widen 'ports' in the settings");
}

Result<int> loopback_status(uint16_t port, const std::string& path, int64_t timeout_ms) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  const Socket socket;
  // Whether the socket can do `events` before the deadline.
  const auto wait_for = [&](short events) {
    while (true) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline - std::chrono::steady_clock::now());
      pollfd entry = {socket.fd(), events, 0};
      const int ready = left.count() <= 0 ? 0 : ::poll(&entry, 1, static_cast<int>(left.count()));
      if (ready > 0)
        return true;
      if (ready == 0) {
        errno = ETIMEDOUT;
        return false;
      }
      if (errno != EINTR)
        return false;
    }
  };
  if (socket.fd() < 0)
    return system_error("no socket", port);
  const sockaddr_in address = loopback_address(port);
  if (::connect(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    int problem = errno;
    socklen_t length = sizeof(problem);
    if (problem == EINPROGRESS && wait_for(POLLOUT))
      ::getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &problem, &length);
    errno = problem;
    if (problem != 0)
      return system_error("cannot connect", port);
  }
  const std::string request = fmt::format(
      "GET {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUser-Agent: pinhole\r\nConnection: close\r\n\r\n",
      path, port);
  for (size_t sent = 0; sent < request.size();) {
    if (!wait_for(POLLOUT))
      return system_error("cannot send", port);
    const ssize_t count =
        ::send(socket.fd(), request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
    if (count < 0 && errno != EAGAIN && errno != EINTR)
      return system_error("cannot send", port);
    sent += static_cast<size_t>(count < 0 ? 0 : count);
  }
  // "HTTP/1.1 200 OK": twelve bytes are enough.
  char line[kMaxStatusLine];
  size_t size = 0;
  constexpr std::string_view kBegin = "HTTP/1.x ";
  while (size < kBegin.size() + 3) {
    if (!wait_for(POLLIN))
      return system_error("no answer", port);
    const ssize_t count = ::recv(socket.fd(), line + size, sizeof(line) - size, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
      continue;
    if (count < 0)
      return system_error("no answer", port);
    if (count == 0)
      break;
    size += static_cast<size_t>(count);
  }
  int status = 0;
  const std::string_view text(line, size);
  if (text.size() < kBegin.size() + 3 || !text.starts_with("HTTP/1.") || text[8] != ' ' ||
      std::from_chars(text.data() + 9, text.data() + 12, status).ptr != text.data() + 12) {
    return fail(ErrorCode::kInvalidInput, "the answer is not HTTP",
                fmt::format("127.0.0.1:{}", port));
  }
  return status;
}

} // namespace pinhole
