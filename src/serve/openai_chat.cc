// chat/completions.
#include "serve/openai.h"
#include "serve/openai_request.h"

#include <fmt/format.h>

namespace pinhole::serve {

bool EventSink::data(const Json& json) { return sink_.write("data: " + dump(json) + "\n\n"); }
bool EventSink::named(std::string_view event, const Json& json) {
  return sink_.write(fmt::format("event: {}\ndata: {}\n\n", event, dump(json)));
}
bool EventSink::comment(const std::string& text) { return sink_.write(": " + text + "\n\n"); }
bool EventSink::done() { return sink_.write("data: [DONE]\n\n"); }

Json usage_json(const Answer& answer) {
  return {{"prompt_tokens", answer.prompt_tokens},
          {"completion_tokens", answer.generated_tokens},
          {"total_tokens", answer.prompt_tokens + answer.generated_tokens},
          {"prompt_tokens_details",
           {{"cached_tokens", answer.reused_tokens}, {"image_tokens", answer.picture_tokens}}}};
}

namespace {

Json token_json(const TokenLogprob& token) {
  Json bytes = Json::array();
  for (const char c : token.bytes)
    bytes.push_back(static_cast<unsigned char>(c));
  return {{"token", token.bytes}, {"logprob", token.logprob}, {"bytes", std::move(bytes)}};
}

} // namespace

Json logprob_json(const TokenChoice& choice) {
  Json out = token_json(choice.chosen);
  Json top = Json::array();
  for (const TokenLogprob& token : choice.top)
    top.push_back(token_json(token));
  out["top_logprobs"] = std::move(top);
  return out;
}

Json tool_call_json(const ToolCall& call) {
  return {{"id", random_id("call_")},
          {"type", "function"},
          {"function", {{"name", call.name}, {"arguments", dump(call.arguments)}}}};
}

namespace {

// One request's numbers and names, the same in every chunk.
struct ChatReply {
  std::string id = random_id("chatcmpl-");
  int64_t created = unix_seconds();
  std::string model;
  std::string fingerprint;
  OpenAiRequest request;
  std::shared_ptr<Job> job;

