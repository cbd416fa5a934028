// The callers' side, and the thread's loop. What the thread does with requests:
// answer_service_run.cc.
#include "answer/answer_service.h"

#include "answer/service_request.h"
#include "base/checked.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>

namespace pinhole {

namespace {

// How long a caller's flag may be set before it is seen, where nothing else wakes anybody.
constexpr auto kPoll = std::chrono::milliseconds(5);

} // namespace

Result<std::unique_ptr<AnswerService>> AnswerService::create(const LoadedModel& loaded,
                                                             const Options& options,
                                                             const KernelChoice& kernels) {
  if (options.parallel < 1 || options.max_queue < 0 || options.mixed_chunk_tokens < 1) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("{} answers at a time, a queue of {}, chunks of {} tokens: at least "
                            "1, 0 and 1 are needed",
                            options.parallel, options.max_queue, options.mixed_chunk_tokens));
  }
  if (options.parallel > 1 && loaded.model.cache.has_cross()) {
    return fail(
        ErrorCode::kUnsupported,
        fmt::format("{} answers at a time: a model that attends to its pictures from layers "
                    "of their own gives one at a time",
                    options.parallel),
        {}, "--parallel 1");
  }
  PINHOLE_TRY(auto session, Session::create(loaded.model, options.limits.session_options(
                                                              loaded, options.pictures, kernels,
                                                              options.parallel)));
  return std::unique_ptr<AnswerService>(new AnswerService(loaded, options, std::move(session)));
}

AnswerService::AnswerService(const LoadedModel& loaded, const Options& options,
                             std::unique_ptr<Session> session)
    : loaded_(loaded), options_(options), session_(std::move(session)),
      last_use_(static_cast<size_t>(options.parallel)) {
  active_.reserve(last_use_.size());
  parts_.reserve(last_use_.size());
  in_run_.reserve(last_use_.size());
  counters_.slots = options.parallel;
  counters_.reserved_bytes = session_->anonymous_bytes();
  note_progress();
  thread_ = std::thread([this] { serve(); });
}

AnswerService::~AnswerService() {
  stop();
  thread_.join();
}

void AnswerService::stop() {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  wake_.notify_all();
  callers_.notify_all();
  callers_.wait(lock, [this] { return callers_inside_ == 0; });
}

AnswerService::Counters AnswerService::counters() const {
  const std::lock_guard lock(mutex_);
  Counters out = counters_;
  out.queued = static_cast<int64_t>(queue_.size());
  out.busy_slots = out.running;
  return out;
}

void AnswerService::note_progress() {
  last_progress_ms_.store(static_cast<int64_t>(now_ms()), std::memory_order_relaxed);
}

bool AnswerService::is_advancing(int64_t limit_ms) const {
  return !has_work_.load(std::memory_order_relaxed) ||
         static_cast<int64_t>(now_ms()) - last_progress_ms_.load(std::memory_order_relaxed) <=
             limit_ms;
}

// --- callers ---

Result<Answer> AnswerService::answer(std::span<const ChatTurn> turns, std::span<Picture> pictures,
                                     const AnswerOptions& options,
                                     const PictureOptions& picture_options,
                                     const AnswerEvents& events, const std::atomic<bool>* cancel) {
  Request request{options, picture_options, events, cancel, pictures};
  PINHOLE_TRY(request.prepared, prepare_prompt(loaded_, turns, pictures));
  return submit(request);
}

Result<Answer> AnswerService::complete(std::string_view raw_prompt, const AnswerOptions& options,
                                       const AnswerEvents& events,
                                       const std::atomic<bool>* cancel) {
  const PictureOptions no_pictures;
  Request request{options, no_pictures, events, cancel, {}};
  const std::vector<TokenId> ids = loaded_.tokenizer.encode(raw_prompt, true, true);
  PINHOLE_TRY(request.prepared.prompt, place_pictures(loaded_, ids, {}));
  return submit(request);
}

