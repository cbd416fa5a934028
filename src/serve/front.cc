#include "serve/front.h"

#include "serve/sockets.h"
#include "serve/worker_pool.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <mutex>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <unordered_map>
#include <vector>

namespace pinhole::serve {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr uint64_t kListenId = 0, kWakeId = 1; // connections count from 2
constexpr milliseconds kSweep{250};
constexpr milliseconds kLinger{2'000};    // for a client to read why it was refused
constexpr milliseconds kEndGrace{15'000}; // for requests that were told to end
constexpr size_t kReadBytes = 64 << 10;
// Of a body that is not to be read, this much is thrown away, so that the refusal is seen.
constexpr uint64_t kMaxDiscardedBytes = 8 << 20;

enum class Phase { kHead, kBody, kAnswering, kLinger };

struct Connection {
  uint64_t id = 0;
  File file;
  Phase phase = Phase::kHead;
  std::string in; // bytes that no request has taken yet
  WholeRequest request;
  ChunkedDecoder decoder;
  uint64_t counted_bytes = 0; // of `in` and the body, in the front's sum
  uint64_t discarded_bytes = 0;
  Clock::time_point since;       // of this phase
  std::atomic<bool> gone{false}; // read by the worker
  bool keep_alive = true;        // the worker's word
};

} // namespace

bool Wire::write(std::string_view bytes) {
  auto progress = Clock::now();
  while (!bytes.empty()) {
    if (gone_.load(std::memory_order_relaxed))
      return false;
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
      progress = Clock::now();
      continue;
    }
    if (n < 0 && errno == EINTR)
      continue;
    const bool full = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    if (!full || Clock::now() - progress > timeout_) {
      gone_ = true;
      return false;
    }
    pollfd wait{fd_, POLLOUT, 0};
    (void)::poll(&wait, 1, 100);
  }
  return true;
}

struct Front::Impl {
  using Shared = std::shared_ptr<Connection>;

  FrontOptions options;
  FrontHandlers handlers;
  uint16_t port = 0;
  File listener, epoll, wake;
  std::unordered_map<uint64_t, Shared> connections;
  uint64_t next_id = 2;
  bool accepts = true;
  Clock::time_point accept_again;
  std::vector<char> scratch = std::vector<char>(kReadBytes);
  std::unique_ptr<WorkerPool> workers;

  mutable std::mutex mutex; // of what follows
  std::vector<Shared> answered;
  FrontStatus counts;
  std::optional<milliseconds> stop_deadline;

  bool stopping = false;
  Clock::time_point cancel_at, leave_at;
  std::thread thread;

  ~Impl() {
    if (thread.joinable())
      thread.join();
    workers.reset();
  }

  void add_watch(int fd, uint64_t id, uint32_t events) const {
    epoll_event event{};
    event.events = events;
    event.data.u64 = id;
    (void)::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event);
  }
  void set_watch(const Connection& connection, uint32_t events) const {
    epoll_event event{};
    event.events = events;
    event.data.u64 = connection.id;
    (void)::epoll_ctl(epoll.get(), EPOLL_CTL_MOD, connection.file.get(), &event);
  }

  void count(uint64_t FrontStatus::*number) {
    const std::lock_guard lock(mutex);
    ++(counts.*number);
  }
  // Keeps the sum of what is buffered right.
  void recount(Connection& connection) {
    const uint64_t now = connection.in.size() + connection.request.body.size();
    const std::lock_guard lock(mutex);
    counts.buffered_bytes += now - connection.counted_bytes;
    connection.counted_bytes = now;
  }

  void drop(Connection& connection) {
    connection.gone = true;
    connection.in.clear();
    connection.request.body.clear();
    recount(connection);
    connection.file.close(); // leaves the epoll set as well
    const uint64_t id = connection.id;
    connections.erase(id);
  }

  void enter(Connection& connection, Phase phase) {
    connection.phase = phase;
    connection.since = Clock::now();
  }

  void set_listener() const {
    epoll_event event{};
    event.events = accepts ? static_cast<uint32_t>(EPOLLIN) : 0u;
    event.data.u64 = kListenId;
    (void)::epoll_ctl(epoll.get(), EPOLL_CTL_MOD, listener.get(), &event);
  }