  Json head(const char* object) const {
    return {{"id", id},
            {"object", object},
            {"created", created},
            {"model", model},
            {"system_fingerprint", fingerprint}};
  }
  Json chunk(int64_t index, Json delta, Json finish_reason, Json logprobs) const {
    Json out = head("chat.completion.chunk");
    Json choice = {{"index", index}, {"delta", std::move(delta)}};
    choice["logprobs"] = std::move(logprobs);
    choice["finish_reason"] = std::move(finish_reason);
    out["choices"] = Json::array({std::move(choice)});
    if (request.include_usage)
      out["usage"] = nullptr;
    return out;
  }
};

const char* finish_reason(const Answer& answer, bool has_calls) {
  if (answer.finish != FinishReason::kStop)
    return "length";
  return has_calls ? "tool_calls" : "stop";
}

Json logprobs_json(std::vector<TokenChoice>& tokens) {
  Json content = Json::array();
  for (const TokenChoice& token : tokens)
    content.push_back(logprob_json(token));
  tokens.clear();
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

Json whole_choice(const ChatReply& reply, int64_t index, const Answer& answer) {
  ToolCallFilter filter(reply.job->generation.only_call);
  std::string text = answer.text;
  Json calls = Json::array();
  if (reply.job->generation.finds_calls) {
    auto out = filter.push(text);
    auto rest = filter.finish();
    text = out.text + rest.text;
    for (const auto* list : {&out.calls, &rest.calls}) {
      for (const ToolCall& call : *list)
        calls.push_back(tool_call_json(call));
    }
  }
  Json message = {{"role", "assistant"}};
  message["content"] = text.empty() && !calls.empty() ? Json() : Json(text);
  message["refusal"] = nullptr;
  const bool has_calls = !calls.empty();
  if (has_calls)
    message["tool_calls"] = std::move(calls);
  Json choice = {{"index", index}, {"message", std::move(message)}};
  if (reply.request.wants_logprobs) {
    std::vector<TokenChoice> tokens = answer.logprobs;
    choice["logprobs"] = logprobs_json(tokens);
  } else {
    choice["logprobs"] = nullptr;
  }
  choice["finish_reason"] = finish_reason(answer, has_calls);
  return choice;
}

// The numbers of several answers to one question.
void add_up(const Answer& next, Answer& sum) {
  sum.prompt_tokens = next.prompt_tokens;
  sum.picture_tokens = next.picture_tokens;
  sum.generated_tokens += next.generated_tokens;
}

// Streams one choice; nothing: nobody reads, or it failed, which was said.
std::optional<Answer> stream_choice(ChatReply& reply, int64_t index, EventSink& sink) {
  Job& job = *reply.job;
  ToolCallFilter filter(job.generation.only_call);
  std::vector<TokenChoice> tokens;
  int64_t num_calls = 0;
  const auto logprobs = [&] {
    return reply.request.wants_logprobs && !tokens.empty() ? logprobs_json(tokens) : Json();
  };
  if (!sink.data(reply.chunk(index, {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr)))
    return std::nullopt;
  const auto write = [&](const std::string& text, const std::vector<ToolCall>& calls) {
    if (!text.empty() && !sink.data(reply.chunk(index, {{"content", text}}, nullptr, logprobs())))
      return false;
    for (const ToolCall& call : calls) {
      Json json = tool_call_json(call);
      json["index"] = num_calls++;
      if (!sink.data(
              reply.chunk(index, {{"tool_calls", Json::array({json})}}, nullptr, logprobs())))
        return false;
    }
    return true;
  };
  RunWriter writer;
  writer.text = [&](const std::string& text) {
    if (!job.generation.finds_calls)
      return write(text, {});
    const auto out = filter.push(text);
    return write(out.text, out.calls);
  };
  writer.token = [&](TokenChoice token) {
    tokens.push_back(std::move(token));
    return true;
  };
  writer.ping = [&](const std::string& progress) { return sink.comment(progress); };
  if (!write_run(*job.run, writer))
    return std::nullopt;
  const auto rest = filter.finish();
  if (!write(rest.text, rest.calls))
    return std::nullopt;
  auto& answer = job.run->answer();
  if (!answer) {
    sink.data(parse_json(openai_error_body(to_api_error(answer.error())), "").value());
    return std::nullopt;
  }
  Json delta = Json::object();
  if (!tokens.empty() && reply.request.wants_logprobs)
    delta["content"] = "";
  const char* const reason = finish_reason(*answer, num_calls > 0);
  if (!sink.data(reply.chunk(index, std::move(delta), reason, logprobs())))
    return std::nullopt;
  return std::move(*answer);
}

bool stream_chat(ChatReply& reply, HttpSink& out) {
  EventSink sink(out);
  Answer sum;
  for (int64_t i = 0; i < reply.request.num_choices; ++i) {
    if (i > 0) {
      ++reply.job->generation.options.sampling.seed;
      reply.job->start();
    }
    const auto answer = stream_choice(reply, i, sink);
    if (!answer)
      return !*reply.job->gone; // an error was said; the stream ends as it should
    if (i == 0)
      sum = *answer;
    else
      add_up(*answer, sum);
  }
  if (reply.request.include_usage) {
    Json last = reply.head("chat.completion.chunk");
    last["choices"] = Json::array();
    last["usage"] = usage_json(sum);
    last["timings"] = timings_json(sum);
    last["pictures"] = pictures_json(reply.job->generation.pictures);
    if (!sink.data(last))
      return false;
  }
  return sink.done();
}

HttpReply whole_chat(std::shared_ptr<ChatReply> reply) {
  // All choices but the last one are made here; they are short, or the client streams.
  auto choices = std::make_shared<Json>(Json::array());
  auto sum = std::make_shared<Answer>();
  Job& job = *reply->job;
  const int64_t last = reply->request.num_choices - 1;
  for (int64_t i = 0; i < last; ++i) {
    while (!job.run->wait_for(std::chrono::seconds(60))) {
    }
    const auto& answer = job.run->answer();
    if (!answer)
      return error_reply(to_api_error(answer.error()), ApiStyle::kOpenAi);
    choices->push_back(whole_choice(*reply, i, *answer));
    add_up(*answer, *sum);
    ++job.generation.options.sampling.seed;
    job.start();
  }
  return wait_and_reply(
      reply->job,
      [reply, choices, sum, last](const Answer& answer) {
        choices->push_back(whole_choice(*reply, last, answer));
        Answer total = answer;
        total.generated_tokens += sum->generated_tokens;
        Json out = reply->head("chat.completion");
        out["choices"] = *choices;
        out["usage"] = usage_json(total);
        out["timings"] = timings_json(answer);
        out["pictures"] = pictures_json(reply->job->generation.pictures);
        return dump(out);
      },
      ApiStyle::kOpenAi);
}

ApiResult<OpenAiRequest> parse_chat(Api& api, HttpRequest& http) {
  PINHOLE_API(const Json body, parse_body(http.body));
  http.body = {}; // pictures make it large
  return parse_chat_request(body, api.content_options(http));
}

ApiResult<HttpReply> answer_chat(Api& api, HttpRequest& http) {
  auto reply = std::make_shared<ChatReply>();
  PINHOLE_API(reply->request, parse_chat(api, http));
  PINHOLE_API(reply->job, make_job(api, std::move(reply->request.generation), http));
  reply->model = reply->job->model_name;
  reply->fingerprint = "pinhole-" + api.options.version;
  PINHOLE_API_CHECK(start_job(*reply->job));
  if (!reply->request.stream)
    return whole_chat(std::move(reply));
  HttpReply out;
  out.content_type = "text/event-stream";
  out.headers.emplace_back("Cache-Control", "no-cache");
  out.headers.emplace_back("X-Accel-Buffering", "no");
  out.stream = [reply](HttpSink& sink) { return stream_chat(*reply, sink); };
  return out;
}

} // namespace

HttpReply chat_completions(Api& api, HttpRequest& http) {
  auto reply = answer_chat(api, http);
  return reply ? std::move(*reply) : error_reply(reply.error(), ApiStyle::kOpenAi);
}

} // namespace pinhole::serve
