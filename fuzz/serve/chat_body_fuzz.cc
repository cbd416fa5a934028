// Bodies of requests from strangers: a request or an error that says something, in every API.

#include "serve/ollama.h"
#include "serve/openai_request.h"

#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace {

template <class T> void check(const pinhole::serve::ApiResult<T>& parsed) {
  if (parsed)
    return;
  if (parsed.error().message.empty() || parsed.error().status < 400)
    std::abort();
  (void)pinhole::serve::error_reply(parsed.error(), pinhole::serve::ApiStyle::kOpenAi);
  (void)pinhole::serve::error_reply(parsed.error(), pinhole::serve::ApiStyle::kOllama);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pinhole::serve;
  const auto body = parse_body({reinterpret_cast<const char*>(data), size});
  if (!body) {
    check(body);
    return 0;
  }
  const auto chat = parse_chat_request(*body, {});
  check(chat);
  if (chat) {
    for (const pinhole::ChatTurn& turn : chat->generation.conversation.turns) {
      for (size_t i = 0; i < turn.pictures.size(); ++i) {
        if (turn.pictures[i] >= chat->generation.conversation.pictures.size() ||
            turn.picture_places[i] > turn.text.size())
          std::abort();
      }
    }
  }
  check(parse_completion_request(*body));
  check(parse_responses_request(*body, {}));
  check(parse_ollama_chat(*body));
  check(parse_ollama_generate(*body));
  return 0;
}
