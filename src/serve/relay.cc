#include "serve/relay.h"

#include "serve/base64.h"
#include "serve/describe.h"
#include "serve/exchange.h"
#include "serve/fields.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole::serve {

namespace {

// RFC 9110, 7.6.1, and what this server says itself.
bool is_passed_back(std::string_view name) {
  constexpr std::string_view kDropped[] = {
      "connection",
      "keep-alive",
      "proxy-authenticate",
      "proxy-authorization",
      "te",
      "trailer",
      "transfer-encoding",
      "upgrade",
      "server",
      "content-length",
      "content-type",
      "proxy-connection",
      "set-cookie",
      "date",
      "alt-svc",
      "strict-transport-security",
  };
  const auto same = [&](std::string_view other) { return equals_ignoring_case(name, other); };
  constexpr std::string_view kCors = "access-control-";
  return std::none_of(std::begin(kDropped), std::end(kDropped), same) &&
         !equals_ignoring_case(name.substr(0, kCors.size()), kCors);
}

ApiError relay_error(const std::string& model, const Error& error, bool is_lost) {
  ApiError out;
  out.type = "server_error";
  out.retry_after_s = 1;
  if (error.code == ErrorCode::kBusy) {
    out.status = 504;
    out.code = "model_hangs";
    out.message = fmt::format("the server of model '{}' hangs: {}; it is stopped, and started "
                              "again for the next request",
                              model, error.message);
  } else if (error.code == ErrorCode::kTooLarge) {
    out.status = 502;
    out.message = fmt::format("the server of model '{}' does not stop: {}", model, error.message);
  } else {
    out.status = error.code == ErrorCode::kCancelled && !is_lost ? 503 : 502;
    out.code = "model_failed";
    out.message = fmt::format("the server of model '{}' broke off: {}; it is started again for "
                              "the next request",
                              model, is_lost ? "it ended" : error.message);
  }
  return out;
}

// A request on its way, and what must outlive it.
struct Relayed {
  ExternalUse use;
  std::unique_ptr<Exchange> exchange; // ends before the use is given back
};

ApiResult<void> send(Api& api, Relayed& relayed, ExchangeRequest request, std::atomic<bool>& gone) {
  const auto is_over = [&gone, lost = relayed.use.is_lost] { return gone || lost(); };
  auto made = Exchange::create(std::move(request), api.options.relay, is_over);
  if (!made)
    return tl::unexpected<ApiError>(to_api_error(made.error()));
  relayed.exchange = std::move(*made);
  return {};
}

// A server that hangs is ended, so that the next request finds a new one.
ApiError failed(Api& api, const Relayed& relayed, const Error& error) {
  if (error.code == ErrorCode::kBusy)
    api.registry.unload(relayed.use.model);
  api.metrics.add_failure(error.code);
  return relay_error(relayed.use.model, error, relayed.use.is_lost());
}

bool has_pictures(const Json& content) {
  return content.is_array() && std::any_of(content.begin(), content.end(), [](const Json& part) {
           const Json* const type = json_find(part, "type");
           return type != nullptr && (*type == "image_url" || *type == "input_image");
         });
}

// The list of turns: `messages`, or of responses `input`.
Json* turns_of(Json& body) {
  for (const char* key : {"messages", "input"}) {
    if (body.contains(key) && body[key].is_array())
      return &body[key];
  }
  return nullptr;
}

bool asks_with_pictures(Json& body) {
  Json* const turns = turns_of(body);
  return turns != nullptr && std::any_of(turns->begin(), turns->end(), [](const Json& turn) {
           const Json* const content = json_find(turn, "content");
           return content != nullptr && has_pictures(*content);
         });
}

// The pictures of messages become texts.
ApiResult<void> describe_in_place(Api& api, const ModelRoute& route, Json& body,
                                  HttpRequest& http) {
  const Json* const turns = json_find(body, "messages");
  if (turns == nullptr || !turns->is_array())
    return refuse(400, "pictures are described in chat/completions only", "input", "unsupported");
  std::vector<PictureBytes> pictures;
  std::vector<Json*> parts;
  for (size_t t = 0; t < body["messages"].size(); ++t) {
    Json& turn = body["messages"][t];
    if (!turn.is_object() || !turn.contains("content") || !turn["content"].is_array())
      continue;
    for (Json& part : turn["content"]) {
      const Json* const type = json_find(part, "type");
      if (type == nullptr || *type != "image_url")
        continue;
      const std::string field = fmt::format("messages[{}].content", t);
      const Json* const image = json_find(part, "image_url");
      const Json* const url = image == nullptr ? nullptr : json_find(*image, "url");
      if (url == nullptr || !url->is_string())
        return refuse(400, fmt::format("'{}' has a picture without url", field), field, "missing");
      if (parts.size() == kMaxPictures)
        return refuse(400, fmt::format("more than {} pictures", kMaxPictures), field);
      PINHOLE_API(std::string bytes, read_picture_url(url->get_ref<const std::string&>(), field,
                                                      api.content_options(http)));
      pictures.push_back({std::move(bytes), field});
      parts.push_back(&part);
    }
  }
  PINHOLE_API(const std::vector<std::string> texts, picture_texts(api, route, pictures, http));
  for (size_t i = 0; i < parts.size(); ++i)
    *parts[i] = {{"type", "text"}, {"text", picture_text(i, texts[i])}};
  return {};
}

// Bytes to the client until the end; an event stream that breaks says why.
bool pass_on(Api& api, Relayed& relayed, bool is_events, HttpSink& sink) {
  while (true) {
    auto bytes = relayed.exchange->next();
    if (!bytes) {
      const ApiError error = failed(api, relayed, bytes.error());
      return is_events && sink.write(fmt::format("data: {}\n\n", openai_error_body(error)));
    }
    if (bytes->empty())
      return true;
    if (!sink.write(*bytes))
      return false;
  }
}

ApiResult<HttpReply> relay(Api& api, const ModelRoute& route, Json body, HttpRequest& http) {
  if (style_of(http.path) == ApiStyle::kOllama) {
    return refuse(400,
                  fmt::format("model '{}' is a server of its own that speaks OpenAI's API; ask it "
                              "at /v1/chat/completions",
                              route.answers),
                  "model", "unsupported");
  }
  bool is_changed = !route.describes.empty();
  if (is_changed)
    PINHOLE_API_CHECK(describe_in_place(api, route, body, http));
  auto relayed = std::make_shared<Relayed>();
  PINHOLE_API(relayed->use, api.registry.acquire_external(route.answers, {}, *http.gone));
  const Json* const model = json_find(body, "model");
  if (relayed->use.always_named || (model != nullptr && *model != relayed->use.model)) {
    body["model"] = relayed->use.model;
    is_changed = true;
  }
  ExchangeRequest request;
  request.method = "POST";
  request.url = relayed->use.address + http.path;
  request.headers.emplace_back("Content-Type", "application/json");
  if (const std::string_view accept = http.header("accept"); !accept.empty())
    request.headers.emplace_back("Accept", accept);
  request.body = is_changed ? dump(body) : std::move(http.body);
  body = {};
  PINHOLE_API_CHECK(send(api, *relayed, std::move(request), *http.gone));
  auto head = relayed->exchange->head();
  if (!head)
    return tl::unexpected<ApiError>(failed(api, *relayed, head.error()));
  HttpReply reply;
  reply.status = head->status;
  const std::string_view type = find_header(head->headers, "content-type");
  reply.content_type = type.empty() ? "application/octet-stream" : std::string(type);
  for (auto& [name, value] : head->headers) {
    if (is_passed_back(name))
      reply.headers.emplace_back(name, value);
  }
  const bool is_events = reply.content_type.starts_with("text/event-stream");
  reply.stream = [&api, relayed, is_events](HttpSink& sink) {
    return pass_on(api, *relayed, is_events, sink);
  };
  return reply;
}

const char* media_type(std::string_view bytes) {
  return bytes.starts_with("\xFF\xD8")                    ? "image/jpeg"
         : bytes.starts_with("RIFF") && bytes.size() > 12 ? "image/webp"
                                                          : "image/png";
}

} // namespace

