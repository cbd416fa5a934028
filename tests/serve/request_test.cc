// Bodies of the APIs: what is understood, what is refused by name, and the calls in answers.
#include "serve/base64.h"
#include "serve/ollama.h"
#include "serve/openai_messages.h"
#include "serve/openai_request.h"
#include "serve/tools.h"

#include <gtest/gtest.h>

namespace pinhole::serve {
namespace {

Json json(std::string_view text) { return parse_json(text, "test").value(); }

ApiResult<OpenAiRequest> chat(std::string_view members) {
  return parse_chat_request(
      json(R"({"messages":[{"role":"user","content":"Hi"}])" + std::string(members) + "}"), {});
}

std::string param_of(std::string_view members) {
  const auto parsed = chat(members);
  return parsed ? "(accepted)" : parsed.error().param;
}

TEST(ChatRequest, Options) {
  const auto parsed = chat(R"(,"model":"m","temperature":0.5,"top_p":0.9,"seed":7,"stop":["a","b"],
      "max_completion_tokens":5,"max_tokens":9,"n":2,"stream":true,
      "stream_options":{"include_usage":true},"logprobs":true,"top_logprobs":3,
      "presence_penalty":1,"frequency_penalty":-1,"user":"u","store":false)");
  ASSERT_TRUE(parsed) << parsed.error().message;
  const AnswerOptions& options = parsed->generation.options;
  EXPECT_EQ(parsed->generation.model, "m");
  EXPECT_DOUBLE_EQ(options.sampling.temperature, 0.5);
  EXPECT_EQ(options.sampling.seed, 7u);
  EXPECT_EQ(options.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(parsed->generation.max_tokens, 5);
  EXPECT_EQ(parsed->num_choices, 2);
  EXPECT_EQ(options.top_logprobs, 3);
  EXPECT_TRUE(parsed->stream && parsed->include_usage);
  EXPECT_EQ(chat(R"(,"stop":"x")")->generation.options.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(chat(R"(,"stop":null,"seed":null,"tools":null)")->generation.max_tokens, std::nullopt);
}

// Nothing is ignored that would change the answer.
TEST(ChatRequest, RefusesByName) {
  EXPECT_EQ(param_of(R"(,"temperature":3)"), "temperature");
  EXPECT_EQ(param_of(R"(,"temperature":"hot")"), "temperature");
  EXPECT_EQ(param_of(R"(,"max_tokens":0)"), "max_tokens");
  EXPECT_EQ(param_of(R"(,"max_tokens":1.5)"), "max_tokens");
  EXPECT_EQ(param_of(R"(,"max_tokens":1e30)"), "max_tokens");
  EXPECT_EQ(param_of(R"(,"n":0)"), "n");
  EXPECT_EQ(param_of(R"(,"top_logprobs":2)"), "top_logprobs");
  EXPECT_EQ(param_of(R"(,"logit_bias":{"5":1})"), "logit_bias");
  EXPECT_EQ(param_of(R"(,"logit_bias":{})"), "(accepted)");
  EXPECT_EQ(param_of(R"(,"functions":[])"), "functions");
  EXPECT_EQ(param_of(R"(,"modalities":["text","audio"])"), "modalities");
  EXPECT_EQ(param_of(R"(,"temprature":1)"), "temprature");
  EXPECT_EQ(param_of(R"(,"stream_options":{"x":1})"), "stream_options.x");
  EXPECT_EQ(param_of(R"(,"response_format":{"type":"yaml"})"), "response_format");
  EXPECT_EQ(param_of(R"(,"response_format":{"type":"json_schema"})"),
            "response_format.json_schema.schema");
  EXPECT_EQ(parse_body("").error().status, 400);
  EXPECT_EQ(parse_body("[1]").error().status, 400);
  EXPECT_EQ(parse_body(R"({"a":)").error().status, 400);
  EXPECT_EQ(parse_body(std::string(200, '[') + std::string(200, ']')).error().status, 400);
}

TEST(ChatRequest, MessagesKeepPicturesInTheirPlaces) {
  const std::string url = "data:image/png;base64," + encode_base64("bytes");
  const auto parsed = read_messages(json(R"([
      {"role":"developer","content":"Be brief."},
      {"role":"user","content":[{"type":"text","text":"one"},
        {"type":"image_url","image_url":{"url":")" +
                                         url + R"(","detail":"low"}},
        {"type":"text","text":"two"},{"type":"image_url","image_url":{"url":")" +
                                         url + R"("}}]}])"),
                                    {});
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->turns[0].role, "system");
  EXPECT_EQ(parsed->turns[1].text, "onetwo");
  EXPECT_EQ(parsed->turns[1].pictures, (std::vector<size_t>{0, 1}));
  EXPECT_EQ(parsed->turns[1].picture_places, (std::vector<size_t>{3, 6}));
  EXPECT_EQ(parsed->pictures[0].bytes, "bytes");
  EXPECT_TRUE(parsed->pictures[0].low_detail);
  EXPECT_FALSE(parsed->pictures[1].low_detail);
}

std::string message_error(const std::string& message) {
  const auto parsed = read_messages(json("[" + message + "]"), {});
  return parsed ? "(accepted)" : parsed.error().param;
}

TEST(ChatRequest, RefusesMessages) {
  EXPECT_EQ(message_error("5"), "messages[0]");
  EXPECT_EQ(message_error(R"({"content":"x"})"), "messages[0].role");
  EXPECT_EQ(message_error(R"({"role":"king","content":"x"})"), "messages[0].role");
  EXPECT_EQ(message_error(R"({"role":"user","content":5})"), "messages[0].content");
  EXPECT_EQ(message_error(R"({"role":"user","content":[{"type":"input_audio"}]})"),
            "messages[0].content[0].type");
  EXPECT_EQ(message_error(R"({"role":"tool","content":"x"})"), "messages[0].tool_call_id");
  const auto picture = [](const std::string& url) {
    return message_error(R"({"role":"user","content":[{"type":"image_url","image_url":{"url":")" +
                         url + R"("}}]})");
  };
  const std::string field = "messages[0].content[0].image_url.url";
  EXPECT_EQ(picture("file:///etc/passwd"), field);
  EXPECT_EQ(picture("/etc/passwd"), field);
  EXPECT_EQ(picture("http://example.org/a.png"), field) << "nothing is fetched unless allowed";
  EXPECT_EQ(picture("data:image/png;base64,!!"), field);
  EXPECT_EQ(picture("data:image/png;base64,"), field);
  EXPECT_EQ(picture("data:image/png,abc"), field);
  EXPECT_EQ(picture("data:image/png;base64,QUJD"), "(accepted)");
  EXPECT_FALSE(read_messages(json("[]"), {}));
  EXPECT_FALSE(read_messages(json("{}"), {}));
}

