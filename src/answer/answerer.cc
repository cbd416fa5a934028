#include "answer/answerer.h"

#include "answer/logprobs.h"
#include "base/checked.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>

namespace pinhole {

namespace {

double now_ms() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// The pictures of a conversation in the order of their image tokens.
std::vector<size_t> picture_order(std::span<const ChatTurn> turns) {
  std::vector<size_t> order;
  for (const ChatTurn& turn : turns) {
    order.insert(order.end(), turn.pictures.begin(), turn.pictures.end());
  }
  return order;
}

} // namespace

Result<std::vector<TokenId>> count_prompt(const LoadedModel& loaded,
                                          std::span<const ChatTurn> turns,
                                          std::span<const Picture> pictures) {
  PINHOLE_TRY(const std::string rendered, render_chat(loaded, turns));
  std::vector<int64_t> tokens;
  std::vector<int64_t> row_tokens;
  for (const size_t i : picture_order(turns)) {
    tokens.push_back(pictures[i].image_tokens);
    row_tokens.push_back(pictures[i].grid.width / pictures[i].grid.merge);
  }
  return encode_prompt(loaded, rendered, tokens, row_tokens);
}

Result<std::unique_ptr<Answerer>> Answerer::create(const LoadedModel& loaded, const Limits& limits,
                                                   std::span<const Picture> pictures,
                                                   const KernelChoice& kernels) {
  RunShape shape;
  shape.context_tokens = std::min(limits.context_tokens, loaded.model.context_length);
  shape.chunk_tokens = limits.chunk_tokens;
  shape.feature_tokens = limits.feature_tokens;
  shape.max_patches = limits.max_patches;
  add_pictures(pictures, shape);
  SessionOptions options{shape, kernels, limits.memory_bytes, {}, limits.watch};
  for (const MappedFile& part : loaded.files.text.parts())
    options.files.push_back(&part);
  if (loaded.files.projector) {
    for (const MappedFile& part : loaded.files.projector->parts())
      options.files.push_back(&part);
  }
  PINHOLE_TRY(auto session, Session::create(loaded.model, options));
  return std::unique_ptr<Answerer>(new Answerer(loaded, std::move(session)));
}

Result<Answer> Answerer::answer(std::span<const ChatTurn> turns, std::span<Picture> pictures,
                                const AnswerOptions& options, const PictureOptions& picture_options,
                                const AnswerEvents& events, const std::atomic<bool>* cancel) {
  const double start = now_ms();
  Answer answer;
  PINHOLE_TRY(const std::vector<TokenId> ids, count_prompt(loaded_, turns, pictures));
  const std::vector<size_t> order = picture_order(turns);
  std::vector<PatchGrid> grids;
  for (const size_t i : order)
    grids.insert(grids.end(), static_cast<size_t>(pictures[i].pieces), pictures[i].grid);
  PINHOLE_TRY(Prompt prompt, place_pictures(loaded_, ids, grids));
  answer.prompt_tokens = static_cast<int64_t>(prompt.tokens.size());
  answer.picture_tokens = prompt.picture_tokens;
  const int64_t context = session_->plan().shape.context_tokens;
  if (answer.prompt_tokens + 1 > context) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("the prompt has {} tokens ({} of them pictures), the context holds {}",
                            answer.prompt_tokens, answer.picture_tokens, context),
                {}, "raise --ctx, lower --max-image-tokens, or shorten the prompt");
  }

  std::vector<Sha256Digest> keep;
  for (const size_t i : order) {
    for (int64_t piece = 0; pictures[i].digest && piece < pictures[i].pieces; ++piece)
      keep.push_back(piece_digest(pictures[i], piece));
  }
  PINHOLE_CHECK(session_->admit(keep));
  std::vector<PlacedPicture> placed;
  for (size_t n = 0; n < order.size(); ++n) {
    Picture& picture = pictures[order[n]];
    events.on_progress("encoding picture", static_cast<int64_t>(n),
                       static_cast<int64_t>(order.size()));
    const PictureSpec& spec = *loaded_.model.pictures;
    std::optional<Image> image; // decoded when a piece of it must be encoded
    bool is_new = false;
    for (int64_t piece = 0; piece < picture.pieces; ++piece) {
      std::optional<Session::EncodedPicture> encoded;
      if (picture.digest)
        encoded = session_->find_picture(piece_digest(picture, piece));
      if (!encoded) {
        const double decode_start = now_ms();
        if (!image) {
          PINHOLE_TRY(image, decode_for_model(picture, spec, picture_options));
        }
        const double encode_start = now_ms();
        answer.timings.picture += encode_start - decode_start;
        keep.push_back(piece_digest(picture, piece));
        const int64_t first = piece * picture.grid.patches();
        PINHOLE_TRY(encoded, session_->encode(
                                 keep.back(), picture.grid,
                                 [&](int64_t begin, int64_t end, float* out) {
                                   write_rows(*image, picture, spec, first + begin, first + end,
                                              out);
                                 },
                                 keep, cancel));
        answer.timings.encode += now_ms() - encode_start;
        is_new = is_new || !encoded->from_cache;
      }
      placed.push_back({encoded->first_row, piece_digest(picture, piece)});
    }
    answer.encoded_pictures += is_new ? 1 : 0;
  }
  bind_pictures(prompt, loaded_.image_token_id, grids, placed);

  const double prefill_start = now_ms();
  PINHOLE_TRY(const std::span<const float> logits,
              session_->prefill(prompt.tokens, cancel, &answer.reused_tokens,
                                [&](int64_t done, int64_t total) {
                                  events.on_progress("reading prompt", done, total);
                                }));
  answer.timings.prefill = now_ms() - prefill_start;
  return generate(std::move(answer), prompt, logits, options, events, cancel, start);
}

