#include "answer/answerer.h"

#include "answer/generation.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole {

SessionOptions Answerer::Limits::session_options(const LoadedModel& loaded,
                                                 std::span<const Picture> pictures,
                                                 const KernelChoice& kernels,
                                                 int64_t parallel) const {
  RunShape shape;
  shape.context_tokens = std::min(context_tokens, loaded.model.context_length);
  shape.parallel = parallel;
  shape.chunk_tokens = chunk_tokens;
  shape.feature_tokens = feature_tokens;
  shape.max_patches = max_patches;
  shape.picture_io_bytes = picture_io_bytes;
  add_pictures(pictures, shape);
  SessionOptions options{shape, kernels, memory_bytes, {}, watch};
  for (const MappedFile& part : loaded.files.text.parts())
    options.files.push_back(&part);
  if (loaded.files.projector) {
    for (const MappedFile& part : loaded.files.projector->parts())
      options.files.push_back(&part);
  }
  return options;
}

Result<std::unique_ptr<Answerer>> Answerer::create(const LoadedModel& loaded, const Limits& limits,
                                                   std::span<const Picture> pictures,
                                                   const KernelChoice& kernels) {
  PINHOLE_TRY(auto session,
              Session::create(loaded.model, limits.session_options(loaded, pictures, kernels)));
  return std::unique_ptr<Answerer>(new Answerer(loaded, std::move(session)));
}

Result<Answer> Answerer::answer(std::span<const ChatTurn> turns, std::span<Picture> pictures,
                                const AnswerOptions& options, const PictureOptions& picture_options,
                                const AnswerEvents& events, const std::atomic<bool>* cancel) {
  const double start = now_ms();
  Answer answer;
  PINHOLE_TRY(PreparedPrompt prepared, prepare_prompt(loaded_, turns, pictures));
  const Prompt& prompt = prepared.prompt;
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
  for (const auto& [picture, piece] : prepared.pieces) {
    if (pictures[picture].digest)
      keep.push_back(piece_digest(pictures[picture], piece));
  }
  PINHOLE_CHECK(session_->admit(keep));
  std::vector<PlacedPicture> placed;
  std::optional<Image> image; // of the piece before, when one of it had to be encoded
  const Picture* decoded = nullptr;
  const Picture* counted = nullptr;
  for (size_t n = 0; n < prepared.pieces.size(); ++n) {
    Picture& picture = pictures[prepared.pieces[n].picture];
    const int64_t piece = prepared.pieces[n].piece;
    events.on_progress("encoding picture", static_cast<int64_t>(n),
                       static_cast<int64_t>(prepared.pieces.size()));
    std::optional<Session::EncodedPicture> encoded;
    if (picture.digest)
      encoded = session_->find_picture(piece_digest(picture, piece));
    if (!encoded) {
      const PictureSpec& spec = *loaded_.model.pictures;
      const double decode_start = now_ms();
      if (decoded != &picture) {
        image.reset();
        PINHOLE_TRY(image, decode_for_model(picture, spec, picture_options));
        decoded = &picture;
      }
      const double encode_start = now_ms();
      answer.timings.picture += encode_start - decode_start;
      keep.push_back(piece_digest(picture, piece));
      PINHOLE_TRY(encoded, encode_picture(*session_, picture, piece, *image, spec, keep, cancel));
      answer.timings.encode += now_ms() - encode_start;
      if (!encoded->from_cache && counted != &picture) {
        ++answer.encoded_pictures;
        counted = &picture;
      }
    }
    placed.push_back({encoded->first_row, piece_digest(picture, piece)});
  }
  image.reset();
  prepared.bind(loaded_, placed);

  const double prefill_start = now_ms();
  PINHOLE_TRY(std::span<const float> logits,
              session_->prefill(prompt.tokens, cancel, &answer.reused_tokens,
                                [&](int64_t done, int64_t total) {
                                  events.on_progress("reading prompt", done, total);
                                }));
  answer.timings.prefill = now_ms() - prefill_start;
  if (options.grammar && !pieces_)
    pieces_.emplace(loaded_.tokenizer, loaded_.stop_tokens, loaded_.model.vocab_size);
  Generation generation(loaded_, prompt, options, events, pieces_ ? &*pieces_ : nullptr, start);
  while (true) {
    PINHOLE_TRY(const std::optional<PromptToken> next,
                generation.advance(logits, session_->length() < context, answer));
    if (!next)
      return answer;
    PINHOLE_TRY(logits, session_->step(*next, cancel));
  }
}

} // namespace pinhole
