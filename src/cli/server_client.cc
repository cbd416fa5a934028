#include "cli/server_client.h"

#include "cli/common.h"
#include "serve/exchange.h"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>

namespace pinhole::cli {

namespace {

constexpr uint64_t kMaxReplyBytes = 16 << 20;

// The message of {"error": "..."} or {"error": {"message": "..."}}.
std::string message_of(const Json& reply, int status) {
  const Json* const error = json_find(reply, "error");
  const Json* const inner = error == nullptr ? nullptr : json_find(*error, "message");
  const Json* const text = inner == nullptr ? error : inner;
  return text != nullptr && text->is_string() ? harmless(text->get<std::string>(), 1000)
                                              : fmt::format("HTTP {}", status);
}

} // namespace

std::string harmless(std::string_view text, size_t max_bytes) {
  const auto byte_at = [&](size_t at) {
    return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u;
  };
  size_t end = std::min(text.size(), max_bytes);
  while (end > 0 && (byte_at(end) & 0xC0) == 0x80) // within a character
    --end;
  std::string out;
  for (size_t at = 0; at < end; ++at) {
    const unsigned byte = byte_at(at);
    const bool is_c1 = byte == 0xC2 && byte_at(at + 1) < 0xA0; // U+0080 to U+009F
    if (byte < 0x20 || byte == 0x7F || is_c1)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += text[at];
  }
  return end < text.size() ? out + "..." : out;
}

void ServerOptions::add_to(CLI::App& app) {
  app.add_option("--url", url, "Where the server listens")->capture_default_str();
  app.add_option("--api-key", api_key, "Its key (default: PINHOLE_API_KEY)");
  app.add_flag("--json", json, "Print JSON");
}

Result<Json> ask_server(const ServerOptions& server, const std::string& method,
                        const std::string& path, const Json& body) {
  serve::ExchangeRequest request;
  request.method = method;
  request.url = server.url;
  while (request.url.ends_with('/'))
    request.url.pop_back();
  const std::string where = request.url;
  if (!where.starts_with("http://")) {
    return fail(ErrorCode::kInvalidInput, "the address of a server begins with http://", "--url",
                "give it as http://127.0.0.1:8484");
  }
  request.url += path;
  const char* const key = std::getenv("PINHOLE_API_KEY");
  if (const std::string used = server.api_key.empty() && key != nullptr ? key : server.api_key;
      !used.empty())
    request.headers.emplace_back("Authorization", "Bearer " + used);
  if (!body.is_null()) {
    request.headers.emplace_back("Content-Type", "application/json");
    request.body = body.dump();
  }
  serve::ExchangeLimits limits;
  limits.max_bytes = kMaxReplyBytes;
  PINHOLE_TRY(const auto exchange, serve::Exchange::create(std::move(request), limits,
                                                           [] { return interrupted().load(); }));
  const auto head = exchange->head();
  if (!head && head.error().code == ErrorCode::kNotFound) {
    return fail(ErrorCode::kNotFound, "nothing listens there", where,
                "start a server with 'pinhole serve', or name another with --url");
  }
  if (!head)
    return fail_in(where, head.error());
  PINHOLE_TRY(const std::string text, exchange->rest());
  auto reply = parse_json(text, where);
  if (head->status != 200) {
    const std::string why =
        reply ? message_of(*reply, head->status) : fmt::format("HTTP {}", head->status);
    const bool is_final = head->status == 400 && why.find("ceiling") != std::string::npos;
    return fail(is_final ? ErrorCode::kTooLarge : ErrorCode::kInvalidInput, why, where,
                head->status == 401   ? "give its key with --api-key"
                : head->status == 404 ? "'pinhole ps' lists its models"
                                      : "");
  }
  if (!reply) {
    return fail(ErrorCode::kInvalidInput, "this is no server of pinhole's", where,
                "name another with --url");
  }
  return std::move(*reply);
}

} // namespace pinhole::cli
