// Connections: many, slow, broken, in a row, and at the end.
#include "serve/front.h"

#include "serve/api_error.h"
#include "serve/client.h"
#include "serve/dispatcher.h"

#include <condition_variable>
#include <gtest/gtest.h>
#include <mutex>
#include <sys/resource.h>
#include <thread>

namespace pinhole::serve {
namespace {

using pinhole::testing::ask;
using pinhole::testing::Client;
using pinhole::testing::Reply;
using pinhole::testing::request_text;
using std::chrono::milliseconds;

// A front with a few small handlers.
class Served {
 public:
  explicit Served(FrontOptions options = {}) {
    std::vector<HttpRoute> routes;
    routes.push_back({"GET", "/hello", [](HttpRequest&) {
                        HttpReply reply;
                        reply.body = "\"hello\"";
                        return reply;
                      }});
    routes.push_back({"POST", "/echo", [](HttpRequest& request) {
                        HttpReply reply;
                        reply.body = request.body;
                        return reply;
                      }});
    routes.push_back({"POST", "/form", [](HttpRequest& request) {
                        HttpReply reply;
                        for (const auto& [name, part] : request.parts)
                          reply.body += name + "=" + part.filename + ":" + part.content + ";";
                        return reply;
                      }});
    routes.push_back({"GET", "/throws", [](HttpRequest&) -> HttpReply { throw 1; }});
    // Works until its client has gone.
    routes.push_back({"GET", "/long", [this](HttpRequest& request) {
                        began = true;
                        const auto start = std::chrono::steady_clock::now();
                        while (!*request.gone &&
                               std::chrono::steady_clock::now() - start < std::chrono::seconds(20))
                          std::this_thread::sleep_for(milliseconds(1));
                        saw_gone = request.gone->load();
                        return HttpReply{};
                      }});
    routes.push_back({"GET", "/short", [this](HttpRequest&) {
                        began = true;
                        std::this_thread::sleep_for(milliseconds(300));
                        HttpReply reply;
                        reply.body = "done";
                        return reply;
                      }});
    routes.push_back({"GET", "/stream", [](HttpRequest&) {
                        HttpReply reply;
                        reply.content_type = "text/event-stream";
                        reply.stream = [](HttpSink& sink) {
                          return sink.write("data: 1\n\n") && sink.write("data: 2\n\n");
                        };
                        return reply;
                      }});
    routes.push_back({"GET", "/breaks", [](HttpRequest&) {
                        HttpReply reply;
                        reply.stream = [](HttpSink& sink) {
                          sink.write("half");
                          return false;
                        };
                        return reply;
                      }});
    routes.push_back({"GET", "/flood", [this](HttpRequest&) {
                        HttpReply reply;
                        reply.stream = [this](HttpSink& sink) {
                          const std::string block(1 << 20, 'x');
                          for (int i = 0; i < 1000; ++i) {
                            if (!sink.write(block)) {
                              saw_gone = true;
                              return false;
                            }
                          }
                          return true;
                        };
                        return reply;
                      }});
    dispatcher = std::make_unique<Dispatcher>(
        std::move(routes),
        DispatcherHooks{problem_reply, [](std::string_view) { return HttpHeaders{}; }});
    FrontHandlers handlers;
    handlers.check = [](const RequestHead& head) -> std::optional<HttpReply> {
      if (head.path() != "/forbidden")
        return std::nullopt;
      return problem_reply({403, "no"}, head.path());
    };
    handlers.refuse = problem_reply;
    handlers.answer = [this](WholeRequest& request, Wire& wire) {
      return dispatcher->answer(request, wire.gone(),
                                [&](std::string_view bytes) { return wire.write(bytes); });
    };
    auto made = Front::create(options, std::move(handlers));
    EXPECT_TRUE(made) << made.error().text();
    front = std::move(*made);
  }
  uint16_t port() const { return front->port(); }
  void wait_for(const std::atomic<bool>& flag) const {
    for (int i = 0; i < 10'000 && !flag; ++i)
      std::this_thread::sleep_for(milliseconds(1));
    EXPECT_TRUE(flag);
  }

  std::atomic<bool> began{false}, saw_gone{false};
  std::unique_ptr<Dispatcher> dispatcher;
  std::unique_ptr<Front> front;
};

TEST(Front, AnswersInARowOnOneConnection) {
  Served served;
  Client client(served.port());
  for (int i = 0; i < 3; ++i) {
    client.send(request_text("GET", "/hello"));
    const Reply reply = client.read_reply();
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.body, "\"hello\"");
    EXPECT_EQ(reply.headers.at("content-type"), "application/json");
  }
  // Several that were sent without waiting are answered in order.
  std::string all;
  for (int i = 0; i < 5; ++i)
    all += request_text("POST", "/echo", "body " + std::to_string(i));
  client.send(all + request_text("GET", "/hello", {}, "Connection: close\r\n"));
  for (int i = 0; i < 5; ++i)
    EXPECT_EQ(client.read_reply().body, "body " + std::to_string(i));
  EXPECT_EQ(client.read_reply().headers.at("connection"), "close");
  EXPECT_FALSE(client.read_some());
  EXPECT_TRUE(client.ended());
}

TEST(Front, AByteAtATime) {
  Served served;
  Client client(served.port());
  for (const char c : "\r\n" + request_text("POST", "/echo", "slow"))
    client.send({&c, 1});
  EXPECT_EQ(client.read_reply().body, "slow");
}

TEST(Front, Methods) {
  Served served;
  const Reply head = ask(served.port(), "HEAD", "/hello");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.body, "");
  EXPECT_EQ(ask(served.port(), "GET", "/nowhere").status, 404);
  const Reply wrong = ask(served.port(), "POST", "/hello", "x");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "GET, HEAD");
  EXPECT_EQ(ask(served.port(), "GET", "/throws").status, 500);
  EXPECT_NE(ask(served.port(), "GET", "/nowhere").body.find("\"error\""), std::string::npos);
}

