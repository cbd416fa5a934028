// Sockets of the front: the one that listens, how many there may be, and a file that closes itself.
#pragma once

#include "base/result.h"
#include "serve/http.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <unistd.h>

namespace pinhole::serve {

class File {
 public:
  explicit File(int fd = -1) : fd_(fd) {}
  ~File() { close(); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return fd_; }
  void reset(int fd) {
    close();
    fd_ = fd;
  }
  void close() {
    if (fd_ >= 0)
      ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

// How many connections the system allows: the soft limit on files is raised to the hard one.
size_t sockets_allowed();
// `host` is an address; `port` 0: any free one. Sets `bound_port`.
Result<int> open_listener(const std::string& host, uint16_t port, uint16_t& bound_port);
// A reply that is the connection's last one.
std::string serialise(const HttpReply& reply);

} // namespace pinhole::serve
