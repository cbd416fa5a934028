// The head of an HTTP/1 request, and the framing of its body.
//
// Invariant: what passes has exactly one reading: one length or chunks and never both, no folded
// lines, no control characters, one Host. Everything else is refused with a status. Source: RFC
// 9112.
#pragma once

#include "serve/http.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

namespace pinhole::serve {

inline constexpr size_t kMaxHeadBytes = 32 << 10; // request line and headers together
inline constexpr size_t kMaxHeaders = 100;
inline constexpr size_t kMaxHeaderLineBytes = 8000; // httplib reads at most 8192
inline constexpr size_t kMaxTargetBytes = 2048;

struct HttpProblem {
  int status = 400;
  std::string message;
};
template <class T> using HttpResult = tl::expected<T, HttpProblem>;

struct RequestHead {
  std::string method;
  std::string target; // begins with '/', or is "*"
  int minor_version = 1;
  HttpHeaders headers;
  uint64_t content_length = 0;
  bool has_length = false; // Content-Length was given
  bool is_chunked = false;
  bool expects_continue = false;
  bool keep_alive = true;

  std::string_view header(std::string_view name) const { return find_header(headers, name); }
  std::string_view path() const; // the target without its query, still percent-encoded
};

// Where the head in `bytes` ends (behind its empty line); 0: it is not whole yet.
size_t find_head_end(std::string_view bytes);
// `bytes` up to find_head_end().
HttpResult<RequestHead> parse_head(std::string_view bytes);

// A body in chunks: takes what it understands off the front of the input.
class ChunkedDecoder {
 public:
  // Appends the data to `body`, which grows to at most `max_body_bytes`; true: the body is whole,
  // what follows in `in` belongs to the next request.
  HttpResult<bool> push(std::string& in, std::string& body, uint64_t max_body_bytes);

 private:
  enum class State { kSize, kData, kDataEnd, kTrailer };
  State state_ = State::kSize;
  uint64_t left_ = 0; // of the chunk
  size_t trailer_bytes_ = 0;
};

} // namespace pinhole::serve
