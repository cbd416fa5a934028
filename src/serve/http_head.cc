#include "serve/http_head.h"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>

namespace pinhole::serve {

namespace {

constexpr size_t kMaxChunkLineBytes = 1024; // size and extensions
constexpr size_t kMaxTrailerBytes = 8 << 10;

tl::unexpected<HttpProblem> problem(int status, std::string message) {
  return tl::unexpected<HttpProblem>(HttpProblem{status, std::move(message)});
}

bool is_token(std::string_view text) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           kMarks.find(c) != std::string_view::npos;
  });
}

bool is_field_text(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == '\t' || (byte >= 0x20 && byte != 0x7F);
  });
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t'))
    text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t'))
    text.remove_suffix(1);
  return text;
}

std::optional<uint64_t> parse_number(std::string_view text, int base) {
  uint64_t value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || end.ec != std::errc{} || end.ptr != text.data() + text.size())
    return std::nullopt;
  return value;
}

// Whether a comma-separated list has this word.
bool has_word(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (equals_ignoring_case(trim(list.substr(0, comma)), word))
      return true;
    list.remove_prefix(std::min(list.size(), comma + 1));
  }
  return false;
}

HttpResult<void> parse_request_line(std::string_view line, RequestHead& head) {
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || last == first)
    return problem(400, "the request line is not 'METHOD TARGET HTTP/1.1'");
  const std::string_view method = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (!is_token(method) || method.size() > 16)
    return problem(400, "the request's method is no word");
  if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    return version.substr(0, 5) == "HTTP/" ? problem(505, "only HTTP/1.1 and HTTP/1.0 are spoken")
                                           : problem(400, "this is not HTTP");
  }
  if (target.size() > kMaxTargetBytes)
    return problem(414, fmt::format("the address has {} bytes, at most {} are accepted",
                                    target.size(), kMaxTargetBytes));
  const bool is_path = target.substr(0, 1) == "/";
  if (!is_path && !(target == "*" && method == "OPTIONS"))
    return problem(400, "the address does not begin with '/'");
  if (!std::all_of(target.begin(), target.end(), [](char c) { return c > 0x20 && c < 0x7F; }))
    return problem(400, "the address has characters that must be percent-encoded");
  head.method = method;
  head.target = target;
  head.minor_version = version.back() - '0';
  return {};
}

HttpResult<void> read_framing(RequestHead& head) {
  int num_hosts = 0;
  bool has_coding = false;
  for (const auto& [name, value] : head.headers) {
    if (equals_ignoring_case(name, "host")) {
      ++num_hosts;
    } else if (equals_ignoring_case(name, "content-length")) {
      const auto length = parse_number(value, 10);
      if (!length || (head.has_length && *length != head.content_length))
        return problem(400, fmt::format("Content-Length is '{}'", value));
      head.content_length = *length;
      head.has_length = true;
    } else if (equals_ignoring_case(name, "transfer-encoding")) {
      if (has_coding || !equals_ignoring_case(value, "chunked"))
        return problem(501, "Transfer-Encoding may be 'chunked' only");
      has_coding = head.is_chunked = true;
    } else if (equals_ignoring_case(name, "content-encoding")) {
      if (!equals_ignoring_case(value, "identity"))
        return problem(415, fmt::format("Content-Encoding '{}' is not understood", value));
    } else if (equals_ignoring_case(name, "expect")) {
      if (!equals_ignoring_case(value, "100-continue"))
        return problem(417, fmt::format("Expect: '{}' is not understood", value));
      head.expects_continue = head.minor_version >= 1;
    } else if (equals_ignoring_case(name, "connection")) {
      if (has_word(value, "close"))
        head.keep_alive = false;
      else if (has_word(value, "keep-alive"))
        head.keep_alive = true;
    }
  }
  if (head.is_chunked && head.has_length)
    return problem(400, "Content-Length and Transfer-Encoding stand together");
  if (head.is_chunked && head.minor_version == 0)
    return problem(400, "HTTP/1.0 has no Transfer-Encoding");
  if (num_hosts > 1 || (num_hosts == 0 && head.minor_version >= 1))
    return problem(400, fmt::format("{} Host headers, expected one", num_hosts));
  return {};
}

} // namespace

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [&](char x, char y) { return lower(x) == lower(y); });
}

std::string_view find_header(const HttpHeaders& headers, std::string_view name) {
  for (const auto& [key, value] : headers) {
    if (equals_ignoring_case(key, name))
      return value;
  }
  return {};
}

