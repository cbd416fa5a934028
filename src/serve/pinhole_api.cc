#include "serve/pinhole_api.h"

#include "serve/fields.h"
#include "serve/forecast.h"
#include "serve/openai_request.h"

#include <fmt/format.h>

namespace pinhole::serve {

namespace {

constexpr size_t kMaxTokenizeBytes = 4 << 20;
constexpr size_t kMaxDetokenizeIds = 1 << 20;

HttpReply json_reply(const Json& body) {
  HttpReply reply;
  reply.body = dump(body);
  return reply;
}

HttpReply reply_or_error(ApiResult<HttpReply> reply) {
  return reply ? std::move(*reply) : error_reply(reply.error(), ApiStyle::kOpenAi);
}

// A text of the form: a field, or a file's content.
std::string form_text(const HttpRequest& http, const std::string& name) {
  const auto part = http.parts.find(name);
  return part == http.parts.end() ? std::string() : part->second.content;
}

ApiResult<HttpReply> answer_form(Api& api, HttpRequest& http) {
  if (http.parts.empty()) {
    return refuse(400, "the body is no form: send multipart/form-data with 'prompt' and 'image'");
  }
  GenerationRequest request;
  request.model = form_text(http, "model");
  const std::string prompt = form_text(http, "prompt");
  if (prompt.empty())
    return refuse(400, "'prompt' is missing", "prompt", "missing");
  ChatTurn turn{"user", "", {}};
  const auto [begin, end] = http.parts.equal_range("image");
  for (auto part = begin; part != end; ++part) {
    PictureBytes picture{std::move(part->second.content), "image"};
    PINHOLE_API_CHECK(add_picture(request.conversation, turn, std::move(picture)));
  }
  if (begin == end)
    return refuse(400, "'image' is missing", "image", "missing");
  http.parts.clear();
  turn.text = prompt;
  request.conversation.turns.push_back(std::move(turn));
  request.max_tokens = 512;
  PINHOLE_API(auto job, make_job(api, std::move(request), http));
  PINHOLE_API_CHECK(start_job(*job));
  return wait_and_reply(
      job,
      [job](const Answer& answer) {
        return dump({{"model", job->model_name},
                     {"response", answer.text},
                     {"done", answer.finish == FinishReason::kStop},
                     {"prompt_tokens", answer.prompt_tokens},
                     {"generated_tokens", answer.generated_tokens},
                     {"pictures", pictures_json(job->generation.pictures)},
                     {"timings", timings_json(answer)}});
      },
      ApiStyle::kOpenAi);
}

ApiResult<HttpReply> plan_chat(Api& api, HttpRequest& http) {
  static Forecaster forecaster;
  PINHOLE_API(const Json body, parse_body(http.body));
  PINHOLE_API(OpenAiRequest parsed, parse_chat_request(body, api.content_options(http)));
  GenerationRequest& request = parsed.generation;
  PINHOLE_API(const ModelRoute route,
              api.registry.route(request.model, !request.conversation.pictures.empty()));
  if (!route.describes.empty()) {
    return refuse(400, "the pictures are described by another model first; plan without them",
                  "messages", "unsupported");
  }
  const std::string name = shown_model(api, route.answers);
  PINHOLE_API(const ModelUse model, api.registry.acquire(route.answers, {}, *http.gone));
  PINHOLE_API(const Generation generation, prepare(request, *model));
  const SpeedPlan speed = forecaster.forecast(*model, generation);
  const MemoryPlan& plan = model->plan();
  const int64_t grammar_bytes =
      generation.options.grammar
          ? GrammarMatcher::memory_bound(*generation.options.grammar, model->loaded().tokenizer)
          : 0;
  const int64_t context = plan.shape.context_tokens;
  const ServiceStatus status = model->status();
  return json_reply({{"model", name},
                     {"admitted", true},
                     {"prompt_tokens", generation.prompt_tokens},
                     {"picture_tokens", generation.picture_tokens},
                     {"context_tokens", context},
                     {"max_answer_tokens", generation.options.max_new_tokens},
                     {"pictures", pictures_json(generation.pictures)},
                     {"predicted_seconds",
                      {{"picture", speed.picture_seconds},
                       {"encode", speed.encode_seconds},
                       {"prefill", speed.prefill_seconds},
                       {"first_token", speed.first_token_seconds()}}},
                     {"predicted_tokens_per_second",
                      speed.decode_seconds > 0 ? Json(1 / speed.decode_seconds) : Json()},
                     {"memory_bytes",
                      {{"reserved", model->reserved_bytes()},
                       {"answer_format", grammar_bytes},
                       {"mapped", plan.mapped_bytes},
                       {"peak", model->reserved_bytes() + grammar_bytes + plan.mapped_bytes},
                       {"limit", model->limit_bytes()}}},
                     {"queue", {{"processing", status.processing}, {"waiting", status.waiting}}}});
}

ApiResult<HttpReply> tokenize_text(Api& api, HttpRequest& http) {
  PINHOLE_API(const Json body, parse_body(http.body));
  Fields fields(body);
  PINHOLE_API(const auto name, fields.text("model"));
  PINHOLE_API(const auto content, fields.text("content"));
  PINHOLE_API(const auto prompt, fields.text("prompt"));
  PINHOLE_API(const auto add_special, fields.boolean("add_special"));
  PINHOLE_API(const auto parse_special, fields.boolean("parse_special"));
  PINHOLE_API(const auto with_pieces, fields.boolean("with_pieces"));
  PINHOLE_API_CHECK(fields.finish());
  if (!content && !prompt)
    return refuse(400, "'content' is missing", "content", "missing");
  const std::string& text = content ? *content : *prompt;
  if (text.size() > kMaxTokenizeBytes) {
    return refuse(400,
                  fmt::format("'content' has {} bytes, at most {} are accepted", text.size(),
                              kMaxTokenizeBytes),
                  "content", "too_large");
  }
  PINHOLE_API(const ModelUse model, api.registry.acquire(name.value_or(""), {}, *http.gone));
  const Tokenizer& tokenizer = model->loaded().tokenizer;
  const auto ids =
      tokenizer.encode(text, parse_special.value_or(true), add_special.value_or(false));
  Json tokens = Json::array();
  for (const TokenId id : ids) {
    if (with_pieces.value_or(false))
      tokens.push_back({{"id", id}, {"piece", std::string(tokenizer.piece(id))}});
    else
      tokens.push_back(id);
  }
  return json_reply({{"tokens", std::move(tokens)}, {"count", ids.size()}});
}

ApiResult<HttpReply> detokenize_ids(Api& api, HttpRequest& http) {
  PINHOLE_API(const Json body, parse_body(http.body));
  Fields fields(body);
  PINHOLE_API(const auto name, fields.text("model"));
  const Json* const tokens = fields.find("tokens");
  PINHOLE_API_CHECK(fields.finish());
  if (tokens == nullptr || !tokens->is_array() || tokens->size() > kMaxDetokenizeIds)
    return refuse(400, fmt::format("'tokens' must be a list of at most {} ids", kMaxDetokenizeIds),
                  "tokens", "invalid_value");
  PINHOLE_API(const ModelUse model, api.registry.acquire(name.value_or(""), {}, *http.gone));
  const Tokenizer& tokenizer = model->loaded().tokenizer;
  std::vector<TokenId> ids;
  for (const Json& id : *tokens) {
    if (!id.is_number_integer() || id < 0 || id >= tokenizer.vocab_size())
      return refuse(400, fmt::format("{} is no token of this model", shown(id)), "tokens",
                    "invalid_value");
    ids.push_back(id.get<TokenId>());
  }
  return json_reply({{"content", tokenizer.decode(ids, false)}});
}

} // namespace

HttpReply analyze(Api& api, HttpRequest& http) { return reply_or_error(answer_form(api, http)); }
HttpReply plan_request(Api& api, HttpRequest& http) { return reply_or_error(plan_chat(api, http)); }
HttpReply tokenize(Api& api, HttpRequest& http) { return reply_or_error(tokenize_text(api, http)); }
HttpReply detokenize(Api& api, HttpRequest& http) {
  return reply_or_error(detokenize_ids(api, http));
}

HttpReply health(Api& api, HttpRequest&) {
  const bool is_ready = api.registry.is_ready();
  const bool is_advancing = api.registry.is_advancing();
  Json body = {{"status", !is_ready      ? "loading"
                          : is_advancing ? "ok"
                                         : "stalled"},
               {"configured_model", api.registry.default_name()}};
  HttpReply reply;
  if (!is_ready || !is_advancing) {
    reply.status = 503;
    reply.headers.emplace_back("Retry-After", "1");
    body["error"] = {{"code", 503},
                     {"message", is_ready ? "The scheduler does not advance" : "Loading model"},
                     {"type", "unavailable_error"}};
  }
  reply.body = dump(body);
  return reply;
}

HttpReply metrics_page(Api& api, HttpRequest&) {
  HttpReply reply;
  reply.content_type = "text/plain; version=0.0.4";
  reply.body = api.metrics.text(api.registry, api.front_status());
  return reply;
}

} // namespace pinhole::serve