TEST(Front, Streams) {
  Served served;
  const Reply whole = ask(served.port(), "GET", "/stream");
  EXPECT_EQ(whole.body, "data: 1\n\ndata: 2\n\n");
  EXPECT_TRUE(whole.is_whole);
  EXPECT_EQ(whole.headers.at("content-type"), "text/event-stream");
  const Reply broken = ask(served.port(), "GET", "/breaks");
  EXPECT_EQ(broken.body, "half");
  EXPECT_FALSE(broken.is_whole) << "a client must see that the end is missing";
}

TEST(Front, BodiesAsCurlSendsThem) {
  Served served;
  Client chunked(served.port());
  chunked.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
               "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_EQ(chunked.read_reply().body, "abcde");

  Client waits(served.port());
  waits.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: "
             "100-continue\r\n\r\n");
  EXPECT_EQ(waits.read_reply().status, 100);
  waits.send("body");
  EXPECT_EQ(waits.read_reply().body, "body");

  // curl -d says that JSON is a web form; a form of more than 8 KiB is none to httplib.
  const std::string large(1 << 20, 'x');
  EXPECT_EQ(ask(served.port(), "POST", "/echo", large,
                "Content-Type: application/x-www-form-urlencoded\r\n")
                .body,
            large);
  // What would be packed or cut is not: an offer to the server is no wish.
  EXPECT_EQ(ask(served.port(), "POST", "/echo", large,
                "Accept-Encoding: gzip, br\r\nRange: bytes=0-3\r\n")
                .body,
            large);
}

TEST(Front, Forms) {
  Served served;
  const std::string form =
      "--B\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nWhat?\r\n"
      "--B\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n"
      "Content-Type: image/png\r\n\r\n\x89PNG\r\n--B--\r\n";
  EXPECT_EQ(
      ask(served.port(), "POST", "/form", form, "Content-Type: multipart/form-data; boundary=B\r\n")
          .body,
      "image=a.png:\x89PNG;prompt=:What?;");
  EXPECT_EQ(ask(served.port(), "POST", "/form", "--B\r\nbroken",
                "Content-Type: multipart/form-data; boundary=B\r\n")
                .status,
            400);
}

