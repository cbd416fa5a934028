// Questions about pictures, answered as a stream of text: the layer that commands and servers use.
#pragma once

#include "answer/answer.h"
#include "answer/loaded_model.h"
#include "answer/picture.h"
#include "answer/prompt.h"
#include "base/result.h"
#include "engine/session.h"
#include "text/grammar/matcher.h"

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace pinhole {

class Answerer {
 public:
  struct Limits {
    int64_t context_tokens = 0; // 0: what the conversation and max_new_tokens need
    int64_t chunk_tokens = 512;
    int64_t feature_tokens = 0; // 0: the pictures given to create()
    int64_t max_patches = 0;    // 0: the largest picture given to create()
    int64_t memory_bytes = 0;   // that this process may take; 0: no limit (SessionOptions)
    MemoryWatchOptions watch = {};
  };

  // `loaded` must outlive the answerer. Pictures in `pictures` are planned for.
  static Result<std::unique_ptr<Answerer>> create(const LoadedModel& loaded, const Limits& limits,
                                                  std::span<const Picture> pictures,
                                                  const KernelChoice& kernels);

  // Refused, also, while memory is short because of other programs (Session::admit()).
  Result<Answer> answer(std::span<const ChatTurn> turns, std::span<Picture> pictures,
                        const AnswerOptions& options, const PictureOptions& picture_options,
                        const AnswerEvents& events, const std::atomic<bool>* cancel = nullptr);

  Session& session() { return *session_; }
  const Session& session() const { return *session_; }
  const LoadedModel& loaded() const { return loaded_; }

 private:
  Answerer(const LoadedModel& loaded, std::unique_ptr<Session> session)
      : loaded_(loaded), session_(std::move(session)) {}
  Result<Answer> generate(Answer answer, const Prompt& prompt, std::span<const float> logits,
                          const AnswerOptions& options, const AnswerEvents& events,
                          const std::atomic<bool>* cancel, double start_ms);

  const LoadedModel& loaded_;
  std::unique_ptr<Session> session_;
  std::optional<TokenPieces> pieces_; // made for the first answer with a grammar
};

// Tokens of a conversation's prompt, without decoding any picture.
Result<std::vector<TokenId>> count_prompt(const LoadedModel& loaded,
                                          std::span<const ChatTurn> turns,
                                          std::span<const Picture> pictures);

} // namespace pinhole