Status AnswerService::check_size(const Request& request) const {
  const RunShape& shape = session_->plan().shape;
  const Prompt& prompt = request.prepared.prompt;
  const auto prompt_tokens = static_cast<int64_t>(prompt.tokens.size());
  if (prompt_tokens == 0)
    return fail(ErrorCode::kInvalidInput, "the prompt is empty");
  // The last token of an answer needs no place: nothing comes after it.
  const int64_t wanted = request.options.max_new_tokens;
  const int64_t answer_places = wanted < 0 ? 0 : std::max<int64_t>(wanted - 1, 0);
  if (answer_places > shape.context_tokens ||
      prompt_tokens + answer_places > shape.context_tokens) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("the prompt has {} tokens ({} of them pictures){}, the context of a "
                            "conversation holds {}",
                            prompt_tokens, prompt.picture_tokens,
                            wanted < 0 ? "" : fmt::format(" and the answer may have {}", wanted),
                            shape.context_tokens),
                {}, "shorten the prompt, ask for fewer tokens, or serve with a larger --ctx");
  }
  int64_t tokens = 0;
  std::vector<size_t> seen;
  for (const auto& [i, piece] : request.prepared.pieces) {
    if (std::find(seen.begin(), seen.end(), i) != seen.end())
      continue;
    seen.push_back(i);
    const Picture& picture = request.pictures[i];
    tokens += picture.feature_tokens();
    if (picture.grid.patches() > shape.max_patches) {
      return fail(ErrorCode::kTooLarge,
                  fmt::format("the picture has {} patches, {} were planned", picture.grid.patches(),
                              shape.max_patches),
                  picture.name, "lower --max-image-tokens, or send a smaller picture");
    }
    if (picture.io_bytes() > shape.picture_io_bytes) {
      return fail(ErrorCode::kTooLarge,
                  fmt::format("decoding the picture takes {} bytes, {} were planned",
                              picture.io_bytes(), shape.picture_io_bytes),
                  picture.name, "send a smaller picture");
    }
  }
  if (tokens > shape.feature_tokens) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("the pictures need {} tokens at once, {} were planned", tokens,
                            shape.feature_tokens),
                {}, "send fewer or smaller pictures (--max-image-tokens)");
  }
  return {};
}

Result<Answer> AnswerService::submit(Request& request) {
  request.start_ms = now_ms();
  request.answer.prompt_tokens = static_cast<int64_t>(request.prepared.prompt.tokens.size());
  request.answer.picture_tokens = request.prepared.prompt.picture_tokens;
  PINHOLE_CHECK(check_size(request));
  std::unique_lock lock(mutex_);
  if (stopping_)
    return fail(ErrorCode::kBusy, "the model is about to be unloaded", {}, "ask again later");
  const int64_t waiting = static_cast<int64_t>(queue_.size()) + counters_.running;
  if (waiting >= options_.parallel + options_.max_queue) {
    ++counters_.failures;
    return fail(ErrorCode::kBusy,
                fmt::format("the queue is full: {} requests run, {} wait, {} may",
                            counters_.running, queue_.size(), options_.max_queue),
                {}, "ask again later");
  }
  ++callers_inside_;
  queue_.push_back(&request);
  has_work_.store(true, std::memory_order_relaxed);
  if (waiting == 0)
    note_progress(); // nobody was late before
  wake_.notify_all();
  while (!request.result) {
    if (request.caller_cancelled() || stopping_) {
      request.cancelled.store(true, std::memory_order_relaxed);
      const auto place = std::find(queue_.begin(), queue_.end(), &request);
      if (place != queue_.end()) {
        queue_.erase(place);
        ++counters_.failures;
        request.result = Result<Answer>(fail(ErrorCode::kCancelled, "interrupted"));
        break;
      }
      wake_.notify_all();
    }
    if (image_turn_ == &request && !request.image)
      decode_next_picture(request, lock);
    else
      callers_.wait_for(lock, kPoll);
  }
  if (image_turn_ == &request) {
    image_turn_ = nullptr;
    wake_.notify_all();
  }
  --callers_inside_;
  callers_.notify_all();
  return std::move(*request.result);
}

void AnswerService::decode_next_picture(Request& request, std::unique_lock<std::mutex>& lock) {
  Picture& picture = request.pictures[request.next_piece().picture];
  lock.unlock();
  const double start = now_ms();
  auto image = decode_for_model(picture, *loaded_.model.pictures, request.picture_options);
  const double decode_ms = now_ms() - start;
  lock.lock();
  request.answer.timings.picture += decode_ms;
  request.image = std::move(image);
  note_progress();
  wake_.notify_all();
}

// --- the service's thread ---

void AnswerService::serve() {
  std::unique_lock lock(mutex_);
  while (!stopping_ || counters_.running > 0 || !queue_.empty()) {
    if (counters_.running == 0 && queue_.empty()) {
      has_work_.store(false, std::memory_order_relaxed);
      wake_.wait(lock);
      continue;
    }
    lock.unlock();
    const bool got_on = advance();
    lock.lock();
    if (got_on)
      note_progress();
    else if (counters_.running > 0) // for a caller's picture
      wake_.wait_for(lock, kPoll);
  }
}

} // namespace pinhole
