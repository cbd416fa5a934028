// responses: the same content as chat/completions, as typed items and named events.
#include "serve/openai.h"
#include "serve/openai_request.h"

#include <fmt/format.h>

namespace pinhole::serve {

namespace {

struct ResponseReply {
  std::string id = random_id("resp_");
  std::string message_id = random_id("msg_");
  int64_t created = unix_seconds();
  std::string model;
  OpenAiRequest request;
  Json tools = Json::array();
  std::shared_ptr<Job> job;

  Json message(const std::string& text, const char* status) const {
    Json content = Json::array();
    if (!text.empty() || std::string_view(status) == "completed")
      content.push_back(part(text));
    return {{"type", "message"},
            {"id", message_id},
            {"status", status},
            {"role", "assistant"},
            {"content", std::move(content)}};
  }
  static Json part(const std::string& text) {
    return {{"type", "output_text"},
            {"text", text},
            {"annotations", Json::array()},
            {"logprobs", Json::array()}};
  }
  static Json call(const ToolCall& call, const char* status) {
    return {{"type", "function_call"},           {"id", random_id("fc_")},
            {"call_id", random_id("call_")},     {"name", call.name},
            {"arguments", dump(call.arguments)}, {"status", status}};
  }
  Json whole(const char* status, Json output, const Answer* answer) const {
    const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
    const AnswerOptions& options = job->generation.options;
    Json out = {{"id", id},
                {"object", "response"},
                {"created_at", created},
                {"status", status},
                {"error", nullptr},
                {"incomplete_details", nullptr},
                {"instructions", or_null(request.instructions)},
                {"model", model},
                {"output", std::move(output)},
                {"parallel_tool_calls", true},
                {"previous_response_id", nullptr},
                {"store", false},
                {"temperature", options.sampling.temperature},
                {"top_p", options.sampling.top_p},
                {"max_output_tokens", options.max_new_tokens},
                {"tool_choice", job->generation.only_call ? "required" : "auto"},
                {"tools", tools},
                {"truncation", "disabled"},
                {"metadata", Json::object()}};
    out["text"] = {
        {"format", request.text_format.is_object() ? request.text_format : Json{{"type", "text"}}}};
    out["usage"] = nullptr;
    if (answer == nullptr)
      return out;
    if (answer->finish != FinishReason::kStop) {
      out["status"] = "incomplete";
      out["incomplete_details"] = {{"reason", "max_output_tokens"}};
    }
    out["usage"] = {
        {"input_tokens", answer->prompt_tokens},
        {"input_tokens_details",
         {{"cached_tokens", answer->reused_tokens}, {"image_tokens", answer->picture_tokens}}},
        {"output_tokens", answer->generated_tokens},
        {"output_tokens_details", {{"reasoning_tokens", 0}}},
        {"total_tokens", answer->prompt_tokens + answer->generated_tokens}};
    out["timings"] = timings_json(*answer);
    out["pictures"] = pictures_json(job->generation.pictures);
    return out;
  }
};

std::string whole_response(const ResponseReply& reply, const Answer& answer) {
  std::string text = answer.text;
  Json output = Json::array();
  std::vector<ToolCall> calls;
  if (reply.job->generation.finds_calls) {
    ToolCallFilter filter(reply.job->generation.only_call);
    auto out = filter.push(text);
    auto rest = filter.finish();
    text = out.text + rest.text;
    calls = std::move(out.calls);
    calls.insert(calls.end(), rest.calls.begin(), rest.calls.end());
  }
  if (!text.empty() || calls.empty())
    output.push_back(reply.message(text, "completed"));
  for (const ToolCall& call : calls)
    output.push_back(ResponseReply::call(call, "completed"));
  return dump(reply.whole("completed", std::move(output), &answer));
}

// The order of events of one response: created, in_progress, then each item added, its parts and
// deltas, done, and at last completed.
class ResponseStream {
 public:
  ResponseStream(ResponseReply& reply, HttpSink& sink) : reply_(reply), sink_(sink) {}

  bool run() {
    Job& job = *reply_.job;
    if (!send("response.created",
              {{"response", reply_.whole("in_progress", Json::array(), nullptr)}}) ||
        !send("response.in_progress",
              {{"response", reply_.whole("in_progress", Json::array(), nullptr)}}))
      return false;
    ToolCallFilter filter(job.generation.only_call);
    RunWriter writer;
    writer.text = [&](const std::string& text) {
      if (!job.generation.finds_calls)
        return write_text(text);
      const auto out = filter.push(text);
      return write_text(out.text) && write_calls(out.calls);
    };
    writer.ping = [&](const std::string& progress) { return sink_.comment(progress); };
    if (!write_run(*job.run, writer))
      return false;
    const auto rest = filter.finish();
    if (!write_text(rest.text) || !write_calls(rest.calls))
      return false;
    const auto& answer = job.run->answer();
    if (!answer)
      return fail_with(to_api_error(answer.error()));
    if (output_.empty() && !open_)
      open_message();
    if (!close_message())
      return false;
    Json whole = reply_.whole("completed", output_, &*answer);
    const bool cut = whole["status"] == "incomplete";
    return send(cut ? "response.incomplete" : "response.completed",
                {{"response", std::move(whole)}});
  }