  bool send_now(const Connection& connection, std::string_view bytes) const {
    // What the front itself sends fits into an empty socket buffer.
    return ::send(connection.file.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
           static_cast<ssize_t>(bytes.size());
  }

  // The reply is read although the rest of the request is not: closing at once would reset.
  void refuse(Connection& connection, const HttpReply& reply) {
    count(&FrontStatus::refused);
    if (!send_now(connection, serialise(reply))) {
      drop(connection);
      return;
    }
    ::shutdown(connection.file.get(), SHUT_WR);
    connection.in.clear();
    connection.request.body = {};
    recount(connection);
    enter(connection, Phase::kLinger);
  }
  void refuse(Connection& connection, const HttpProblem& why) {
    refuse(connection, handlers.refuse(why, connection.request.head.path()));
  }

  void accept_all();
  void read(const Shared& connection);
  void advance(const Shared& connection);
  bool begin_body(Connection& connection);
  HttpResult<bool> take_body(Connection& connection);
  void hand_over(const Shared& connection);
  void take_back(const Shared& connection);
  void sweep();
  void begin_stop(milliseconds deadline);
  void run();
};

void Front::Impl::accept_all() {
  for (int i = 0; i < 256; ++i) {
    const int fd = ::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        accepts = false; // a while, until others have closed
        accept_again = Clock::now() + milliseconds(100);
        set_listener();
      }
      return;
    }
    if (connections.size() >= options.max_connections) {
      // The one that has been idle longest makes room; if none is, the new one leaves.
      Connection* oldest = nullptr;
      for (const auto& [id, connection] : connections) {
        if (connection->phase == Phase::kHead && connection->in.empty() &&
            (oldest == nullptr || connection->since < oldest->since))
          oldest = connection.get();
      }
      if (oldest == nullptr) {
        ::close(fd);
        count(&FrontStatus::refused);
        continue;
      }
      drop(*oldest);
    }
    const int on = 1;
    (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    auto connection = std::make_shared<Connection>();
    connection->id = next_id++;
    connection->file.reset(fd);
    enter(*connection, Phase::kHead);
    add_watch(fd, connection->id, EPOLLIN | EPOLLRDHUP);
    connections.emplace(connection->id, connection);
    count(&FrontStatus::accepted);
  }
}

void Front::Impl::read(const Shared& connection) {
  const ssize_t n = ::recv(connection->file.get(), scratch.data(), scratch.size(), 0);
  if (n < 0) {
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
      drop(*connection);
    return;
  }
  if (n == 0) {
    drop(*connection);
    return;
  }
  if (connection->phase == Phase::kLinger) {
    connection->discarded_bytes += static_cast<uint64_t>(n);
    if (connection->discarded_bytes > kMaxDiscardedBytes)
      drop(*connection);
    return;
  }
  if (connection->phase == Phase::kHead && connection->in.empty())
    connection->since = Clock::now(); // the head begins
  connection->in.append(scratch.data(), static_cast<size_t>(n));
  advance(connection);
}

// Reads as much of the next request as has arrived.
void Front::Impl::advance(const Shared& shared) {
  Connection& connection = *shared;
  if (connection.phase == Phase::kHead) {
    while (connection.in.starts_with("\r\n"))
      connection.in.erase(0, 2); // RFC 9112, 2.2: empty lines before a request
    const size_t end = find_head_end(connection.in);
    if (end > kMaxHeadBytes || (end == 0 && connection.in.size() > kMaxHeadBytes)) {
      refuse(connection,
             HttpProblem{431, fmt::format("the headers have more than {} bytes", kMaxHeadBytes)});
      return;
    }
    if (end == 0) {
      recount(connection);
      return;
    }
    connection.request = {};
    auto head = parse_head(std::string_view(connection.in).substr(0, end));
    if (!head) {
      refuse(connection, head.error());
      return;
    }
    connection.in.erase(0, end);
    connection.request.head = std::move(*head);
    if (!begin_body(connection))
      return;
  }
  auto whole = take_body(connection);
  recount(connection);
  if (!whole) {
    refuse(connection, whole.error());
  } else if (*whole) {
    hand_over(shared);
  }
}