Result<Answer> Answerer::generate(Answer answer, const Prompt& prompt,
                                  std::span<const float> logits, const AnswerOptions& options,
                                  const AnswerEvents& events, const std::atomic<bool>* cancel,
                                  double start_ms) {
  Sampler sampler(options.sampling, loaded_.model.vocab_size);
  for (const PromptToken& token : prompt.tokens)
    sampler.see_prompt(token.id);
  std::optional<GrammarMatcher> matcher;
  if (options.grammar) {
    if (!pieces_)
      pieces_.emplace(loaded_.tokenizer, loaded_.stop_tokens, loaded_.model.vocab_size);
    matcher.emplace(*options.grammar, *pieces_);
  }
  // What a grammar allows is written as it is: a space at the start belongs to it.
  StreamDecoder decoder(loaded_.tokenizer, !matcher);
  StopFilter filter(options.stop);
  const auto emit = [&](const std::string& text) {
    const std::string certain = filter.push(text);
    answer.text += certain;
    if (!certain.empty())
      events.on_text(certain);
  };
  answer.ids.reserve(static_cast<size_t>(options.max_new_tokens));
  answer.finish = FinishReason::kLength;
  int32_t position = prompt.next_position;
  double first_token_ms = 0;
  while (answer.generated_tokens < options.max_new_tokens) {
    std::span<const uint64_t> allowed;
    if (matcher) {
      allowed = matcher->allowed();
      if (std::all_of(allowed.begin(), allowed.end(), [](uint64_t word) { return word == 0; })) {
        return fail(ErrorCode::kUnsupported,
                    fmt::format("no token of the vocabulary goes on from '{}' as the grammar wants",
                                answer.text),
                    loaded_.files.text.path());
      }
    }
    const TokenId id = sampler.sample(logits, allowed);
    ++answer.generated_tokens;
    if (answer.generated_tokens == 1) {
      first_token_ms = now_ms();
      answer.timings.first_token = first_token_ms - start_ms;
    }
    if ((matcher || !options.ignore_eos) && loaded_.is_stop(id)) {
      answer.finish = FinishReason::kStop;
      break;
    }
    answer.ids.push_back(id);
    if (options.top_logprobs >= 0) {
      answer.logprobs.push_back(choose_token(logits, id, options.top_logprobs, loaded_.tokenizer));
      events.on_token(answer.logprobs.back());
    }
    emit(decoder.push(id));
    if (matcher)
      matcher->accept(id);
    if (filter.stopped() || (matcher && !matcher->can_continue())) {
      answer.finish = FinishReason::kStop;
      break;
    }
    if (answer.generated_tokens == options.max_new_tokens)
      break;
    if (session_->length() + 1 > session_->plan().shape.context_tokens) {
      answer.finish = FinishReason::kContext;
      break;
    }
    const PromptToken next{id, {position, position, position}};
    ++position;
    PINHOLE_TRY(logits, session_->step(next, cancel));
  }
  answer.timings.decode = first_token_ms > 0 ? now_ms() - first_token_ms : 0;
  if (!filter.stopped()) {
    emit(decoder.finish());
    const std::string rest = filter.finish();
    answer.text += rest;
    if (!rest.empty())
      events.on_text(rest);
  }
  return answer;
}

} // namespace pinhole