const char* const kTools = R"([{"type":"function","function":{"name":"get_weather","parameters":
    {"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}},
    {"type":"function","function":{"name":"stop"}}])";

TEST(Tools, Choice) {
  const Json tools = json(kTools);
  const auto read = [&](const char* choice) {
    const Json value = json(choice);
    return read_tools(&tools, &value);
  };
  EXPECT_EQ(read_tools(&tools, nullptr)->tools.size(), 2u);
  EXPECT_FALSE(read(R"("none")")->are_offered());
  EXPECT_FALSE(read(R"("auto")")->is_required);
  EXPECT_TRUE(read(R"("required")")->is_required);
  const auto one = read(R"({"type":"function","function":{"name":"stop"}})");
  EXPECT_TRUE(one->is_required);
  EXPECT_EQ(one->tools.size(), 1u);
  EXPECT_EQ(read(R"({"type":"function","function":{"name":"other"}})").error().param,
            "tool_choice");
  EXPECT_EQ(read(R"("sometimes")").error().param, "tool_choice");
  const Json required = "required";
  EXPECT_EQ(read_tools(nullptr, &required).error().param, "tool_choice");
  EXPECT_TRUE(tool_grammar(*one));
  const Json bad = json(R"([{"type":"function","function":{"name":"a b"}}])");
  EXPECT_EQ(read_tools(&bad, nullptr).error().param, "tools[0].function.name");
}

// However the text is cut, calls and words come apart the same way.
TEST(Tools, CallsAreTakenOutOfAStream) {
  const std::string text = "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": "
                           "\"</tool\"}}\n</tool_call><tool_ca and <tool_call>no json</tool_call>";
  for (size_t step = 1; step <= text.size(); ++step) {
    ToolCallFilter filter(false);
    std::string words;
    std::vector<ToolCall> calls;
    const auto take = [&](ToolCallFilter::Out out) {
      words += out.text;
      calls.insert(calls.end(), out.calls.begin(), out.calls.end());
    };
    for (size_t at = 0; at < text.size(); at += step)
      take(filter.push(text.substr(at, step)));
    take(filter.finish());
    EXPECT_EQ(words, "Let me see.\n<tool_ca and <tool_call>no json</tool_call>") << step;
    ASSERT_EQ(calls.size(), 1u) << step;
    EXPECT_EQ(calls[0].name, "f");
    EXPECT_EQ(calls[0].arguments, json(R"({"a":"</tool"})"));
  }
}