std::optional<HttpReply> relay_external(Api& api, HttpRequest& http) {
  if (!api.registry.has_externals())
    return std::nullopt;
  auto body = parse_body(http.body);
  if (!body)
    return std::nullopt;
  const Json* const named = json_find(*body, "model");
  if (named != nullptr && !named->is_string())
    return std::nullopt;
  const std::string name = named == nullptr ? std::string() : named->get<std::string>();
  const auto route = api.registry.route(name, asks_with_pictures(*body));
  if (!route || !route->is_external)
    return std::nullopt;
  auto reply = relay(api, *route, std::move(*body), http);
  return reply ? std::move(*reply) : error_reply(reply.error(), style_of(http.path));
}

ApiResult<std::string> ask_external(Api& api, const ExternalUse& use, const std::string& prompt,
                                    const PictureBytes& picture, std::atomic<bool>& gone) {
  const std::string url =
      fmt::format("data:{};base64,{}", media_type(picture.bytes), encode_base64(picture.bytes));
  Json content = Json::array();
  content.push_back({{"type", "image_url"}, {"image_url", {{"url", url}}}});
  content.push_back({{"type", "text"}, {"text", prompt}});
  Json turn = {{"role", "user"}};
  turn["content"] = std::move(content);
  Json body = {{"model", use.model}, {"max_tokens", 512}};
  body["messages"] = Json::array({std::move(turn)});
  Relayed relayed{use, nullptr};
  ExchangeRequest request;
  request.method = "POST";
  request.url = use.address + "/v1/chat/completions";
  request.headers.emplace_back("Content-Type", "application/json");
  request.body = dump(body);
  PINHOLE_API_CHECK(send(api, relayed, std::move(request), gone));
  const auto head = relayed.exchange->head();
  if (!head)
    return tl::unexpected<ApiError>(failed(api, relayed, head.error()));
  const auto text = relayed.exchange->rest();
  if (!text)
    return tl::unexpected<ApiError>(failed(api, relayed, text.error()));
  const auto json = parse_json(*text, "its reply");
  const Json* const choices = json ? json_find(*json, "choices") : nullptr;
  const Json* const message = choices != nullptr && choices->is_array() && !choices->empty()
                                  ? json_find((*choices)[0], "message")
                                  : nullptr;
  const Json* const answer = message == nullptr ? nullptr : json_find(*message, "content");
  if (head->status != 200 || answer == nullptr || !answer->is_string()) {
    return refuse(
        502,
        fmt::format("model '{}' did not describe the picture (HTTP {})", use.model, head->status),
        "model", "model_failed");
  }
  return answer->get<std::string>();
}

} // namespace pinhole::serve
