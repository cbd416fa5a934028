// The manager with threads: hosts that stand in for models, and many callers at once.

#include "swap/manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace pinhole {
namespace {

using ::testing::HasSubstr;

// The memory of all fake hosts.
struct Machine {
  std::atomic<int64_t> in_use{0}, most{0};
  std::atomic<int> loads{0}, unloads{0};

  void take(int64_t bytes) {
    const int64_t now = in_use += bytes;
    int64_t before = most;
    while (before < now && !most.compare_exchange_weak(before, now)) {
    }
  }
};

struct Behaviour {
  std::atomic<Millis> load_ms{0};
  std::atomic<int> failing_loads{0};
  std::atomic<bool> fails_forever{false}, hangs{false}, crashed{false}, keeps_memory{false};
  bool can_unload_in_use = true;
  std::atomic<int> users{0}; // of leases
  std::atomic<bool> was_unloaded_in_use{false};
};

class FakeHost : public ModelHost {
 public:
  FakeHost(Machine& machine, Behaviour& behaviour, int64_t bytes)
      : machine_(machine), behaviour_(behaviour), bytes_(bytes) {}

  Result<MemoryBytes> load(uint64_t generation, const MemoryBytes&) override {
    EXPECT_EQ(taken_, 0) << "two loads at a time";
    ++machine_.loads;
    machine_.take(bytes_);
    taken_ = bytes_;
    {
      std::unique_lock lock(mutex_);
      const auto is_interrupted = [&] { return interrupted_ >= generation; };
      if (behaviour_.hangs)
        wake_.wait(lock, is_interrupted);
      else
        wake_.wait_for(lock, std::chrono::milliseconds(behaviour_.load_ms), is_interrupted);
      if (is_interrupted())
        return fail(ErrorCode::kCancelled, "interrupted");
    }
    if (behaviour_.fails_forever)
      return fail(ErrorCode::kInvalidInput, "not a model");
    if (behaviour_.failing_loads > 0) {
      --behaviour_.failing_loads;
      return fail(ErrorCode::kIo, "the disk is slow today");
    }
    behaviour_.crashed = false;
    return MemoryBytes{bytes_, 0};
  }
  Status unload(uint64_t) override {
    if (taken_ == 0)
      return {};
    ++machine_.unloads;
    if (behaviour_.users > 0 && !behaviour_.can_unload_in_use)
      behaviour_.was_unloaded_in_use = true;
    if (!behaviour_.keeps_memory) {
      machine_.in_use -= taken_;
      taken_ = 0;
    }
    return {};
  }
  bool memory_released(uint64_t) override {
    if (!behaviour_.keeps_memory && taken_ > 0) {
      machine_.in_use -= taken_;
      taken_ = 0;
    }
    return taken_ == 0;
  }
  bool is_alive() override { return !behaviour_.crashed; }
  void interrupt(uint64_t generation) override {
    {
      const std::lock_guard lock(mutex_);
      interrupted_ = std::max(interrupted_, generation);
    }
    wake_.notify_all();
  }
  bool can_unload_in_use() const override { return behaviour_.can_unload_in_use; }

 private:
  Machine& machine_;
  Behaviour& behaviour_;
  const int64_t bytes_;
  int64_t taken_ = 0;
  std::mutex mutex_;
  std::condition_variable wake_;
  uint64_t interrupted_ = 0;
};

class Manager : public testing::Test {
 protected:
  static constexpr int kModels = 4;

