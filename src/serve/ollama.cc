// generate and chat.
#include "serve/ollama.h"

#include "serve/fields.h"

#include <chrono>
#include <ctime>
#include <fmt/format.h>

namespace pinhole::serve {

namespace {

constexpr const char* kLines = "application/x-ndjson";

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

struct OllamaReply {
  std::string model;
  OllamaRequest request;
  std::shared_ptr<Job> job;
  int64_t start_ns = now_ns();
  int64_t load_ns = 0;

  Json line(const std::string& text, bool done) const {
    Json out = {{"model", model}, {"created_at", rfc3339(now_ns())}};
    if (request.is_chat)
      out["message"] = {{"role", "assistant"}, {"content", text}};
    else
      out["response"] = text;
    out["done"] = done;
    return out;
  }
  Json last(const std::string& text, const Answer& answer) const {
    Json out = line(text, true);
    out["done_reason"] = answer.finish == FinishReason::kStop ? "stop" : "length";
    const auto ns = [](double ms) { return static_cast<int64_t>(ms * 1e6); };
    out["total_duration"] = now_ns() - start_ns;
    out["load_duration"] = load_ns;
    out["prompt_eval_count"] = answer.prompt_tokens;
    out["prompt_eval_duration"] =
        ns(answer.timings.picture + answer.timings.encode + answer.timings.prefill);
    out["eval_count"] = answer.generated_tokens;
    out["eval_duration"] = ns(answer.timings.decode);
    return out;
  }
};

Json ollama_calls(const std::vector<ToolCall>& calls) {
  Json out = Json::array();
  for (const ToolCall& call : calls)
    out.push_back({{"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  return out;
}

Json ollama_logprobs(const std::vector<TokenChoice>& tokens) {
  const auto one = [](const TokenLogprob& token) -> Json {
    return {{"token", token.bytes}, {"logprob", token.logprob}};
  };
  Json out = Json::array();
  for (const TokenChoice& token : tokens) {
    Json entry = one(token.chosen);
    entry["top_logprobs"] = Json::array();
    for (const TokenLogprob& other : token.top)
      entry["top_logprobs"].push_back(one(other));
    out.push_back(std::move(entry));
  }
  return out;
}

std::string whole_reply(const OllamaReply& reply, const Answer& answer) {
  std::string text = answer.text;
  std::vector<ToolCall> calls;
  if (reply.job->generation.finds_calls) {
    ToolCallFilter filter(false);
    auto out = filter.push(text);
    auto rest = filter.finish();
    text = out.text + rest.text;
    calls = std::move(out.calls);
    calls.insert(calls.end(), rest.calls.begin(), rest.calls.end());
  }
  Json out = reply.last(text, answer);
  if (!calls.empty())
    out["message"]["tool_calls"] = ollama_calls(calls);
  if (!answer.logprobs.empty())
    out["logprobs"] = ollama_logprobs(answer.logprobs);
  return dump(out);
}

bool stream_reply(OllamaReply& reply, HttpSink& sink) {
  const auto send = [&](const Json& json) { return sink.write(dump(json) + "\n"); };
  ToolCallFilter filter(false);
  std::vector<TokenChoice> tokens;
  const auto write = [&](const std::string& text, const std::vector<ToolCall>& calls) {
    if (text.empty() && calls.empty())
      return true;
    Json line = reply.line(text, false);
    if (!calls.empty())
      line["message"]["tool_calls"] = ollama_calls(calls);
    if (!tokens.empty())
      line["logprobs"] = ollama_logprobs(tokens);
    tokens.clear();
    return send(line);
  };
  RunWriter writer;
  writer.text = [&](const std::string& text) {
    if (!reply.job->generation.finds_calls)
      return write(text, {});
    const auto out = filter.push(text);
    return write(out.text, out.calls);
  };
  writer.token = [&](TokenChoice token) {
    tokens.push_back(std::move(token));
    return true;
  };
  // Lines without text are no answer yet, and keep clients waiting.
  writer.ping = [&](const std::string&) { return send(reply.line("", false)); };
  if (!write_run(*reply.job->run, writer))
    return false;
  const auto rest = filter.finish();
  if (!write(rest.text, rest.calls))
    return false;
  const auto& answer = reply.job->run->answer();
  if (!answer)
    return sink.write(ollama_error_body(to_api_error(answer.error())) + "\n");
  return send(reply.last("", *answer));
}

// An empty prompt loads the model, or unloads it.
HttpReply load_only(Api& api, const OllamaReply& reply, HttpRequest& http) {
  const KeepAlive& keep = reply.request.keep;
  const bool leaves = keep.is_given && keep.time && keep.time->count() == 0;
  if (leaves && api.registry.find(reply.request.generation.model)) {
    api.registry.unload(reply.request.generation.model);
  } else {
    const auto loaded = api.registry.load(reply.request.generation.model, keep, *http.gone);
    if (!loaded)
      return error_reply(loaded.error(), ApiStyle::kOllama);
  }
  Json line = reply.line("", true);
  line["done_reason"] = leaves ? "unload" : "load";
  HttpReply out;
  out.content_type = reply.request.stream ? kLines : "application/json";
  out.body = dump(line) + (reply.request.stream ? "\n" : "");
  return out;
}

ApiResult<OllamaRequest> parse(HttpRequest& http, bool is_chat) {
  PINHOLE_API(const Json body, parse_body(http.body));
  http.body = {};
  return is_chat ? parse_ollama_chat(body) : parse_ollama_generate(body);
}

ApiResult<HttpReply> answer(Api& api, HttpRequest& http, bool is_chat) {
  auto reply = std::make_shared<OllamaReply>();
  PINHOLE_API(reply->request, parse(http, is_chat));
  const std::string asked = reply->request.generation.model;
  if (asked.empty())
    return refuse(400, "'model' is missing", "model", "missing");
  reply->model = asked;
  if (reply->request.only_loads)
    return load_only(api, *reply, http);
  const int64_t begin = now_ns();
  PINHOLE_API(reply->job,
              make_job(api, std::move(reply->request.generation), http, reply->request.keep));
  reply->load_ns = now_ns() - begin;
  const int64_t context = reply->job->model->plan().shape.context_tokens;
  if (reply->request.num_ctx.value_or(0) > context) {
    return refuse(400,
                  fmt::format("it is {}, the server was started with a context of {} tokens; "
                              "raise --ctx there",
                              *reply->request.num_ctx, context),
                  "options.num_ctx", "context_length_exceeded");
  }
  PINHOLE_API_CHECK(start_job(*reply->job));
  if (!reply->request.stream) {
    return wait_and_reply(
        reply->job, [reply](const Answer& answer) { return whole_reply(*reply, answer); },
        ApiStyle::kOllama);
  }
  HttpReply out;
  out.content_type = kLines;
  out.stream = [reply](HttpSink& sink) { return stream_reply(*reply, sink); };
  return out;
}

HttpReply reply_to(Api& api, HttpRequest& http, bool is_chat) {
  auto reply = answer(api, http, is_chat);
  return reply ? std::move(*reply) : error_reply(reply.error(), ApiStyle::kOllama);
}

} // namespace

std::string rfc3339(int64_t unix_nanoseconds) {
  const std::time_t seconds = static_cast<std::time_t>(unix_nanoseconds / 1'000'000'000);
  std::tm parts{};
  (void)::gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     unix_nanoseconds % 1'000'000'000);
}

HttpReply ollama_generate(Api& api, HttpRequest& http) { return reply_to(api, http, false); }
HttpReply ollama_chat(Api& api, HttpRequest& http) { return reply_to(api, http, true); }

} // namespace pinhole::serve
