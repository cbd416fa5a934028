// Parts of a file over HTTP, with libcurl, which is loaded when an address is first used.
//
// Invariant: only http and https are spoken, also by the servers it is redirected to (never from
// https back to http), and a body is never taken beyond what its reader wants. Errors name the
// address without user, password and query. Source: RFC 9110, 14 (ranges).
#pragma once

#include "base/function_ref.h"
#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace pinhole {

// Whether a name of a model is an address and no path.
bool is_url(std::string_view name);
// What may be shown of a name: an address without user, password, query and fragment; a path whole.
std::string shown_name(const std::string& name);

class Url {
 public:
  static Result<Url> parse(const std::string& text);

  const std::string& text() const { return text_; }   // may hold secrets
  const std::string& shown() const { return shown_; } // holds none
  const std::string& host() const { return host_; }
  const std::string& path() const { return path_; } // percent-encoded, as in the address
  bool is_https() const { return https_; }
  bool has_user() const { return has_user_; }
  Result<Url> with_path(const std::string& path) const; // all else as here

 private:
  std::string text_, shown_, host_, path_;
  bool https_ = false, has_user_ = false;
};

class HttpClient {
 public:
  HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;
  ~HttpClient();

  // Takes the next bytes of the body, given the size of the file; false when it has enough: the
  // transfer is cut off.
  using Sink = FunctionRef<Result<bool>(std::span<const std::byte> bytes, uint64_t file_bytes)>;
  // Bytes [begin, end) of a file, or up to its end. A server that does not serve ranges sends the
  // file from its beginning and until `sink` has enough; with a `begin` that is refused.
  Status get(const Url& url, uint64_t begin, uint64_t end, Sink sink);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace pinhole
