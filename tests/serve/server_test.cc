// The whole server with the bundled model: its answers are those that transformers gave.
#include "serve/server.h"

#include "kernels/select.h"
#include "serve/base64.h"
#include "serve/client.h"
#include "support/golden.h"

#include <gtest/gtest.h>
#include <sstream>
#include <thread>

namespace pinhole::serve {
namespace {

using pinhole::testing::ask;
using pinhole::testing::Client;
using pinhole::testing::Reply;
using pinhole::testing::request_text;
using pinhole::testing::take;

constexpr int64_t kContext = 1024;
const char* const kName = "pinhole-mini-f16";

struct Sample {
  std::string question, answer, png;
};

// The first sample that the reference answers rightly.
Sample sample() {
  const std::string folder = pinhole::testing::source_path("models/pinhole-mini");
  std::istringstream lines(pinhole::testing::read_file(folder + "/samples.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const Json json = take(parse_json(line, "samples.jsonl"));
    if (json["correct"] == true)
      return {json["question"], json["answer"],
              pinhole::testing::read_file(folder + "/" + json["image"].get<std::string>())};
  }
  return {};
}

class ServerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    SingleModelOptions options;
    options.path = pinhole::testing::source_path("models/pinhole-mini/pinhole-mini-f16.gguf");
    options.aliases = {"mini"};
    options.service.context_tokens = kContext;
    options.service.kernels = {take(kernels::select()), false, 2, kernels::KvType::kF16};
    model_ = new SingleModel(options);
    ServerOptions server;
    server.api.version = "test";
    server_ = take(Server::create(server, *model_)).release();
    EXPECT_EQ(ask(server_->port(), "GET", "/health").status, 503) << "not loaded yet";
    ASSERT_TRUE(model_->load());
    sample_ = new Sample(sample());
  }
  static void TearDownTestSuite() {
    delete server_;
    delete model_;
    delete sample_;
  }

  static Reply get(const std::string& path) { return ask(server_->port(), "GET", path); }
  static Reply post(const std::string& path, const Json& body) {
    return ask(server_->port(), "POST", path, body.dump(), "Content-Type: application/json\r\n");
  }
  static Json parse(const std::string& text) { return take(parse_json(text, text)); }
  static Json picture_part() {
    return {{"type", "image_url"},
            {"image_url", {{"url", "data:image/png;base64," + encode_base64(sample_->png)}}}};
  }
  static Json chat_body() {
    return {{"model", kName},
            {"messages",
             Json::array(
                 {{{"role", "user"},
                   {"content", Json::array({picture_part(),
                                            {{"type", "text"}, {"text", sample_->question}}})}}})}};
  }
  // The data of a stream of events, without "[DONE]".
  static std::vector<Json> events(const std::string& body) {
    std::vector<Json> out;
    std::istringstream lines(body);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("data: {"))
        out.push_back(parse(line.substr(6)));
    }
    return out;
  }

  static SingleModel* model_;
  static Server* server_;
  static Sample* sample_;
};
SingleModel* ServerTest::model_ = nullptr;
Server* ServerTest::server_ = nullptr;
Sample* ServerTest::sample_ = nullptr;

TEST_F(ServerTest, Chat) {
  const Reply reply = post("/v1/chat/completions", chat_body());
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json json = parse(reply.body);
  EXPECT_EQ(json["object"], "chat.completion");
  EXPECT_EQ(json["model"], kName);
  const Json& choice = json["choices"][0];
  EXPECT_EQ(choice["message"]["content"], sample_->answer);
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(json["usage"]["total_tokens"].get<int64_t>(),
            json["usage"]["prompt_tokens"].get<int64_t>() +
                json["usage"]["completion_tokens"].get<int64_t>());
  EXPECT_GT(json["usage"]["prompt_tokens_details"]["image_tokens"], 0);
  EXPECT_EQ(json["pictures"].size(), 1u);
}

