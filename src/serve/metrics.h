// Counters of the server, in Prometheus' text format.
//
// What llama.cpp's server counts has its name here, so that its dashboards work: llamacpp:*. The
// rest is pinhole_*.
#pragma once

#include "answer/answer.h"
#include "serve/front.h"
#include "serve/registry.h"

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

namespace pinhole::serve {

class Metrics {
 public:
  void add_answer(const Answer& answer);
  void add_failure(ErrorCode code);
  // A request that reached its handler, and its reply.
  void add_reply(int status);

  std::string text(ModelRegistry& registry, const FrontStatus& front) const;

  std::atomic<int64_t> processing{0}; // requests for which the model works, or that wait for it

 private:
  mutable std::mutex mutex_;
  int64_t prompt_tokens_ = 0, reused_tokens_ = 0, generated_tokens_ = 0, picture_tokens_ = 0;
  int64_t pictures_encoded_ = 0, longest_tokens_ = 0;
  double prompt_seconds_ = 0, decode_seconds_ = 0, encode_seconds_ = 0, picture_seconds_ = 0;
  double last_prompt_rate_ = 0, last_decode_rate_ = 0;
  int64_t answers_ = 0, refused_too_large_ = 0, refused_busy_ = 0, cancelled_ = 0, failed_ = 0;
  int64_t replies_[6] = {}; // by hundreds of the status
};

} // namespace pinhole::serve
