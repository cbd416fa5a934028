#include "file/http.h"

#include "file/folder.h"
#include "file/printable.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <curl/curl.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <optional>
#include <utility>

namespace pinhole {

namespace {

constexpr long kConnectSeconds = 20;
constexpr long kStallSeconds = 30;         // with less than kStallBytesPerSecond: given up
constexpr long kStallBytesPerSecond = 256; // a GPRS modem has more
constexpr long kMaxRedirects = 10;
constexpr uint64_t kMaxFileBytes = uint64_t{1} << 46; // what a process can map

// libcurl is loaded when an address is first used: with all that it needs it costs 0.7 MiB of
// anonymous memory and 5 ms, which a run on local files does not pay.
struct Curl {
#define PINHOLE_CURL_FUNCTIONS(X)                                                                  \
  X(global_init)                                                                                   \
  X(easy_init)                                                                                     \
  X(easy_cleanup)                                                                                  \
  X(easy_reset)                                                                                    \
  X(easy_setopt)                                                                                   \
  X(easy_getinfo)                                                                                  \
  X(easy_perform)                                                                                  \
  X(easy_strerror) X(url) X(url_cleanup) X(url_get) X(url_set) X(url_strerror) X(free)
#define PINHOLE_CURL_MEMBER(name) decltype(&::curl_##name) name = nullptr;
  PINHOLE_CURL_FUNCTIONS(PINHOLE_CURL_MEMBER)
#undef PINHOLE_CURL_MEMBER
  std::string problem; // why it is not there
};

const Curl& curl() {
  static const Curl kCurl = [] {
    Curl out;
    void* const library = ::dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      out.problem = ::dlerror();
      return out;
    }
#define PINHOLE_CURL_LOAD(name)                                                                    \
  out.name = reinterpret_cast<decltype(&::curl_##name)>(::dlsym(library, "curl_" #name));          \
  if (out.name == nullptr && out.problem.empty())                                                  \
    out.problem = "libcurl.so.4 has no curl_" #name;
    PINHOLE_CURL_FUNCTIONS(PINHOLE_CURL_LOAD)
#undef PINHOLE_CURL_LOAD
    if (out.problem.empty() && out.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
      out.problem = "libcurl cannot be set up";
    return out;
  }();
  return kCurl;
}

using UrlHandle = std::unique_ptr<CURLU, decltype(&::curl_url_cleanup)>;

std::optional<std::string> url_part(CURLU* url, CURLUPart part) {
  char* text = nullptr;
  if (curl().url_get(url, part, &text, 0) != CURLUE_OK)
    return std::nullopt;
  std::string out(text);
  curl().free(text);
  return out;
}

// "bytes 0-99/1234", RFC 9110, 14.4.
struct ContentRange {
  uint64_t first = 0, last = 0, file_bytes = 0;
};

std::optional<ContentRange> parse_content_range(std::string_view text) {
  constexpr std::string_view kUnit = "bytes ";
  if (to_lower(text.substr(0, kUnit.size())) != kUnit)
    return std::nullopt;
  text.remove_prefix(kUnit.size());
  ContentRange range;
  const auto number = [&](uint64_t& value, std::string_view after) {
    const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
    if (end.ec != std::errc{})
      return false;
    text.remove_prefix(static_cast<size_t>(end.ptr - text.data()));
    if (after.empty() ? !text.empty() : !text.starts_with(after))
      return false;
    text.remove_prefix(after.size());
    return true;
  };
  if (!number(range.first, "-") || !number(range.last, "/") || !number(range.file_bytes, ""))
    return std::nullopt;
  return range;
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos)
    return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") + 1 - begin);
}

const char* address_hint(const Url& url) {
  return url.path().find("/blob/") != std::string::npos
             ? "this is the address of a page about the file: the file's own has /resolve/ (or "
               "/raw/) in place of /blob/"
             : "give the address of the file itself";
}

// What a server's refusal means to the person who asked.
Error status_error(long status, long retry_seconds, const Url& url) {
  const auto error = [&](ErrorCode code, std::string message, std::string hint) {
    return Error{code, fmt::format("{} (HTTP {})", message, status), url.shown(), std::move(hint)};
  };
  switch (status) {
  case 401:
  case 403:
    return error(ErrorCode::kIo, "the server does not let this file be read",
                 url.host() == "huggingface.co"
                     ? "check the name; of a gated or private model, put your token into HF_TOKEN"
                     : "check the address, or give https://USER:PASSWORD@...");
  case 404:
  case 410:
    return error(ErrorCode::kNotFound, "the server has no such file",
                 url.path().find("/blob/") != std::string::npos ? address_hint(url)
                                                                : "check the address");
  case 407:
    return error(ErrorCode::kIo, "the proxy asks for a password",
                 "put it into http_proxy, https_proxy as http://USER:PASSWORD@HOST:PORT");
  case 416:
    return error(ErrorCode::kInvalidInput, "the file is empty, or shorter than it was", "");
  case 429:
    return error(ErrorCode::kIo, "the server has had too many requests",
                 retry_seconds > 0 ? fmt::format("try again in {} s", retry_seconds)
                                   : "try again later");
  default:
    if (status >= 500)
      return error(ErrorCode::kIo, "the server failed", "try again later");
    return error(ErrorCode::kIo, "the server refused", address_hint(url));
  }
}

Error transfer_error(CURLcode code, std::string_view detail, const Url& url) {
  const auto error = [&](std::string message, std::string hint) {
    return Error{ErrorCode::kIo, std::move(message), url.shown(), std::move(hint)};
  };
  const std::string why =
      printable(detail.empty() ? std::string_view(curl().easy_strerror(code)) : detail, 200);
  switch (code) {
  case CURLE_COULDNT_RESOLVE_HOST:
    return error("the host is not found: " + why, "check the address and the network");
  case CURLE_COULDNT_RESOLVE_PROXY:
    return error("the proxy is not found: " + why, "check http_proxy, https_proxy and all_proxy");
  case CURLE_COULDNT_CONNECT:
    return error("cannot connect: " + why, "check the address and the network");
  case CURLE_OPERATION_TIMEDOUT:
    return error("the server is silent: " + why, "try again later");
  case CURLE_TOO_MANY_REDIRECTS:
    return error(fmt::format("redirected more than {} times", kMaxRedirects), address_hint(url));
  case CURLE_UNSUPPORTED_PROTOCOL:
    return error(fmt::format("redirected to an address that is not {}, which is not followed",
                             url.is_https() ? "https" : "http or https"),
                 "");
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CACERT_BADFILE:
    return error("the server's certificate is not trusted: " + why,
                 "check the address, the clock, and that the package ca-certificates is there");
  case CURLE_PARTIAL_FILE:
  case CURLE_GOT_NOTHING:
  case CURLE_RECV_ERROR:
    return error("the connection was cut: " + why, "try again");
  default:
    return error("cannot read over the network: " + why, "");
  }
}

} // namespace

bool is_url(std::string_view name) {
  const std::string begin = to_lower(name.substr(0, 8));
  return begin.starts_with("http://") || begin.starts_with("https://");
}

std::string shown_name(const std::string& name) {
  if (!is_url(name))
    return name;
  const auto url = Url::parse(name);
  return url ? url->shown() : url.error().location;
}

Result<Url> Url::parse(const std::string& text) {
  if (!curl().problem.empty()) {
    return fail(ErrorCode::kUnsupported, fmt::format("addresses need libcurl: {}", curl().problem),
                text.substr(0, text.find("//") + 2) + "...", "install the package libcurl4");
  }
  const UrlHandle handle(curl().url(), curl().url_cleanup);
  Url url;
  const CURLUcode code = curl().url_set(handle.get(), CURLUPART_URL, text.c_str(), 0);
  const auto scheme = url_part(handle.get(), CURLUPART_SCHEME);
  const auto host = url_part(handle.get(), CURLUPART_HOST);
  const auto path = url_part(handle.get(), CURLUPART_PATH);
  if (code != CURLUE_OK || !is_url(text) || !scheme || !host || !path) {
    // Nothing of the text is shown: where its secrets are is not known.
    return fail(ErrorCode::kInvalidInput,
                fmt::format("cannot be read as an address: {}", curl().url_strerror(code)),
                fmt::format("{}...", text.substr(0, text.find("//") + 2)),
                "percent-encode spaces and other special characters");
  }
  const auto port = url_part(handle.get(), CURLUPART_PORT);
  url.text_ = text;
  url.https_ = to_lower(*scheme) == "https";
  url.host_ = to_lower(*host);
  url.path_ = *path;
  url.has_user_ = url_part(handle.get(), CURLUPART_USER).has_value();
  url.shown_ = fmt::format("{}://{}{}{}{}", to_lower(*scheme), *host, port ? ":" : "",
                           port.value_or(""), *path);
  return url;
}

Result<Url> Url::with_path(const std::string& path) const {
  const UrlHandle handle(curl().url(), curl().url_cleanup);
  CURLUcode code = curl().url_set(handle.get(), CURLUPART_URL, text_.c_str(), 0);
  if (code == CURLUE_OK)
    code = curl().url_set(handle.get(), CURLUPART_PATH, path.c_str(), 0);
  const auto text = url_part(handle.get(), CURLUPART_URL);
  if (code != CURLUE_OK || !text)
    return fail(ErrorCode::kInvalidInput, curl().url_strerror(code), shown_);
  return parse(*text);
}

// One handle for all requests: connections are kept. The rest is of the request in flight.
struct HttpClient::Impl {
  CURL* easy = nullptr;
  const Url* url = nullptr;
  uint64_t begin = 0, end = 0;
  Sink* sink = nullptr;
  std::string content_range, content_type; // headers of the last answer
  bool checked = false, enough = false;
  uint64_t file_bytes = 0, expected_bytes = 0, received_bytes = 0;
  std::optional<Error> error;
  char detail[CURL_ERROR_SIZE] = {};

