#include "answer/generation.h"

#include "answer/logprobs.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>

namespace pinhole {

double now_ms() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Generation::Generation(const LoadedModel& loaded, const Prompt& prompt,
                       const AnswerOptions& options, const AnswerEvents& events,
                       const TokenPieces* pieces, double start_ms)
    : loaded_(loaded), options_(options), events_(events),
      sampler_(options.sampling, loaded.model.vocab_size),
      // What a grammar allows is written as it is: a space at the start belongs to it.
      decoder_(loaded.tokenizer, !options.grammar), filter_(options.stop),
      position_(prompt.next_position), start_ms_(start_ms) {
  for (const PromptToken& token : prompt.tokens)
    sampler_.see_prompt(token.id);
  if (options.grammar)
    matcher_.emplace(*options.grammar, *pieces);
}

void Generation::emit(std::string text, Answer& answer) {
  answer.text += text;
  if (!text.empty())
    events_.on_text(text);
}

bool Generation::take(TokenId id, std::span<const float> logits, bool has_room, Answer& answer) {
  ++answer.generated_tokens;
  if (answer.generated_tokens == 1) {
    first_token_ms_ = now_ms();
    answer.timings.first_token = first_token_ms_ - start_ms_;
  }
  answer.finish = FinishReason::kStop;
  if ((matcher_ || !options_.ignore_eos) && loaded_.is_stop(id))
    return true;
  answer.ids.push_back(id);
  if (options_.top_logprobs >= 0) {
    answer.logprobs.push_back(choose_token(logits, id, options_.top_logprobs, loaded_.tokenizer));
    events_.on_token(answer.logprobs.back());
  }
  emit(filter_.push(decoder_.push(id)), answer);
  if (matcher_)
    matcher_->accept(id);
  if (filter_.stopped() || (matcher_ && !matcher_->can_continue()))
    return true;
  if (answer.generated_tokens == options_.max_new_tokens) {
    answer.finish = FinishReason::kLength;
    return true;
  }
  answer.finish = FinishReason::kContext;
  return !has_room;
}

Result<std::optional<PromptToken>> Generation::advance(std::span<const float> logits, bool has_room,
                                                       Answer& answer) {
  bool ends = options_.max_new_tokens == 0;
  if (ends) {
    answer.finish = FinishReason::kLength;
  } else {
    std::span<const uint64_t> allowed;
    if (matcher_) {
      allowed = matcher_->allowed();
      if (std::all_of(allowed.begin(), allowed.end(), [](uint64_t word) { return word == 0; })) {
        return fail(ErrorCode::kUnsupported,
                    fmt::format("no token of the vocabulary goes on from '{}' as the grammar wants",
                                answer.text),
                    loaded_.files.text.path());
      }
    }
    const TokenId id = sampler_.sample(logits, allowed);
    ends = take(id, logits, has_room, answer);
    if (!ends) {
      const PromptToken next{id, {position_, position_, position_}};
      ++position_;
      return next;
    }
  }
  answer.timings.decode = first_token_ms_ > 0 ? now_ms() - first_token_ms_ : 0;
  if (!filter_.stopped()) {
    emit(filter_.push(decoder_.finish()), answer);
    emit(filter_.finish(), answer);
  }
  return std::nullopt;
}

} // namespace pinhole