TEST_F(ServerTest, ChatStream) {
  Json body = chat_body();
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const Reply reply = post("/v1/chat/completions", body);
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.headers.at("content-type"), "text/event-stream");
  EXPECT_TRUE(reply.body.ends_with("data: [DONE]\n\n"));
  const auto chunks = events(reply.body);
  ASSERT_GE(chunks.size(), 4u);
  EXPECT_EQ(chunks[0]["choices"][0]["delta"]["role"], "assistant");
  std::string text;
  for (size_t i = 0; i + 1 < chunks.size(); ++i) {
    const Json& choice = chunks[i]["choices"][0];
    EXPECT_EQ(choice["index"], 0);
    EXPECT_EQ(chunks[i]["id"], chunks[0]["id"]);
    EXPECT_TRUE(chunks[i]["usage"].is_null());
    text += choice["delta"].value("content", "");
    EXPECT_EQ(choice["finish_reason"].is_null(), i + 2 < chunks.size());
  }
  EXPECT_EQ(text, sample_->answer);
  EXPECT_TRUE(chunks.back()["choices"].empty());
  EXPECT_GT(chunks.back()["usage"]["completion_tokens"], 0);
}

TEST_F(ServerTest, SeveralPicturesAndChoices) {
  Json body = chat_body();
  Json& content = body["messages"][0]["content"];
  content.insert(content.begin(), picture_part());
  body["n"] = 2;
  body["max_tokens"] = 3;
  const Json json = parse(post("/v1/chat/completions", body).body);
  ASSERT_EQ(json["choices"].size(), 2u) << json.dump();
  EXPECT_EQ(json["choices"][1]["index"], 1);
  EXPECT_EQ(json["pictures"].size(), 2u);
  EXPECT_EQ(json["choices"][0]["message"], json["choices"][1]["message"]) << "greedy";
}

TEST_F(ServerTest, Logprobs) {
  Json body = chat_body();
  body["logprobs"] = true;
  body["top_logprobs"] = 2;
  const Json choice = parse(post("/v1/chat/completions", body).body)["choices"][0];
  const Json& tokens = choice["logprobs"]["content"];
  ASSERT_GT(tokens.size(), 0u);
  std::string text;
  for (const Json& token : tokens) {
    text += token["token"];
    EXPECT_LE(token["logprob"], 0);
    ASSERT_EQ(token["top_logprobs"].size(), 2u);
    EXPECT_EQ(token["top_logprobs"][0]["token"], token["token"]) << "greedy: the likeliest";
    EXPECT_GE(token["top_logprobs"][0]["logprob"], token["top_logprobs"][1]["logprob"]);
    EXPECT_EQ(token["bytes"].size(), token["token"].get<std::string>().size());
  }
  EXPECT_EQ(text, sample_->answer);
  body["stream"] = true;
  size_t streamed = 0;
  for (const Json& chunk : events(post("/v1/chat/completions", body).body)) {
    const Json& logprobs = chunk["choices"][0]["logprobs"];
    streamed += logprobs.is_null() ? 0 : logprobs["content"].size();
  }
  EXPECT_EQ(streamed, tokens.size());
}

TEST_F(ServerTest, StructuredAnswers) {
  Json body = chat_body();
  body["response_format"] = {
      {"type", "json_schema"},
      {"json_schema",
       {{"name", "n"},
        {"schema",
         {{"type", "object"},
          {"properties", {{"number", {{"type", "integer"}, {"maximum", 99}, {"minimum", 0}}}}},
          {"required", Json::array({"number"})}}}}}};
  const Json answer = parse(post("/v1/chat/completions", body).body);
  const Json inner = parse(answer["choices"][0]["message"]["content"].get<std::string>());
  EXPECT_TRUE(inner["number"].is_number_integer()) << answer.dump();
  body["response_format"]["json_schema"]["schema"] = {{"$ref", "https://example.org/x"}};
  EXPECT_EQ(post("/v1/chat/completions", body).status, 400);
}

