#include "serve/metrics.h"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>

namespace pinhole::serve {

void Metrics::add_answer(const Answer& answer) {
  const std::lock_guard lock(mutex_);
  const AnswerTimings& t = answer.timings;
  const int64_t read = answer.prompt_tokens - answer.reused_tokens;
  ++answers_;
  prompt_tokens_ += read;
  reused_tokens_ += answer.reused_tokens;
  generated_tokens_ += answer.generated_tokens;
  picture_tokens_ += answer.picture_tokens;
  pictures_encoded_ += answer.encoded_pictures;
  longest_tokens_ = std::max(longest_tokens_, answer.prompt_tokens + answer.generated_tokens);
  prompt_seconds_ += t.prefill / 1000;
  decode_seconds_ += t.decode / 1000;
  encode_seconds_ += t.encode / 1000;
  picture_seconds_ += t.picture / 1000;
  if (t.prefill > 0)
    last_prompt_rate_ = static_cast<double>(read) / t.prefill * 1000;
  if (t.decode > 0 && answer.generated_tokens > 1)
    last_decode_rate_ = static_cast<double>(answer.generated_tokens - 1) / t.decode * 1000;
}

void Metrics::add_failure(ErrorCode code) {
  const std::lock_guard lock(mutex_);
  ++(code == ErrorCode::kTooLarge    ? refused_too_large_
     : code == ErrorCode::kBusy      ? refused_busy_
     : code == ErrorCode::kCancelled ? cancelled_
                                     : failed_);
}

void Metrics::add_reply(int status) {
  const std::lock_guard lock(mutex_);
  ++replies_[std::clamp(status / 100, 0, 5)];
}

std::string Metrics::text(ModelRegistry& registry, const FrontStatus& front) const {
  std::string out;
  const auto write = [&](const char* name, const char* type, const char* help, auto value) {
    out += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n{0} {3}\n", name, help, type, value);
  };
  const auto counter = [&](const char* name, const char* help, auto value) {
    write(name, "counter", help, value);
  };
  const auto gauge = [&](const char* name, const char* help, auto value) {
    write(name, "gauge", help, value);
  };
  int64_t reserved = 0, mapped = 0;
  const std::vector<ModelCard> cards = registry.list();
  for (const ModelCard& card : cards) {
    reserved += card.is_loaded ? card.reserved_bytes : 0;
    mapped += card.is_loaded ? card.mapped_bytes : 0;
  }
  const RunningModels now = registry.running();
  const int64_t asked = processing;
  const int64_t running = registry.num_processing();
  const std::lock_guard lock(mutex_);
  counter("llamacpp:prompt_tokens_total", "Prompt tokens that were read.", prompt_tokens_);
  counter("llamacpp:prompt_seconds_total", "Time of reading prompts.", prompt_seconds_);
  counter("llamacpp:tokens_predicted_total", "Tokens generated.", generated_tokens_);
  counter("llamacpp:tokens_predicted_seconds_total", "Time of generating.", decode_seconds_);
  gauge("llamacpp:prompt_tokens_seconds", "Prompt tokens a second, of the last answer.",
        last_prompt_rate_);
  gauge("llamacpp:predicted_tokens_seconds", "Tokens a second, of the last answer.",
        last_decode_rate_);
  gauge("llamacpp:requests_processing", "Requests that the model works on.", running);
  gauge("llamacpp:requests_deferred", "Requests that wait for the model.",
        std::max<int64_t>(0, asked - running));
  counter("llamacpp:n_tokens_max", "The most tokens of a prompt and its answer.", longest_tokens_);

  counter("pinhole_answers_total", "Answers that were finished.", answers_);
  counter("pinhole_prompt_tokens_reused_total", "Prompt tokens found in the cache.",
          reused_tokens_);
  counter("pinhole_picture_tokens_total", "Picture tokens in prompts.", picture_tokens_);
  counter("pinhole_pictures_encoded_total", "Pictures that the vision part read.",
          pictures_encoded_);
  counter("pinhole_encode_seconds_total", "Time of the vision part.", encode_seconds_);
  counter("pinhole_picture_seconds_total", "Time of decoding and resizing pictures.",
          picture_seconds_);
  counter("pinhole_requests_too_large_total", "Requests that did not fit.", refused_too_large_);
  counter("pinhole_requests_busy_total", "Requests refused because the queue was full.",
          refused_busy_);
  counter("pinhole_requests_cancelled_total", "Requests whose client went away.", cancelled_);
  counter("pinhole_requests_failed_total", "Requests that failed otherwise.", failed_);
  gauge("pinhole_memory_reserved_bytes", "Anonymous memory reserved by loaded models.", reserved);
  gauge("pinhole_memory_mapped_bytes", "Weights mapped by loaded models.", mapped);
  gauge("pinhole_memory_limit_bytes", "What the models may take; 0: no limit.",
        registry.limit_bytes());
  out += "# HELP pinhole_model_planned_bytes Anonymous memory that a model's plan has.\n"
         "# TYPE pinhole_model_planned_bytes gauge\n";
  for (const ModelCard& card : cards) {
    std::string label;
    for (const char c : card.name) {
      if (c == '"' || c == '\\')
        label += '\\';
      label += c == '\n' ? ' ' : c;
    }
    out +=
        fmt::format("pinhole_model_planned_bytes{{model=\"{}\"}} {}\n", label, card.reserved_bytes);
  }
  gauge("pinhole_models_reserved_bytes", "What models have of the limit.", now.reserved_bytes);
  gauge("pinhole_models_planned_bytes", "What the plans of models in memory have.",
        now.planned_bytes);
  counter("pinhole_model_evictions_total", "Times a model left to make room.", now.evictions);
  counter("pinhole_model_loads_total", "Times a model was loaded.", registry.num_loads());
  out += "# HELP pinhole_http_replies_total Replies by the hundreds of their status.\n"
         "# TYPE pinhole_http_replies_total counter\n";
  for (size_t i = 2; i < std::size(replies_); ++i)
    out += fmt::format("pinhole_http_replies_total{{status=\"{}xx\"}} {}\n", i, replies_[i]);
  gauge("pinhole_connections", "Connections that are open.", front.connections);
  gauge("pinhole_connections_answering", "Connections with a request being answered.",
        front.answering);
  gauge("pinhole_buffered_bytes", "Bytes of requests held.", front.buffered_bytes);
  counter("pinhole_connections_total", "Connections accepted.", front.accepted);
  counter("pinhole_connections_refused_total", "Requests refused before they were read.",
          front.refused);
  counter("pinhole_connections_timed_out_total", "Heads and bodies that came too slowly.",
          front.timed_out);
  counter("pinhole_disconnects_total", "Clients that went away before their reply was whole.",
          front.disconnected);
  return out;
}

} // namespace pinhole::serve
