#include "serve/exchange.h"

#include "file/printable.h"
#include "serve/curl_library.h"

#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <string_view>

namespace pinhole::serve {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPollMs = 20; // between two looks at is_over()
constexpr size_t kMaxHeadBytes = 64 << 10;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t'))
    text.remove_prefix(1);
  while (!text.empty() && (text.back() == '\r' || text.back() == '\n' || text.back() == ' '))
    text.remove_suffix(1);
  return text;
}

} // namespace

struct Exchange::Impl {
  ExchangeRequest request;
  ExchangeLimits limits;
  std::function<bool()> is_over;
  CURL* easy = nullptr;
  CURLM* multi = nullptr;
  curl_slist* headers = nullptr;
  bool is_added = false;

  ExchangeHead head;
  size_t head_bytes = 0;
  bool has_head = false, has_ended = false, too_large = false;
  std::string waiting; // of the body
  uint64_t body_bytes = 0;
  CURLcode outcome = CURLE_OK;
  Clock::time_point begun = Clock::now(), heard = Clock::now();

  ~Impl() {
    if (is_added)
      (void)curl().remove_handle(multi, easy);
    if (easy != nullptr)
      curl().cleanup(easy);
    if (multi != nullptr)
      (void)curl().multi_cleanup(multi);
    curl().slist_free_all(headers);
  }

  static size_t on_header(char* data, size_t, size_t length, void* self) {
    auto& impl = *static_cast<Impl*>(self);
    impl.heard = Clock::now();
    impl.head_bytes += length;
    if (impl.head_bytes > kMaxHeadBytes) {
      impl.too_large = true;
      return 0;
    }
    const std::string_view line = trimmed({data, length});
    if (line.starts_with("HTTP/")) { // another one follows a 1xx
      impl.head = {};
    } else if (const size_t colon = line.find(':'); colon != std::string_view::npos) {
      impl.head.headers.emplace_back(line.substr(0, colon), trimmed(line.substr(colon + 1)));
    } else if (line.empty()) {
      long status = 0;
      curl().getinfo(impl.easy, CURLINFO_RESPONSE_CODE, &status);
      impl.head.status = static_cast<int>(status);
      impl.has_head = status >= 200;
    }
    return length;
  }

  static size_t on_body(char* data, size_t, size_t length, void* self) {
    auto& impl = *static_cast<Impl*>(self);
    impl.heard = Clock::now();
    impl.body_bytes += length;
    if (impl.body_bytes > impl.limits.max_bytes) {
      impl.too_large = true;
      return CURL_WRITEFUNC_ERROR;
    }
    impl.waiting.append(data, length);
    return length;
  }

  Status step(bool waits) {
    const auto now = Clock::now();
    if (is_over())
      return fail(ErrorCode::kCancelled, "the request was cancelled");
    if (now - heard >= limits.silence || now - begun >= limits.whole) {
      return fail(
          ErrorCode::kBusy,
          fmt::format("it said nothing for {} s",
                      std::chrono::duration_cast<std::chrono::seconds>(now - heard).count()));
    }
    if (waits)
      (void)curl().poll(multi, nullptr, 0, kPollMs, nullptr);
    int running = 0;
    if (curl().perform(multi, &running) != CURLM_OK)
      return fail(ErrorCode::kIo, "libcurl failed");
    int left = 0;
    while (const CURLMsg* const message = curl().info_read(multi, &left)) {
      if (message->msg == CURLMSG_DONE) {
        has_ended = true;
        outcome = message->data.result;
      }
    }
    if (!has_ended || outcome == CURLE_OK)
      return {};
    if (too_large)
      return fail(ErrorCode::kTooLarge,
                  fmt::format("its reply has more than {} bytes", limits.max_bytes));
    const bool not_there =
        outcome == CURLE_COULDNT_CONNECT || outcome == CURLE_COULDNT_RESOLVE_HOST;
    return fail(not_there ? ErrorCode::kNotFound : ErrorCode::kIo,
                printable(curl().strerror(outcome), 200));
  }
};

Exchange::Exchange(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Exchange::~Exchange() = default;

Result<std::unique_ptr<Exchange>> Exchange::create(ExchangeRequest request,
                                                   const ExchangeLimits& limits,
                                                   std::function<bool()> is_over) {
  if (!curl().is_there)
    return fail(ErrorCode::kUnsupported, "other servers are reached with libcurl", "",
                "install libcurl4");
  auto impl = std::make_unique<Impl>();
  impl->request = std::move(request);
  impl->limits = limits;
  impl->is_over = std::move(is_over);
  impl->easy = curl().init();
  impl->multi = curl().multi_init();
  if (impl->easy == nullptr || impl->multi == nullptr)
    return fail(ErrorCode::kIo, "libcurl cannot be set up");
  bool is_set = true;
  const auto set = [&](CURLoption option, auto value) {
    is_set = is_set && curl().setopt(impl->easy, option, value) == CURLE_OK;
  };
  const auto add = [&](const std::string& line) {
    impl->headers = curl().slist_append(impl->headers, line.c_str());
  };
  for (const auto& [name, value] : impl->request.headers)
    add(fmt::format("{}: {}", name, value));
  add("Expect:"); // no waiting for a 100
  set(CURLOPT_URL, impl->request.url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http");
  set(CURLOPT_PROXY, "");
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  set(CURLOPT_USERAGENT, "pinhole");
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(limits.connect.count()));
  set(CURLOPT_HTTPHEADER, impl->headers);
  set(CURLOPT_HEADERFUNCTION, &Impl::on_header);
  set(CURLOPT_HEADERDATA, static_cast<void*>(impl.get()));
  set(CURLOPT_WRITEFUNCTION, &Impl::on_body);
  set(CURLOPT_WRITEDATA, static_cast<void*>(impl.get()));
  if (impl->request.method == "POST") {
    set(CURLOPT_POST, 1L);
    set(CURLOPT_POSTFIELDS, impl->request.body.data());
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(impl->request.body.size()));
  }
  if (!is_set)
    return fail(ErrorCode::kUnsupported, "libcurl 7.85 or newer is needed, or the address is wrong",
                printable(impl->request.url, 200));
  impl->is_added = curl().add_handle(impl->multi, impl->easy) == CURLM_OK;
  if (!impl->is_added)
    return fail(ErrorCode::kIo, "libcurl cannot be set up");
  return std::unique_ptr<Exchange>(new Exchange(std::move(impl)));
}

Result<ExchangeHead> Exchange::head() {
  for (bool waits = false; !impl_->has_head; waits = true) {
    if (impl_->has_ended)
      return fail(ErrorCode::kIo, "its reply has no head");
    PINHOLE_CHECK(impl_->step(waits));
  }
  return impl_->head;
}

Result<std::string> Exchange::next() {
  for (bool waits = false; impl_->waiting.empty() && !impl_->has_ended; waits = true)
    PINHOLE_CHECK(impl_->step(waits));
  return std::exchange(impl_->waiting, {});
}

Result<std::string> Exchange::rest() {
  std::string out;
  while (true) {
    PINHOLE_TRY(const std::string more, next());
    if (more.empty())
      return out;
    out += more;
  }
}

} // namespace pinhole::serve
