// tags, show, ps, pull, version.
#include "serve/fields.h"
#include "serve/ollama.h"

#include <chrono>
#include <fmt/format.h>

namespace pinhole::serve {

namespace {

constexpr int64_t kNs = 1'000'000'000;
constexpr int64_t kForeverSeconds = int64_t{100} * 365 * 24 * 3600;

// "751.63M", "8.2B"
std::string short_count(int64_t count) {
  const double value = static_cast<double>(count);
  return value >= 1e9   ? fmt::format("{:.1f}B", value / 1e9)
         : value >= 1e6 ? fmt::format("{:.2f}M", value / 1e6)
                        : fmt::format("{:.0f}K", value / 1e3);
}

Json details(const ModelCard& card) {
  return {{"parent_model", ""},
          {"format", "gguf"},
          {"family", card.family},
          {"families", Json::array({card.family})},
          {"parameter_size", short_count(card.parameters)},
          {"quantization_level", card.quantisation}};
}

HttpReply ok(const Json& body) {
  HttpReply reply;
  reply.body = dump(body);
  return reply;
}

// The model that a body names as `model` or `name`.
ApiResult<std::string> named_model(const Json& body) {
  Fields fields(body);
  PINHOLE_API(const auto model, fields.text("model"));
  PINHOLE_API(const auto name, fields.text("name"));
  if (!model && !name)
    return refuse(400, "'model' is missing", "model", "missing");
  return model ? *model : *name;
}

ApiResult<ModelCard> find_model(Api& api, const Json& body) {
  PINHOLE_API(const std::string name, named_model(body));
  auto card = api.registry.find(name);
  if (!card || name.empty())
    return refuse(404, fmt::format("model '{}' not found", name.substr(0, 100)));
  return std::move(*card);
}

} // namespace

HttpReply ollama_tags(Api& api, HttpRequest&) {
  Json models = Json::array();
  for (const ModelCard& card : api.registry.list()) {
    models.push_back({{"name", card.name},
                      {"model", card.name},
                      {"modified_at", rfc3339(card.modified_s * kNs)},
                      {"size", card.file_bytes},
                      {"digest", card.digest},
                      {"details", details(card)}});
  }
  return ok({{"models", std::move(models)}});
}

HttpReply ollama_ps(Api& api, HttpRequest&) {
  Json models = Json::array();
  for (const ModelCard& card : api.registry.list()) {
    if (!card.is_loaded)
      continue;
    const auto left =
        card.expires_in ? std::chrono::duration_cast<std::chrono::seconds>(*card.expires_in).count()
                        : kForeverSeconds;
    models.push_back({{"name", card.name},
                      {"model", card.name},
                      {"size", card.reserved_bytes + card.mapped_bytes},
                      {"digest", card.digest},
                      {"details", details(card)},
                      {"expires_at", rfc3339((unix_seconds() + left) * kNs)},
                      {"size_vram", 0},
                      {"context_length", card.context_tokens}});
  }
  return ok({{"models", std::move(models)}});
}

HttpReply ollama_show(Api& api, HttpRequest& http) {
  const auto show = [&]() -> ApiResult<HttpReply> {
    PINHOLE_API(const Json body, parse_body(http.body));
    PINHOLE_API(const ModelCard card, find_model(api, body));
    Json capabilities = Json::array({"completion"});
    if (card.reads_pictures)
      capabilities.push_back("vision");
    if (card.knows_tools)
      capabilities.push_back("tools");
    const std::string& family = card.family;
    Json info = {{"general.architecture", family},
                 {"general.basename", card.title},
                 {"general.parameter_count", card.parameters},
                 {family + ".context_length", card.model_context_tokens},
                 {family + ".embedding_length", card.hidden_size},
                 {family + ".block_count", card.layers}};
    return ok({{"modelfile", ""},
               {"parameters", fmt::format("num_ctx {}", card.context_tokens)},
               {"template", card.chat_template},
               {"details", details(card)},
               {"model_info", std::move(info)},
               {"capabilities", std::move(capabilities)},
               {"modified_at", rfc3339(card.modified_s * kNs)}});
  };
  auto reply = show();
  return reply ? std::move(*reply) : error_reply(reply.error(), ApiStyle::kOllama);
}

HttpReply ollama_pull(Api& api, HttpRequest& http) {
  const auto pull = [&]() -> ApiResult<HttpReply> {
    PINHOLE_API(const Json body, parse_body(http.body));
    PINHOLE_API(const std::string name, named_model(body));
    const Json* const stream = json_find(body, "stream");
    if (name.empty() || !api.registry.find(name)) {
      return refuse(400,
                    fmt::format("'{}' is not here, and this server downloads nothing; start it "
                                "with -m PATH",
                                name.substr(0, 100)));
    }
    if (stream != nullptr && *stream == false)
      return ok({{"status", "success"}});
    HttpReply reply;
    reply.content_type = "application/x-ndjson";
    reply.body = "{\"status\":\"the model is here\"}\n{\"status\":\"success\"}\n";
    return reply;
  };
  auto reply = pull();
  return reply ? std::move(*reply) : error_reply(reply.error(), ApiStyle::kOllama);
}

HttpReply ollama_version(Api& api, HttpRequest&) { return ok({{"version", api.options.version}}); }

} // namespace pinhole::serve
