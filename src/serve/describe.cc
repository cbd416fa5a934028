#include "serve/describe.h"

#include "serve/relay.h"

#include <fmt/format.h>

namespace pinhole::serve {

namespace {

constexpr int64_t kMaxDescriptionTokens = 512;
constexpr std::chrono::milliseconds kWait{1'000};

ApiResult<std::string> describe_one(Api& api, const ModelUse& model, const std::string& prompt,
                                    PictureBytes picture, std::atomic<bool>& gone) {
  GenerationRequest request;
  request.max_tokens = kMaxDescriptionTokens;
  ChatTurn turn{"user", prompt, {}};
  PINHOLE_API_CHECK(add_picture(request.conversation, turn, std::move(picture)));
  request.conversation.turns.push_back(std::move(turn));
  PINHOLE_API(Generation generation, prepare(request, *model));
  Run run(*model, generation, gone, api.metrics);
  while (!run.wait_for(kWait)) {
  }
  auto& answer = run.answer();
  if (!answer)
    return tl::unexpected<ApiError>(to_api_error(answer.error()));
  return std::move(answer->text);
}

} // namespace

std::string picture_text(size_t idx, const std::string& description) {
  return fmt::format("[Picture {}: {}]\n", idx + 1, description);
}

ApiResult<std::vector<std::string>> picture_texts(Api& api, const ModelRoute& route,
                                                  std::vector<PictureBytes>& pictures,
                                                  HttpRequest& http) {
  std::vector<std::string> out;
  if (route.describer_is_external) {
    PINHOLE_API(const ExternalUse use,
                api.registry.acquire_external(route.describes, {}, *http.gone));
    for (PictureBytes& picture : pictures) {
      PINHOLE_API(std::string text,
                  ask_external(api, use, route.describe_prompt, picture, *http.gone));
      picture.bytes = {};
      out.push_back(std::move(text));
    }
    return out;
  }
  PINHOLE_API(const ModelUse model, api.registry.acquire(route.describes, {}, *http.gone));
  for (PictureBytes& picture : pictures) {
    PINHOLE_API(std::string text,
                describe_one(api, model, route.describe_prompt, std::move(picture), *http.gone));
    out.push_back(std::move(text));
  }
  return out;
}

ApiResult<void> describe_pictures(Api& api, const ModelRoute& route, Conversation& conversation,
                                  HttpRequest& http) {
  PINHOLE_API(const std::vector<std::string> texts,
              picture_texts(api, route, conversation.pictures, http));
  conversation.pictures.clear();
  for (ChatTurn& turn : conversation.turns) {
    for (size_t i = turn.pictures.size(); i-- > 0;) {
      const size_t place = i < turn.picture_places.size() ? turn.picture_places[i] : 0;
      turn.text.insert(place, picture_text(turn.pictures[i], texts[turn.pictures[i]]));
    }
    turn.pictures.clear();
    turn.picture_places.clear();
  }
  return {};
}

} // namespace pinhole::serve
