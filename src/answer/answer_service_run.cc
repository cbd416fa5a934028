// What the service's thread does: requests get a slot, their pictures and prompts are read, their
// tokens are run together.
//
// While a picture is encoded, advance() is called again between layers. It then does everything but
// begin another picture.
#include "answer/answer_service.h"
#include "answer/service_request.h"

#include <algorithm>
#include <cassert>

namespace pinhole {

bool AnswerService::advance() {
  end_cancelled();
  admit_queued();
  const bool placed = encoding_ == nullptr && advance_pictures();
  const bool ran = run_batch();
  return placed || ran;
}

void AnswerService::end_cancelled() {
  for (size_t i = 0; i < active_.size();) {
    Request& request = *active_[i];
    if (request.caller_cancelled())
      request.cancelled.store(true, std::memory_order_relaxed);
    if (request.cancelled.load(std::memory_order_relaxed) && &request != encoding_)
      finish(request, fail(ErrorCode::kCancelled, "interrupted"));
    else
      ++i;
  }
}

void AnswerService::finish(Request& request, Result<Answer> result) {
  std::erase(active_, &request);
  if (request.holds_sequence())
    last_use_[static_cast<size_t>(request.sequence)] = ++clock_;
  request.generation.reset();
  const std::lock_guard lock(mutex_);
  --counters_.running;
  ++(result ? counters_.answers : counters_.failures);
  request.result = std::move(result); // from here on it may be gone
  callers_.notify_all();
}

// Pictures of requests whose prompts are not read yet.
std::vector<Sha256Digest> AnswerService::needed_pictures() const {
  std::vector<Sha256Digest> out;
  for (const Request* request : active_) {
    if (request->stage == Request::Stage::kAnswer)
      continue;
    for (const PlacedPicture& picture : request->placed)
      out.push_back(picture.digest);
  }
  return out;
}

void AnswerService::admit_queued() {
  while (true) {
    Request* request = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (queue_.empty() || static_cast<int64_t>(active_.size()) == options_.parallel)
        return;
      request = queue_.front();
      queue_.pop_front();
      ++counters_.running;
    }
    active_.push_back(request);
    std::vector<Sha256Digest> keep = needed_pictures();
    for (const auto& [picture, piece] : request->prepared.pieces) {
      if (request->pictures[picture].digest)
        keep.push_back(piece_digest(request->pictures[picture], piece));
    }
    const Status admitted = session_->admit(keep);
    if (!admitted)
      finish(*request, tl::unexpected(admitted.error()));
    else if (request->prepared.pieces.empty())
      begin_prompt(*request);
  }
}

// --- pictures ---

// Of the oldest request that has not all of its pictures: one request holds the store's free room
// at a time, and its prompt follows at once.
bool AnswerService::advance_pictures() {
  const auto oldest = std::find_if(active_.begin(), active_.end(), [](const Request* request) {
    return request->stage == Request::Stage::kPictures;
  });
  if (oldest == active_.end())
    return false;
  Request& request = **oldest;
  if (!place_piece(request))
    return false;
  if (std::find(active_.begin(), active_.end(), &request) == active_.end())
    return true; // it failed
  if (request.placed.size() == request.prepared.pieces.size())
    begin_prompt(request);
  return true;
}

