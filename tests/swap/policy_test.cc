// One rule of the policy per test; swap/simulation_test.cc mixes them at random.

#include "swap/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pinhole {
namespace {

using ::testing::HasSubstr;
using Kind = SwapAction::Kind;

class Policy : public testing::Test {
 protected:
  static constexpr Millis kFar = 1'000'000;

  Policy() {
    config_.limits.ceiling = {100, 0};
    config_.limits.max_wait_ms = 1'000;
    config_.limits.min_residency_ms = 100;
  }

  size_t add(int64_t ram, int64_t vram = 0) {
    SwapModel model;
    model.name = std::string(1, static_cast<char>('a' + config_.models.size()));
    model.planned = {ram, vram};
    config_.models.push_back(model);
    return config_.models.size() - 1;
  }
  void begin() { state_ = initial_state(config_); }

  // The actions in words: "load a 60", "drain a", "unload a", "unload! a", "grant 1", "refuse 1".
  std::string go(Millis now, const SwapEvent& event) {
    last_ = advance_swap(config_, state_, event, now);
    std::string out;
    for (const SwapAction& action : last_.actions) {
      const std::string& name = config_.models[action.model].name;
      out += out.empty() ? "" : ", ";
      switch (action.kind) {
      case Kind::kStartLoad:
        out += "load " + name + " " + std::to_string(action.bytes.ram);
        break;
      case Kind::kDrain:
        out += "drain " + name;
        break;
      case Kind::kUnload:
        out += (action.is_forced ? "unload! " : "unload ") + name;
        break;
      case Kind::kGrant:
        out += "grant " + std::to_string(action.request);
        break;
      case Kind::kRefuse:
        out += "refuse " + std::to_string(action.request);
        error_ = refusal_error(config_, state_, action, now);
        break;
      }
    }
    return out;
  }
  std::string tick(Millis now) { return go(now, {}); }
  std::string request(Millis now, uint64_t id, size_t model, Millis deadline = kFar) {
    SwapEvent event;
    event.kind = SwapEvent::Kind::kRequest;
    event.request = id;
    event.model = model;
    event.deadline = deadline;
    return go(now, event);
  }
  std::string about(Millis now, SwapEvent::Kind kind, size_t model, const std::string& error = {},
                    bool is_permanent = false) {
    SwapEvent event;
    event.kind = kind;
    event.model = model;
    event.generation = state_.models[model].generation;
    event.used = used_.value_or(state_.models[model].reserved);
    event.error = error;
    event.is_permanent = is_permanent;
    return go(now, event);
  }
  std::string loaded(Millis now, size_t model) {
    return about(now, SwapEvent::Kind::kLoaded, model);
  }
  std::string finished(Millis now, size_t model) {
    return about(now, SwapEvent::Kind::kFinished, model);
  }
  std::string released(Millis now, size_t model) {
    return about(now, SwapEvent::Kind::kReleased, model);
  }
  std::string failed(Millis now, size_t model, bool is_permanent) {
    return about(now, SwapEvent::Kind::kLoadFailed, model, "no such file", is_permanent);
  }

