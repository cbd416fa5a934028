// A request of the answer service: what its caller and the service's thread share.
#pragma once

#include "answer/answer_service.h"

namespace pinhole {

struct AnswerService::Request {
  Request(const AnswerOptions& answer_options, const PictureOptions& for_pictures,
          const AnswerEvents& for_events, const std::atomic<bool>* cancel_flag,
          std::span<Picture> of_pictures)
      : options(answer_options), picture_options(for_pictures), events(for_events),
        cancel(cancel_flag), pictures(of_pictures) {}

  bool caller_cancelled() const {
    return cancel != nullptr && cancel->load(std::memory_order_relaxed);
  }

  const AnswerOptions& options;
  const PictureOptions& picture_options;
  const AnswerEvents& events;
  const std::atomic<bool>* cancel;
  std::span<Picture> pictures;
  PreparedPrompt prepared;
  double start_ms = 0;
  Answer answer;
  std::atomic<bool> cancelled{false}; // by its caller or stop(); runs look at it

  // Guarded by the service's mutex.
  std::optional<Result<Image>> image;   // decoded by the caller, of next_piece()
  std::optional<Result<Answer>> result; // set last

  // The service's thread; callers read placed.size() while they have the image's turn.
  enum class Stage { kPictures, kPrompt, kAnswer };
  Stage stage = Stage::kPictures;
  std::vector<PlacedPicture> placed;
  const Picture* counted = nullptr; // in answer.encoded_pictures
  bool began_again = false;         // once all other pictures had left the store
  int32_t sequence = -1;            // from kPrompt on
  int64_t to_read = 0;              // tokens of the prompt, when it was begun
  double prefill_start_ms = 0;
  std::optional<Generation> generation;
  PromptToken next; // kAnswer: the token to run

  std::span<const PromptToken> rest_of_prompt(int64_t length) const {
    return std::span(prepared.prompt.tokens).subspan(static_cast<size_t>(length));
  }
  PreparedPrompt::Piece next_piece() const { return prepared.pieces[placed.size()]; }
  bool holds_sequence() const { return stage != Stage::kPictures; }
};

} // namespace pinhole
