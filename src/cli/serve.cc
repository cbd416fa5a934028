// pinhole serve: a model behind the APIs of OpenAI and Ollama.
#include "base/function_ref.h"
#include "base/memory_limit.h"
#include "base/units.h"
#include "cli/common.h"
#include "serve/server.h"
#include "serve/swap_registry.h"
#include "swap/settings.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <thread>

namespace pinhole::cli {

namespace {

using std::chrono::milliseconds;

constexpr int kMaxWaiting = 256; // for models of a settings file

struct ServeOptions {
  serve::SingleModelOptions model;
  serve::ServerOptions server;
  ComputeOptions compute;
  std::string config, ram;
  std::string max_body = "64M";
  std::string model_name;
  int drain_seconds = 30;
};

Result<uint64_t> amount(const std::string& text, const char* option) {
  const auto bytes = parse_bytes(text);
  if (!bytes || *bytes <= 0)
    return fail(ErrorCode::kInvalidInput, fmt::format("'{}' is no amount of memory", text), option,
                "give it as 64M or 1G");
  return static_cast<uint64_t>(*bytes);
}

Status complete(ServeOptions& options) {
  const bool is_alone = options.config.empty();
  if (!is_alone && (!options.model.path.empty() || !options.model.mmproj.empty() ||
                    !options.model_name.empty() || !options.model.aliases.empty() ||
                    options.model.service.parallel > 0)) {
    return fail(ErrorCode::kInvalidInput,
                "-m, --mmproj, --name, --alias and --parallel are for a server without --config",
                "--config", "write them into the file");
  }
  if (is_alone && options.model.path.empty()) {
    PINHOLE_TRY(options.model.path, default_model());
  }
  if (!options.model_name.empty())
    options.model.name = options.model_name;
  PINHOLE_TRY(const MemoryBudget memory, memory_budget(options.ram));
  options.model.service.memory_bytes = memory.bytes;
  PINHOLE_TRY(options.model.service.kernels, options.compute.resolve());
  serve::FrontOptions& front = options.server.front;
  PINHOLE_TRY(front.max_body_bytes, amount(options.max_body, "--max-body"));
  front.max_buffered_bytes = std::max(front.max_buffered_bytes, 2 * front.max_body_bytes);
  serve::ApiOptions& api = options.server.api;
  options.model.service.max_waiting = api.max_waiting;
  front.max_workers = static_cast<size_t>(api.max_waiting) + 16;
  api.version = PINHOLE_VERSION;
  std::vector<std::string>& keys = options.server.access.api_keys;
  if (const char* key = std::getenv("PINHOLE_API_KEY"); keys.empty() && key && *key != '\0')
    keys.emplace_back(key);
  const bool is_local = front.host == "::1" || front.host.starts_with("127.");
  if (!is_local && keys.empty()) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("{} can be reached from other machines, and there is no key", front.host),
        "--host", "give one with --api-key");
  }
  return {};
}

// Until Ctrl-C; `begin` is called when the server listens.
Status serve_models(const ServeOptions& options, serve::ModelRegistry& registry,
                    FunctionRef<Status()> begin) {
  PINHOLE_TRY(const auto server, serve::Server::create(options.server, registry));
  const std::string& host = options.server.front.host;
  fmt::print("listening on http://{}:{}\n",
             host.find(':') == std::string::npos ? host : "[" + host + "]", server->port());
  std::fflush(stdout);
  PINHOLE_CHECK(begin());
  auto next_tick = std::chrono::steady_clock::now();
  while (!interrupted()) {
    std::this_thread::sleep_for(milliseconds(50));
    if (std::chrono::steady_clock::now() < next_tick)
      continue;
    next_tick += std::chrono::seconds(1);
    registry.tick();
  }
  fmt::print(stderr, "pinhole: finishing what runs, for at most {} s\n", options.drain_seconds);
  server->stop(milliseconds(1000) * options.drain_seconds);
  return {};
}

Status serve_one(const ServeOptions& options) {
  serve::SingleModel model(options.model);
  return serve_models(options, model, [&]() -> Status {
    PINHOLE_CHECK(model.load());
    const serve::ModelCard card = model.list().front();
    fmt::print(stderr, "{}: context {} tokens{}; {} of anonymous memory, {} of weights mapped\n",
               card.name, card.context_tokens, card.reads_pictures ? ", reads pictures" : "",
               format_bytes(static_cast<uint64_t>(card.reserved_bytes)),
               format_bytes(static_cast<uint64_t>(card.mapped_bytes)));
    return {};
  });
}