  static size_t on_header(char* data, size_t, size_t length, void* self);
  static size_t on_body(char* data, size_t, size_t length, void* self);
  Status check_answer();
  Result<bool> take(std::span<const std::byte> bytes);
};

size_t HttpClient::Impl::on_header(char* data, size_t, size_t length, void* self) {
  auto& request = *static_cast<Impl*>(self);
  const std::string_view line(data, length);
  if (line.starts_with("HTTP/")) { // another answer: after a redirect, or a proxy's
    request.content_range.clear();
    request.content_type.clear();
    return length;
  }
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos)
    return length;
  const std::string name = to_lower(line.substr(0, colon));
  const std::string_view value = trimmed(line.substr(colon + 1)).substr(0, 256);
  if (name == "content-range")
    request.content_range = value;
  if (name == "content-type")
    request.content_type = value;
  return length;
}

// Whether the answer is the range that was asked for, or the whole file; before its body is used.
Status HttpClient::Impl::check_answer() {
  checked = true;
  long status = 0;
  curl().easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
  if (status != 200 && status != 206)
    return tl::unexpected<Error>(status_error(status, 0, *url));
  if (to_lower(content_type).starts_with("text/html")) {
    return fail(ErrorCode::kInvalidInput, "the server sends a web page, expected a file",
                url->shown(), address_hint(*url));
  }
  if (status == 200) {
    curl_off_t length = -1;
    curl().easy_getinfo(easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (length < 0 || begin > 0) {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("the server does not serve parts of a file (HTTP 200 to a request of "
                              "bytes {} to {}){}",
                              begin, end - 1, begin > 0 ? "" : ", and does not say its size"),
                  url->shown(), "download it and plan the file");
    }
    file_bytes = expected_bytes = static_cast<uint64_t>(length);
  } else {
    const auto range = parse_content_range(content_range);
    if (!range || range->first != begin || range->file_bytes <= begin ||
        range->last != std::min(end, range->file_bytes) - 1) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("the server answers bytes {} to {} with Content-Range {}, expected "
                              "these bytes and the file's size",
                              begin, end - 1, printable(content_range)),
                  url->shown(), "download it and plan the file");
    }
    file_bytes = range->file_bytes;
    expected_bytes = range->last + 1 - begin;
  }
  if (file_bytes > kMaxFileBytes) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("the server says that the file has {} bytes, the limit is {}",
                            file_bytes, kMaxFileBytes),
                url->shown());
  }
  return {};
}

