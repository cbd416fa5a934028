// completions, and the list of models.
#include "serve/openai.h"
#include "serve/openai_request.h"

#include <fmt/format.h>

namespace pinhole::serve {

namespace {

struct CompletionReply {
  std::string id = random_id("cmpl-");
  int64_t created = unix_seconds();
  std::string model, fingerprint, prompt;
  OpenAiRequest request;
  std::shared_ptr<Job> job;

  Json head() const {
    return {{"id", id},
            {"object", "text_completion"},
            {"created", created},
            {"model", model},
            {"system_fingerprint", fingerprint}};
  }
  Json choice(int64_t index, const std::string& text, Json finish_reason, Json logprobs) const {
    Json out = {{"text", text}, {"index", index}};
    out["logprobs"] = std::move(logprobs);
    out["finish_reason"] = std::move(finish_reason);
    return out;
  }
};

// The older shape: tokens, their log-probabilities, and a map of the alternatives of each.
Json old_logprobs(std::vector<TokenChoice>& tokens, int64_t& offset) {
  Json out = {{"tokens", Json::array()},
              {"token_logprobs", Json::array()},
              {"top_logprobs", Json::array()},
              {"text_offset", Json::array()}};
  for (const TokenChoice& token : tokens) {
    Json top = Json::object();
    for (const TokenLogprob& other : token.top)
      top[other.bytes] = other.logprob;
    out["tokens"].push_back(token.chosen.bytes);
    out["token_logprobs"].push_back(token.chosen.logprob);
    out["top_logprobs"].push_back(std::move(top));
    out["text_offset"].push_back(offset);
    offset += static_cast<int64_t>(token.chosen.bytes.size());
  }
  tokens.clear();
  return out;
}

const char* reason_of(const Answer& answer) {
  return answer.finish == FinishReason::kStop ? "stop" : "length";
}

bool stream_completion(CompletionReply& reply, HttpSink& out) {
  EventSink sink(out);
  Answer sum;
  for (int64_t i = 0; i < reply.request.num_choices; ++i) {
    if (i > 0) {
      ++reply.job->generation.options.sampling.seed;
      reply.job->start();
    }
    std::vector<TokenChoice> tokens;
    int64_t offset = 0;
    const auto write = [&](const std::string& text, Json reason) {
      Json chunk = reply.head();
      chunk["choices"] = Json::array(
          {reply.choice(i, text, std::move(reason),
                        reply.request.wants_logprobs ? old_logprobs(tokens, offset) : Json())});
      if (reply.request.include_usage)
        chunk["usage"] = nullptr;
      return sink.data(chunk);
    };
    if (reply.request.echo && !write(reply.prompt, nullptr))
      return false;
    RunWriter writer;
    writer.text = [&](const std::string& text) { return write(text, nullptr); };
    writer.token = [&](TokenChoice token) {
      tokens.push_back(std::move(token));
      return true;
    };
    writer.ping = [&](const std::string& progress) { return sink.comment(progress); };
    if (!write_run(*reply.job->run, writer))
      return false;
    const auto& answer = reply.job->run->answer();
    if (!answer)
      return sink.data(parse_json(openai_error_body(to_api_error(answer.error())), "").value());
    if (!write("", reason_of(*answer)))
      return false;
    const int64_t before = sum.generated_tokens;
    sum = *answer;
    sum.generated_tokens += before;
  }
  if (reply.request.include_usage) {
    Json last = reply.head();
    last["choices"] = Json::array();
    last["usage"] = usage_json(sum);
    if (!sink.data(last))
      return false;
  }
  return sink.done();
}

ApiResult<HttpReply> answer_completion(Api& api, HttpRequest& http) {
  PINHOLE_API(const Json body, parse_body(http.body));
  auto reply = std::make_shared<CompletionReply>();
  PINHOLE_API(reply->request, parse_completion_request(body));
  reply->fingerprint = "pinhole-" + api.options.version;
  reply->prompt = *reply->request.generation.raw_prompt;
  PINHOLE_API(reply->job, make_job(api, std::move(reply->request.generation), http));
  reply->model = reply->job->model_name;
  PINHOLE_API_CHECK(start_job(*reply->job));
  if (reply->request.stream) {
    HttpReply out;
    out.content_type = "text/event-stream";
    out.headers.emplace_back("Cache-Control", "no-cache");
    out.stream = [reply](HttpSink& sink) { return stream_completion(*reply, sink); };
    return out;
  }
  auto choices = std::make_shared<Json>(Json::array());
  auto generated = std::make_shared<int64_t>(0);
  const auto add = [reply, choices, generated](int64_t index, const Answer& answer) {
    std::vector<TokenChoice> tokens = answer.logprobs;
    int64_t offset = 0;
    choices->push_back(reply->choice(
        index, (reply->request.echo ? reply->prompt : std::string()) + answer.text,
        reason_of(answer), reply->request.wants_logprobs ? old_logprobs(tokens, offset) : Json()));
    *generated += answer.generated_tokens;
  };
  const int64_t last = reply->request.num_choices - 1;
  for (int64_t i = 0; i < last; ++i) {
    while (!reply->job->run->wait_for(std::chrono::seconds(60))) {
    }
    const auto& answer = reply->job->run->answer();
    if (!answer)
      return tl::unexpected<ApiError>(to_api_error(answer.error()));
    add(i, *answer);
    ++reply->job->generation.options.sampling.seed;
    reply->job->start();
  }
  return wait_and_reply(
      reply->job,
      [reply, choices, generated, add, last](const Answer& answer) {
        add(last, answer);
        Answer total = answer;
        total.generated_tokens = *generated;
        Json out = reply->head();
        out["choices"] = *choices;
        out["usage"] = usage_json(total);
        out["timings"] = timings_json(answer);
        return dump(out);
      },
      ApiStyle::kOpenAi);
}

Json model_json(const ModelCard& card) {
  Json modalities = Json::array({"text"});
  if (card.reads_pictures)
    modalities.push_back("image");
  return {{"id", card.name},
          {"object", "model"},
          {"created", card.modified_s},
          {"owned_by", "pinhole"},
          {"aliases", card.aliases},
          {"architecture",
           {{"input_modalities", modalities}, {"output_modalities", Json::array({"text"})}}},
          {"meta",
           {{"family", card.family},
            {"n_params", card.parameters},
            {"size", card.file_bytes},
            {"quantization", card.quantisation},
            {"n_ctx", card.context_tokens},
            {"n_ctx_train", card.model_context_tokens},
            {"n_embd", card.hidden_size},
            {"supports_tools", card.knows_tools}}}};
}

} // namespace

HttpReply completions(Api& api, HttpRequest& http) {
  auto reply = answer_completion(api, http);
  return reply ? std::move(*reply) : error_reply(reply.error(), ApiStyle::kOpenAi);
}

HttpReply list_models(Api& api, HttpRequest&) {
  Json data = Json::array();
  for (const ModelCard& card : api.registry.list())
    data.push_back(model_json(card));
  HttpReply reply;
  reply.body = dump({{"object", "list"}, {"data", std::move(data)}});
  return reply;
}

HttpReply retrieve_model(Api& api, HttpRequest& http) {
  constexpr std::string_view kBegin = "/v1/models/";
  const std::string name = http.path.substr(std::min(http.path.size(), kBegin.size()));
  const auto card = api.registry.find(name);
  if (!card) {
    return error_reply(refuse(404, fmt::format("there is no model '{}' here", name.substr(0, 100)),
                              "model", "model_not_found")
                           .value(),
                       ApiStyle::kOpenAi);
  }
  HttpReply reply;
  reply.body = dump(model_json(*card));
  return reply;
}

} // namespace pinhole::serve