bool Front::Impl::begin_body(Connection& connection) {
  const RequestHead& head = connection.request.head;
  if (auto reply = handlers.check(head)) {
    refuse(connection, *reply);
    return false;
  }
  if (head.content_length > options.max_body_bytes) {
    refuse(connection,
           HttpProblem{413, fmt::format("the body has {} bytes, at most {} are accepted",
                                        head.content_length, options.max_body_bytes)});
    return false;
  }
  connection.decoder = {};
  enter(connection, Phase::kBody);
  const bool has_body = head.is_chunked || head.content_length > 0;
  if (head.expects_continue && has_body && connection.in.empty() &&
      !send_now(connection, "HTTP/1.1 100 Continue\r\n\r\n")) {
    drop(connection);
    return false;
  }
  return true;
}

HttpResult<bool> Front::Impl::take_body(Connection& connection) {
  WholeRequest& request = connection.request;
  {
    const std::lock_guard lock(mutex);
    if (counts.buffered_bytes + connection.in.size() > options.max_buffered_bytes)
      return tl::unexpected<HttpProblem>(
          HttpProblem{503, "too much is being uploaded at the same time"});
  }
  if (request.head.is_chunked)
    return connection.decoder.push(connection.in, request.body, options.max_body_bytes);
  const size_t take =
      std::min<uint64_t>(request.head.content_length - request.body.size(), connection.in.size());
  if (take == connection.in.size() && request.body.empty()) {
    request.body = std::move(connection.in);
    connection.in = {};
  } else {
    request.body.append(connection.in, 0, take);
    connection.in.erase(0, take);
  }
  return request.body.size() == request.head.content_length;
}

void Front::Impl::hand_over(const Shared& shared) {
  enter(*shared, Phase::kAnswering);
  set_watch(*shared, EPOLLRDHUP);
  shared->request.close = stopping || !shared->request.head.keep_alive;
  {
    const std::lock_guard lock(mutex);
    ++counts.answering;
  }
  const bool taken = workers->submit(
      [this, shared] {
        Wire wire(shared->file.get(), shared->gone, options.write_timeout);
        const bool alive = handlers.answer(shared->request, wire);
        shared->keep_alive = alive && !shared->request.close;
        {
          const std::lock_guard lock(mutex);
          answered.push_back(shared);
        }
        const uint64_t one = 1;
        (void)!::write(wake.get(), &one, sizeof one);
      },
      options.max_waiting);
  if (taken)
    return;
  {
    const std::lock_guard lock(mutex);
    --counts.answering;
  }
  refuse(*shared, HttpProblem{503, "too many requests wait already"});
}

void Front::Impl::take_back(const Shared& shared) {
  Connection& connection = *shared;
  connection.request = {};
  {
    const std::lock_guard lock(mutex);
    --counts.answering;
    counts.disconnected += connection.gone ? 1 : 0;
  }
  recount(connection);
  if (connection.gone) {
    drop(connection);
    return;
  }
  if (!connection.keep_alive || stopping) {
    ::shutdown(connection.file.get(), SHUT_WR);
    set_watch(connection, EPOLLIN | EPOLLRDHUP);
    connection.in.clear();
    recount(connection);
    enter(connection, Phase::kLinger);
    return;
  }
  enter(connection, Phase::kHead);
  set_watch(connection, EPOLLIN | EPOLLRDHUP);
  if (!connection.in.empty())
    advance(shared); // requests that were sent without waiting
}

void Front::Impl::sweep() {
  const auto now = Clock::now();
  if (!accepts && now >= accept_again && !stopping) {
    accepts = true;
    set_listener();
  }
  std::vector<Shared> late;
  for (const auto& [id, connection] : connections) {
    const auto age = now - connection->since;
    const auto rate = std::max<uint64_t>(1, options.min_body_bytes_per_s);
    const milliseconds earned(connection->request.body.size() * 1000 / rate);
    const bool is_late =
        connection->phase == Phase::kHead
            ? age > (connection->in.empty() ? options.idle_timeout : options.head_timeout)
        : connection->phase == Phase::kBody   ? age > options.body_timeout + earned
        : connection->phase == Phase::kLinger ? age > kLinger
                                              : false;
    if (is_late)
      late.push_back(connection);
  }
  for (const Shared& connection : late) {
    const bool asked = connection->phase == Phase::kBody || !connection->in.empty();
    if (connection->phase == Phase::kLinger || !asked) {
      drop(*connection);
    } else {
      count(&FrontStatus::timed_out);
      refuse(*connection,
             HttpProblem{408, connection->phase == Phase::kBody ? "the body comes too slowly"
                                                                : "the headers come too slowly"});
    }
  }
}

