// Many callers at once on the bundled model: each gets the answer that it gets alone, whatever
// happens to the others.
#include "answer/answer_service.h"

#include "kernels/select.h"
#include "support/golden.h"

#include <functional>
#include <future>
#include <gmock/gmock.h>
#include <map>
#include <random>
#include <sstream>

namespace pinhole {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using testing::take;

const std::string& folder() {
  static const std::string path = testing::source_path("models/pinhole-mini");
  return path;
}

const LoadedModel& bundled() {
  static const auto loaded = take(load_model(folder() + "/pinhole-mini-f16.gguf"));
  return *loaded;
}

const std::vector<Json>& samples() {
  static const std::vector<Json> all = [] {
    std::vector<Json> out;
    std::istringstream lines(testing::read_file(folder() + "/samples.jsonl"));
    for (std::string line; out.size() < 12 && std::getline(lines, line);)
      out.push_back(take(parse_json(line, "samples.jsonl")));
    return out;
  }();
  return all;
}

Picture open_sample(size_t i) {
  const std::string path = folder() + "/" + samples()[i]["image"].get<std::string>();
  return take(open_picture(testing::read_file(path), path, *bundled().model.pictures, {}));
}

std::vector<ChatTurn> turns_of(size_t i) {
  return {{"user", samples()[i]["question"].get<std::string>(), {0}}};
}

KernelChoice exact_kernels(int threads = 1) {
  return {take(kernels::select()), true, threads, kernels::KvType::kF32};
}

constexpr int64_t kContext = 400;

AnswerService::Options options_for(int64_t parallel, int64_t max_queue) {
  AnswerService::Options options;
  options.limits.context_tokens = kContext;
  options.parallel = parallel;
  options.max_queue = max_queue;
  options.mixed_chunk_tokens = 16;
  for (size_t i = 0; i < samples().size(); ++i)
    options.pictures.push_back(open_sample(i));
  return options;
}

// What happens to one request; text comes on the service's thread.
struct Caller {
  AnswerOptions options;
  std::atomic<bool> cancel{false};
  std::string streamed;
  std::function<void()> on_text = [] {};
  std::function<void(std::string_view)> on_stage = [](std::string_view) {};

  Caller() { options.max_new_tokens = 60; }
  template <class Ask> Result<Answer> with_events(Ask ask) {
    const auto text = [this](std::string_view piece) {
      streamed += piece;
      on_text();
    };
    const auto progress = [this](std::string_view stage, int64_t, int64_t) { on_stage(stage); };
    return ask(AnswerEvents{text, progress});
  }
  Result<Answer> ask(AnswerService& service, std::span<const ChatTurn> turns,
                     std::span<Picture> pictures = {}) {
    return with_events([&](const AnswerEvents& events) {
      return service.answer(turns, pictures, options, {}, events, &cancel);
    });
  }
  Result<Answer> ask_sample(AnswerService& service, size_t i) {
    std::vector<Picture> pictures;
    pictures.push_back(open_sample(i));
    return ask(service, turns_of(i), pictures);
  }
};

// Alone, by the synchronous path.
const Answer& alone(size_t i) {
  static std::map<size_t, Answer> answers;
  const auto known = answers.find(i);
  if (known != answers.end())
    return known->second;
  std::vector<Picture> pictures;
  pictures.push_back(open_sample(i));
  Answerer::Limits limits;
  limits.context_tokens = kContext;
  const auto answerer = take(Answerer::create(bundled(), limits, pictures, exact_kernels()));
  AnswerOptions options;
  options.max_new_tokens = 60;
  const auto nothing = [](std::string_view) {};
  const auto no_progress = [](std::string_view, int64_t, int64_t) {};
  return answers[i] =
             take(answerer->answer(turns_of(i), pictures, options, {}, {nothing, no_progress}));
}

// A door on the service's thread: what goes through it waits until it is opened.
class Door {
 public:
  void pass() {
    std::unique_lock lock(mutex_);
    reached_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void wait_until_reached() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return reached_; });
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_ = false, open_ = false;
};

template <class Condition> bool soon(Condition condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition())
      return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

const std::vector<ChatTurn> kLong{{"user", "List all boxes.", {}}};

