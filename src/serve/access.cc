#include "serve/access.h"

#include <algorithm>
#include <arpa/inet.h>
#include <fmt/format.h>

namespace pinhole::serve {

namespace {

Sha256Digest digest_of(std::string_view text) {
  Sha256 hash;
  hash.update(text.data(), text.size());
  return hash.finish();
}

bool equal_in_constant_time(const Sha256Digest& a, const Sha256Digest& b) {
  unsigned different = 0;
  for (size_t i = 0; i < a.size(); ++i)
    different |= static_cast<unsigned>(a[i] ^ b[i]);
  return different == 0;
}

// "name:8484" and "[::1]:8484" without the port.
std::string_view without_port(std::string_view host) {
  if (host.starts_with('['))
    return host.substr(0, std::min(host.find(']'), host.size() - 1) + 1);
  return host.substr(0, host.find(':'));
}

bool is_address(std::string_view host) {
  unsigned char bytes[16];
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    return ::inet_pton(AF_INET6, std::string(host.substr(1, host.size() - 2)).c_str(), bytes) == 1;
  return ::inet_pton(AF_INET, std::string(host).c_str(), bytes) == 1;
}

bool is_in(const std::vector<std::string>& list, std::string_view text) {
  return std::any_of(list.begin(), list.end(), [&](const std::string& entry) {
    return entry == "*" || equals_ignoring_case(entry, text);
  });
}

// The headers that the clients of the APIs send from a web page.
constexpr const char* kAllowedHeaders =
    "authorization, content-type, accept, x-api-key, user-agent, openai-beta, openai-organization, "
    "openai-project, idempotency-key, x-requested-with, x-stainless-arch, x-stainless-async, "
    "x-stainless-custom-poll-interval, x-stainless-helper-method, x-stainless-lang, "
    "x-stainless-os, "
    "x-stainless-package-version, x-stainless-poll-helper, x-stainless-retry-count, "
    "x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout";

} // namespace

Access::Access(const AccessOptions& options)
    : hosts_(options.allowed_hosts), origins_(options.cors_origins) {
  for (const std::string& key : options.api_keys)
    keys_.push_back(digest_of(key));
}

// A name that is no address can be made to point at this machine by whoever owns it.
bool Access::allows_host(std::string_view host) const {
  const std::string_view name = without_port(host);
  const bool is_local =
      equals_ignoring_case(name, "localhost") ||
      (name.size() > 10 && equals_ignoring_case(name.substr(name.size() - 10), ".localhost"));
  return is_local || is_address(name) || is_in(hosts_, name) || is_in(hosts_, host);
}

bool Access::allows_origin(std::string_view origin) const { return is_in(origins_, origin); }

bool Access::has_key(const RequestHead& head) const {
  std::string_view key = head.header("authorization");
  if (key.size() > 7 && equals_ignoring_case(key.substr(0, 7), "bearer "))
    key.remove_prefix(7);
  else
    key = head.header("x-api-key");
  const Sha256Digest given = digest_of(key);
  bool found = false;
  for (const Sha256Digest& known : keys_)
    found |= equal_in_constant_time(given, known);
  return found;
}

std::optional<HttpProblem> Access::refuse(const RequestHead& head) const {
  const std::string_view host = head.header("host");
  if (!host.empty() && !allows_host(host)) {
    return HttpProblem{421, fmt::format("the Host '{}' is not served here; --allow-host names more",
                                        host.substr(0, 100))};
  }
  // A page of this server itself names its own address as its origin.
  const std::string_view origin = head.header("origin");
  const bool is_own = origin == fmt::format("http://{}", host);
  if (!origin.empty() && !is_own && !allows_origin(origin)) {
    return HttpProblem{403,
                       fmt::format("pages of '{}' may not ask here; --cors names those that may",
                                   origin.substr(0, 100))};
  }
  if (!keys_.empty() && head.path() != "/health" && !has_key(head)) {
    return HttpProblem{401, "a key is needed: send 'Authorization: Bearer KEY' with the one of "
                            "--api-key"};
  }
  return std::nullopt;
}

std::optional<HttpReply> Access::preflight(const RequestHead& head) const {
  const std::string_view origin = head.header("origin");
  if (head.method != "OPTIONS" || !allows_host(head.header("host")))
    return std::nullopt;
  HttpReply reply;
  reply.status = 204;
  reply.headers = cors_headers(origin);
  if (!reply.headers.empty()) {
    reply.headers.emplace_back("Access-Control-Allow-Methods", "GET, POST, DELETE, HEAD, OPTIONS");
    reply.headers.emplace_back("Access-Control-Allow-Headers", kAllowedHeaders);
    reply.headers.emplace_back("Access-Control-Max-Age", "600");
  }
  return reply;
}

HttpHeaders Access::cors_headers(std::string_view origin) const {
  if (origin.empty() || !allows_origin(origin))
    return {};
  return {{"Access-Control-Allow-Origin", std::string(origin)},
          {"Access-Control-Expose-Headers", "x-request-id, retry-after"},
          {"Vary", "Origin"}};
}

} // namespace pinhole::serve