Result<bool> HttpClient::Impl::take(std::span<const std::byte> bytes) {
  if (!checked)
    PINHOLE_CHECK(check_answer());
  if (bytes.size() > expected_bytes - received_bytes) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("the server sends more than the {} bytes it announced", expected_bytes),
                url->shown());
  }
  received_bytes += bytes.size();
  return (*sink)(bytes, file_bytes);
}

// Any number but `length` ends the transfer.
size_t HttpClient::Impl::on_body(char* data, size_t, size_t length, void* self) {
  auto& request = *static_cast<Impl*>(self);
  auto more = request.take({reinterpret_cast<const std::byte*>(data), length});
  if (!more) {
    request.error = std::move(more.error());
    return CURL_WRITEFUNC_ERROR;
  }
  request.enough = !*more;
  return *more ? length : CURL_WRITEFUNC_ERROR;
}

HttpClient::HttpClient() : impl_(std::make_unique<Impl>()) {
  if (curl().problem.empty())
    impl_->easy = curl().easy_init();
}

HttpClient::~HttpClient() {
  if (impl_->easy != nullptr)
    curl().easy_cleanup(impl_->easy);
}

Status HttpClient::get(const Url& url, uint64_t begin, uint64_t end, Sink sink) {
  CURL* const easy = impl_->easy;
  if (easy == nullptr)
    return fail(ErrorCode::kIo, "libcurl cannot be set up", url.shown());
  Impl& request = *impl_;
  request = Impl{.easy = easy, .url = &url, .begin = begin, .end = end, .sink = &sink};

  const std::string range = fmt::format("{}-{}", begin, end - 1);
  const char* const protocols = url.is_https() ? "https" : "http,https";
  curl().easy_reset(easy); // keeps connections
  curl().easy_setopt(easy, CURLOPT_URL, url.text().c_str());
  if (curl().easy_setopt(easy, CURLOPT_PROTOCOLS_STR, protocols) != CURLE_OK ||
      curl().easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, protocols) != CURLE_OK) {
    return fail(ErrorCode::kUnsupported, "libcurl 7.85 or newer is needed", url.shown());
  }
  curl().easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
  curl().easy_setopt(easy, CURLOPT_MAXREDIRS, kMaxRedirects);
  curl().easy_setopt(easy, CURLOPT_FAILONERROR, 1L);
  curl().easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl().easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  curl().easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, kStallSeconds);
  curl().easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, kStallBytesPerSecond);
  curl().easy_setopt(easy, CURLOPT_USERAGENT, "pinhole");
  curl().easy_setopt(easy, CURLOPT_RANGE, range.c_str());
  curl().easy_setopt(easy, CURLOPT_ERRORBUFFER, request.detail);
  curl().easy_setopt(easy, CURLOPT_HEADERFUNCTION, &Impl::on_header);
  curl().easy_setopt(easy, CURLOPT_HEADERDATA, &request);
  curl().easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Impl::on_body);
  curl().easy_setopt(easy, CURLOPT_WRITEDATA, &request);
  // Like a password of the address, the token does not go along to another host.
  const char* const token = std::getenv("HF_TOKEN");
  if (token != nullptr && *token != '\0' && url.is_https() && url.host() == "huggingface.co" &&
      !url.has_user()) {
    curl().easy_setopt(easy, CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_BEARER));
    curl().easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, token);
  }

  const CURLcode code = curl().easy_perform(easy);
  curl().easy_setopt(easy, CURLOPT_ERRORBUFFER, nullptr);
  if (request.error)
    return tl::unexpected<Error>(std::move(*request.error));
  if (request.enough)
    return {};
  if (code == CURLE_HTTP_RETURNED_ERROR) {
    long status = 0;
    curl_off_t retry_seconds = 0;
    curl().easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    curl().easy_getinfo(easy, CURLINFO_RETRY_AFTER, &retry_seconds);
    return tl::unexpected<Error>(status_error(status, static_cast<long>(retry_seconds), url));
  }
  if (code != CURLE_OK)
    return tl::unexpected<Error>(transfer_error(code, request.detail, url));
  if (!request.checked)
    PINHOLE_CHECK(request.check_answer()); // an answer without a body
  if (request.received_bytes < request.expected_bytes) {
    return fail(ErrorCode::kIo,
                fmt::format("the connection was cut after {} of {} bytes", request.received_bytes,
                            request.expected_bytes),
                url.shown(), "try again");
  }
  return {};
}

} // namespace pinhole