TEST(AnswerService, EveryCallerGetsTheAnswerThatItGetsAlone) {
  for (const int64_t parallel : {1, 2, 4}) {
    const auto service =
        take(AnswerService::create(bundled(), options_for(parallel, 100), exact_kernels(2)));
    std::vector<std::future<void>> callers;
    for (size_t i = 0; i < samples().size(); ++i)
      alone(i);
    for (size_t i = 0; i < 2 * samples().size(); ++i) {
      callers.push_back(std::async(std::launch::async, [&service, i] {
        const size_t sample = i % samples().size();
        Caller caller;
        const Answer answer = take(caller.ask_sample(*service, sample));
        EXPECT_EQ(answer.ids, alone(sample).ids) << sample;
        EXPECT_EQ(answer.text, alone(sample).text);
        EXPECT_EQ(caller.streamed, answer.text);
        EXPECT_EQ(answer.finish, alone(sample).finish);
        EXPECT_EQ(answer.prompt_tokens, alone(sample).prompt_tokens);
        EXPECT_EQ(answer.picture_tokens, alone(sample).picture_tokens);
      }));
    }
    for (auto& caller : callers)
      caller.get();
    const AnswerService::Counters counters = service->counters();
    EXPECT_EQ(counters.answers, static_cast<int64_t>(callers.size()));
    EXPECT_EQ(counters.failures, 0);
    EXPECT_EQ(counters.running, 0);
    EXPECT_EQ(counters.queued, 0);
    EXPECT_EQ(counters.slots, parallel);
    int64_t prompt_tokens = 0;
    int64_t generated = 0;
    int64_t most_picture_tokens = 0;
    for (size_t i = 0; i < samples().size(); ++i) {
      prompt_tokens += 2 * alone(i).prompt_tokens;
      generated += 2 * alone(i).generated_tokens;
      most_picture_tokens += 2 * alone(i).picture_tokens;
    }
    EXPECT_EQ(counters.prompt_tokens + counters.reused_tokens, prompt_tokens);
    EXPECT_EQ(counters.generated_tokens, generated);
    EXPECT_GT(counters.picture_tokens, 0);
    EXPECT_LE(counters.picture_tokens, most_picture_tokens);
    EXPECT_GT(counters.prefill_seconds, 0);
    EXPECT_GT(counters.decode_seconds, 0);
    EXPECT_GT(counters.encode_seconds, 0);
    EXPECT_GT(counters.reserved_bytes, service->plan().kv_cache_bytes);
  }
}

TEST(AnswerService, AFullQueueIsBusyAtOnceAndTheOthersAreAnswered) {
  const auto service = take(AnswerService::create(bundled(), options_for(1, 1), exact_kernels()));
  Door door;
  Caller first;
  first.on_text = [&] { door.pass(); };
  auto running = std::async(std::launch::async, [&] { return first.ask_sample(*service, 0); });
  door.wait_until_reached();
  Caller second;
  auto waiting = std::async(std::launch::async, [&] { return second.ask_sample(*service, 1); });
  ASSERT_TRUE(soon([&] { return service->counters().queued == 1; }));
  EXPECT_EQ(service->counters().running, 1);
  EXPECT_EQ(service->counters().busy_slots, 1);
  Caller third;
  const auto refused = third.ask_sample(*service, 2);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kBusy);
  EXPECT_THAT(refused.error().text(), HasSubstr("queue is full"));
  door.open();
  EXPECT_EQ(take(running.get()).ids, alone(0).ids);
  EXPECT_EQ(take(waiting.get()).ids, alone(1).ids);
  EXPECT_EQ(take(third.ask_sample(*service, 2)).ids, alone(2).ids);
}

TEST(AnswerService, CancellingInTheQueueEndsItWhileTheServiceIsHeldUp) {
  const auto service = take(AnswerService::create(bundled(), options_for(1, 5), exact_kernels()));
  Door door;
  Caller first;
  first.on_text = [&] { door.pass(); };
  auto running = std::async(std::launch::async, [&] { return first.ask_sample(*service, 0); });
  door.wait_until_reached();
  Caller second;
  auto waiting = std::async(std::launch::async, [&] { return second.ask_sample(*service, 1); });
  ASSERT_TRUE(soon([&] { return service->counters().queued == 1; }));
  second.cancel = true;
  const auto ended = waiting.get(); // before the door opens
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(service->counters().queued, 0);
  door.open();
  EXPECT_EQ(take(running.get()).ids, alone(0).ids);
}