bool AnswerService::place_piece(Request& request) {
  const auto [picture_idx, piece] = request.next_piece();
  const Picture& picture = request.pictures[picture_idx];
  std::optional<Result<Image>> image;
  {
    const std::lock_guard lock(mutex_);
    if (image_turn_ == &request && !request.image)
      return false; // it is being decoded
    if (!request.image) {
      const auto found =
          picture.digest ? session_->find_picture(piece_digest(picture, piece)) : std::nullopt;
      if (found) {
        request.placed.push_back({found->first_row, piece_digest(picture, piece)});
        return true;
      }
      if (image_turn_ == nullptr) {
        image_turn_ = &request;
        callers_.notify_all();
      }
      return false;
    }
    image = std::move(request.image); // which stays engaged: its caller does not decode it again
  }
  if (!*image) {
    finish(request, tl::unexpected(image->error()));
    return true;
  }
  std::vector<Sha256Digest> keep = needed_pictures();
  const bool others_need_theirs = keep.size() > request.placed.size();
  keep.push_back(piece_digest(picture, piece));
  request.events.on_progress("encoding picture", static_cast<int64_t>(request.placed.size()),
                             static_cast<int64_t>(request.prepared.pieces.size()));
  const double start = now_ms();
  encoding_ = &request;
  between_seconds_ = 0;
  const auto encoded = encode_picture(*session_, picture, piece, **image, *loaded_.model.pictures,
                                      keep, &request.cancelled, [this] {
                                        const double pause = now_ms();
                                        note_progress();
                                        advance();
                                        note_progress();
                                        between_seconds_ += (now_ms() - pause) / 1000;
                                      });
  encoding_ = nullptr;
  const double encode_ms = now_ms() - start;
  // No room: it fits, or it would not be here. Once prompts that need their pictures are read, or
  // without the gaps that its own ones leave.
  const bool is_full = !encoded && encoded.error().code == ErrorCode::kTooLarge;
  if (is_full && others_need_theirs) {
    const std::lock_guard lock(mutex_);
    request.image = std::move(image);
    return false;
  }
  {
    const std::lock_guard lock(mutex_);
    if (encoded && piece + 1 < picture.pieces) {
      request.image = std::move(image); // for the next piece
    } else {
      request.image.reset();
      image_turn_ = nullptr;
    }
    if (encoded && !encoded->from_cache) {
      counters_.picture_tokens += encoded->tokens;
      counters_.encode_seconds += encode_ms / 1000 - between_seconds_;
    }
  }
  if (encoded) {
    request.answer.timings.encode += encode_ms;
    if (!encoded->from_cache && request.counted != &picture) {
      ++request.answer.encoded_pictures;
      request.counted = &picture;
    }
    request.placed.push_back({encoded->first_row, piece_digest(picture, piece)});
  } else if (is_full && !request.began_again) {
    request.began_again = true;
    request.placed.clear();
    session_->forget_pictures({});
  } else {
    finish(request, tl::unexpected(encoded.error()));
  }
  return true;
}

// --- prompts and answers ---

// Where the prompt goes: the free sequence that holds most of it, or a copy of that part in the one
// whose use is longest ago, whichever forgets less.
int32_t AnswerService::choose_sequence(const Prompt& prompt) {
  std::vector<bool> is_free(last_use_.size(), true);
  for (const Request* request : active_) {
    if (request->holds_sequence())
      is_free[static_cast<size_t>(request->sequence)] = false;
  }
  int32_t source = 0;
  int32_t target = -1;
  int64_t most = -1;
  for (int32_t s = 0; s < session_->num_sequences(); ++s) {
    const auto at = static_cast<size_t>(s);
    const int64_t common = session_->common_prefix(prompt.tokens, s);
    if (common > most || (common == most && is_free[at] && !is_free[static_cast<size_t>(source)])) {
      most = common;
      source = s;
    }
    if (is_free[at] && (target < 0 || last_use_[at] < last_use_[static_cast<size_t>(target)]))
      target = s;
  }
  assert(target >= 0);
  if (is_free[static_cast<size_t>(source)] && most > 0 &&
      session_->length(source) - most <= session_->length(target))
    return source;
  if (source != target && most > 0)
    session_->copy_prefix(source, target, most);
  return target;
}

void AnswerService::begin_prompt(Request& request) {
  request.prepared.bind(loaded_, request.placed);
  const Prompt& prompt = request.prepared.prompt;
  if (const Status named = session_->set_conversation(prompt.tokens); !named)
    return finish(request, tl::unexpected(named.error()));
  const int32_t sequence = choose_sequence(prompt);
  session_->truncate(session_->common_prefix(prompt.tokens, sequence), sequence);
  request.sequence = sequence;
  request.stage = Request::Stage::kPrompt;
  request.answer.reused_tokens = session_->length(sequence);
  const std::span<const PromptToken> rest = request.rest_of_prompt(session_->length(sequence));
  request.to_read = static_cast<int64_t>(rest.size());
  request.prefill_start_ms = now_ms();
  const Status fits = session_->check({sequence, rest});
  if (!fits)
    return finish(request, tl::unexpected(fits.error()));
  if (request.options.grammar && !pieces_)
    pieces_.emplace(loaded_.tokenizer, loaded_.stop_tokens, loaded_.model.vocab_size);
  request.generation.emplace(loaded_, prompt, request.options, request.events,
                             pieces_ ? &*pieces_ : nullptr, request.start_ms);
  const std::lock_guard lock(mutex_);
  counters_.reused_tokens += request.answer.reused_tokens;
}

