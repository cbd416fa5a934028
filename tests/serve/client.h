// A client of one connection, byte by byte where a test needs that.
#pragma once

#include <algorithm>
#include <arpa/inet.h>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <map>
#include <netinet/in.h>
#include <poll.h>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <unistd.h>

namespace pinhole::testing {

struct Reply {
  int status = 0;                             // 0: there was none
  std::map<std::string, std::string> headers; // names in lower case
  std::string body;
  bool is_whole = false; // the body ended as its head says
};

class Client {
 public:
  explicit Client(uint16_t port) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~Client() { close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connected_; }
  bool send(std::string_view bytes) {
    return ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }
  void close() {
    if (fd_ >= 0)
      ::close(fd_);
    fd_ = -1;
  }
  // More bytes into the buffer; false: the end, or nothing for that long.
  bool read_some(int wait_ms = 20'000) {
    pollfd wait{fd_, POLLIN, 0};
    if (::poll(&wait, 1, wait_ms) != 1)
      return false;
    char bytes[16384];
    const ssize_t n = ::recv(fd_, bytes, sizeof bytes, 0);
    if (n <= 0) {
      ended_ = true;
      return false;
    }
    buffer_.append(bytes, static_cast<size_t>(n));
    return true;
  }
  bool ended() const { return ended_; }
  std::string& buffer() { return buffer_; }

  // Up to and with `mark`; empty: it did not come.
  std::string read_until(std::string_view mark, int wait_ms = 20'000) {
    while (buffer_.find(mark) == std::string::npos) {
      if (!read_some(wait_ms))
        return {};
    }
    return take(buffer_.find(mark) + mark.size());
  }

  Reply read_reply(bool is_head = false) {
    Reply reply;
    const std::string head = read_until("\r\n\r\n");
    if (head.size() < 12)
      return reply;
    reply.status = std::atoi(head.c_str() + 9);
    for (size_t at = head.find("\r\n") + 2; at + 2 < head.size();) {
      const size_t end = head.find("\r\n", at);
      const size_t colon = head.find(':', at);
      std::string name = head.substr(at, colon - at);
      std::transform(name.begin(), name.end(), name.begin(),
                     [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      reply.headers[name] = head.substr(colon + 2, end - colon - 2);
      at = end + 2;
    }
    if (is_head || reply.status == 100 || reply.status == 204) {
      reply.is_whole = true;
    } else if (reply.headers.count("transfer-encoding") > 0) {
      reply.is_whole = read_chunks(reply.body);
    } else {
      const auto length = static_cast<size_t>(std::atoll(reply.headers["content-length"].c_str()));
      while (buffer_.size() < length && read_some()) {
      }
      reply.is_whole = buffer_.size() >= length;
      reply.body = take(std::min(length, buffer_.size()));
    }
    return reply;
  }

 private:
  std::string take(size_t size) {
    std::string out = buffer_.substr(0, size);
    buffer_.erase(0, size);
    return out;
  }
  bool read_chunks(std::string& body) {
    while (true) {
      const std::string line = read_until("\r\n");
      if (line.empty())
        return false;
      const auto size = static_cast<size_t>(std::strtoul(line.c_str(), nullptr, 16));
      while (buffer_.size() < size + 2) {
        if (!read_some())
          return false;
      }
      body += buffer_.substr(0, size);
      take(size + 2);
      if (size == 0)
        return true;
    }
  }

  int fd_ = -1;
  bool connected_ = false, ended_ = false;
  std::string buffer_;
};

inline std::string request_text(std::string_view method, std::string_view path,
                                std::string_view body = {}, std::string_view headers = {}) {
  std::string out(method);
  out += " ";
  out += path;
  out += " HTTP/1.1\r\nHost: localhost\r\n";
  out += headers;
  if (method == "POST")
    out += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  out += "\r\n";
  out += body;
  return out;
}

inline Reply ask(uint16_t port, std::string_view method, std::string_view path,
                 std::string_view body = {}, std::string_view headers = {}) {
  Client client(port);
  client.send(request_text(method, path, body, headers));
  return client.read_reply(method == "HEAD");
}

} // namespace pinhole::testing
