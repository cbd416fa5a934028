// An answer: what is asked for beside the conversation, what comes back, and what happens meanwhile.
#pragma once

#include "base/function_ref.h"
#include "engine/sampler.h"
#include "text/grammar/grammar.h"
#include "text/tokenizer.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

struct AnswerOptions {
  SamplingOptions sampling;
  int64_t max_new_tokens = 512;
  std::vector<std::string> stop; // the answer ends before the first of these
  bool ignore_eos = false;       // for measuring: always max_new_tokens
  // The answer is a text of this grammar (its beginning, when it is cut), and ends where nothing
  // can follow; ignore_eos does not count then.
  std::optional<Grammar> grammar;
  // Of every token of the answer: its log-probability and those of so many of the most likely
  // tokens, at most kMaxTopLogprobs; -1: none. What the model says, before penalties, temperature
  // and grammar.
  int64_t top_logprobs = -1;
};

inline constexpr int64_t kMaxTopLogprobs = 64;

struct TokenLogprob {
  TokenId id = 0;
  std::string bytes; // what it stands for, not always whole characters; a control token's text
  float logprob = 0;
};

// A token of an answer beside what else the model would have said there.
struct TokenChoice {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top; // most likely first; the chosen one is among them where it is one
};

enum class FinishReason { kStop, kLength, kContext };
std::string_view finish_reason_name(FinishReason reason);

struct AnswerTimings { // milliseconds, from the start of the request
  double picture = 0;  // decoding and resizing
  double encode = 0;   // vision tower
  double prefill = 0;
  double first_token = 0; // from the start of the request to the first token
  double decode = 0;      // the tokens after the first
};

struct Answer {
  std::string text;
  std::vector<TokenId> ids; // generated, without the stop token
  std::vector<TokenChoice> logprobs; // of each of `ids`, where they are asked for
  FinishReason finish = FinishReason::kStop;
  int64_t prompt_tokens = 0;
  int64_t picture_tokens = 0;
  int64_t generated_tokens = 0; // the stop token included
  int64_t reused_tokens = 0;    // of the prompt, found in the cache
  int64_t encoded_pictures = 0; // that were not found in the cache
  AnswerTimings timings;
};

inline constexpr auto kIgnoreToken = [](const TokenChoice&) {};

// What happens, for progress displays.
struct AnswerEvents {
  FunctionRef<void(std::string_view text)> on_text;
  FunctionRef<void(std::string_view stage, int64_t done, int64_t total)> on_progress;
  // With top_logprobs: every token of `ids`, before the text that it completes is handed out.
  FunctionRef<void(const TokenChoice&)> on_token = kIgnoreToken;
};

// Ends streamed text before the first stop string, holding back what might become one.
class StopFilter {
 public:
  explicit StopFilter(const std::vector<std::string>& stops) : stops_(stops) {}
  std::string push(std::string_view text); // text that is certain
  std::string finish();                    // what was held back
  bool stopped() const { return stopped_; }

 private:
  const std::vector<std::string>& stops_;
  std::string held_;
  bool stopped_ = false;
};

} // namespace pinhole
