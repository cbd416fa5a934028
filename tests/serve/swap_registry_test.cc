// Models of a settings file behind the whole server: two in this process that do not fit together,
// servers in processes of their own that crash and hang, pictures for a model that reads none.
#include "serve/swap_registry.h"

#include "kernels/select.h"
#include "serve/base64.h"
#include "serve/client.h"
#include "serve/process_memory.h"
#include "serve/server.h"
#include "support/golden.h"
#include "support/temp_dir.h"

#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <sstream>
#include <thread>

namespace pinhole::serve {
namespace {

namespace fs = std::filesystem;
using pinhole::testing::ask;
using pinhole::testing::Client;
using pinhole::testing::Reply;
using pinhole::testing::request_text;
using pinhole::testing::take;
using pinhole::testing::TempDir;

constexpr int64_t kManyBytes = int64_t{4} << 30;

// Answers with the request's model and headers; what the last message says decides how.
constexpr const char* kExternal = R"PY(
import http.server, json, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *a): pass
    def send(self, body):
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('X-Backend', 'yes')
        self.send_header('Keep-Alive', 'timeout=99')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self): self.send(b'{}')
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        content = body['messages'][-1]['content']
        if content == 'crash': os._exit(1)
        if content == 'hang': time.sleep(1000)
        if content in ('stream', 'endless', 'broken'):
            self.send_response(200)
            self.send_header('Content-Type', 'text/event-stream')
            self.send_header('Transfer-Encoding', 'chunked')
            self.end_headers()
            n = 0
            while content != 'stream' or n < 3:
                line = b'data: {"n": %d}\n\n' % n
                n += 1
                try:
                    self.wfile.write(b'%x\r\n%s\r\n' % (len(line), line)); self.wfile.flush()
                except OSError:
                    open(sys.argv[2], 'w').write('aborted')
                    return
                if content == 'broken' and n == 2: os._exit(1)
                time.sleep(0.02)
            self.wfile.write(b'0\r\n\r\n')
            return
        self.send(json.dumps({'model': body.get('model'), 'pid': os.getpid(), 'content': content,
            'headers': [k.lower() for k in self.headers.keys()],
            'choices': [{'message': {'content': 'a picture of a receipt'}}]}).encode())
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
)PY";

class SwapRegistryTest : public ::testing::Test {
 protected:
  // A copy of the bundled model in a folder of its own.
  std::string copy_model(const std::string& name, bool with_pictures = true) {
    const fs::path from = pinhole::testing::source_path("models/pinhole-mini");
    const fs::path folder = fs::path(dir_.path()) / name;
    fs::create_directory(folder);
    fs::copy_file(from / "pinhole-mini-f16.gguf", folder / "pinhole-mini-f16.gguf");
    if (with_pictures)
      fs::copy_file(from / "mmproj-pinhole-mini-f16.gguf", folder / "mmproj-pinhole-mini-f16.gguf");
    return (folder / "pinhole-mini-f16.gguf").string();
  }
  std::string external_command() {
    const std::string script = (fs::path(dir_.path()) / "server.py").string();
    std::ofstream(script) << kExternal;
    return "cmd = [\"python3\", \"-S\", \"" + script + "\", \"{port}\", \"" + aborted_ + "\"]\n";
  }
  void start(const std::string& settings, int64_t usable_bytes = kManyBytes) {
    SwapRegistryOptions options;
    options.settings = take(parse_settings(settings, "test.toml"));
    options.service.context_tokens = 1024;
    options.service.grammar_bytes = 1 << 20;
    options.service.kernels = {take(kernels::select()), false, 2, kernels::KvType::kF16};
    options.usable_bytes = usable_bytes;
    options.checks_machine = false;
    server_.reset();
    registry_.reset();
    registry_ = take(SwapRegistry::create(std::move(options)));
    ServerOptions server;
    server.api.relay.silence = std::chrono::seconds(2);
    server_ = take(Server::create(server, *registry_));
  }
  Reply post(const std::string& path, const Json& body, const std::string& headers = {}) {
    return ask(server_->port(), "POST", path, body.dump(),
               "Content-Type: application/json\r\n" + headers);
  }
  Reply chat(const std::string& model, const Json& content) {
    Json turn = {{"role", "user"}};
    turn["content"] = content;
    Json body = {{"model", model}, {"max_tokens", 8}};
    body["messages"] = Json::array({turn});
    return post("/v1/chat/completions", body);
  }
  static Json parse(const std::string& text) { return take(parse_json(text, text)); }
  Json running() { return parse(ask(server_->port(), "GET", "/running").body); }

