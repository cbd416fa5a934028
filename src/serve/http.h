// What handlers see of HTTP: a whole request, and a reply that is a body or a stream. No library's
// types, so that the APIs are tested without a socket.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pinhole::serve {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

// The first header of that name, whatever its case; empty: none.
std::string_view find_header(const HttpHeaders& headers, std::string_view name);
bool equals_ignoring_case(std::string_view a, std::string_view b);

struct HttpPart { // of multipart/form-data
  std::string filename, content_type, content;
};

struct HttpRequest {
  std::string method;
  std::string path; // percent-decoded, without the query
  HttpHeaders headers;
  std::string body; // empty for multipart/form-data
  std::multimap<std::string, HttpPart> parts;
  // Set when the client has gone or the server must end: stop working. Never null.
  std::atomic<bool>* gone = nullptr;

  std::string_view header(std::string_view name) const { return find_header(headers, name); }
};

class HttpSink {
 public:
  virtual ~HttpSink() = default;
  virtual bool write(std::string_view bytes) = 0; // false: nobody reads any more
};

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  HttpHeaders headers;
  std::string body;
  // Instead of `body`: called after the headers were sent. False cuts the connection, so that the
  // client knows that the answer is not whole.
  std::function<bool(HttpSink&)> stream;
};

using HttpHandler = std::function<HttpReply(HttpRequest&)>;

struct HttpRoute {
  std::string method; // GET (and HEAD), POST, DELETE
  std::string path;   // as it is, or ending in '*': any rest that is not empty
  HttpHandler handler;
};

std::string_view reason_phrase(int status);

} // namespace pinhole::serve