// The models of the settings file; pinned ones are loaded at once.
Status serve_several(ServeOptions& options) {
  serve::SwapRegistryOptions swap;
  PINHOLE_TRY(swap.settings, read_settings(options.config));
  swap.service = options.model.service;
  if (!options.ram.empty())
    swap.settings.ram_bytes = options.model.service.memory_bytes;
  swap.usable_bytes = options.model.service.memory_bytes;
  swap.log = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
  // Requests that wait for a model hold a worker: some must be left for the others.
  swap.settings.max_waiting = std::min(swap.settings.max_waiting, kMaxWaiting);
  options.server.front.max_workers += static_cast<size_t>(swap.settings.max_waiting);
  PINHOLE_TRY(const auto registry, serve::SwapRegistry::create(std::move(swap)));
  for (const serve::RunningModel& model : registry->running().models)
    fmt::print(stderr, "{}: {} planned\n", model.name,
               format_bytes(static_cast<uint64_t>(model.planned_bytes)));
  return serve_models(options, *registry, [&]() -> Status {
    for (const ModelSettings& model : registry->settings().models) {
      std::atomic<bool> gone{false};
      if (!model.is_pinned)
        continue;
      if (const auto loaded = registry->load(model.name, {}, gone); !loaded)
        fmt::print(stderr, "pinhole: {}\n", loaded.error().message);
    }
    return {};
  });
}

int run(ServeOptions& options) {
  Status status = complete(options);
  if (status)
    status = options.config.empty() ? serve_one(options) : serve_several(options);
  return status ? kExitOk : report(status.error());
}

} // namespace

void add_serve(CLI::App& app, int& exit) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* serve = app.add_subcommand("serve", "Serve a model over HTTP (OpenAI, Ollama)");
  serve->footer("Examples:\n"
                "  pinhole serve\n"
                "  pinhole serve -m Qwen3-VL-2B-Q4_K_M.gguf --ctx 8192 --port 11434\n"
                "  pinhole serve --config pinhole.toml\n"
                "  curl -F prompt=\"What is the total on this receipt?\" -F image=@receipt.png \\\n"
                "    http://127.0.0.1:8484/api/v1/analyze\n"
                "The API: docs/serve.md. PINHOLE_API_KEY is a key when --api-key is not given.");
  ServeOptions& o = *options;
  serve::FrontOptions& front = o.server.front;
  front.port = 8484;
  serve->add_option("-m,--model", o.model.path,
                    "A .gguf file or a Hugging Face folder (default: bundled)");
  serve->add_option("--mmproj", o.model.mmproj,
                    "Picture projector of a .gguf (default: found beside it)");
  serve->add_option("--config", o.config,
                    "Settings file, pinhole.toml: several models under one memory ceiling");
  serve->add_option("--name", o.model_name, "The model's name in the APIs (default: its file's)");
  serve->add_option("--alias", o.model.aliases, "Another name of it; may be repeated")
      ->allow_extra_args(false);
  serve->add_option("--host", front.host, "Address to listen on")->capture_default_str();
  serve->add_option("--port", front.port, "Port to listen on (0: any)")->capture_default_str();
  serve
      ->add_option("--ctx", o.model.service.context_tokens,
                   "Tokens that prompt and answer may take together (default: 4096)")
      ->check(CLI::Range(1, 1 << 26));
  serve
      ->add_option("--parallel", o.model.service.parallel,
                   "Answers in the making at a time (default: 4, or fewer where memory is short)")
      ->check(CLI::Range(1, 64));
  serve->add_option("--chunk", o.model.service.chunk_tokens, "Prompt tokens processed at a time")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  serve->add_option("--ram", o.ram,
                    "Memory that the program may take, such as 8G (default: what is available)");
  serve
      ->add_option("--max-image-tokens", o.model.service.max_image_tokens,
                   "Scale each picture down to cost at most this many tokens (default: three "
                   "quarters of the context)")
      ->check(CLI::Range(1, 1 << 20));
  serve
      ->add_option("--max-image-pixels", o.model.service.max_image_pixels,
                   "Larger pictures are refused")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  serve->add_option("--queue", o.server.api.max_waiting, "Requests that may wait for the model")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  serve->add_option("--max-body", o.max_body, "Largest body of a request")->capture_default_str();
  serve
      ->add_option("--api-key", o.server.access.api_keys,
                   "A key that requests must have; may be "
                   "repeated")
      ->allow_extra_args(false);
  serve
      ->add_option("--allow-host", o.server.access.allowed_hosts,
                   "A name by which this server is reached; may be repeated")
      ->allow_extra_args(false);
  serve
      ->add_option("--cors", o.server.access.cors_origins,
                   "A web page's origin that may ask, such as https://app.example; may be repeated")
      ->allow_extra_args(false);
  serve->add_flag("--allow-fetch", o.server.api.allow_fetch,
                  "Fetch pictures that requests name by http(s) addresses, from the internet only");
  serve
      ->add_option("--drain-timeout", o.drain_seconds,
                   "Seconds that running requests have when the server is told to end")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
  o.compute.add_to(*serve);
  serve->callback([options, &exit] { exit = run(*options); });
}

} // namespace pinhole::cli