  Manager() {
    config_.limits.ceiling = {100, 0};
    config_.limits.max_wait_ms = 30;
    config_.limits.min_residency_ms = 5;
    config_.limits.drain_timeout_ms = 300;
    config_.limits.unload_timeout_ms = 100;
    config_.limits.first_back_off_ms = 10;
    config_.limits.max_back_off_ms = 40;
    options_.watch_ms = 5;
    options_.release_wait_ms = 40;
    options_.memory_wait_ms = 50;
  }
  void begin(std::initializer_list<int64_t> sizes) {
    std::vector<std::unique_ptr<ModelHost>> hosts;
    for (const int64_t bytes : sizes) {
      SwapModel model;
      model.name = std::string(1, static_cast<char>('a' + hosts.size()));
      model.planned = {bytes, 0};
      model.load_timeout_ms = 2'000;
      model.max_in_flight = 2;
      config_.models.push_back(model);
      hosts.push_back(std::make_unique<FakeHost>(machine_, behaviours_[hosts.size()], bytes));
    }
    manager_ = std::make_unique<SwapManager>(config_, std::move(hosts), options_);
  }
  // Until the model's phase is this, at most five seconds.
  bool wait_for(size_t model, ModelPhase phase) {
    for (int i = 0; i < 1000; ++i) {
      if (manager_->status().models[model].phase == phase)
        return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  Machine machine_;
  Behaviour behaviours_[kModels];
  SwapConfig config_;
  ManagerOptions options_;
  std::unique_ptr<SwapManager> manager_;
};

TEST_F(Manager, grants_keeps_and_swaps) {
  begin({60, 50});
  {
    const auto a = manager_->acquire({.model = 0});
    ASSERT_TRUE(a) << a.error().text();
    EXPECT_EQ(a->model(), 0U);
    EXPECT_FALSE(a->is_lost());
    EXPECT_EQ(manager_->status().models[0].in_flight, 1);
    EXPECT_EQ(manager_->status().reserved.ram, 60);
  }
  ASSERT_TRUE(manager_->acquire({.model = 0}));
  EXPECT_EQ(machine_.loads, 1) << "still loaded";
  ASSERT_TRUE(manager_->acquire({.model = 1}));
  const SwapStatus status = manager_->status();
  EXPECT_EQ(status.models[0].phase, ModelPhase::kAbsent);
  EXPECT_EQ(status.models[1].phase, ModelPhase::kReady);
  EXPECT_EQ(status.num_loads, 2U);
  EXPECT_EQ(status.num_evictions, 1U);
  EXPECT_EQ(machine_.most, 60) << "never both";
  EXPECT_TRUE(manager_->is_advancing());
}

TEST_F(Manager, many_callers_share_one_load) {
  behaviours_[0].load_ms = 50;
  config_.limits.drain_timeout_ms = 5'000;
  begin({60});
  std::vector<std::jthread> callers;
  std::atomic<int> granted{0};
  for (int i = 0; i < 16; ++i) {
    callers.emplace_back([&] {
      const auto lease = manager_->acquire({.model = 0});
      granted += lease.has_value();
    });
  }
  callers.clear();
  EXPECT_EQ(granted, 16);
  EXPECT_EQ(machine_.loads, 1);
}

TEST_F(Manager, the_ceiling_holds_under_random_use_with_crashes) {
  begin({60, 50, 45, 30});
  std::atomic<int> granted{0}, refused{0};
  {
    std::vector<std::jthread> callers;
    for (int i = 0; i < 8; ++i) {
      callers.emplace_back([&, i] {
        uint64_t random = 88172645463325252ULL + static_cast<uint64_t>(i);
        for (int n = 0; n < 25; ++n) {
          random ^= random << 13, random ^= random >> 7, random ^= random << 17;
          const size_t model = random % kModels;
          if (random % 16 == 3)
            behaviours_[model].crashed = true;
          if (random % 16 == 5)
            behaviours_[model].failing_loads = 1;
          std::stop_source gone;
          if (random % 8 == 1)
            gone.request_stop();
          const auto lease =
              manager_->acquire({.model = model, .wait_ms = 2'000}, gone.get_token());
          ++(lease ? granted : refused);
          if (lease && random % 4 == 0)
            std::this_thread::sleep_for(std::chrono::milliseconds(3));
        }
      });
    }
  }
  EXPECT_EQ(granted + refused, 200);
  EXPECT_GT(granted, 50);
  EXPECT_LE(machine_.most, 100);
  manager_.reset();
  EXPECT_EQ(machine_.in_use, 0);
}

TEST_F(Manager, a_failed_load_is_tried_again_and_then_told) {
  behaviours_[0].failing_loads = 2;
  begin({60});
  EXPECT_TRUE(manager_->acquire({.model = 0}));
  EXPECT_EQ(machine_.loads, 3);
  EXPECT_EQ(machine_.in_use, 60);
}

TEST_F(Manager, a_load_that_cannot_succeed_is_tried_once_until_the_settings_change) {
  behaviours_[0].fails_forever = true;
  begin({60});
  for (int i = 0; i < 3; ++i) {
    const auto lease = manager_->acquire({.model = 0});
    ASSERT_FALSE(lease);
    EXPECT_EQ(lease.error().code, ErrorCode::kInvalidInput);
    EXPECT_THAT(lease.error().text(), HasSubstr("not a model"));
  }
  EXPECT_EQ(machine_.loads, 1);
  behaviours_[0].fails_forever = false;
  ASSERT_TRUE(wait_for(0, ModelPhase::kFailed));
  manager_->forget_failures();
  EXPECT_TRUE(manager_->acquire({.model = 0}));
}

TEST_F(Manager, every_wait_has_a_deadline) {
  behaviours_[0].load_ms = 10'000;
  begin({60, 120});
  const auto late = manager_->acquire({.model = 0, .wait_ms = 60});
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::kBusy);
  const auto large = manager_->acquire({.model = 1});
  ASSERT_FALSE(large);
  EXPECT_EQ(large.error().code, ErrorCode::kTooLarge);
}

TEST_F(Manager, a_hung_load_is_interrupted_and_a_hung_unload_asked_for_again) {
  behaviours_[0].hangs = true;
  begin({60, 60});
  manager_.reset();
  config_.models[0].load_timeout_ms = 60;
  std::vector<std::unique_ptr<ModelHost>> hosts;
  hosts.push_back(std::make_unique<FakeHost>(machine_, behaviours_[0], 60));
  hosts.push_back(std::make_unique<FakeHost>(machine_, behaviours_[1], 60));
  manager_ = std::make_unique<SwapManager>(config_, std::move(hosts), options_);
  std::jthread other([&] {
    EXPECT_FALSE(manager_->acquire({.model = 0, .wait_ms = 100}));
    behaviours_[0].hangs = false;
  });
  other.join();
  ASSERT_TRUE(manager_->acquire({.model = 0, .wait_ms = 5'000}));

  behaviours_[0].keeps_memory = true;
  EXPECT_FALSE(manager_->acquire({.model = 1, .wait_ms = 250})) << "its bytes are not free";
  EXPECT_EQ(manager_->status().models[0].phase, ModelPhase::kUnloading);
  EXPECT_EQ(manager_->status().reserved.ram, 60);
  behaviours_[0].keeps_memory = false;
  EXPECT_TRUE(manager_->acquire({.model = 1, .wait_ms = 5'000}));
  EXPECT_LE(machine_.most, 100);
}

TEST_F(Manager, a_crash_is_noticed_and_its_leases_are_lost) {
  begin({60});
  auto lease = manager_->acquire({.model = 0});
  ASSERT_TRUE(lease);
  behaviours_[0].crashed = true;
  for (int i = 0; i < 1000 && !lease->is_lost(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_TRUE(lease->is_lost());
  const auto next = manager_->acquire({.model = 0, .wait_ms = 5'000});
  ASSERT_TRUE(next);
  EXPECT_GT(next->generation(), lease->generation());
  EXPECT_EQ(manager_->status().num_crashes, 1U);
  lease->give_back(); // of the earlier generation: the new one stays in use
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(manager_->status().models[0].in_flight, 1);
}

TEST_F(Manager, memory_in_use_stays_until_the_lease_is_given_back) {
  behaviours_[0].can_unload_in_use = false;
  config_.limits.drain_timeout_ms = 30;
  begin({60, 60});
  auto lease = manager_->acquire({.model = 0});
  ASSERT_TRUE(lease);
  behaviours_[0].users = 1;
  EXPECT_FALSE(manager_->acquire({.model = 1, .wait_ms = 200}));
  EXPECT_TRUE(lease->is_lost()) << "asked to end";
  EXPECT_EQ(machine_.unloads, 0);
  behaviours_[0].users = 0;
  lease->give_back();
  EXPECT_TRUE(manager_->acquire({.model = 1, .wait_ms = 5'000}));
  EXPECT_FALSE(behaviours_[0].was_unloaded_in_use);
}

TEST_F(Manager, callers_that_leave_vanish) {
  behaviours_[0].load_ms = 100;
  begin({60});
  std::stop_source gone;
  std::jthread caller([&] {
    const auto lease = manager_->acquire({.model = 0}, gone.get_token());
    ASSERT_FALSE(lease);
    EXPECT_EQ(lease.error().code, ErrorCode::kCancelled);
  });
  while (manager_->status().num_waiting == 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  gone.request_stop();
  caller.join();
  EXPECT_EQ(manager_->status().num_waiting, 0);
}

TEST_F(Manager, the_machine_must_have_what_the_ledger_has) {
  std::atomic<int64_t> usable{10};
  options_.usable_bytes = [&] { return usable.load(); };
  config_.limits.max_attempts = 1;
  begin({60});
  const auto lease = manager_->acquire({.model = 0, .wait_ms = 5'000});
  ASSERT_FALSE(lease);
  EXPECT_THAT(lease.error().text(), HasSubstr("it needs 60 B of RAM, the machine has 10 B"));
  EXPECT_EQ(machine_.loads, 0);
  usable = 1000;
  std::this_thread::sleep_for(std::chrono::milliseconds(60)); // the back-off
  EXPECT_TRUE(manager_->acquire({.model = 0, .wait_ms = 5'000}));
}

TEST_F(Manager, ttl_and_asked_for_unloads) {
  begin({30, 30});
  {
    ASSERT_TRUE(manager_->acquire({.model = 0, .keep_ms = 20}));
    ASSERT_TRUE(manager_->acquire({.model = 1}));
  }
  EXPECT_TRUE(wait_for(0, ModelPhase::kAbsent));
  EXPECT_EQ(manager_->status().models[1].phase, ModelPhase::kReady);
  manager_->unload(1);
  EXPECT_TRUE(wait_for(1, ModelPhase::kAbsent));
  EXPECT_EQ(machine_.in_use, 0);
}

TEST_F(Manager, a_stop_unloads_and_refuses) {
  begin({60});
  ASSERT_TRUE(manager_->acquire({.model = 0}));
  manager_->stop();
  EXPECT_EQ(machine_.in_use, 0);
  const auto after = manager_->acquire({.model = 0});
  ASSERT_FALSE(after);
  EXPECT_EQ(after.error().code, ErrorCode::kCancelled);
  EXPECT_FALSE(manager_->acquire({.model = 7}));
}

} // namespace
} // namespace pinhole