TEST(Tools, ACallWithoutItsEnd) {
  ToolCallFilter filter(false);
  EXPECT_TRUE(filter.push("<tool_call>{\"name\": \"f\"}").text.empty());
  const auto rest = filter.finish();
  ASSERT_EQ(rest.calls.size(), 1u);
  EXPECT_EQ(rest.calls[0].arguments, Json::object());
  ToolCallFilter cut(false);
  cut.push("<tool_call>{\"name\":");
  EXPECT_EQ(cut.finish().text, "<tool_call>{\"name\":");
}

// Of Ollama's documentation and Go's time.ParseDuration.
TEST(OllamaRequest, KeepAlive) {
  const auto ms = [](const char* text) -> int64_t {
    const auto keep = parse_keep_alive(json(text));
    return !keep ? -2 : !keep->time ? -1 : keep->time->count();
  };
  EXPECT_EQ(ms("300"), 300'000);
  EXPECT_EQ(ms("0"), 0);
  EXPECT_EQ(ms("-1"), -1);
  EXPECT_EQ(ms(R"("5m")"), 300'000);
  EXPECT_EQ(ms(R"("1h30m")"), 5'400'000);
  EXPECT_EQ(ms(R"("300ms")"), 300);
  EXPECT_EQ(ms(R"("1.5s")"), 1500);
  EXPECT_EQ(ms(R"("-1")"), -1);
  EXPECT_EQ(ms(R"("-5m")"), -1);
  EXPECT_EQ(ms(R"("0")"), 0);
  EXPECT_EQ(ms(R"("24h")"), 86'400'000);
  for (const char* bad : {R"("")", R"("m")", R"("5x")", R"("5m3")", R"("1e99x")", "true", "[]"})
    EXPECT_EQ(ms(bad), bad == std::string(R"("5m3")") ? 303'000 : -2) << bad;
}

TEST(OllamaRequest, OptionsAndFormats) {
  const auto parsed = parse_ollama_generate(json(R"({"model":"m","prompt":"p","system":"s",
      "format":"json","images":["QUJD"],"keep_alive":"5m",
      "options":{"temperature":0.1,"num_predict":5,"num_ctx":2048,"num_thread":4,"top_k":40}})"));
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_TRUE(parsed->stream) << "the server's default";
  EXPECT_EQ(parsed->generation.max_tokens, 5);
  EXPECT_EQ(parsed->num_ctx, 2048);
  EXPECT_TRUE(parsed->generation.options.grammar);
  EXPECT_EQ(parsed->generation.conversation.turns.size(), 2u);
  EXPECT_EQ(parsed->generation.conversation.pictures[0].bytes, "ABC");
  const auto param = [](const char* body) {
    const auto request = parse_ollama_generate(json(body));
    return request ? std::string("(accepted)") : request.error().param;
  };
  EXPECT_EQ(param(R"({"model":"m","options":{"nmu_ctx":1}})"), "options.nmu_ctx");
  EXPECT_EQ(param(R"({"model":"m","options":{"mirostat":1}})"), "options.mirostat");
  EXPECT_EQ(param(R"({"model":"m","images":["not base64!"]})"), "images[0]");
  EXPECT_EQ(param(R"({"model":"m","format":"xml"})"), "format");
  EXPECT_EQ(param(R"({"model":"m","think":true})"), "think");
  EXPECT_EQ(param(R"({"model":"m","options":{"num_predict":-1}})"), "(accepted)");
}

TEST(OllamaRequest, Times) {
  EXPECT_EQ(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
  EXPECT_EQ(rfc3339(1'700'000'000'123'456'789), "2023-11-14T22:13:20.123456789Z");
}

TEST(ResponsesRequest, ItemsBecomeTurns) {
  const auto parsed = parse_responses_request(json(R"({"instructions":"Be brief.","input":[
      {"role":"user","content":[{"type":"input_text","text":"Weather?"},
        {"type":"input_image","image_url":"data:image/png;base64,QUJD"}]},
      {"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a\":1}"},
      {"type":"function_call_output","call_id":"c1","output":"sunny"}],
      "text":{"format":{"type":"json_schema","name":"n","schema":{"type":"boolean"}}}})"),
                                              {});
  ASSERT_TRUE(parsed) << parsed.error().message;
  const auto& turns = parsed->generation.conversation.turns;
  ASSERT_EQ(turns.size(), 4u);
  EXPECT_EQ(turns[0].role, "system");
  EXPECT_EQ(turns[1].pictures.size(), 1u);
  EXPECT_EQ(turns[2].tool_calls[0]["function"]["arguments"]["a"], 1);
  EXPECT_EQ(turns[3].role, "tool");
  EXPECT_EQ(turns[3].tool_name, "f");
  EXPECT_TRUE(parsed->generation.options.grammar);
  EXPECT_EQ(parse_responses_request(json(R"({"input":"x","previous_response_id":"r"})"), {})
                .error()
                .param,
            "previous_response_id");
}

} // namespace
} // namespace pinhole::serve