TEST_F(ServerTest, RequiredToolCall) {
  Json body = chat_body();
  body["tools"] = Json::array(
      {{{"type", "function"},
        {"function",
         {{"name", "click"},
          {"parameters",
           {{"type", "object"},
            {"properties", {{"box", {{"type", "integer"}, {"minimum", 0}, {"maximum", 99}}}}},
            {"required", Json::array({"box"})}}}}}}});
  body["tool_choice"] = "required";
  const Json choice = parse(post("/v1/chat/completions", body).body)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls") << choice.dump();
  ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u);
  const Json& call = choice["message"]["tool_calls"][0];
  EXPECT_EQ(call["function"]["name"], "click");
  EXPECT_TRUE(parse(call["function"]["arguments"].get<std::string>())["box"].is_number_integer());
  EXPECT_TRUE(choice["message"]["content"].is_null());
  // The call and its result go back.
  body.erase("tool_choice");
  body["messages"].push_back(choice["message"]);
  body["messages"].push_back(
      {{"role", "tool"}, {"tool_call_id", call["id"]}, {"content", "clicked"}});
  body["max_tokens"] = 2;
  EXPECT_EQ(post("/v1/chat/completions", body).status, 200);
}

TEST_F(ServerTest, ErrorsNameTheFault) {
  Json body = chat_body();
  body["model"] = "gpt-4o";
  Reply reply = post("/v1/chat/completions", body);
  EXPECT_EQ(reply.status, 404);
  EXPECT_EQ(parse(reply.body)["error"]["code"], "model_not_found");

  body = chat_body();
  body["messages"][0]["content"] = std::string(20'000, 'x') + " yes";
  reply = post("/v1/chat/completions", body);
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.headers.at("x-should-retry"), "false");
  const Json error = parse(reply.body)["error"];
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_NE(error["message"].get<std::string>().find("1024"), std::string::npos) << error.dump();

  body = chat_body();
  body["messages"][0]["content"][0]["image_url"]["url"] =
      "data:image/png;base64," + encode_base64("no picture at all");
  reply = post("/v1/chat/completions", body);
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(parse(reply.body)["error"]["code"], "invalid_image");

  // 20000 x 20000 pixels in a few bytes: refused by its header.
  std::string bomb = sample_->png;
  for (const size_t at : {16, 20})
    bomb.replace(at, 4, std::string("\x00\x00\x4E\x20", 4));
  body["messages"][0]["content"][0]["image_url"]["url"] =
      "data:image/png;base64," + encode_base64(bomb);
  reply = post("/v1/chat/completions", body);
  EXPECT_EQ(reply.status, 400);

  EXPECT_EQ(post("/v1/chat/completions", Json::array()).status, 400);
  EXPECT_EQ(ask(server_->port(), "POST", "/v1/chat/completions", "{\"a\"").status, 400);
  EXPECT_EQ(ask(server_->port(), "POST", "/v1/chat/completions", "").status, 400);
}

TEST_F(ServerTest, NoAnswerNamesAPath) {
  std::string all;
  for (const char* path : {"/v1/models", "/api/tags", "/api/ps", "/health", "/metrics"})
    all += get(path).body;
  all += post("/api/show", {{"model", kName}}).body;
  all += post("/v1/chat/completions", {{"model", "x"}}).body;
  EXPECT_EQ(all.find("/models/"), std::string::npos);
  EXPECT_EQ(all.find(".gguf"), std::string::npos);
  for (const char* path : {"/models/pinhole-mini/pinhole-mini-f16.gguf", "/../etc/passwd",
                           "/%2e%2e/%2e%2e/etc/passwd", "/v1/models/..%2f..%2fetc%2fpasswd"})
    EXPECT_EQ(get(path).status, 404) << path;
}