TEST(AnswerService, CancellingAnAnswerOrAnEncodeLeavesTheOthers) {
  const auto service = take(AnswerService::create(bundled(), options_for(3, 5), exact_kernels(2)));
  Caller other;
  auto answered = std::async(std::launch::async, [&] { return other.ask_sample(*service, 3); });
  Caller talking;
  talking.options.ignore_eos = true;
  talking.options.max_new_tokens = -1;
  talking.on_stage = [&](std::string_view) { talking.cancel = true; }; // its prompt is read
  Caller looking;
  looking.on_stage = [&](std::string_view stage) {
    if (stage == "encoding picture")
      looking.cancel = true;
  };
  auto talks = std::async(std::launch::async, [&] { return talking.ask(*service, kLong); });
  size_t sample = 4; // of another picture
  while (samples()[sample]["image"] == samples()[3]["image"])
    ++sample;
  auto looks = std::async(std::launch::async, [&] { return looking.ask_sample(*service, sample); });
  for (auto* ended : {&talks, &looks}) {
    const auto result = ended->get();
    ASSERT_FALSE(result) << (ended == &talks ? "answer" : "picture") << ": '" << result->text
                         << "'";
    EXPECT_EQ(result.error().code, ErrorCode::kCancelled);
  }
  EXPECT_EQ(take(answered.get()).ids, alone(3).ids);
  EXPECT_EQ(service->counters().running, 0);
  // What was broken off is answered now.
  looking.cancel = false;
  looking.on_stage = [](std::string_view) {};
  EXPECT_EQ(take(looking.ask_sample(*service, sample)).ids, alone(sample).ids);
}

TEST(AnswerService, WhatDoesNotFitIsRefusedWithBothCounts) {
  AnswerService::Options options = options_for(2, 5);
  const auto service = take(AnswerService::create(bundled(), options, exact_kernels()));
  const auto refused = [](const Result<Answer>& result) {
    EXPECT_FALSE(result);
    if (result)
      return std::string();
    EXPECT_EQ(result.error().code, ErrorCode::kTooLarge);
    return result.error().text();
  };
  Caller caller;
  const auto tokens = static_cast<int64_t>(take(count_prompt(bundled(), kLong, {})).size());
  // The answer's last token needs no place.
  caller.options.max_new_tokens = kContext - tokens + 2;
  EXPECT_THAT(refused(caller.ask(*service, kLong)),
              AllOf(HasSubstr(std::to_string(tokens)), HasSubstr(std::to_string(kContext)),
                    HasSubstr(std::to_string(caller.options.max_new_tokens))));
  caller.options.max_new_tokens -= 1;
  EXPECT_TRUE(caller.ask(*service, kLong));
  caller.options.ignore_eos = true;
  const Answer whole = take(caller.ask(*service, kLong));
  EXPECT_EQ(whole.finish, FinishReason::kLength);
  EXPECT_EQ(whole.generated_tokens, caller.options.max_new_tokens);
  caller.options.max_new_tokens = -1;
  EXPECT_EQ(take(caller.ask(*service, kLong)).finish, FinishReason::kContext);
  EXPECT_EQ(take(caller.ask(*service, kLong)).generated_tokens, whole.generated_tokens);

  // Pictures: more at once than the store holds, and one larger than any that was planned.
  std::vector<Picture> pictures;
  std::vector<ChatTurn> turns{{"user", "What is it?", {}}};
  int64_t picture_tokens = 0;
  while (picture_tokens <= service->plan().shape.feature_tokens) {
    turns[0].pictures.push_back(pictures.size());
    pictures.push_back(open_sample(0));
    picture_tokens += pictures.back().tokens;
  }
  AnswerService::Options wide = options_for(1, 5);
  wide.limits.context_tokens = bundled().model.context_length;
  caller.options.max_new_tokens = 1;
  const auto roomy = take(AnswerService::create(bundled(), wide, exact_kernels()));
  const std::string text = refused(caller.ask(*roomy, turns, pictures));
  EXPECT_THAT(text, AnyOf(AllOf(HasSubstr(std::to_string(picture_tokens)),
                                HasSubstr(std::to_string(roomy->plan().shape.feature_tokens))),
                          HasSubstr(std::to_string(roomy->plan().shape.context_tokens))));
  AnswerService::Options without = options_for(1, 5);
  without.pictures.clear();
  const auto blind = take(AnswerService::create(bundled(), without, exact_kernels()));
  EXPECT_THAT(refused(caller.ask_sample(*blind, 0)), HasSubstr("planned"));
}