TEST(Front, RefusesBeforeTheBodyIsSent) {
  FrontOptions options;
  options.max_body_bytes = 1000;
  Served served(options);
  // The client is told although it goes on sending.
  Client large(served.port());
  large.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" +
             std::string(50'000, 'x'));
  EXPECT_EQ(large.read_reply().status, 413);
  Client expecting(served.port());
  expecting.send("POST /forbidden HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: "
                 "100-continue\r\n\r\n");
  EXPECT_EQ(expecting.read_reply().status, 403) << "no 100: the body is not wanted";
  Client chunks(served.port());
  chunks.send(
      "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3E9\r\n");
  EXPECT_EQ(chunks.read_reply().status, 413);
  Client head(served.port());
  head.send("GET / HTTP/1.1\r\nA: " + std::string(kMaxHeadBytes, 'x'));
  EXPECT_EQ(head.read_reply().status, 431);
  Client garbage(served.port());
  garbage.send("\x16\x03\x01\x02 not http\r\n\r\n");
  EXPECT_EQ(garbage.read_reply().status, 400);
}

TEST(Front, SlowHeadsAndBodiesEnd) {
  FrontOptions options;
  options.head_timeout = milliseconds(300);
  options.body_timeout = milliseconds(300);
  options.idle_timeout = milliseconds(1500);
  Served served(options);
  Client head(served.port()), body(served.port()), idle(served.port());
  std::thread drip([&] { // a byte now and then does not help
    head.send("GET /hello HTT");
    body.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n");
    for (int i = 0; i < 10; ++i) {
      std::this_thread::sleep_for(milliseconds(50));
      head.send("P");
      body.send("x");
    }
  });
  EXPECT_EQ(head.read_reply().status, 408);
  EXPECT_EQ(body.read_reply().status, 408);
  drip.join();
  EXPECT_FALSE(idle.read_some());
  EXPECT_TRUE(idle.ended()) << "an idle connection is closed without a word";
  EXPECT_EQ(ask(served.port(), "GET", "/hello").status, 200);
}

TEST(Front, ManyIdleAndSlowConnectionsDoNotStopIt) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  // Both ends are in this process.
  const size_t count = std::min<size_t>(10'000, (limit.rlim_cur - 200) / 2);
  Served served;
  std::vector<std::unique_ptr<Client>> clients;
  for (size_t i = 0; i < count; ++i) {
    clients.push_back(std::make_unique<Client>(served.port()));
    ASSERT_TRUE(clients.back()->connected()) << i;
    if (i % 2 == 0)
      clients.back()->send("GET /hello HTTP/1.1\r\nHo");
  }
  EXPECT_EQ(ask(served.port(), "GET", "/hello").status, 200);
  EXPECT_EQ(ask(served.port(), "POST", "/echo", "x").body, "x");
  clients[0]->send("st: localhost\r\n\r\n");
  EXPECT_EQ(clients[0]->read_reply().status, 200) << "a slow one is answered when it is whole";
  EXPECT_GE(served.front->status().connections, count);
}

TEST(Front, TheConnectionThatIsIdleLongestMakesRoom) {
  FrontOptions options;
  options.max_connections = 3;
  Served served(options);
  Client first(served.port());
  first.send(request_text("GET", "/hello"));
  EXPECT_EQ(first.read_reply().status, 200);
  Client second(served.port()), third(served.port());
  second.send("GET /h");
  third.send("GET /h");
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(ask(served.port(), "GET", "/hello").status, 200);
  EXPECT_FALSE(first.read_some());
  EXPECT_TRUE(first.ended());
}

TEST(Front, AClientThatHangsUpEndsItsWork) {
  Served served;
  {
    Client client(served.port());
    client.send(request_text("GET", "/long"));
    served.wait_for(served.began);
  }
  served.wait_for(served.saw_gone);
}

TEST(Front, AClientThatDoesNotReadIsGivenUp) {
  FrontOptions options;
  options.write_timeout = milliseconds(300);
  Served served(options);
  Client client(served.port());
  client.send(request_text("GET", "/flood"));
  served.wait_for(served.saw_gone);
}

TEST(Front, UploadsTogetherAreBounded) {
  FrontOptions options;
  options.max_buffered_bytes = 300'000;
  Served served(options);
  const std::string begin =
      "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n";
  Client first(served.port()), second(served.port());
  first.send(begin + std::string(199'999, 'x'));
  for (int i = 0; i < 2000 && served.front->status().buffered_bytes < 199'999; ++i)
    std::this_thread::sleep_for(milliseconds(1));
  second.send(begin + std::string(150'000, 'x'));
  EXPECT_EQ(second.read_reply().status, 503);
  first.send("x");
  EXPECT_EQ(first.read_reply().body.size(), 200'000u);
}

TEST(Front, StopLetsRunningRequestsFinish) {
  Served served;
  Client client(served.port()), idle(served.port());
  client.send(request_text("GET", "/short"));
  served.wait_for(served.began);
  std::thread stop([&] { served.front->stop(std::chrono::seconds(10)); });
  EXPECT_EQ(client.read_reply().body, "done");
  stop.join();
  EXPECT_FALSE(Client(served.port()).connected());
  EXPECT_FALSE(idle.read_some());
}

TEST(Front, StopEndsWhatRunsTooLong) {
  Served served;
  Client client(served.port());
  client.send(request_text("GET", "/long"));
  served.wait_for(served.began);
  const auto start = std::chrono::steady_clock::now();
  served.front->stop(milliseconds(200));
  EXPECT_TRUE(served.saw_gone);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

} // namespace
} // namespace pinhole::serve
