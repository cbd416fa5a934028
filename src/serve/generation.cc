#include "serve/generation.h"

#include <algorithm>
#include <fmt/format.h>
#include <system_error>

namespace pinhole::serve {

namespace {

ApiError too_long(int64_t prompt_tokens, int64_t picture_tokens, int64_t context_tokens) {
  ApiError error;
  error.message = fmt::format(
      "the prompt has {} tokens ({} of them pictures), the context holds {}, and the answer needs "
      "at least 1; send less, smaller pictures (detail \"low\"), or start the server with a larger "
      "--ctx",
      prompt_tokens, picture_tokens, context_tokens);
  error.param = "messages";
  error.code = "context_length_exceeded";
  error.is_final = true;
  return error;
}

} // namespace

ApiResult<Generation> prepare(GenerationRequest& request, const ModelService& service) {
  const LoadedModel& loaded = service.loaded();
  Generation out;
  out.options = std::move(request.options);
  out.raw_prompt = std::move(request.raw_prompt);
  out.turns = std::move(request.conversation.turns);
  PINHOLE_API(out.pictures, open_pictures(request.conversation.pictures, service));
  if (request.tools.are_offered()) {
    out.finds_calls = true;
    if (request.tools.is_required) {
      if (out.options.grammar) {
        return refuse(400, "a tool call that is required and a response format exclude each other",
                      "tool_choice", "invalid_value");
      }
      PINHOLE_API(out.options.grammar, tool_grammar(request.tools));
      out.only_call = true;
    }
    offer_tools(request.tools, template_knows_tools(loaded), out.turns);
  }
  if (out.options.grammar) {
    const int64_t needed = GrammarMatcher::memory_bound(*out.options.grammar, loaded.tokenizer);
    if (needed > service.grammar_bytes()) {
      ApiError error;
      error.message = fmt::format("the format of the answer may take {} bytes, {} are there; make "
                                  "its schema smaller, or its repetitions fewer",
                                  needed, service.grammar_bytes());
      error.param = "response_format";
      error.code = "grammar_too_large";
      error.is_final = true;
      return tl::unexpected<ApiError>(std::move(error));
    }
  }
  const auto ids = out.raw_prompt ? encode_prompt(loaded, *out.raw_prompt, {})
                                  : count_prompt(loaded, out.turns, out.pictures);
  if (!ids)
    return tl::unexpected<ApiError>(to_api_error(ids.error(), "messages"));
  out.prompt_tokens = static_cast<int64_t>(ids->size());
  for (const ChatTurn& turn : out.turns) {
    for (const size_t i : turn.pictures)
      out.picture_tokens += out.pictures[i].tokens;
  }
  const int64_t context = service.plan().shape.context_tokens;
  if (out.prompt_tokens + 1 > context)
    return tl::unexpected<ApiError>(too_long(out.prompt_tokens, out.picture_tokens, context));
  if (out.prompt_tokens == 0)
    return refuse(400, "the prompt is empty", "prompt");
  out.options.max_new_tokens =
      std::min(request.max_tokens.value_or(context), context - out.prompt_tokens);
  return out;
}

Run::Run(ModelService& service, Generation& generation, std::atomic<bool>& gone, Metrics& metrics)
    : service_(service), generation_(generation), gone_(gone), metrics_(metrics),
      answer_(fail(ErrorCode::kBusy, "no thread can be made")) {
  ++metrics_.processing;
  try {
    thread_ = std::thread([this] { work(); });
  } catch (const std::system_error&) {
    ended_ = true;
  }
}

Run::~Run() {
  if (!has_ended())
    gone_ = true;
  if (thread_.joinable())
    thread_.join();
  --metrics_.processing;
}

void Run::push(RunEvent event) {
  const std::lock_guard lock(mutex_);
  const bool replaces = event.kind == RunEvent::Kind::kProgress && !events_.empty() &&
                        events_.back().kind == RunEvent::Kind::kProgress;
  if (replaces)
    events_.back() = std::move(event);
  else
    events_.push_back(std::move(event));
  changed_.notify_one();
}

void Run::work() {
  const auto on_text = [&](std::string_view text) {
    RunEvent event;
    event.text = text;
    push(std::move(event));
  };
  const auto on_progress = [&](std::string_view stage, int64_t done, int64_t total) {
    RunEvent event;
    event.kind = RunEvent::Kind::kProgress;
    event.text = stage;
    event.done = done;
    event.total = total;
    push(std::move(event));
  };
  const auto on_token = [&](const TokenChoice& token) {
    RunEvent event;
    event.kind = RunEvent::Kind::kToken;
    event.token = token;
    push(std::move(event));
  };
  const AnswerEvents events{on_text, on_progress, on_token};
  auto answer = generation_.raw_prompt ? service_.complete(*generation_.raw_prompt,
                                                           generation_.options, events, &gone_)
                                       : service_.answer(generation_.turns, generation_.pictures,
                                                         generation_.options, events, &gone_);
  if (answer)
    metrics_.add_answer(*answer);
  else
    metrics_.add_failure(answer.error().code);
  const std::lock_guard lock(mutex_);
  answer_ = std::move(answer);
  ended_ = true;
  changed_.notify_one();
}

std::optional<RunEvent> Run::next(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, wait, [this] { return ended_ || !events_.empty(); });
  if (events_.empty())
    return std::nullopt;
  RunEvent event = std::move(events_.front());
  events_.pop_front();
  return event;
}

void Run::wait_for_sign(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, wait, [this] { return ended_ || !events_.empty(); });
}

bool Run::has_ended() {
  const std::lock_guard lock(mutex_);
  return ended_ && events_.empty();
}

bool Run::wait_for(std::chrono::milliseconds wait) {
  const auto until = std::chrono::steady_clock::now() + wait;
  while (!has_ended()) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        until - std::chrono::steady_clock::now());
    if (left.count() <= 0)
      return false;
    (void)next(left);
  }
  return true;
}

} // namespace pinhole::serve