  SwapConfig config_;
  SwapState state_;
  SwapDecision last_;
  Error error_;
  std::optional<MemoryBytes> used_;
};

TEST_F(Policy, loads_grants_and_keeps) {
  const size_t a = add(60);
  begin();
  EXPECT_EQ(request(0, 1, a), "load a 60");
  EXPECT_EQ(request(1, 2, a), "") << "one load at a time; the second joins it";
  EXPECT_EQ(loaded(5, a), "grant 1");
  EXPECT_EQ(finished(9, a), "grant 2");
  EXPECT_EQ(finished(10, a), "");
  EXPECT_EQ(last_.wake_at, kNever) << "nothing to do, ever, without a ttl";
}

TEST_F(Policy, reserves_drains_confirms_then_loads) {
  const size_t a = add(60), b = add(50);
  begin();
  request(0, 1, a);
  loaded(5, a);
  finished(6, a);
  EXPECT_EQ(request(200, 2, b), "drain a, unload a");
  EXPECT_EQ(reserved_bytes(state_), (MemoryBytes{60, 0})) << "reserved until confirmed";
  EXPECT_EQ(request(201, 3, a), "") << "draining grants nothing";
  EXPECT_EQ(released(210, a), "load b 50");
}

TEST_F(Policy, requests_in_flight_end_before_the_unload) {
  const size_t a = add(60), b = add(50);
  config_.limits.max_wait_ms = 0;
  config_.limits.drain_timeout_ms = 500;
  begin();
  request(0, 1, a);
  loaded(5, a);
  EXPECT_EQ(request(200, 2, b), "drain a");
  EXPECT_EQ(last_.wake_at, 700);
  EXPECT_EQ(finished(300, a), "unload a");

  begin();
  request(0, 1, a);
  loaded(5, a);
  request(200, 2, b);
  EXPECT_EQ(tick(699), "");
  EXPECT_EQ(tick(700), "unload! a") << "cut off after the drain timeout";
  EXPECT_EQ(tick(700 + config_.limits.unload_timeout_ms), "unload! a") << "and asked for again";
}

TEST_F(Policy, what_never_fits_is_refused_at_once_with_the_numbers) {
  const size_t a = add(120), p = add(40), b = add(61);
  config_.models[p].is_pinned = true;
  begin();
  EXPECT_EQ(request(0, 1, a), "refuse 1");
  EXPECT_EQ(error_.code, ErrorCode::kTooLarge);
  EXPECT_THAT(error_.text(), HasSubstr("needs 120 B of RAM, 60 B of RAM are available"));
  EXPECT_THAT(error_.text(), HasSubstr("ceiling is 100 B"));
  EXPECT_EQ(request(0, 2, b), "refuse 2") << "the pinned model keeps its place, loaded or not";
  EXPECT_EQ(request(0, 3, p), "load b 40");
}

TEST_F(Policy, both_kinds_of_memory_count) {
  config_.limits.ceiling = {100, 10};
  const size_t a = add(10, 8), b = add(10, 8), c = add(10, 11);
  begin();
  EXPECT_EQ(request(0, 1, a), "load a 10");
  EXPECT_EQ(request(0, 2, b), "") << "the RAM would do, the VRAM does not";
  EXPECT_EQ(request(0, 3, c), "refuse 3");
  EXPECT_THAT(error_.text(), HasSubstr("11 B of VRAM"));
}

TEST_F(Policy, minimum_residency) {
  const size_t a = add(60), b = add(50);
  begin();
  request(0, 1, a);
  loaded(50, a);
  finished(60, a);
  EXPECT_EQ(request(70, 2, b), "");
  EXPECT_EQ(last_.wake_at, 150);
  EXPECT_EQ(tick(150), "drain a, unload a");
}

TEST_F(Policy, requests_of_the_loaded_model_go_first_up_to_the_max_wait) {
  const size_t a = add(60), b = add(50);
  begin();
  request(0, 1, a);
  loaded(5, a);
  request(200, 2, b);
  for (uint64_t i = 0; i < 10; ++i) { // a stream that never ends
    EXPECT_EQ(request(210 + 80 * static_cast<Millis>(i), 10 + i, a), "");
    EXPECT_EQ(finished(220 + 80 * static_cast<Millis>(i), a), "grant " + std::to_string(10 + i));
  }
  EXPECT_EQ(request(1190, 30, a), "");
  EXPECT_EQ(tick(1200), "drain a") << "1000 ms after request 2 came";
  EXPECT_EQ(finished(1210, a), "unload a");
  EXPECT_EQ(released(1220, a), "load b 50");
  EXPECT_EQ(loaded(1230, b), "grant 2");
}

TEST_F(Policy, a_near_deadline_shortens_the_max_wait) {
  const size_t a = add(60), b = add(50);
  begin();
  request(0, 1, a);
  loaded(5, a);
  EXPECT_EQ(request(200, 2, b, 600), "");
  EXPECT_EQ(last_.wake_at, 400);
  EXPECT_EQ(tick(400), "drain a");
  EXPECT_EQ(tick(600), "refuse 2");
  EXPECT_THAT(error_.text(), HasSubstr("not available in time"));
}

TEST_F(Policy, victims_are_idle_unpinned_least_recent_and_as_few_as_needed) {
  const size_t a = add(20), b = add(30), c = add(25), p = add(20), target = add(30);
  config_.models[p].is_pinned = true;
  begin();
  Millis now = 0;
  for (const size_t model : {p, a, b, c}) {
    request(now, model + 1, model);
    loaded(now + 1, model);
    finished(now + 2, model);
    now += 10;
  }
  // Free: 5. Missing: 25. `a` (20) is the oldest and not enough, with `b` (30) it is; then `a` can
  // stay.
  EXPECT_EQ(request(500, 9, target), "drain b, unload b");
}

TEST_F(Policy, idle_models_go_before_those_in_use) {
  const size_t a = add(50), b = add(50), target = add(40);
  config_.limits.max_wait_ms = 0;
  begin();
  request(0, 1, a);
  loaded(1, a); // in use since 1
  request(10, 2, b);
  loaded(11, b);
  finished(20, b); // used later, but idle
  EXPECT_EQ(request(500, 3, target), "drain b, unload b");
}

TEST_F(Policy, a_younger_request_does_not_take_what_an_older_waits_for) {
  const size_t a = add(70), big = add(90), small = add(30);
  begin();
  request(0, 1, a);
  loaded(1, a);
  EXPECT_EQ(request(200, 2, big), "") << "waits for the stream of a";
  EXPECT_EQ(request(1200, 3, small), "drain a")
      << "the big one's turn: the small one does not load";
  EXPECT_EQ(finished(1300, a), "unload a");
  EXPECT_EQ(released(1310, a), "load b 90");
}

TEST_F(Policy, ttl_unloads_what_is_idle) {
  const size_t a = add(60);
  config_.models[a].ttl_ms = 300;
  begin();
  request(0, 1, a);
  loaded(10, a);
  EXPECT_EQ(tick(500), "") << "in use";
  finished(600, a);
  EXPECT_EQ(last_.wake_at, 900);
  EXPECT_EQ(tick(900), "drain a, unload a");
}

TEST_F(Policy, a_request_can_change_the_ttl) {
  const size_t a = add(60);
  begin();
  SwapEvent event;
  event.kind = SwapEvent::Kind::kRequest;
  event.request = 1;
  event.deadline = kFar;
  event.keep_ms = 0;
  go(0, event);
  loaded(10, a);
  EXPECT_EQ(finished(20, a), "drain a, unload a");
}

TEST_F(Policy, a_failure_that_passes_is_tried_again_later) {
  const size_t a = add(60);
  begin();
  request(0, 1, a);
  EXPECT_EQ(failed(10, a, false), "unload! a");
  EXPECT_EQ(released(20, a), "");
  EXPECT_EQ(tick(1000), "");
  EXPECT_EQ(last_.wake_at, 1020);
  EXPECT_EQ(tick(1020), "load a 60");
  failed(1030, a, false);
  released(1040, a);
  EXPECT_EQ(last_.wake_at, 3040) << "twice as long";
  EXPECT_EQ(tick(3040), "load a 60");
  EXPECT_EQ(failed(3050, a, false), "unload! a, refuse 1") << "the third time";
  EXPECT_EQ(error_.code, ErrorCode::kIo);
  released(3060, a);
  EXPECT_EQ(request(3070, 2, a), "refuse 2");
  EXPECT_THAT(error_.text(), HasSubstr("no such file; it is tried again in 4.0 s"));
  EXPECT_EQ(request(7060, 3, a), "load a 60");
}

TEST_F(Policy, a_failure_that_does_not_pass_is_not_tried_again) {
  const size_t a = add(60);
  begin();
  request(0, 1, a);
  EXPECT_EQ(failed(10, a, true), "unload! a, refuse 1");
  released(20, a);
  EXPECT_EQ(request(900'000, 2, a), "refuse 2");
  EXPECT_THAT(error_.text(), HasSubstr("cannot be loaded: no such file"));
  EXPECT_EQ(about(900'001, SwapEvent::Kind::kForgetFailures, a), "");
  EXPECT_EQ(request(900'002, 3, a), "load a 60");
}

TEST_F(Policy, a_hung_load_is_cut_off) {
  const size_t a = add(60);
  config_.models[a].load_timeout_ms = 400;
  begin();
  request(0, 1, a);
  EXPECT_EQ(last_.wake_at, 400);
  EXPECT_EQ(tick(400), "unload! a");
  EXPECT_EQ(loaded(401, a), "") << "too late";
  EXPECT_EQ(reserved_bytes(state_).ram, 60);
  released(410, a);
  EXPECT_EQ(reserved_bytes(state_).ram, 0);
}

TEST_F(Policy, a_crash_gives_the_bytes_back_when_it_is_confirmed) {
  const size_t a = add(60);
  begin();
  request(0, 1, a);
  loaded(5, a);
  EXPECT_EQ(about(10, SwapEvent::Kind::kCrashed, a, "killed"), "unload! a");
  EXPECT_EQ(reserved_bytes(state_).ram, 60);
  EXPECT_EQ(request(11, 2, a), "") << "dead runners are not granted";
  released(20, a);
  EXPECT_EQ(reserved_bytes(state_).ram, 0);
  EXPECT_EQ(tick(1020), "load a 60");
  EXPECT_EQ(state_.models[a].in_flight, 0);
  EXPECT_EQ(loaded(1030, a), "grant 2");
}

TEST_F(Policy, events_of_an_earlier_generation_are_ignored) {
  const size_t a = add(60);
  begin();
  request(0, 1, a);
  loaded(5, a);
  for (const auto kind : {SwapEvent::Kind::kFinished, SwapEvent::Kind::kCrashed,
                          SwapEvent::Kind::kReleased, SwapEvent::Kind::kLoadFailed}) {
    SwapEvent event;
    event.kind = kind;
    event.model = a;
    event.generation = state_.models[a].generation - 1;
    EXPECT_EQ(go(10, event), "");
  }
  EXPECT_EQ(state_.models[a].in_flight, 1);
  EXPECT_EQ(state_.models[a].phase, ModelPhase::kReady);
}

TEST_F(Policy, an_unknown_size_reserves_everything_until_it_is_measured) {
  const size_t a = add(0), b = add(50);
  config_.models[a].is_measured = true;
  begin();
  EXPECT_EQ(request(0, 1, a), "load a 100");
  EXPECT_EQ(request(1, 2, b), "");
  used_ = MemoryBytes{40, 0};
  EXPECT_EQ(loaded(5, a), "grant 1, load b 50") << "40 are reserved now";
}

TEST_F(Policy, what_takes_more_than_its_plan_is_stopped_if_there_is_no_room) {
  const size_t a = add(60), b = add(30);
  begin();
  request(0, 1, a);
  request(1, 2, b);
  used_ = MemoryBytes{65, 0};
  EXPECT_EQ(loaded(5, a), "grant 1") << "ten were free";
  EXPECT_EQ(reserved_bytes(state_).ram, 95);
  used_ = MemoryBytes{40, 0};
  EXPECT_EQ(loaded(6, b), "unload! b");
  EXPECT_EQ(reserved_bytes(state_).ram, 95) << "never above the ceiling";
  EXPECT_EQ(state_.models[b].planned.ram, 40) << "the next load reserves what it takes";
}

TEST_F(Policy, the_queue_is_bounded_and_those_who_leave_vanish) {
  const size_t a = add(60);
  config_.limits.max_waiting = 2;
  begin();
  request(0, 1, a);
  request(1, 2, a);
  EXPECT_EQ(request(2, 3, a), "refuse 3");
  EXPECT_EQ(error_.code, ErrorCode::kBusy);
  SwapEvent gone;
  gone.kind = SwapEvent::Kind::kCancel;
  gone.request = 1;
  EXPECT_EQ(go(3, gone), "");
  EXPECT_EQ(loaded(5, a), "grant 2");
}

TEST_F(Policy, a_stop_refuses_and_unloads) {
  const size_t a = add(60), b = add(50);
  begin();
  request(0, 1, a);
  loaded(5, a);
  request(6, 2, b);
  SwapEvent stop;
  stop.kind = SwapEvent::Kind::kStop;
  EXPECT_EQ(go(10, stop), "drain a, refuse 2");
  EXPECT_EQ(finished(20, a), "unload a");
  EXPECT_EQ(request(21, 3, b), "refuse 3");
}

} // namespace
} // namespace pinhole