 private:
  bool send(const char* type, Json members) {
    Json out = {{"type", type}, {"sequence_number", sequence_++}};
    out.update(members);
    return sink_.named(type, out);
  }
  bool fail_with(const ApiError& error) {
    Json whole = reply_.whole("failed", output_, nullptr);
    whole["error"] = {{"code", error.code.empty() ? "server_error" : error.code},
                      {"message", error.message}};
    return send("response.failed", {{"response", std::move(whole)}});
  }
  Json place() const {
    return {{"item_id", reply_.message_id}, {"output_index", output_.size()}, {"content_index", 0}};
  }
  bool open_message() {
    open_ = true;
    Json added = place();
    added["part"] = ResponseReply::part("");
    return send("response.output_item.added",
                {{"output_index", output_.size()}, {"item", reply_.message("", "in_progress")}}) &&
           send("response.content_part.added", std::move(added));
  }
  bool write_text(const std::string& text) {
    if (text.empty())
      return true;
    if (!open_ && !open_message())
      return false;
    text_ += text;
    Json delta = place();
    delta["delta"] = text;
    delta["logprobs"] = Json::array();
    return send("response.output_text.delta", std::move(delta));
  }
  bool close_message() {
    if (!open_)
      return true;
    open_ = false;
    Json text = place(), part = place();
    text["text"] = text_;
    text["logprobs"] = Json::array();
    part["part"] = ResponseReply::part(text_);
    Json item = reply_.message(text_, "completed");
    const size_t index = output_.size();
    text_.clear();
    const bool sent = send("response.output_text.done", std::move(text)) &&
                      send("response.content_part.done", std::move(part)) &&
                      send("response.output_item.done", {{"output_index", index}, {"item", item}});
    output_.push_back(std::move(item));
    reply_.message_id = random_id("msg_"); // of the next one
    return sent;
  }
  bool write_calls(const std::vector<ToolCall>& calls) {
    for (const ToolCall& call : calls) {
      if (!close_message())
        return false;
      Json item = ResponseReply::call(call, "completed");
      Json begun = item;
      begun["arguments"] = "";
      begun["status"] = "in_progress";
      const Json place = {{"item_id", item["id"]}, {"output_index", output_.size()}};
      Json delta = place, done = place;
      delta["delta"] = item["arguments"];
      done["name"] = item["name"];
      done["arguments"] = item["arguments"];
      if (!send("response.output_item.added",
                {{"output_index", output_.size()}, {"item", begun}}) ||
          !send("response.function_call_arguments.delta", std::move(delta)) ||
          !send("response.function_call_arguments.done", std::move(done)) ||
          !send("response.output_item.done", {{"output_index", output_.size()}, {"item", item}}))
        return false;
      output_.push_back(std::move(item));
    }
    return true;
  }

  ResponseReply& reply_;
  EventSink sink_;
  int64_t sequence_ = 0;
  Json output_ = Json::array();
  std::string text_;
  bool open_ = false;
};

ApiResult<OpenAiRequest> parse_response(Api& api, HttpRequest& http) {
  PINHOLE_API(const Json body, parse_body(http.body));
  http.body = {};
  return parse_responses_request(body, api.content_options(http));
}

ApiResult<HttpReply> answer_response(Api& api, HttpRequest& http) {
  auto reply = std::make_shared<ResponseReply>();
  PINHOLE_API(reply->request, parse_response(api, http));
  for (const Json& tool : reply->request.generation.tools.tools) {
    Json flat = {{"type", "function"}, {"strict", false}};
    flat.update(tool["function"]);
    reply->tools.push_back(std::move(flat));
  }
  PINHOLE_API(reply->job, make_job(api, std::move(reply->request.generation), http));
  reply->model = reply->job->model_name;
  PINHOLE_API_CHECK(start_job(*reply->job));
  if (!reply->request.stream) {
    return wait_and_reply(
        reply->job, [reply](const Answer& answer) { return whole_response(*reply, answer); },
        ApiStyle::kOpenAi);
  }
  HttpReply out;
  out.content_type = "text/event-stream";
  out.headers.emplace_back("Cache-Control", "no-cache");
  out.stream = [reply](HttpSink& sink) { return ResponseStream(*reply, sink).run(); };
  return out;
}

} // namespace

HttpReply responses(Api& api, HttpRequest& http) {
  auto reply = answer_response(api, http);
  return reply ? std::move(*reply) : error_reply(reply.error(), ApiStyle::kOpenAi);
}

} // namespace pinhole::serve
