// A request to the model, whatever the API: parsed, checked against the model, then run on a thread
// of its own while the caller writes what comes.
#pragma once

#include "serve/content.h"
#include "serve/metrics.h"
#include "serve/model_service.h"
#include "serve/tools.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace pinhole::serve {

// What the APIs share of a request, before a model is known.
struct GenerationRequest {
  std::string model;
  Conversation conversation;
  std::optional<std::string> raw_prompt; // instead of a conversation
  ToolRequest tools;
  AnswerOptions options;
  std::optional<int64_t> max_tokens; // nothing: as many as the context holds
};

// The same for one model: counted, and known to fit.
struct Generation {
  std::vector<ChatTurn> turns;
  std::vector<Picture> pictures;
  std::optional<std::string> raw_prompt;
  AnswerOptions options;
  bool only_call = false; // the answer is one tool call
  bool finds_calls = false;
  int64_t prompt_tokens = 0, picture_tokens = 0;
};

// Opens the pictures, counts the prompt's tokens, compiles what the answer is held to. Moves out of
// `request`. An error names what does not fit, with both numbers.
ApiResult<Generation> prepare(GenerationRequest& request, const ModelService& service);

struct RunEvent {
  enum class Kind { kText, kToken, kProgress };
  Kind kind = Kind::kText;
  std::string text; // or the stage
  int64_t done = 0, total = 0;
  TokenChoice token;
};

// One answer in the making. The destructor cancels and waits.
class Run {
 public:
  // All must outlive the run. `gone` cancels it, from whichever side it is set.
  Run(ModelService& service, Generation& generation, std::atomic<bool>& gone, Metrics& metrics);
  ~Run();
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // The next event, in order; nothing: it has ended, or `wait` is over.
  std::optional<RunEvent> next(std::chrono::milliseconds wait);
  bool has_ended();
  // Waits for the end, throwing away events; false: `wait` is over.
  bool wait_for(std::chrono::milliseconds wait);
  // Waits for the first event, which stays, or the end.
  void wait_for_sign(std::chrono::milliseconds wait);
  Result<Answer>& answer() { return answer_; } // once it has ended

 private:
  void work();
  void push(RunEvent event);

  ModelService& service_;
  Generation& generation_;
  std::atomic<bool>& gone_;
  Metrics& metrics_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<RunEvent> events_;
  bool ended_ = false;
  Result<Answer> answer_;
  std::thread thread_;
};

} // namespace pinhole::serve