TEST(AnswerService, TextIsCompletedAsItIs) {
  const auto service = take(AnswerService::create(bundled(), options_for(2, 5), exact_kernels()));
  Caller caller;
  const Answer chat = take(caller.ask(*service, kLong));
  Caller raw;
  const std::string prompt = take(render_chat(bundled(), kLong));
  const Answer completed = take(raw.with_events(
      [&](const AnswerEvents& events) { return service->complete(prompt, raw.options, events); }));
  EXPECT_EQ(completed.ids, chat.ids);
  EXPECT_EQ(completed.prompt_tokens, chat.prompt_tokens);
  EXPECT_EQ(completed.reused_tokens, chat.prompt_tokens - 1);
}

// Of its own conversation, and of one that is being answered.
TEST(AnswerService, PrefixesWithPicturesAreReused) {
  const auto service = take(AnswerService::create(bundled(), options_for(2, 5), exact_kernels()));
  Caller caller;
  const Answer first = take(caller.ask_sample(*service, 0));
  EXPECT_EQ(first.reused_tokens, 0);
  EXPECT_EQ(first.encoded_pictures, 1);
  std::vector<Picture> pictures;
  pictures.push_back(open_sample(0));
  std::vector<ChatTurn> turns = turns_of(0);
  turns.push_back({"assistant", first.text, {}});
  turns.push_back({"user", "List all boxes.", {}});
  Door door;
  Caller next;
  next.options.max_new_tokens = 20;
  next.on_text = [&] { door.pass(); };
  auto running =
      std::async(std::launch::async, [&] { return next.ask(*service, turns, pictures); });
  door.wait_until_reached();
  Caller beside;
  auto copied = std::async(std::launch::async, [&] { return beside.ask_sample(*service, 0); });
  ASSERT_TRUE(soon([&] { return service->counters().queued == 1; }));
  door.open();
  const Answer second = take(running.get());
  EXPECT_GE(second.reused_tokens, first.prompt_tokens);
  EXPECT_EQ(second.encoded_pictures, 0);
  const Answer third = take(copied.get());
  EXPECT_EQ(third.reused_tokens, first.prompt_tokens - 1);
  EXPECT_EQ(third.ids, first.ids);
  // The conversation is still there.
  turns.push_back({"assistant", second.text, {}});
  turns.push_back({"user", "Again?", {}});
  next.on_text = [] {};
  EXPECT_GE(take(next.ask(*service, turns, pictures)).reused_tokens, second.prompt_tokens);
}

TEST(AnswerService, APictureStoreThatHoldsOneAtATimeServesAll) {
  AnswerService::Options options = options_for(4, 20);
  const std::vector<Picture> all = std::move(options.pictures);
  options.pictures.clear();
  for (const Picture& picture : all) {
    options.limits.max_patches = std::max(options.limits.max_patches, picture.grid.patches());
    options.limits.feature_tokens = std::max(options.limits.feature_tokens, picture.tokens);
  }
  options.limits.picture_io_bytes = 64 << 20;
  const auto service = take(AnswerService::create(bundled(), options, exact_kernels(2)));
  std::vector<std::future<void>> callers;
  for (size_t i = 0; i < samples().size(); ++i)
    alone(i);
  for (size_t i = 0; i < samples().size(); ++i) {
    callers.push_back(std::async(std::launch::async, [&service, i] {
      Caller caller;
      EXPECT_EQ(take(caller.ask_sample(*service, i)).ids, alone(i).ids);
    }));
  }
  for (auto& caller : callers)
    caller.get();
}

TEST(AnswerService, GrammarsStopsAndLogprobsAreEachRequestsOwn) {
  const auto service = take(AnswerService::create(bundled(), options_for(4, 20), exact_kernels(2)));
  std::vector<std::future<void>> callers;
  callers.push_back(std::async(std::launch::async, [&] {
    Caller caller;
    caller.options.grammar =
        take(Grammar::from_choices(std::vector<std::string>{" zebra", " gnu"}));
    const Answer answer = take(caller.ask_sample(*service, 0));
    EXPECT_TRUE(answer.text == " zebra" || answer.text == " gnu") << answer.text;
    EXPECT_TRUE(answer.logprobs.empty());
  }));
  const Answer& whole = alone(1);
  callers.push_back(std::async(std::launch::async, [&] {
    Caller caller;
    caller.options.top_logprobs = 3;
    const Answer answer = take(caller.ask_sample(*service, 1));
    EXPECT_EQ(answer.ids, whole.ids);
    ASSERT_EQ(answer.logprobs.size(), answer.ids.size());
    for (size_t i = 0; i < answer.ids.size(); ++i) {
      EXPECT_EQ(answer.logprobs[i].chosen.id, answer.ids[i]);
      EXPECT_EQ(answer.logprobs[i].top.front().id, answer.ids[i]); // greedy
    }
  }));
  ASSERT_GT(whole.text.size(), 1u);
  callers.push_back(std::async(std::launch::async, [&] {
    Caller caller;
    caller.options.stop = {whole.text.substr(1, 1)};
    EXPECT_EQ(take(caller.ask_sample(*service, 1)).text,
              whole.text.substr(0, whole.text.find(whole.text[1])));
  }));
  for (auto& caller : callers)
    caller.get();
}