// Parts of prompts behind the tokens of answers that are in parts_.
void AnswerService::add_prompts() {
  const int64_t capacity = session_->plan().shape.chunk_tokens;
  int64_t used = static_cast<int64_t>(parts_.size());
  int64_t wanted = parts_.empty() ? capacity : options_.mixed_chunk_tokens;
  bool is_first = true;
  for (size_t i = 0; i < active_.size(); ++i) {
    Request* request = active_[i];
    if (request->stage != Request::Stage::kPrompt)
      continue;
    const int64_t most = capacity - used;
    wanted = std::min(wanted, most);
    if (wanted <= 0)
      return;
    const std::span<const PromptToken> rest =
        request->rest_of_prompt(session_->length(request->sequence));
    const Result<size_t> count = session_->next_chunk(rest, wanted, most);
    if (!count && is_first) {
      // A picture that must be read at once: there is room in a run that holds nothing else.
      finish(*request, tl::unexpected(count.error()));
      --i;
      continue;
    }
    if (!count)
      return;
    parts_.push_back({request->sequence, rest.first(*count), *count == rest.size() ? 1 : 0});
    in_run_.push_back(request);
    used += static_cast<int64_t>(*count);
    wanted -= static_cast<int64_t>(*count);
    is_first = false;
  }
}

void AnswerService::count_run(double seconds, int64_t answer_tokens) {
  int64_t prompt_tokens = -answer_tokens;
  for (const Session::Part& part : parts_)
    prompt_tokens += static_cast<int64_t>(part.tokens.size());
  const double share =
      static_cast<double>(prompt_tokens) / static_cast<double>(prompt_tokens + answer_tokens);
  const std::lock_guard lock(mutex_);
  ++counters_.runs;
  counters_.prompt_tokens += prompt_tokens;
  counters_.prefill_seconds += seconds * share;
  counters_.decode_seconds += seconds * (1 - share);
}

bool AnswerService::run_batch() {
  parts_.clear();
  in_run_.clear();
  for (Request* request : active_) {
    if (request->stage != Request::Stage::kAnswer)
      continue;
    parts_.push_back({request->sequence, {&request->next, 1}, 1});
    in_run_.push_back(request);
  }
  const size_t answers = in_run_.size();
  add_prompts();
  if (parts_.empty())
    return false;
  // Only prompts make a run long: who waits for one may break it off, and it is run again for the
  // others.
  const std::atomic<bool>* cancel =
      in_run_.size() > answers ? &in_run_[answers]->cancelled
                               : (in_run_.size() == 1 ? &in_run_.front()->cancelled : nullptr);
  const double start = now_ms();
  const auto logits = session_->run(parts_, cancel);
  if (!logits) {
    if (logits.error().code == ErrorCode::kCancelled)
      return true; // end_cancelled() is next
    for (Request* request : in_run_)
      finish(*request, tl::unexpected(logits.error()));
    return true;
  }
  count_run((now_ms() - start) / 1000, static_cast<int64_t>(answers));
  size_t row = 0;
  const auto vocab = static_cast<size_t>(loaded_.model.vocab_size);
  for (size_t i = 0; i < in_run_.size(); ++i) {
    Request& request = *in_run_[i];
    if (i >= answers) {
      const int64_t left =
          static_cast<int64_t>(request.rest_of_prompt(session_->length(request.sequence)).size());
      request.events.on_progress("reading prompt", request.to_read - left, request.to_read);
    }
    if (parts_[i].outputs == 0)
      continue;
    take_logits(request, logits->subspan(vocab * row++, vocab));
  }
  return true;
}

void AnswerService::take_logits(Request& request, std::span<const float> logits) {
  if (request.stage == Request::Stage::kPrompt) {
    request.answer.timings.prefill = now_ms() - request.prefill_start_ms;
    request.stage = Request::Stage::kAnswer;
  }
  const bool has_room = session_->length(request.sequence) < session_->plan().shape.context_tokens;
  const int64_t before = request.answer.generated_tokens;
  auto next = request.generation->advance(logits, has_room, request.answer);
  {
    const std::lock_guard lock(mutex_);
    counters_.generated_tokens += request.answer.generated_tokens - before;
  }
  if (!next)
    finish(request, tl::unexpected(next.error()));
  else if (!*next)
    finish(request, std::move(request.answer));
  else
    request.next = **next;
}

} // namespace pinhole