TEST_F(ServerTest, Models) {
  const Json list = parse(get("/v1/models").body);
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 1u);
  EXPECT_EQ(list["data"][0]["id"], kName);
  EXPECT_EQ(list["data"][0]["architecture"]["input_modalities"], Json::array({"text", "image"}));
  EXPECT_EQ(parse(get("/v1/models/mini").body)["id"], kName);
  EXPECT_EQ(get("/v1/models/other").status, 404);
  const Json tags = parse(get("/api/tags").body);
  EXPECT_EQ(tags["models"][0]["name"], kName);
  const Json show = parse(post("/api/show", {{"model", "mini:latest"}}).body);
  EXPECT_EQ(show["capabilities"][1], "vision");
  EXPECT_EQ(show["model_info"]["qwen3_vl.embedding_length"].is_number(), true) << show.dump();
  EXPECT_EQ(post("/api/show", {{"model", "x"}}).status, 404);
}

TEST_F(ServerTest, Responses) {
  Json body = {
      {"model", kName},
      {"input",
       Json::array(
           {{{"role", "user"},
             {"content", Json::array({{{"type", "input_image"},
                                       {"image_url", picture_part()["image_url"]["url"]}},
                                      {{"type", "input_text"}, {"text", sample_->question}}})}}})}};
  const Json json = parse(post("/v1/responses", body).body);
  EXPECT_EQ(json["status"], "completed") << json.dump();
  EXPECT_EQ(json["output"][0]["content"][0]["text"], sample_->answer);
  body["stream"] = true;
  const auto all = events(post("/v1/responses", body).body);
  std::string text;
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i]["sequence_number"], i);
    if (all[i]["type"] == "response.output_text.delta")
      text += all[i]["delta"];
  }
  EXPECT_EQ(text, sample_->answer);
  ASSERT_GE(all.size(), 8u);
  EXPECT_EQ(all.front()["type"], "response.created");
  EXPECT_EQ(all.back()["type"], "response.completed");
  EXPECT_EQ(all.back()["response"]["output"][0]["content"][0]["text"], sample_->answer);
}

TEST_F(ServerTest, OllamaChatAndGenerate) {
  const std::string image = encode_base64(sample_->png);
  const Json message = {{"role", "user"}, {"content", sample_->question}, {"images", {image}}};
  Json chat = {{"model", kName}, {"messages", Json::array({message})}};
  const Reply streamed = post("/api/chat", chat);
  EXPECT_EQ(streamed.headers.at("content-type"), "application/x-ndjson");
  std::istringstream lines(streamed.body);
  std::string text;
  Json last;
  for (std::string line; std::getline(lines, line);) {
    last = parse(line);
    text += last["message"]["content"];
  }
  EXPECT_EQ(text, sample_->answer);
  EXPECT_EQ(last["done"], true);
  EXPECT_EQ(last["done_reason"], "stop");
  EXPECT_GT(last["eval_count"], 0);
  chat["stream"] = false;
  EXPECT_EQ(parse(post("/api/chat", chat).body)["message"]["content"], sample_->answer);
  const Json generate = {{"model", kName},
                         {"prompt", sample_->question},
                         {"images", {image}},
                         {"stream", false},
                         {"options", {{"num_ctx", 512}}}};
  EXPECT_EQ(parse(post("/api/generate", generate).body)["response"], sample_->answer);
  Json large = generate;
  large["options"]["num_ctx"] = 1 << 20;
  const Reply refused = post("/api/generate", large);
  EXPECT_EQ(refused.status, 400);
  EXPECT_TRUE(parse(refused.body)["error"].is_string());
  EXPECT_EQ(post("/api/generate", {{"model", "x"}, {"prompt", "y"}}).status, 404);
}

TEST_F(ServerTest, OllamaKeepAliveUnloadsAndLoads) {
  const Json unloaded =
      parse(post("/api/generate", {{"model", kName}, {"keep_alive", 0}, {"stream", false}}).body);
  EXPECT_EQ(unloaded["done_reason"], "unload");
  EXPECT_TRUE(parse(get("/api/ps").body)["models"].empty());
  EXPECT_EQ(get("/health").status, 200) << "the next request loads it";
  const uint64_t loads = model_->num_loads();
  const Json loaded =
      parse(post("/api/generate", {{"model", kName}, {"keep_alive", -1}, {"stream", false}}).body);
  EXPECT_EQ(loaded["done_reason"], "load");
  EXPECT_EQ(model_->num_loads(), loads + 1);
  EXPECT_EQ(parse(get("/api/ps").body)["models"][0]["context_length"], kContext);
}