TEST(AnswerService, HealthFailsWhileNothingAdvances) {
  const auto service = take(AnswerService::create(bundled(), options_for(1, 5), exact_kernels()));
  EXPECT_TRUE(service->is_advancing(0)); // idle
  Door door;
  Caller caller;
  caller.on_text = [&] { door.pass(); };
  auto running = std::async(std::launch::async, [&] { return caller.ask_sample(*service, 0); });
  door.wait_until_reached();
  EXPECT_TRUE(soon([&] { return !service->is_advancing(20); }));
  EXPECT_TRUE(service->is_advancing(3600 * 1000));
  door.open();
  take(running.get());
  EXPECT_TRUE(soon([&] { return service->is_advancing(20); }));
}

TEST(AnswerService, StoppingEndsWhatRunsAndWhatWaits) {
  auto service = take(AnswerService::create(bundled(), options_for(2, 5), exact_kernels()));
  std::vector<std::future<Result<Answer>>> all;
  std::vector<std::unique_ptr<Caller>> callers;
  for (int i = 0; i < 4; ++i) {
    callers.push_back(std::make_unique<Caller>());
    callers.back()->options.ignore_eos = true;
    callers.back()->options.max_new_tokens = -1;
    callers.back()->on_text = [] { std::this_thread::sleep_for(std::chrono::milliseconds(5)); };
    all.push_back(std::async(std::launch::async, [&service, caller = callers.back().get()] {
      return caller->ask(*service, kLong);
    }));
  }
  ASSERT_TRUE(soon([&] {
    const AnswerService::Counters now = service->counters();
    return now.running == 2 && now.queued == 2;
  }));
  service->stop();
  for (auto& one : all) {
    const auto result = one.get();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kCancelled);
  }
  Caller late;
  const auto refused = late.ask(*service, kLong);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kBusy);
}

// Callers that come, go and change their minds at random moments.
TEST(AnswerService, RandomCallers) {
  AnswerService::Options options = options_for(3, 4);
  const auto service = take(AnswerService::create(bundled(), options, exact_kernels(2)));
  for (size_t i = 0; i < samples().size(); ++i)
    alone(i);
  std::vector<std::future<void>> threads;
  std::atomic<int> answered{0};
  for (uint32_t t = 0; t < 8; ++t) {
    threads.push_back(std::async(std::launch::async, [&, t] {
      std::mt19937 random(t);
      for (int round = 0; round < 6; ++round) {
        Caller caller;
        const bool gives_up = random() % 3 == 0;
        const auto after = static_cast<int>(random() % 8);
        int pieces = 0;
        if (gives_up && after < 4)
          caller.on_text = [&] { caller.cancel = pieces++ >= after; };
        std::thread impatient;
        if (gives_up && after >= 4) {
          impatient = std::thread([&caller, after] {
            std::this_thread::sleep_for(std::chrono::milliseconds(after * 3));
            caller.cancel = true;
          });
        }
        const size_t sample = random() % samples().size();
        const auto result = caller.ask_sample(*service, sample);
        if (impatient.joinable())
          impatient.join();
        if (result) {
          EXPECT_EQ(result->ids, alone(sample).ids);
          ++answered;
        } else if (result.error().code != ErrorCode::kBusy) {
          EXPECT_TRUE(gives_up);
          EXPECT_EQ(result.error().code, ErrorCode::kCancelled) << result.error().text();
        }
      }
    }));
  }
  for (auto& thread : threads)
    thread.get();
  EXPECT_GT(answered, 0);
  const AnswerService::Counters counters = service->counters();
  EXPECT_EQ(counters.running + counters.queued, 0);
  EXPECT_EQ(counters.answers, answered);
  EXPECT_EQ(counters.answers + counters.failures, 48);
}

} // namespace
} // namespace pinhole
