#include "serve/server.h"

#include "serve/ollama.h"
#include "serve/openai.h"
#include "serve/page.h"
#include "serve/pinhole_api.h"
#include "serve/relay.h"
#include "serve/running.h"

namespace pinhole::serve {

namespace {

// Paths that servers of models have as well.
bool is_relayed(std::string_view path) {
  return path == "/v1/chat/completions" || path == "/v1/completions" || path == "/v1/responses";
}

} // namespace

std::vector<HttpRoute> make_routes(Api& api) {
  using Handle = HttpReply (*)(Api&, HttpRequest&);
  struct Row {
    const char* method;
    const char* path;
    Handle handle;
  };
  constexpr Row kRows[] = {
      {"GET", "/", page},
      {"GET", "/page/*", page_file},
      {"GET", "/health", health},
      {"GET", "/v1/health", health},
      {"GET", "/metrics", metrics_page},
      {"GET", "/running", running},
      {"POST", "/tokenize", tokenize},
      {"POST", "/detokenize", detokenize},
      {"POST", "/v1/plan", plan_request},
      {"POST", "/api/v1/analyze", analyze},
      {"GET", "/v1/models", list_models},
      {"GET", "/v1/models/*", retrieve_model},
      {"POST", "/v1/chat/completions", chat_completions},
      {"POST", "/v1/completions", completions},
      {"POST", "/v1/responses", responses},
      {"POST", "/api/generate", ollama_generate},
      {"POST", "/api/chat", ollama_chat},
      {"GET", "/api/tags", ollama_tags},
      {"GET", "/api/ps", ollama_ps},
      {"GET", "/api/version", ollama_version},
      {"POST", "/api/show", ollama_show},
      {"POST", "/api/pull", ollama_pull},
  };
  std::vector<HttpRoute> routes;
  for (const Row& row : kRows) {
    routes.push_back(
        {row.method, row.path,
         [&api, handle = row.handle, passes = is_relayed(row.path)](HttpRequest& request) {
           auto relayed = passes ? relay_external(api, request) : std::nullopt;
           HttpReply reply = relayed ? std::move(*relayed) : handle(api, request);
           api.metrics.add_reply(reply.status);
           return reply;
         }});
  }
  return routes;
}

Server::Server(const ServerOptions& options, ModelRegistry& registry)
    : access_(options.access), api_{registry, metrics_, options.api,
                                    [this] {
                                      const Front* const front = listening_;
                                      return front ? front->status() : FrontStatus{};
                                    }},
      dispatcher_(make_routes(api_), {problem_reply, [this](std::string_view origin) {
                                        return access_.cors_headers(origin);
                                      }}) {}

Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::create(const ServerOptions& options,
                                               ModelRegistry& registry) {
  std::unique_ptr<Server> server(new Server(options, registry));
  Server* const self = server.get();
  FrontHandlers handlers;
  handlers.check = [self](const RequestHead& head) -> std::optional<HttpReply> {
    if (auto reply = self->access_.preflight(head))
      return reply;
    if (const auto why = self->access_.refuse(head)) {
      HttpReply reply = problem_reply(*why, head.path());
      for (auto& header : self->access_.cors_headers(head.header("origin")))
        reply.headers.push_back(std::move(header));
      return reply;
    }
    return std::nullopt;
  };
  handlers.refuse = problem_reply;
  handlers.answer = [self](WholeRequest& request, Wire& wire) {
    return self->dispatcher_.answer(request, wire.gone(),
                                    [&](std::string_view bytes) { return wire.write(bytes); });
  };
  PINHOLE_TRY(server->front_, Front::create(options.front, std::move(handlers)));
  self->listening_ = self->front_.get();
  return server;
}

} // namespace pinhole::serve