void Front::Impl::begin_stop(milliseconds deadline) {
  stopping = true;
  cancel_at = Clock::now() + deadline;
  leave_at = cancel_at + kEndGrace;
  listener.close();
  std::vector<Shared> idle;
  for (const auto& [id, connection] : connections) {
    if (connection->phase != Phase::kAnswering)
      idle.push_back(connection);
  }
  for (const Shared& connection : idle)
    drop(*connection);
}

void Front::Impl::run() {
  std::vector<epoll_event> events(512);
  auto next_sweep = Clock::now() + kSweep;
  while (true) {
    const int n = ::epoll_wait(epoll.get(), events.data(), static_cast<int>(events.size()),
                               static_cast<int>(kSweep.count()));
    for (int i = 0; i < n; ++i) {
      const uint64_t id = events[static_cast<size_t>(i)].data.u64;
      if (id == kListenId) {
        accept_all();
        continue;
      }
      if (id == kWakeId) {
        uint64_t value = 0;
        (void)!::read(wake.get(), &value, sizeof value);
        continue;
      }
      const auto found = connections.find(id);
      if (found == connections.end())
        continue;
      const Shared connection = found->second;
      if (connection->phase == Phase::kAnswering) {
        connection->gone = true; // hung up; the worker still has the socket
        (void)::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, connection->file.get(), nullptr);
      } else {
        read(connection);
      }
    }
    std::vector<Shared> back;
    std::optional<milliseconds> deadline;
    {
      const std::lock_guard lock(mutex);
      back.swap(answered);
      counts.connections = connections.size();
      deadline = stop_deadline;
    }
    for (const Shared& connection : back)
      take_back(connection);
    if (deadline && !stopping)
      begin_stop(*deadline);
    const auto now = Clock::now();
    if (now >= next_sweep) {
      sweep();
      next_sweep = now + kSweep;
    }
    if (!stopping)
      continue;
    const bool busy = std::any_of(connections.begin(), connections.end(), [](const auto& entry) {
      return entry.second->phase == Phase::kAnswering;
    });
    if (now >= cancel_at) {
      for (const auto& [id, connection] : connections)
        connection->gone = true;
    }
    if ((!busy && (connections.empty() || now >= cancel_at)) || now >= leave_at)
      return;
  }
}

Front::Front(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Front::~Front() { stop(milliseconds(0)); }

Result<std::unique_ptr<Front>> Front::create(const FrontOptions& options, FrontHandlers handlers) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->handlers = std::move(handlers);
  impl->options.max_connections = std::min(options.max_connections, sockets_allowed());
  PINHOLE_TRY(const int listener, open_listener(options.host, options.port, impl->port));
  impl->listener.reset(listener);
  impl->epoll.reset(::epoll_create1(EPOLL_CLOEXEC));
  impl->wake.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (impl->epoll.get() < 0 || impl->wake.get() < 0)
    return fail(ErrorCode::kIo, fmt::format("cannot watch connections: {}", std::strerror(errno)));
  impl->add_watch(impl->listener.get(), kListenId, EPOLLIN);
  impl->add_watch(impl->wake.get(), kWakeId, EPOLLIN);
  impl->workers = std::make_unique<WorkerPool>(options.max_workers);
  impl->thread = std::thread([front = impl.get()] { front->run(); });
  return std::unique_ptr<Front>(new Front(std::move(impl)));
}

uint16_t Front::port() const { return impl_->port; }

FrontStatus Front::status() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->counts;
}

void Front::stop(milliseconds deadline) {
  {
    const std::lock_guard lock(impl_->mutex);
    if (!impl_->stop_deadline)
      impl_->stop_deadline = deadline;
  }
  const uint64_t one = 1;
  (void)!::write(impl_->wake.get(), &one, sizeof one);
  if (impl_->thread.joinable())
    impl_->thread.join();
}

} // namespace pinhole::serve
