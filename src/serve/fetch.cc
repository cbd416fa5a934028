#include "serve/fetch.h"

#include "file/http.h"
#include "file/printable.h"
#include "serve/curl_library.h"

#include <array>
#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <netinet/in.h>
#include <sys/socket.h>

namespace pinhole::serve {

namespace {

struct Transfer {
  const FetchLimits& limits;
  const std::atomic<bool>& gone;
  std::string body;
  bool refused_address = false, too_large = false;
};

curl_socket_t open_socket(void* self, curlsocktype, curl_sockaddr* address) {
  auto& transfer = *static_cast<Transfer*>(self);
  if (transfer.limits.only_global && !is_global_address(address->addr)) {
    transfer.refused_address = true;
    return CURL_SOCKET_BAD;
  }
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

size_t take_body(char* data, size_t, size_t length, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  if (length > transfer.limits.max_bytes - transfer.body.size()) {
    transfer.too_large = true;
    return CURL_WRITEFUNC_ERROR;
  }
  transfer.body.append(data, length);
  return length;
}

int look_up(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<Transfer*>(self)->gone ? 1 : 0;
}

struct Range4 {
  uint32_t first;
  int bits;
};
// Not globally reachable, or of no use: iana-ipv4-special-registry, multicast, reserved.
constexpr Range4 kSpecial4[] = {
    {0x00000000, 8},  {0x0A000000, 8},  {0x64400000, 10}, {0x7F000000, 8},  {0xA9FE0000, 16},
    {0xAC100000, 12}, {0xC0000000, 24}, {0xC0000200, 24}, {0xC0586300, 24}, {0xC0A80000, 16},
    {0xC6120000, 15}, {0xC6336400, 24}, {0xCB007100, 24}, {0xE0000000, 3},
};

bool is_global4(uint32_t address) {
  for (const Range4& range : kSpecial4) {
    if ((address ^ range.first) >> (32 - range.bits) == 0)
      return false;
  }
  return true;
}

bool is_global6(const std::array<uint8_t, 16>& a) {
  const auto word = [&](int i) {
    return static_cast<uint32_t>(a[i]) << 24 | static_cast<uint32_t>(a[i + 1]) << 16 |
           static_cast<uint32_t>(a[i + 2]) << 8 | a[i + 3];
  };
  const bool starts_empty = word(0) == 0 && word(4) == 0;
  if (starts_empty && (word(8) == 0 || word(8) == 0x0000FFFF))
    return word(8) != 0 && is_global4(word(12)); // ::/96 (and ::1), ::ffff:0:0/96
  if (word(0) == 0x0064FF9B)
    return word(4) == 0 && word(8) == 0 && is_global4(word(12)); // NAT64; 64:ff9b:1::/48 is local
  if (a[0] == 0x20 && a[1] == 0x02)
    return is_global4(word(2)); // 6to4
  if ((a[0] & 0xE0) != 0x20)
    return false; // only 2000::/3 is given out: not fc00::/7, fe80::/10, ff00::/8
  const bool special = word(0) == 0x20010DB8 ||                // documentation
                       (word(0) >> 9) == (0x20010000u >> 9) || // 2001::/23, with Teredo
                       (word(0) >> 12) == (0x3FFF0000u >> 12); // 3fff::/20, documentation
  return !special;
}

} // namespace

bool is_global_address(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, &address, sizeof v4);
    return is_global4(ntohl(v4.sin_addr.s_addr));
  }
  if (address.sa_family == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, &address, sizeof v6);
    std::array<uint8_t, 16> bytes{};
    std::memcpy(bytes.data(), &v6.sin6_addr, bytes.size());
    return is_global6(bytes);
  }
  return false;
}

Result<std::string> fetch_picture(const std::string& url, const FetchLimits& limits,
                                  const std::atomic<bool>& gone) {
  PINHOLE_TRY(const Url parsed, Url::parse(url));
  if (parsed.has_user())
    return fail(ErrorCode::kInvalidInput, "an address with a user is not fetched", parsed.host());
  if (!curl().is_there)
    return fail(ErrorCode::kUnsupported, "addresses need libcurl", parsed.host());
  Transfer transfer{limits, gone, {}};
  const std::unique_ptr<CURL, decltype(curl().cleanup)> easy(curl().init(), curl().cleanup);
  if (easy == nullptr)
    return fail(ErrorCode::kIo, "libcurl cannot be set up", parsed.host());
  const auto set = [&](CURLoption option, auto value) {
    return curl().setopt(easy.get(), option, value) == CURLE_OK;
  };
  char detail[CURL_ERROR_SIZE] = {};
  const char* const protocols = parsed.is_https() ? "https" : "http,https";
  // What guards must be set; without them nothing is fetched.
  const bool guarded =
      set(CURLOPT_PROTOCOLS_STR, protocols) && set(CURLOPT_REDIR_PROTOCOLS_STR, protocols) &&
      set(CURLOPT_PROXY, "") && set(CURLOPT_OPENSOCKETFUNCTION, &open_socket) &&
      set(CURLOPT_OPENSOCKETDATA, static_cast<void*>(&transfer)) &&
      set(CURLOPT_WRITEFUNCTION, &take_body) &&
      set(CURLOPT_WRITEDATA, static_cast<void*>(&transfer)) &&
      set(CURLOPT_TIMEOUT, limits.max_seconds) && set(CURLOPT_MAXREDIRS, limits.max_redirects) &&
      set(CURLOPT_MAXFILESIZE_LARGE, static_cast<curl_off_t>(limits.max_bytes));
  if (!guarded)
    return fail(ErrorCode::kUnsupported, "libcurl 7.85 or newer is needed", parsed.host());
  set(CURLOPT_URL, parsed.text().c_str());
  set(CURLOPT_FOLLOWLOCATION, 1L);
  set(CURLOPT_FAILONERROR, 1L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  set(CURLOPT_USERAGENT, "pinhole");
  set(CURLOPT_ERRORBUFFER, static_cast<char*>(detail));
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &look_up);
  set(CURLOPT_XFERINFODATA, static_cast<void*>(&transfer));
  const CURLcode code = curl().easy_perform(easy.get());
  if (code == CURLE_OK)
    return std::move(transfer.body);
  if (gone)
    return fail(ErrorCode::kCancelled, "the request was cancelled");
  if (transfer.refused_address) {
    return fail(ErrorCode::kInvalidInput,
                "the address leads to this machine or a private network, which is not fetched",
                parsed.host(), "send the picture itself as a data: URL");
  }
  if (transfer.too_large || code == CURLE_FILESIZE_EXCEEDED) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("the picture has more than {} bytes", limits.max_bytes), parsed.host());
  }
  long status = 0;
  curl().getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
  const std::string why = status >= 400 ? fmt::format("HTTP {}", status)
                                        : printable(*detail ? detail : curl().strerror(code), 200);
  return fail(ErrorCode::kInvalidInput, "the picture cannot be fetched: " + why, parsed.host());
}

} // namespace pinhole::serve
