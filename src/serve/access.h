// Who may ask: the Host that a request names (a web page whose name was made to point here names
// its own), the Origin that a browser adds, and the key.
#pragma once

#include "base/sha256.h"
#include "serve/http_head.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole::serve {

struct AccessOptions {
  std::vector<std::string> api_keys;      // empty: nobody needs one
  std::vector<std::string> allowed_hosts; // beside addresses and localhost; "*": any
  std::vector<std::string> cors_origins;  // pages that may ask, as "https://a.example"; "*": any
};

class Access {
 public:
  explicit Access(const AccessOptions& options);

  // Why a request may not go on: 401, 403 or 421.
  std::optional<HttpProblem> refuse(const RequestHead& head) const;
  // The answer to a browser's question whether a page may ask, where `head` is one.
  std::optional<HttpReply> preflight(const RequestHead& head) const;
  // What lets the page of this origin read a reply.
  HttpHeaders cors_headers(std::string_view origin) const;

 private:
  bool allows_host(std::string_view host) const;
  bool allows_origin(std::string_view origin) const;
  bool has_key(const RequestHead& head) const;

  std::vector<Sha256Digest> keys_; // of equal length, compared in constant time
  std::vector<std::string> hosts_, origins_;
};

} // namespace pinhole::serve
