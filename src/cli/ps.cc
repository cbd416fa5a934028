// pinhole ps: which models a running server has in memory.
#include "base/units.h"
#include "cli/common.h"
#include "cli/server_client.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole::cli {

namespace {

std::string bytes_text(int64_t bytes) {
  return format_bytes(static_cast<uint64_t>(std::max<int64_t>(bytes, 0)));
}

int64_t number(const Json& object, const char* key) {
  const Json* const value = json_find(object, key);
  return value != nullptr && value->is_number_integer() ? value->get<int64_t>() : 0;
}

std::string text(const Json& object, const char* key) {
  const Json* const value = json_find(object, key);
  return value != nullptr && value->is_string() ? harmless(value->get<std::string>(), 200)
                                                : std::string();
}

void print(const Json& reply) {
  const int64_t limit = number(reply, "limit_bytes");
  fmt::print("{} reserved of {}, {} loads\n", bytes_text(number(reply, "reserved_bytes")),
             limit > 0 ? bytes_text(limit) : "no limit", number(reply, "swaps"));
  const Json* const models = json_find(reply, "models");
  if (models == nullptr || !models->is_array())
    return;
  size_t width = 5;
  for (const Json& model : *models)
    width = std::max(width, text(model, "name").size());
  fmt::print("{:<{}}  {:<9} {:>10} {:>10} {:>6} {:>7}  {}\n", "MODEL", width, "PHASE", "RESERVED",
             "PLANNED", "ACTIVE", "WAITING", "LEAVES");
  for (const Json& model : *models) {
    const Json* const expires = json_find(model, "expires_in_ms");
    const std::string phase = text(model, "phase");
    const std::string leaves = phase != "ready" ? "-"
                               : expires == nullptr || !expires->is_number_integer()
                                   ? "stays"
                                   : "in " + format_millis(expires->get<double>());
    fmt::print("{:<{}}  {:<9} {:>10} {:>10} {:>6} {:>7}  {}\n", text(model, "name"), width, phase,
               bytes_text(number(model, "reserved_bytes")),
               bytes_text(number(model, "planned_bytes")), number(model, "in_flight"),
               number(model, "waiting"), leaves);
    if (const std::string error = text(model, "error"); !error.empty())
      fmt::print("  last failure: {}\n", error);
  }
}

int run(const ServerOptions& server) {
  const auto reply = ask_server(server, "GET", "/running");
  if (!reply)
    return report(reply.error());
  if (server.json)
    fmt::print("{}\n", reply->dump(2));
  else
    print(*reply);
  return kExitOk;
}

} // namespace

void add_ps(CLI::App& app, int& exit) {
  auto options = std::make_shared<ServerOptions>();
  CLI::App* ps = app.add_subcommand("ps", "Show the models of a running server");
  options->add_to(*ps);
  ps->callback([options, &exit] { exit = run(*options); });
}

} // namespace pinhole::cli