std::string_view reason_phrase(int status) {
  switch (status) {
  case 200:
    return "OK";
  case 204:
    return "No Content";
  case 400:
    return "Bad Request";
  case 401:
    return "Unauthorized";
  case 403:
    return "Forbidden";
  case 404:
    return "Not Found";
  case 405:
    return "Method Not Allowed";
  case 408:
    return "Request Timeout";
  case 413:
    return "Payload Too Large";
  case 414:
    return "URI Too Long";
  case 415:
    return "Unsupported Media Type";
  case 417:
    return "Expectation Failed";
  case 421:
    return "Misdirected Request";
  case 429:
    return "Too Many Requests";
  case 431:
    return "Request Header Fields Too Large";
  case 500:
    return "Internal Server Error";
  case 501:
    return "Not Implemented";
  case 503:
    return "Service Unavailable";
  case 505:
    return "HTTP Version Not Supported";
  default:
    return "Error";
  }
}

std::string_view RequestHead::path() const {
  return std::string_view(target).substr(0, target.find('?'));
}

size_t find_head_end(std::string_view bytes) {
  const size_t end = bytes.find("\r\n\r\n");
  return end == std::string_view::npos ? 0 : end + 4;
}

HttpResult<RequestHead> parse_head(std::string_view bytes) {
  RequestHead head;
  bool is_first = true;
  while (true) {
    const size_t end = bytes.find("\r\n");
    if (end == std::string_view::npos)
      return problem(400, "the head does not end");
    const std::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(end + 2);
    if (line.empty())
      break;
    if (is_first) {
      auto read = parse_request_line(line, head);
      if (!read)
        return tl::unexpected<HttpProblem>(read.error());
      head.keep_alive = head.minor_version >= 1;
      is_first = false;
      continue;
    }
    const size_t colon = line.find(':');
    if (line.size() > kMaxHeaderLineBytes)
      return problem(431, fmt::format("a header of {} bytes, at most {} are accepted", line.size(),
                                      kMaxHeaderLineBytes));
    if (head.headers.size() == kMaxHeaders)
      return problem(431, fmt::format("more than {} headers", kMaxHeaders));
    if (colon == std::string_view::npos || !is_token(line.substr(0, colon)))
      return problem(400, "a header is not 'Name: value'");
    const std::string_view value = trim(line.substr(colon + 1));
    if (!is_field_text(value))
      return problem(400,
                     fmt::format("the header '{}' has control characters", line.substr(0, colon)));
    head.headers.emplace_back(line.substr(0, colon), value);
  }
  if (is_first)
    return problem(400, "there is no request line");
  auto framed = read_framing(head);
  if (!framed)
    return tl::unexpected<HttpProblem>(framed.error());
  return head;
}

HttpResult<bool> ChunkedDecoder::push(std::string& in, std::string& body, uint64_t max_body_bytes) {
  size_t at = 0;
  const auto leave = [&](bool done) {
    in.erase(0, at);
    return done;
  };
  while (true) {
    if (state_ == State::kData) {
      const size_t take = static_cast<size_t>(std::min<uint64_t>(left_, in.size() - at));
      body.append(in, at, take);
      at += take;
      left_ -= take;
      if (left_ > 0)
        return leave(false);
      state_ = State::kDataEnd;
    }
    const size_t end = in.find("\r\n", at);
    const size_t line_bytes = (end == std::string::npos ? in.size() : end) - at;
    if (state_ == State::kDataEnd ? line_bytes > 1 || (end != std::string::npos && line_bytes > 0)
                                  : line_bytes > kMaxChunkLineBytes)
      return problem(400, "a chunk of the body does not end where its size says");
    if (end == std::string::npos)
      return leave(false);
    const std::string_view line = std::string_view(in).substr(at, line_bytes);
    if (state_ == State::kSize) {
      const auto size = parse_number(trim(line.substr(0, line.find(';'))), 16);
      if (!size)
        return problem(400, "a chunk of the body has no size");
      if (*size > max_body_bytes || body.size() > max_body_bytes - *size)
        return problem(413, fmt::format("the body has more than {} bytes", max_body_bytes));
      left_ = *size;
      state_ = left_ > 0 ? State::kData : State::kTrailer;
    } else if (state_ == State::kDataEnd) {
      state_ = State::kSize;
    } else {
      trailer_bytes_ += line_bytes;
      if (trailer_bytes_ > kMaxTrailerBytes)
        return problem(431, "the body's trailer is too long");
      if (line.empty()) {
        at = end + 2;
        return leave(true);
      }
    }
    at = end + 2;
  }
}

} // namespace pinhole::serve
