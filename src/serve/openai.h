// OpenAI's API: chat/completions, completions, responses, models.
#pragma once

#include "serve/api.h"
#include "serve/http.h"

#include <vector>

namespace pinhole::serve {

HttpReply chat_completions(Api& api, HttpRequest& http);
HttpReply completions(Api& api, HttpRequest& http);
HttpReply responses(Api& api, HttpRequest& http);
HttpReply list_models(Api& api, HttpRequest& http);
HttpReply retrieve_model(Api& api, HttpRequest& http);

// Server-sent events: "data: {...}", and comments that keep the connection awake.
class EventSink {
 public:
  explicit EventSink(HttpSink& sink) : sink_(sink) {}
  bool data(const Json& json);
  bool named(std::string_view event, const Json& json);
  bool comment(const std::string& text);
  bool done(); // "data: [DONE]"

 private:
  HttpSink& sink_;
};

Json usage_json(const Answer& answer);
// {token, logprob, bytes, top_logprobs}
Json logprob_json(const TokenChoice& choice);
// {id, type, function: {name, arguments}}, with the arguments as a text.
Json tool_call_json(const ToolCall& call);

} // namespace pinhole::serve
