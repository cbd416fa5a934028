// pinhole load, pinhole stop: a running server takes a model into memory, or lets go of it.
#include "cli/common.h"
#include "cli/server_client.h"

#include <fmt/format.h>

namespace pinhole::cli {

namespace {

struct LoadOptions {
  ServerOptions server;
  std::string model;
  std::string keep_alive;
  bool leaves = false;
};

// Both are requests without a prompt, as Ollama has them.
int run(const LoadOptions& options) {
  Json body = {{"model", options.model}, {"stream", false}};
  if (options.leaves)
    body["keep_alive"] = 0;
  else if (!options.keep_alive.empty())
    body["keep_alive"] = options.keep_alive;
  const auto reply = ask_server(options.server, "POST", "/api/generate", body);
  if (!reply)
    return report(reply.error());
  if (options.server.json)
    fmt::print("{}\n", reply->dump(2));
  else
    fmt::print("{} {}\n", options.model,
               options.leaves ? "leaves when its requests have ended" : "is loaded");
  return kExitOk;
}

} // namespace

void add_load(CLI::App& app, int& exit) {
  auto options = std::make_shared<LoadOptions>();
  CLI::App* load = app.add_subcommand("load", "Load a model of a running server");
  load->add_option("model", options->model, "Its name or alias")->required();
  load->add_option("--keep-alive", options->keep_alive,
                   "How long it stays without requests: 10m, 1h30m, -1 (until others need the "
                   "room)");
  options->server.add_to(*load);
  load->callback([options, &exit] { exit = run(*options); });
}

void add_stop(CLI::App& app, int& exit) {
  auto options = std::make_shared<LoadOptions>();
  options->leaves = true;
  CLI::App* stop = app.add_subcommand("stop", "Unload a model of a running server");
  stop->add_option("model", options->model, "Its name or alias")->required();
  options->server.add_to(*stop);
  stop->callback([options, &exit] { exit = run(*options); });
}

} // namespace pinhole::cli
