// Many conversations at once on one model: what a server uses. One thread owns the session and runs
// the next tokens of all answers together, with a part of one prompt beside them, so that weights
// are read once for all and nobody waits for another's prompt or picture. Requests that find no
// place wait in order of arrival. The error of one request concerns no other.
#pragma once

#include "answer/answerer.h"
#include "answer/generation.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

namespace pinhole {

class AnswerService {
 public:
  struct Options {
    Answerer::Limits limits;         // the context is that of each conversation
    std::vector<Picture> pictures;   // of the largest size that is accepted (plan_picture())
    int64_t parallel = 4;            // answers at the same time
    int64_t max_queue = 64;          // requests that wait beside them
    int64_t mixed_chunk_tokens = 64; // of prompts, in a run that others' tokens are waiting for
  };
  // `loaded` must outlive the service.
  static Result<std::unique_ptr<AnswerService>>
  create(const LoadedModel& loaded, const Options& options, const KernelChoice& kernels);
  ~AnswerService(); // stop()

  // From many threads at once; blocks until the answer is complete. Pictures are decoded on the
  // caller's thread, one at a time in all; `events` are called on the service's thread, where all
  // answers wait for them: they must be quick.
  //
  // Errors: kBusy when the queue is full, at once; kTooLarge, with what is needed and what there
  // is, before anything is begun; kCancelled soon after `cancel` is set, wherever it then is.
  Result<Answer> answer(std::span<const ChatTurn> turns, std::span<Picture> pictures,
                        const AnswerOptions& options, const PictureOptions& picture_options,
                        const AnswerEvents& events, const std::atomic<bool>* cancel = nullptr);
  // Goes on with a text as it is, without a chat template; control tokens in it count.
  Result<Answer> complete(std::string_view raw_prompt, const AnswerOptions& options,
                          const AnswerEvents& events, const std::atomic<bool>* cancel = nullptr);

  // False: there is work, and for that long no run of the model, layer of a picture or decoding of
  // one has ended.
  bool is_advancing(int64_t limit_ms) const;

  struct Counters {
    // Since the start. A run of prompts and answers counts for each by its tokens.
    int64_t prompt_tokens = 0; // computed, not those found in a cache
    int64_t reused_tokens = 0;
    double prefill_seconds = 0;
    int64_t generated_tokens = 0;
    double decode_seconds = 0;
    int64_t picture_tokens = 0; // encoded
    double encode_seconds = 0;  // others' tokens in between are not counted
    int64_t runs = 0;
    int64_t answers = 0;  // complete
    int64_t failures = 0; // refused or broken off
    // Now.
    int64_t running = 0; // requests that have a slot
    int64_t queued = 0;
    int64_t busy_slots = 0; // the same as running
    int64_t slots = 0;
    int64_t reserved_bytes = 0; // anonymous memory, as planned
  };
  Counters counters() const;

  // Ends all requests as cancelled, and waits until their callers have them. Later ones are kBusy.
  void stop();

  // What was planned; nothing of it changes.
  const MemoryPlan& plan() const { return session_->plan(); }
  const Residency& residency() const { return session_->residency(); }
  const LoadedModel& loaded() const { return loaded_; }

 private:
  struct Request; // on its caller's stack

  AnswerService(const LoadedModel& loaded, const Options& options,
                std::unique_ptr<Session> session);

  // On callers' threads.
  Status check_size(const Request& request) const;
  Result<Answer> submit(Request& request);
  void decode_next_picture(Request& request, std::unique_lock<std::mutex>& lock);

  // On the service's thread.
  void serve();
  bool advance(); // false: nothing can be done now
  void end_cancelled();
  void admit_queued();
  bool advance_pictures();
  bool place_piece(Request& request); // false: it waits for its image or room
  void begin_prompt(Request& request);
  int32_t choose_sequence(const Prompt& prompt);
  bool run_batch();
  void add_prompts();
  void take_logits(Request& request, std::span<const float> logits);
  void count_run(double seconds, int64_t answer_tokens);
  void finish(Request& request, Result<Answer> result);
  std::vector<Sha256Digest> needed_pictures() const;
  void note_progress();

  const LoadedModel& loaded_;
  const Options options_;
  const std::unique_ptr<Session> session_;

  // The service's thread only.
  std::vector<Request*> active_; // in order of arrival
  const Request* encoding_ = nullptr;
  double between_seconds_ = 0;     // of the encode that runs: what others took
  std::vector<uint64_t> last_use_; // by sequence
  uint64_t clock_ = 0;
  std::optional<TokenPieces> pieces_; // made for the first answer with a grammar
  std::vector<Session::Part> parts_;  // of the run: tokens of answers, then prompts
  std::vector<Request*> in_run_;      // whose they are

  mutable std::mutex mutex_;        // of what follows, and of requests' hand-over
  std::condition_variable wake_;    // the service's thread: there is something to do
  std::condition_variable callers_; // a request got on
  std::deque<Request*> queue_;
  const Request* image_turn_ = nullptr; // who may hold a decoded picture
  int64_t callers_inside_ = 0;
  bool stopping_ = false;
  Counters counters_;

  std::atomic<int64_t> last_progress_ms_{0};
  std::atomic<bool> has_work_{false};
  std::thread thread_; // last: it uses all of the above
};

} // namespace pinhole
