#include "serve/raw_completion.h"

#include "answer/logprobs.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>

namespace pinhole::serve {

namespace {

double now_ms() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

} // namespace

Result<Answer> complete_raw(Answerer& answerer, std::string_view prompt_text,
                            const AnswerOptions& options, const AnswerEvents& events,
                            const std::atomic<bool>* cancel) {
  const double start = now_ms();
  const LoadedModel& loaded = answerer.loaded();
  Session& session = answerer.session();
  PINHOLE_TRY(const std::vector<TokenId> ids, encode_prompt(loaded, prompt_text, {}));
  PINHOLE_TRY(const Prompt prompt, place_pictures(loaded, ids, {}));
  PINHOLE_CHECK(session.admit({}));
  Answer answer;
  answer.prompt_tokens = static_cast<int64_t>(ids.size());
  PINHOLE_TRY(std::span<const float> logits,
              session.prefill(prompt.tokens, cancel, &answer.reused_tokens,
                              [&](int64_t done, int64_t total) {
                                events.on_progress("reading prompt", done, total);
                              }));
  answer.timings.prefill = now_ms() - start;

  Sampler sampler(options.sampling, loaded.model.vocab_size);
  for (const TokenId id : ids)
    sampler.see_prompt(id);
  std::optional<TokenPieces> pieces;
  std::optional<GrammarMatcher> matcher;
  if (options.grammar) {
    pieces.emplace(loaded.tokenizer, loaded.stop_tokens, loaded.model.vocab_size);
    matcher.emplace(*options.grammar, *pieces);
  }
  StreamDecoder decoder(loaded.tokenizer, false);
  StopFilter filter(options.stop);
  const auto emit = [&](const std::string& text) {
    answer.text += text;
    if (!text.empty())
      events.on_text(text);
  };
  answer.finish = FinishReason::kLength;
  int32_t position = prompt.next_position;
  const double decode_start = now_ms();
  answer.timings.first_token = decode_start - start;
  while (answer.generated_tokens < options.max_new_tokens) {
    std::span<const uint64_t> allowed;
    if (matcher) {
      allowed = matcher->allowed();
      if (std::all_of(allowed.begin(), allowed.end(), [](uint64_t word) { return word == 0; }))
        return fail(ErrorCode::kUnsupported,
                    "no token of the vocabulary goes on as the format wants");
    }
    const TokenId id = sampler.sample(logits, allowed);
    ++answer.generated_tokens;
    if (loaded.is_stop(id)) {
      answer.finish = FinishReason::kStop;
      break;
    }
    answer.ids.push_back(id);
    if (options.top_logprobs >= 0) {
      answer.logprobs.push_back(choose_token(logits, id, options.top_logprobs, loaded.tokenizer));
      events.on_token(answer.logprobs.back());
    }
    emit(filter.push(decoder.push(id)));
    if (matcher)
      matcher->accept(id);
    if (filter.stopped() || (matcher && !matcher->can_continue())) {
      answer.finish = FinishReason::kStop;
      break;
    }
    if (answer.generated_tokens == options.max_new_tokens)
      break;
    if (session.length() + 1 > session.plan().shape.context_tokens) {
      answer.finish = FinishReason::kContext;
      break;
    }
    const PromptToken next{id, {position, position, position}};
    ++position;
    PINHOLE_TRY(logits, session.step(next, cancel));
  }
  answer.timings.decode = now_ms() - decode_start;
  if (!filter.stopped()) {
    emit(filter.push(decoder.finish()));
    emit(filter.finish());
  }
  return answer;
}

} // namespace pinhole::serve
