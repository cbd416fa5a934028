// One answer as it grows: from logits to the next token, its text, and where it ends. What runs the
// model calls advance() in turn; nothing here knows how.
#pragma once

#include "answer/answer.h"
#include "answer/loaded_model.h"
#include "answer/prompt.h"
#include "base/result.h"
#include "engine/sampler.h"
#include "text/grammar/matcher.h"

#include <optional>
#include <span>

namespace pinhole {

// Milliseconds of a clock that never goes back.
double now_ms();

class Generation {
 public:
  // `pieces` may be null without a grammar. All that is named by reference outlives this. Timings
  // count from start_ms.
  Generation(const LoadedModel& loaded, const Prompt& prompt, const AnswerOptions& options,
             const AnswerEvents& events, const TokenPieces* pieces, double start_ms);

  // `logits` follow the prompt, or the token that was returned last. Returns the token to go on
  // with; none: the answer is complete. `has_room`: the context has a place for that token.
  Result<std::optional<PromptToken>> advance(std::span<const float> logits, bool has_room,
                                             Answer& answer);

 private:
  void emit(std::string text, Answer& answer);
  // Takes a token; true: the answer ends with it, for answer.finish.
  bool take(TokenId id, std::span<const float> logits, bool has_room, Answer& answer);

  const LoadedModel& loaded_;
  const AnswerOptions& options_;
  const AnswerEvents& events_;
  Sampler sampler_;
  std::optional<GrammarMatcher> matcher_;
  StreamDecoder decoder_;
  StopFilter filter_;
  int32_t position_ = 0; // of the next token
  double start_ms_ = 0;
  double first_token_ms_ = 0;
};

} // namespace pinhole
