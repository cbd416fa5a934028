// Questions about pictures, answered as a stream of text: the layer that commands and servers use.
#pragma once

#include "answer/loaded_model.h"
#include "answer/picture.h"
#include "answer/prompt.h"
#include "base/function_ref.h"
#include "base/result.h"
#include "engine/sampler.h"
#include "engine/session.h"
#include "text/grammar/matcher.h"

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

struct AnswerOptions {
  SamplingOptions sampling;
  int64_t max_new_tokens = 512;
  std::vector<std::string> stop; // the answer ends before the first of these
  bool ignore_eos = false;       // for measuring: always max_new_tokens
  // The answer is a text of this grammar (its beginning, when it is cut), and ends where nothing
  // can follow; ignore_eos does not count then.
  std::optional<Grammar> grammar;
};

enum class FinishReason { kStop, kLength, kContext };
std::string_view finish_reason_name(FinishReason reason);

struct AnswerTimings { // milliseconds, from the start of the request
  double picture = 0;  // decoding and resizing
  double encode = 0;   // vision tower
  double prefill = 0;
  double first_token = 0; // from the start of the request to the first token
  double decode = 0;      // the tokens after the first
};

struct Answer {
  std::string text;
  std::vector<TokenId> ids; // generated, without the stop token
  FinishReason finish = FinishReason::kStop;
  int64_t prompt_tokens = 0;
  int64_t picture_tokens = 0;
  int64_t generated_tokens = 0; // the stop token included
  int64_t reused_tokens = 0;    // of the prompt, found in the cache
  int64_t encoded_pictures = 0; // that were not found in the cache
  AnswerTimings timings;
};

// What happens, for progress displays.
struct AnswerEvents {
  FunctionRef<void(std::string_view text)> on_text;
  FunctionRef<void(std::string_view stage, int64_t done, int64_t total)> on_progress;
};

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

// Ends streamed text before the first stop string, holding back what might become one.
class StopFilter {
 public:
  explicit StopFilter(const std::vector<std::string>& stops) : stops_(stops) {}
  std::string push(std::string_view text); // text that is certain
  std::string finish();                    // what was held back
  bool stopped() const { return stopped_; }

 private:
  const std::vector<std::string>& stops_;
  std::string held_;
  bool stopped_ = false;
};

} // namespace pinhole
