// Servers in processes of their own: real ones, written in a few lines of Python or shell.

#include "support/temp_dir.h"
#include "swap/external_process.h"
#include "swap/loopback.h"
#include "swap/manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <thread>

namespace pinhole {
namespace {

using ::testing::HasSubstr;

// Answers 503 to the first `not_ready` requests, then 200; argv: port, not_ready, bytes to hold.
constexpr const char* kServer = R"(
import socket, sys
left = int(sys.argv[2])
held = b'x' * int(sys.argv[3])
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    status = 503 if left > 0 else 200
    left -= 1
    connection.sendall(b'HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n' % status)
    connection.close()
)";

ExternalOptions server(int not_ready = 0, int64_t held_bytes = 0) {
  ExternalOptions options;
  options.command = {"python3",
                     "-S",
                     "-c",
                     kServer,
                     "{port}",
                     std::to_string(not_ready),
                     std::to_string(held_bytes)};
  options.planned = {50 << 20, 0};
  options.stop_timeout_ms = 3'000;
  return options;
}

ExternalOptions shell(const std::string& script) {
  ExternalOptions options;
  options.command = {"sh", "-c", script};
  options.health_path = "";
  options.stop_timeout_ms = 200;
  return options;
}

// What a process writes.
class Log {
 public:
  std::string path() const { return dir_.file("log"); }
  std::string text() const {
    std::ifstream file(path());
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // Its first line, waited for.
  std::string line() const {
    for (int i = 0; i < 500 && text().find('\n') == std::string::npos; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return text().substr(0, text().find('\n'));
  }

 private:
  testing::TempDir dir_;
};

bool is_running(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string stat((std::istreambuf_iterator<char>(file)), {});
  const size_t bracket = stat.rfind(") ");
  return bracket != std::string::npos && stat[bracket + 2] != 'Z';
}

TEST(ExternalProcess, is_ready_when_its_health_path_answers_200) {
  ExternalProcess host(server(2));
  const auto used = host.load(1, {});
  ASSERT_TRUE(used) << used.error().text();
  EXPECT_EQ(used->ram, 50 << 20);
  EXPECT_TRUE(host.is_alive());
  EXPECT_THAT(host.address(), HasSubstr("http://127.0.0.1:"));
  const auto port = static_cast<uint16_t>(std::stoi(host.address().substr(17)));
  EXPECT_EQ(loopback_status(port, "/v1", 2'000).value_or(0), 200);
  EXPECT_FALSE(host.load(2, {})) << "one at a time";
  EXPECT_FALSE(host.memory_released(1));
  EXPECT_TRUE(host.unload(1));
  EXPECT_TRUE(host.memory_released(1));
  EXPECT_FALSE(host.is_alive());
  EXPECT_FALSE(loopback_status(port, "/v1", 500));
  EXPECT_TRUE(host.unload(1)) << "nothing to do";
  EXPECT_TRUE(host.load(2, {})) << "and again";
}

TEST(ExternalProcess, its_memory_is_measured) {
  ExternalOptions options = server(0, 64 << 20);
  options.is_measured = true;
  ExternalProcess host(options);
  const auto used = host.load(1, {int64_t{1} << 30, 0});
  ASSERT_TRUE(used) << used.error().text();
  EXPECT_GT(used->ram, 64 << 20);
  EXPECT_LT(used->ram, 512 << 20);
}

TEST(ExternalProcess, a_missing_program_is_not_tried_again) {
  ExternalOptions options = server();
  options.command = {"/no/such/program", "{port}"};
  ExternalProcess host(options);
  const auto used = host.load(1, {});
  ASSERT_FALSE(used);
  EXPECT_EQ(used.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(used.error().text(), HasSubstr("/no/such/program: cannot be started"));
  EXPECT_TRUE(host.unload(1));
}

TEST(ExternalProcess, what_ends_before_it_is_ready_says_how) {
  const Log log;
  ExternalOptions options = shell("echo no weights here >&2; exit 3");
  options.health_path = "/health";
  options.log_path = log.path();
  ExternalProcess host(options);
  const auto used = host.load(1, {});
  ASSERT_FALSE(used);
  EXPECT_EQ(used.error().code, ErrorCode::kIo);
  EXPECT_THAT(used.error().text(),
              HasSubstr("it exited with 3 before it was ready; see " + log.path()));
  EXPECT_EQ(log.line(), "no weights here");
  EXPECT_TRUE(host.unload(1));
  EXPECT_TRUE(host.memory_released(1));
}

TEST(ExternalProcess, what_never_answers_is_given_up) {
  ExternalOptions options = shell("sleep 1000");
  options.health_path = "/health";
  options.fixed_port = 9; // nobody listens
  options.load_timeout_ms = 300;
  ExternalProcess host(options);
  const auto used = host.load(1, {});
  ASSERT_FALSE(used);
  EXPECT_THAT(used.error().text(), HasSubstr("not ready after 300 ms"));
  EXPECT_TRUE(host.unload(1));
  EXPECT_TRUE(host.memory_released(1));
}

TEST(ExternalProcess, a_load_can_be_interrupted) {
  ExternalOptions options = shell("sleep 1000");
  options.health_path = "/health";
  ExternalProcess host(options);
  const std::jthread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    host.interrupt(1);
  });
  const auto used = host.load(1, {});
  ASSERT_FALSE(used);
  EXPECT_EQ(used.error().code, ErrorCode::kCancelled);
  EXPECT_TRUE(host.unload(1));
}

TEST(ExternalProcess, gets_the_stop_signal_and_time_to_end) {
  const Log log;
  ExternalOptions options =
      shell("trap 'echo stopped; exit 0' INT; echo started; while :; do sleep 0.05; done");
  options.log_path = log.path();
  options.stop_signal = SIGINT;
  options.stop_timeout_ms = 5'000;
  ExternalProcess host(options);
  ASSERT_TRUE(host.load(1, {}));
  ASSERT_EQ(log.line(), "started");
  EXPECT_TRUE(host.unload(1));
  EXPECT_THAT(log.text(), HasSubstr("stopped"));
}

TEST(ExternalProcess, what_ignores_the_signal_is_killed_with_its_children) {
  const Log log;
  ExternalOptions options =
      shell("trap '' TERM; sh -c 'trap \"\" TERM; sleep 1000' & echo $!; while :; do wait; done");
  options.log_path = log.path();
  ExternalProcess host(options);
  ASSERT_TRUE(host.load(1, {}));
  const pid_t child = std::stoi(log.line());
  ASSERT_TRUE(is_running(child));
  EXPECT_TRUE(host.unload(1));
  EXPECT_TRUE(host.memory_released(1));
  EXPECT_FALSE(is_running(child));
}

TEST(ExternalProcess, children_that_outlive_it_are_killed) {
  const Log log;
  ExternalOptions options = shell("sleep 1000 & echo $!; exit 0");
  options.log_path = log.path();
  ExternalProcess host(options);
  (void)host.load(1, {}); // it may have ended already
  const pid_t child = std::stoi(log.line());
  EXPECT_TRUE(host.unload(1));
  EXPECT_TRUE(host.memory_released(1));
  EXPECT_FALSE(is_running(child));
}

TEST(ExternalProcess, ports_come_from_the_range) {
  const auto any = free_loopback_port();
  ASSERT_TRUE(any);
  EXPECT_EQ(free_loopback_port(*any, *any).value_or(0), *any);
  ExternalOptions options = server();
  options.first_port = options.last_port = *any;
  ExternalProcess host(options);
  ASSERT_TRUE(host.load(1, {}));
  EXPECT_EQ(host.address(), "http://127.0.0.1:" + std::to_string(*any));
  const auto taken = free_loopback_port(*any, *any);
  ASSERT_FALSE(taken);
  EXPECT_THAT(taken.error().text(), HasSubstr("no free port in"));
}

// The manager, a real server, and kill -9.
TEST(ExternalProcess, a_killed_server_is_noticed_and_comes_back) {
  const Log log;
  SwapConfig config;
  config.limits.ceiling = {100 << 20, 0};
  config.limits.first_back_off_ms = 10;
  SwapModel model;
  model.name = "server";
  model.planned = {50 << 20, 0};
  model.max_in_flight = 2;
  config.models.push_back(model);
  ExternalOptions server_options = server();
  server_options.command[3] =
      "import os; print(os.getpid(), flush=True)\n" + server_options.command[3];
  server_options.log_path = log.path();
  std::vector<std::unique_ptr<ModelHost>> hosts;
  hosts.push_back(std::make_unique<ExternalProcess>(server_options));
  ManagerOptions options;
  options.watch_ms = 20;
  SwapManager manager(config, std::move(hosts), options);

  auto lease = manager.acquire({.model = 0});
  ASSERT_TRUE(lease) << lease.error().text();
  EXPECT_THAT(lease->host().address(), HasSubstr("http://127.0.0.1:"));
  const pid_t first = std::stoi(log.line());
  ASSERT_EQ(::kill(first, SIGKILL), 0);
  for (int i = 0; i < 500 && !lease->is_lost(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(lease->is_lost());
  const auto next = manager.acquire({.model = 0, .wait_ms = 20'000});
  ASSERT_TRUE(next) << next.error().text();
  EXPECT_EQ(next->generation(), 2U);
  EXPECT_EQ(manager.status().num_crashes, 1U);
  EXPECT_EQ(manager.status().reserved.ram, 50 << 20);
  EXPECT_FALSE(is_running(first));
}

} // namespace
} // namespace pinhole
