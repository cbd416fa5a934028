#include "swap/external_process.h"

#include "swap/loopback.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <thread>

namespace pinhole {

namespace {

constexpr Millis kHealthTimeoutMs = 2'000;
constexpr Millis kFirstPollMs = 10; // doubles up to the last
constexpr Millis kLastPollMs = 250;

Millis now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::string with_port(std::string word, uint16_t port) {
  constexpr std::string_view kPlace = "{port}";
  const std::string number = std::to_string(port);
  for (size_t at = word.find(kPlace); at != std::string::npos;
       at = word.find(kPlace, at + number.size())) {
    word.replace(at, kPlace.size(), number);
  }
  return word;
}

} // namespace

bool ExternalProcess::is_interrupted(uint64_t generation) {
  const std::lock_guard lock(mutex_);
  return interrupted_ >= generation;
}

void ExternalProcess::sleep_ms(uint64_t generation, Millis ms) {
  std::unique_lock lock(mutex_);
  wake_.wait_for(lock, std::chrono::milliseconds(ms), [&] { return interrupted_ >= generation; });
}

void ExternalProcess::interrupt(uint64_t generation) {
  {
    const std::lock_guard lock(mutex_);
    interrupted_ = std::max(interrupted_, generation);
  }
  wake_.notify_all();
}

std::string ExternalProcess::address() const {
  return fmt::format("http://127.0.0.1:{}", port_.load());
}

Result<MemoryBytes> ExternalProcess::load(uint64_t generation, const MemoryBytes& reserved) {
  if (group_.is_started())
    return fail(ErrorCode::kBusy, "the process of an earlier load has not ended");
  const bool needs_port =
      std::any_of(options_.command.begin(), options_.command.end(),
                  [](const auto& word) { return word.find("{port}") != std::string::npos; });
  uint16_t port = options_.fixed_port;
  if (needs_port) {
    PINHOLE_TRY(port, free_loopback_port(options_.first_port, options_.last_port));
  }
  std::vector<std::string> command;
  for (const std::string& word : options_.command)
    command.push_back(with_port(word, port));
  PINHOLE_CHECK(group_.start(command, options_.log_path));
  port_ = port;
  PINHOLE_CHECK(wait_until_ready(generation, port));
  if (!options_.is_measured)
    return options_.planned;
  const auto bytes = group_.used_bytes();
  if (!bytes) {
    return fail(ErrorCode::kUnsupported, "its memory cannot be measured here", command[0],
                "give its bytes: ram = \"6GiB\"");
  }
  return MemoryBytes{*bytes, std::min(options_.planned.vram, reserved.vram)};
}

Status ExternalProcess::wait_until_ready(uint64_t generation, uint16_t port) {
  const Millis deadline = now_ms() + options_.load_timeout_ms;
  std::string last = "nothing yet";
  for (Millis pause = kFirstPollMs;; pause = std::min(2 * pause, kLastPollMs)) {
    const std::string where = options_.command[0];
    if (const auto end = group_.ended()) {
      return fail(ErrorCode::kIo, fmt::format("it {} before it was ready", *end), where,
                  options_.log_path.empty() ? "give it a log = \"FILE\" to see why"
                                            : "see " + options_.log_path);
    }
    if (is_interrupted(generation))
      return fail(ErrorCode::kCancelled, "interrupted while it was loading", where);
    if (options_.health_path.empty())
      return {};
    const Millis left = deadline - now_ms();
    if (left <= 0) {
      return fail(ErrorCode::kIo,
                  fmt::format("not ready after {} ms, the last answer to GET {}: {}",
                              options_.load_timeout_ms, options_.health_path, last),
                  where);
    }
    const auto status =
        loopback_status(port, options_.health_path, std::min(left, kHealthTimeoutMs));
    // Another program may answer on that port: ours must still be there.
    if (status && *status == 200 && !group_.ended())
      return {};
    last = status ? fmt::format("HTTP {}", *status) : status.error().text();
    sleep_ms(generation, std::min(left, pause));
  }
}

bool ExternalProcess::wait_until_reaped(uint64_t generation, Millis ms) {
  const Millis deadline = now_ms() + ms;
  for (Millis pause = 2;; pause = std::min<Millis>(2 * pause, 50)) {
    if (group_.try_reap())
      return true;
    if (now_ms() >= deadline || is_interrupted(generation))
      return false;
    sleep_ms(generation, pause);
  }
}

Status ExternalProcess::unload(uint64_t generation) {
  if (!group_.is_started())
    return {};
  if (!group_.ended() && !is_interrupted(generation))
    group_.signal(options_.stop_signal);
  if (wait_until_reaped(generation, options_.stop_timeout_ms))
    return {};
  group_.signal(SIGKILL);
  const Millis deadline = now_ms() + options_.kill_timeout_ms;
  while (!group_.try_reap()) {
    if (now_ms() >= deadline) {
      return fail(ErrorCode::kIo,
                  fmt::format("process {} is still there after SIGKILL", group_.leader()),
                  options_.command[0]);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return {};
}

bool ExternalProcess::memory_released(uint64_t) { return !group_.is_started(); }

bool ExternalProcess::is_alive() { return group_.is_started() && !group_.ended(); }

std::optional<MemoryBytes> ExternalProcess::used_bytes() {
  const auto bytes = group_.used_bytes();
  if (!bytes)
    return std::nullopt;
  return MemoryBytes{*bytes, 0};
}

} // namespace pinhole
