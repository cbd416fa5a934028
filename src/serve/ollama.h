// Ollama's API: generate, chat, tags, show, ps, pull, version.
#pragma once

#include "serve/api.h"
#include "serve/http.h"

#include <optional>

namespace pinhole::serve {

HttpReply ollama_generate(Api& api, HttpRequest& http);
HttpReply ollama_chat(Api& api, HttpRequest& http);
HttpReply ollama_tags(Api& api, HttpRequest& http);
HttpReply ollama_show(Api& api, HttpRequest& http);
HttpReply ollama_ps(Api& api, HttpRequest& http);
HttpReply ollama_pull(Api& api, HttpRequest& http);
HttpReply ollama_version(Api& api, HttpRequest& http);

// A body of generate or chat.
struct OllamaRequest {
  GenerationRequest generation;
  bool is_chat = false;
  bool stream = true;
  bool only_loads = false; // an empty prompt: the model is loaded, or with keep_alive 0 unloaded
  std::optional<int64_t> num_ctx;
  KeepAlive keep;
};
ApiResult<OllamaRequest> parse_ollama_generate(const Json& body);
ApiResult<OllamaRequest> parse_ollama_chat(const Json& body);

// "5m", "1h30m", "300ms", seconds as a number, or anything below zero for ever. Nothing for other
// values.
std::optional<KeepAlive> parse_keep_alive(const Json& value);

// "2026-01-31T12:00:00.000000000Z"
std::string rfc3339(int64_t unix_nanoseconds);

} // namespace pinhole::serve
