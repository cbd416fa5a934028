// A running `pinhole serve`, asked over HTTP by the subcommands ps, load and stop.
#pragma once

#include "base/json.h"
#include "base/result.h"

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>

namespace pinhole::cli {

struct ServerOptions {
  std::string url = "http://127.0.0.1:8484";
  std::string api_key; // empty: PINHOLE_API_KEY
  bool json = false;
  void add_to(CLI::App& app);
};

// What the server answers, as JSON; an error that it answers with is one here. Ends on Ctrl-C.
Result<Json> ask_server(const ServerOptions& server, const std::string& method,
                        const std::string& path, const Json& body = nullptr);

// What a server said, for a terminal: control characters as \xNN, at most `max_bytes` of it.
std::string harmless(std::string_view text, size_t max_bytes);

// The subcommands that ask it.
void add_load(CLI::App& app, int& exit);
void add_ps(CLI::App& app, int& exit);
void add_stop(CLI::App& app, int& exit);

} // namespace pinhole::cli