TEST_F(ServerTest, OllamaPull) {
  EXPECT_TRUE(post("/api/pull", {{"model", kName}}).body.ends_with("{\"status\":\"success\"}\n"));
  EXPECT_EQ(parse(post("/api/pull", {{"model", kName}, {"stream", false}}).body)["status"],
            "success");
  const Reply missing = post("/api/pull", {{"model", "llava"}});
  EXPECT_EQ(missing.status, 400);
  EXPECT_TRUE(parse(missing.body)["error"].is_string());
}

TEST_F(ServerTest, Analyze) {
  const auto form = [](const std::string& image) {
    return "--B\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\n" + sample_->question +
           "\r\n--B\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n" +
           image + "\r\n--B--\r\n";
  };
  const char* const type = "Content-Type: multipart/form-data; boundary=B\r\n";
  const Reply reply = ask(server_->port(), "POST", "/api/v1/analyze", form(sample_->png), type);
  const Json json = parse(reply.body);
  EXPECT_EQ(json["response"], sample_->answer);
  EXPECT_EQ(json["model"], kName);
  EXPECT_EQ(json["done"], true);
  EXPECT_EQ(ask(server_->port(), "POST", "/api/v1/analyze", form("GIF89a no"), type).status, 400);
  EXPECT_EQ(ask(server_->port(), "POST", "/api/v1/analyze", "--B--\r\n", type).status, 400);
  EXPECT_EQ(ask(server_->port(), "POST", "/api/v1/analyze", "{}").status, 400);
}

TEST_F(ServerTest, PlanIsAReceipt) {
  const Json ran = parse(post("/v1/chat/completions", chat_body()).body);
  const Json plan = parse(post("/v1/plan", chat_body()).body);
  EXPECT_EQ(plan["prompt_tokens"], ran["usage"]["prompt_tokens"]) << plan.dump();
  EXPECT_EQ(plan["picture_tokens"], ran["usage"]["prompt_tokens_details"]["image_tokens"]);
  EXPECT_EQ(plan["context_tokens"], kContext);
  EXPECT_GT(plan["predicted_seconds"]["encode"], 0.0);
  EXPECT_GT(plan["predicted_tokens_per_second"], 0.0);
  EXPECT_GT(plan["memory_bytes"]["peak"], plan["memory_bytes"]["mapped"]);
}

TEST_F(ServerTest, TokenizeAndBack) {
  const Json tokens = parse(post("/tokenize", {{"content", "Hello box 5"}}).body);
  EXPECT_GT(tokens["tokens"].size(), 0u);
  EXPECT_EQ(parse(post("/detokenize", {{"tokens", tokens["tokens"]}}).body)["content"],
            "Hello box 5");
  EXPECT_EQ(post("/detokenize", {{"tokens", {-1}}}).status, 400);
}

TEST_F(ServerTest, ThePageAndItsFiles) {
  const Reply page = get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.headers.at("content-type"), "text/html; charset=utf-8");
  EXPECT_EQ(page.body, pinhole::testing::read_file(
                           pinhole::testing::source_path("src/serve/page/index.html")));
  const std::string policy = page.headers.at("content-security-policy");
  EXPECT_TRUE(policy.starts_with("default-src 'none'; ")) << policy;
  EXPECT_EQ(policy.find("unsafe"), std::string::npos) << policy;
  const Reply script = get("/page/main.js");
  EXPECT_EQ(script.headers.at("content-type"), "text/javascript; charset=utf-8");
  EXPECT_EQ(script.headers.at("content-security-policy"), policy);
  EXPECT_EQ(get("/page/page.css").headers.at("content-type"), "text/css; charset=utf-8");
  for (const char* path :
       {"/page/", "/page/nothing.js", "/page/../page.cc", "/page/%2e%2e/page.cc"})
    EXPECT_EQ(get(path).status, 404) << path;
}