  TempDir dir_;
  std::string aborted_ = (fs::path(dir_.path()) / "aborted").string();
  std::unique_ptr<SwapRegistry> registry_;
  std::unique_ptr<Server> server_; // ends first
};

std::string two_models(const std::string& a, const std::string& b) {
  return "min_residency = \"1ms\"\nmax_wait = \"1ms\"\n[models.a]\nmodel = \"" + a +
         "\"\naliases = [\"first\"]\n[models.b]\nmodel = \"" + b + "\"\n";
}

TEST_F(SwapRegistryTest, TwoThatDoNotFitTogetherAnswerAllUnderTheCeiling) {
  const std::string a = copy_model("a"), b = copy_model("b");
  start(two_models(a, b));
  const int64_t planned = running()["models"][0]["planned_bytes"].get<int64_t>();
  ASSERT_GT(planned, 20 << 20) << "the weights alone have 21.9 MB";
  const int64_t ceiling = planned * 3 / 2;
  start(two_models(a, b), ceiling);
  EXPECT_FALSE(is_mapped_now(a)) << "headers are read, and let go of";
  const int64_t before = anonymous_bytes_now();

  std::atomic<bool> ends{false};
  int64_t most_anonymous = 0, most_reserved = 0;
  int num_both = 0;
  std::thread sampler([&] {
    while (!ends) {
      most_anonymous = std::max(most_anonymous, anonymous_bytes_now() - before);
      most_reserved = std::max(most_reserved, registry_->status().reserved.ram);
      std::ifstream maps("/proc/self/maps");
      std::stringstream text;
      text << maps.rdbuf();
      num_both +=
          text.str().find(a) != std::string::npos && text.str().find(b) != std::string::npos;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  });
  std::vector<std::thread> clients;
  std::mutex mutex;
  std::vector<std::string> answers;
  for (int i = 0; i < 6; ++i) {
    clients.emplace_back([&, i] {
      for (int k = 0; k < 3; ++k) {
        const Reply reply = chat((i + k) % 2 == 0 ? "first" : "b", "Hello");
        const std::lock_guard lock(mutex);
        EXPECT_EQ(reply.status, 200) << reply.body;
        if (reply.status == 200)
          answers.push_back(parse(reply.body)["choices"][0]["message"]["content"]);
      }
    });
  }
  for (std::thread& client : clients)
    client.join();
  ends = true;
  sampler.join();
  ASSERT_EQ(answers.size(), 18u);
  for (const std::string& answer : answers)
    EXPECT_EQ(answer, answers[0]) << "both are the same model";
  EXPECT_LE(most_anonymous, ceiling);
  EXPECT_LE(most_reserved, ceiling);
  EXPECT_GE(most_reserved, planned);
  EXPECT_EQ(num_both, 0) << "both in memory at once";
  const Json now = running();
  EXPECT_GE(now["swaps"], 2);
  EXPECT_EQ(now["limit_bytes"], ceiling);
  const std::string metrics = ask(server_->port(), "GET", "/metrics").body;
  EXPECT_EQ(metrics.find("pinhole_model_evictions_total 0\n"), std::string::npos);
}

TEST_F(SwapRegistryTest, UnloadGivesTheMemoryBack) {
  const std::string a = copy_model("a");
  start("[models.a]\nmodel = \"" + a + "\"\n");
  EXPECT_EQ(running()["models"][0]["phase"], "absent");
  ASSERT_EQ(post("/api/generate", {{"model", "a"}, {"stream", false}}).status, 200);
  EXPECT_TRUE(is_mapped_now(a));
  Json model = running()["models"][0];
  EXPECT_EQ(model["phase"], "ready");
  EXPECT_EQ(model["reserved_bytes"], model["planned_bytes"]);
  EXPECT_TRUE(model["expires_in_ms"].is_null());
  ASSERT_EQ(post("/api/generate", {{"model", "a"}, {"keep_alive", 0}, {"stream", false}}).status,
            200);
  for (int i = 0; i < 500 && running()["models"][0]["phase"] != "absent"; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(running()["models"][0]["phase"], "absent");
  EXPECT_EQ(running()["reserved_bytes"], 0);
  EXPECT_FALSE(is_mapped_now(a));
}

TEST_F(SwapRegistryTest, WhatCannotFitIsRefusedForGood) {
  start("[models.a]\nmodel = \"" + copy_model("a") + "\"\nram = \"2GiB\"\n", 1 << 30);
  Reply reply = chat("a", "Hello");
  EXPECT_EQ(reply.status, 400) << reply.body;
  EXPECT_EQ(reply.headers["x-should-retry"], "false");
  EXPECT_NE(reply.body.find("2.00 GiB"), std::string::npos) << reply.body;
}

TEST_F(SwapRegistryTest, WaitingInVainIsAnErrorThatPasses) {
  const std::string models = two_models(copy_model("a"), copy_model("b"));
  start("request_timeout = \"300ms\"\n" + models);
  const int64_t planned = running()["models"][0]["planned_bytes"].get<int64_t>();
  start("request_timeout = \"300ms\"\n" + models, planned * 3 / 2);
  std::atomic<bool> gone{false};
  const auto held = registry_->acquire("a", {}, gone);
  ASSERT_TRUE(held);
  Reply reply = chat("b", "Hello");
  EXPECT_EQ(reply.status, 503) << reply.body;
  EXPECT_GT(std::atoi(reply.headers["retry-after"].c_str()), 0);
}

TEST_F(SwapRegistryTest, OthersAreNotFound) {
  start("[models.a]\nmodel = \"" + copy_model("a") + "\"\n");
  EXPECT_EQ(chat("c", "Hello").status, 404);
  EXPECT_EQ(ask(server_->port(), "GET", "/v1/models/a:latest").status, 200);
}

class ExternalTest : public SwapRegistryTest {
 protected:
  void SetUp() override {
    start("[models.far]\n" + external_command() + "aliases = [\"gpt-4o\"]\nram = \"100MiB\"\n" +
          "parallel = 4\nstop_timeout = \"1s\"\n");
  }
};

TEST_F(ExternalTest, RequestAndReplyArePassedOn) {
  Json body = {{"model", "gpt-4o"},
               {"messages", Json::array({{{"role", "user"}, {"content", "hi"}}})}};
  Reply reply = post("/v1/chat/completions", body, "Cookie: secret=1\r\nX-Api-Key: key\r\n");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json json = parse(reply.body);
  EXPECT_EQ(json["model"], "far") << "an alias is not what its server knows";
  for (const Json& name : json["headers"])
    EXPECT_TRUE(name != "cookie" && name != "x-api-key" && name != "connection") << name;
  EXPECT_EQ(reply.headers["x-backend"], "yes");
  EXPECT_EQ(reply.headers["keep-alive"].find("99"), std::string::npos);
}

TEST_F(ExternalTest, AStreamComesAsItIs) {
  const Reply reply = chat("far", "stream");
  EXPECT_EQ(reply.body, "data: {\"n\": 0}\n\ndata: {\"n\": 1}\n\ndata: {\"n\": 2}\n\n");
}

TEST_F(ExternalTest, AClientThatHangsUpEndsTheRequestThere) {
  Client client(server_->port());
  const Json body = {{"model", "far"},
                     {"messages", Json::array({{{"role", "user"}, {"content", "endless"}}})}};
  client.send(request_text("POST", "/v1/chat/completions", body.dump()));
  ASSERT_FALSE(client.read_until("\"n\": 2").empty());
  client.close();
  for (int i = 0; i < 1000 && !fs::exists(aborted_); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(fs::exists(aborted_));
}

TEST_F(ExternalTest, ACrashIsToldAndTheNextRequestFindsANewServer) {
  const Json first = parse(chat("far", "hi").body);
  const Reply reply = chat("far", "crash");
  EXPECT_EQ(reply.status, 502) << reply.body;
  EXPECT_NE(reply.body.find("far"), std::string::npos);
  EXPECT_EQ(reply.body.find(dir_.path()), std::string::npos) << "no path is told";
  Reply next;
  for (int i = 0; i < 200 && next.status != 200; ++i) {
    next = chat("far", "hi");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  ASSERT_EQ(next.status, 200) << next.body;
  EXPECT_NE(parse(next.body)["pid"], first["pid"]);
}

TEST_F(ExternalTest, AStreamThatBreaksEndsWithAnError) {
  const Reply reply = chat("far", "broken");
  EXPECT_TRUE(reply.body.starts_with("data: {\"n\": 0}\n\n")) << reply.body;
  EXPECT_NE(reply.body.find("data: {\"error\":"), std::string::npos) << reply.body;
}

TEST_F(ExternalTest, AServerThatHangsIsReplaced) {
  const Json first = parse(chat("far", "hi").body);
  EXPECT_EQ(chat("far", "hang").status, 504);
  const Reply next = chat("far", "hi");
  ASSERT_EQ(next.status, 200) << next.body;
  EXPECT_NE(parse(next.body)["pid"], first["pid"]);
}

TEST_F(ExternalTest, OllamasPathsSayWhereToAsk) {
  const Json body = {{"model", "far"},
                     {"messages", Json::array({{{"role", "user"}, {"content", "hi"}}})}};
  const Reply reply = post("/api/chat", body);
  EXPECT_EQ(reply.status, 400);
  EXPECT_NE(reply.body.find("/v1/chat/completions"), std::string::npos) << reply.body;
  EXPECT_EQ(post("/api/generate", {{"model", "far"}, {"stream", false}}).status, 200) << "load";
}

class PictureRouteTest : public SwapRegistryTest {
 protected:
  // The first sample that the reference answers rightly.
  void SetUp() override {
    const std::string folder = pinhole::testing::source_path("models/pinhole-mini");
    std::istringstream lines(pinhole::testing::read_file(folder + "/samples.jsonl"));
    for (std::string line; answer_.empty() && std::getline(lines, line);) {
      const Json json = parse(line);
      if (json["correct"] != true)
        continue;
      answer_ = json["answer"];
      const std::string png =
          pinhole::testing::read_file(folder + "/" + json["image"].get<std::string>());
      const std::string url = "data:image/png;base64," + encode_base64(png);
      content_ = Json::array({{{"type", "image_url"}, {"image_url", {{"url", url}}}},
                              {{"type", "text"}, {"text", json["question"]}}});
    }
  }
  std::string answer_;
  Json content_;
};

TEST_F(PictureRouteTest, TheGroupsVisionModelAnswers) {
  start("[models.words]\nmodel = \"" + copy_model("words", false) +
        "\"\n[models.eyes]\nmodel = \"" + copy_model("eyes") + "\"\nrole = \"vision\"\n");
  Json turn = {{"role", "user"}};
  turn["content"] = content_;
  Json body = {{"model", "words"}};
  body["messages"] = Json::array({turn});
  const Reply reply = post("/v1/chat/completions", body);
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json json = parse(reply.body);
  EXPECT_EQ(json["model"], "eyes");
  EXPECT_EQ(json["choices"][0]["message"]["content"], answer_);
}

TEST_F(PictureRouteTest, OrDescribesForTheTextModel) {
  const std::string models =
      "min_residency = \"1ms\"\n[models.words]\nmodel = \"" + copy_model("words", false) +
      "\"\n[models.eyes]\nmodel = \"" + copy_model("eyes") +
      "\"\nrole = \"vision\"\n[groups.default]\ndescribe_then_answer = true\n";
  start(models);
  int64_t planned = 0, together = 0;
  const Json now = running();
  for (const Json& model : now["models"]) {
    planned = std::max(planned, model["planned_bytes"].get<int64_t>());
    together += model["planned_bytes"].get<int64_t>();
  }
  start(models, (planned + together) / 2); // never both
  const Reply reply = chat("words", content_);
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json json = parse(reply.body);
  EXPECT_EQ(json["model"], "words");
  EXPECT_EQ(json["usage"]["prompt_tokens_details"]["image_tokens"], 0);
  EXPECT_EQ(running()["swaps"], 2);
}

TEST_F(PictureRouteTest, ForAModelInAProcessOfItsOwn) {
  start("[models.far]\n" + external_command() + "ram = \"100MiB\"\n[models.eyes]\n" +
        external_command() + "ram = \"100MiB\"\nrole = \"vision\"\n" +
        "[groups.default]\ndescribe_then_answer = true\n");
  const Reply reply = chat("far", content_);
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json json = parse(reply.body);
  EXPECT_EQ(json["model"], "far");
  EXPECT_EQ(json["content"][0]["type"], "text");
  EXPECT_EQ(json["content"][0]["text"], "[Picture 1: a picture of a receipt]\n");
  Json turn = {{"role", "user"}};
  turn["content"] = Json::array({{{"type", "input_image"}}});
  for (const Json& messages : {Json(), Json("text"), Json(Json::object()), Json(7)}) {
    Json body = {{"model", "far"}, {"messages", messages}};
    body["input"] = Json::array({turn});
    EXPECT_EQ(post("/v1/responses", body).status, 400) << messages;
  }
}

} // namespace
} // namespace pinhole::serve
