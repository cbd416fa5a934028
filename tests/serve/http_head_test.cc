// Requests have one reading, or none: RFC 9112, and what requests that two programs read
// differently are made of.
#include "serve/http_head.h"

#include <gtest/gtest.h>

namespace pinhole::serve {
namespace {

int status_of(std::string_view head) {
  const auto parsed = parse_head(head);
  return parsed ? 200 : parsed.error().status;
}

std::string get(std::string_view headers) {
  return "GET / HTTP/1.1\r\nHost: a\r\n" + std::string(headers) + "\r\n";
}

TEST(RequestHead, ReadsWhatItNeeds) {
  const auto head = parse_head("POST /v1/models?x=1 HTTP/1.1\r\nhOsT: localhost:8484\r\n"
                               "Content-Length:  12 \r\nExpect: 100-Continue\r\n\r\n");
  ASSERT_TRUE(head);
  EXPECT_EQ(head->method, "POST");
  EXPECT_EQ(head->target, "/v1/models?x=1");
  EXPECT_EQ(head->path(), "/v1/models");
  EXPECT_EQ(head->header("HOST"), "localhost:8484");
  EXPECT_EQ(head->content_length, 12u);
  EXPECT_TRUE(head->expects_continue);
  EXPECT_TRUE(head->keep_alive);
  EXPECT_FALSE(head->is_chunked);
}

TEST(RequestHead, ConnectionsStayOrEnd) {
  EXPECT_FALSE(parse_head(get("Connection: foo, Close\r\n"))->keep_alive);
  EXPECT_FALSE(parse_head("GET / HTTP/1.0\r\n\r\n")->keep_alive);
  EXPECT_TRUE(parse_head("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")->keep_alive);
}

TEST(RequestHead, RefusesTwoFramings) {
  EXPECT_EQ(status_of(get("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")), 400);
  EXPECT_EQ(status_of(get("Content-Length: 5\r\nContent-Length: 6\r\n")), 400);
  EXPECT_EQ(status_of(get("Content-Length: 5\r\nContent-Length: 5\r\n")), 200);
  EXPECT_EQ(status_of(get("Content-Length: 5, 5\r\n")), 400);
  EXPECT_EQ(status_of(get("Content-Length: +5\r\n")), 400);
  EXPECT_EQ(status_of(get("Content-Length: -1\r\n")), 400);
  EXPECT_EQ(status_of(get("Content-Length: 0x10\r\n")), 400);
  EXPECT_EQ(status_of(get("Content-Length: 99999999999999999999999\r\n")), 400);
  EXPECT_EQ(status_of(get("Transfer-Encoding: gzip, chunked\r\n")), 501);
  EXPECT_EQ(status_of(get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")), 501);
  EXPECT_EQ(status_of("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

TEST(RequestHead, RefusesWhatIsNoHttp) {
  EXPECT_EQ(status_of("GET /\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505);
  EXPECT_EQ(status_of("G@T / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\n\r\n"), 400) << "no Host";
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
  EXPECT_EQ(status_of(get(" folded: x\r\n")), 400);
  EXPECT_EQ(status_of(get("Name : x\r\n")), 400);
  EXPECT_EQ(status_of(get("no colon\r\n")), 400);
  EXPECT_EQ(status_of(get(std::string("A: b\0c\r\n", 8))), 400);
  EXPECT_EQ(status_of(get("A: b\nB: c\r\n")), 400);
  EXPECT_EQ(status_of(get("Content-Encoding: gzip\r\n")), 415);
  EXPECT_EQ(status_of(get("Expect: a-miracle\r\n")), 417);
  EXPECT_EQ(status_of("GET /" + std::string(kMaxTargetBytes, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n"),
            414);
  std::string many;
  for (size_t i = 0; i < kMaxHeaders; ++i)
    many += "A: b\r\n";
  EXPECT_EQ(status_of(get(many)), 431);
  EXPECT_EQ(status_of(get("A: " + std::string(kMaxHeaderLineBytes, 'b') + "\r\n")), 431);
}

// The same, however the bytes are cut.
TEST(ChunkedDecoder, ReadsChunksInAnyPieces) {
  const std::string wire =
      "5;name=value\r\nhello\r\n1\r\n \r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\nREST";
  for (size_t step = 1; step <= wire.size(); ++step) {
    ChunkedDecoder decoder;
    std::string in, body;
    bool done = false;
    for (size_t at = 0; at < wire.size(); at += step) {
      in += wire.substr(at, step);
      if (!done) {
        const auto result = decoder.push(in, body, 100);
        ASSERT_TRUE(result) << step;
        done = *result;
      }
    }
    EXPECT_TRUE(done) << step;
    EXPECT_EQ(body, "hello 0123456789") << step;
    EXPECT_EQ(in, "REST") << step;
  }
}

TEST(ChunkedDecoder, RefusesWhatItCannotRead) {
  const auto status = [](std::string in, uint64_t limit = 100) {
    ChunkedDecoder decoder;
    std::string body;
    const auto result = decoder.push(in, body, limit);
    return result ? 200 : result.error().status;
  };
  EXPECT_EQ(status("xyz\r\n"), 400);
  EXPECT_EQ(status("\r\n"), 400);
  EXPECT_EQ(status("-5\r\nhello\r\n"), 400);
  EXPECT_EQ(status("5\r\nhelloX\r\n"), 400);
  EXPECT_EQ(status("FFFFFFFFFFFFFFFFF\r\n"), 400) << "more than 64 bits";
  EXPECT_EQ(status("FFFFFFFFFFFFFFFF\r\n"), 413);
  EXPECT_EQ(status("65\r\n"), 413) << "101 bytes";
  EXPECT_EQ(status("64\r\n"), 200) << "100 bytes";
  EXPECT_EQ(status("1;" + std::string(5000, 'a')), 400) << "a line without end";
}

} // namespace
} // namespace pinhole::serve