TEST_F(ServerTest, Running) {
  const auto load = [](int keep_alive) {
    post("/api/generate", {{"model", kName}, {"keep_alive", keep_alive}, {"stream", false}});
  };
  load(-1);
  const Json loaded = parse(get("/running").body);
  EXPECT_EQ(loaded["models"][0]["name"], kName);
  const ModelCard card = model_->list().front();
  EXPECT_EQ(loaded["models"][0]["phase"], "ready");
  EXPECT_EQ(loaded["models"][0]["mapped_bytes"], card.mapped_bytes);
  const int64_t reserved = loaded["models"][0]["reserved_bytes"].get<int64_t>();
  EXPECT_GT(reserved, card.reserved_bytes + card.mapped_bytes) << "and room for grammars";
  EXPECT_EQ(loaded["models"][0]["in_flight"], 0);
  EXPECT_EQ(loaded["models"][0]["waiting"], 0);
  EXPECT_TRUE(loaded["models"][0]["expires_in_ms"].is_null());
  EXPECT_EQ(loaded["reserved_bytes"], loaded["models"][0]["reserved_bytes"]);
  EXPECT_GT(loaded["rss_anon_bytes"], 0);
  EXPECT_GE(loaded["swaps"], 1);
  load(0);
  const Json unloaded = parse(get("/running").body);
  EXPECT_EQ(unloaded["models"][0]["phase"], "absent");
  EXPECT_EQ(unloaded["models"][0]["planned_bytes"], loaded["models"][0]["planned_bytes"]);
  EXPECT_EQ(unloaded["reserved_bytes"], 0);
  load(-1);
}

TEST_F(ServerTest, HealthMetricsAndRoot) {
  const Json health = parse(get("/health").body);
  EXPECT_EQ(health["status"], "ok");
  EXPECT_EQ(health["configured_model"], kName);
  EXPECT_EQ(ask(server_->port(), "HEAD", "/").status, 200);
  EXPECT_EQ(parse(get("/api/version").body)["version"], "test");
  post("/v1/chat/completions", chat_body());
  const std::string text = get("/metrics").body;
  for (const char* name : {"llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total",
                           "llamacpp:requests_deferred", "pinhole_encode_seconds_total",
                           "pinhole_memory_reserved_bytes", "pinhole_model_loads_total"}) {
    const size_t at = text.find(std::string("\n") + name + " ");
    EXPECT_NE(at, std::string::npos) << name;
  }
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    EXPECT_TRUE(line.starts_with("# ") || line.find(' ') == line.rfind(' ')) << line;
}

// The answer of a client that went away is not made to its end: the model is free for others.
TEST_F(ServerTest, AClientThatHangsUpFreesTheModel) {
  Json body = chat_body();
  body["messages"][0]["content"] = "List all boxes.";
  body["temperature"] = 2;
  body["stream"] = true;
  {
    Client client(server_->port());
    client.send(request_text("POST", "/v1/chat/completions", body.dump()));
    EXPECT_FALSE(client.read_until("data: ").empty());
  }
  for (int i = 0; i < 5000 && server_->metrics().processing > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(server_->metrics().processing, 0);
  EXPECT_EQ(post("/v1/chat/completions", chat_body()).status, 200);
}

TEST_F(ServerTest, ManyAtATimeAreAllAnswered) {
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int i = 0; i < 12; ++i) {
    threads.emplace_back([&] {
      const Reply reply = post("/v1/chat/completions", chat_body());
      right += reply.status == 200 &&
                       parse(reply.body)["choices"][0]["message"]["content"] == sample_->answer
                   ? 1
                   : 0;
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(right, 12);
}

} // namespace
} // namespace pinhole::serve
