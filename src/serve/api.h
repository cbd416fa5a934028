// What all handlers share: the models, the counters, the settings; and the steps from a request to
// a run.
#pragma once

#include "serve/exchange.h"
#include "serve/generation.h"
#include "serve/metrics.h"
#include "serve/registry.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace pinhole::serve {

struct ApiOptions {
  bool allow_fetch = false;
  FetchLimits fetch;
  int64_t max_waiting = 64; // requests for the model that wait, or are answered
  std::string version;
  ExchangeLimits relay; // of requests to models in processes of their own
};

struct Api {
  ModelRegistry& registry;
  Metrics& metrics;
  ApiOptions options;
  std::function<FrontStatus()> front_status;

  ContentOptions content_options(const HttpRequest& request) const {
    return {options.allow_fetch, options.fetch, request.gone};
  }
};

// A model in use, a request that fits it, its run. Destroyed in the opposite order.
struct Job {
  ModelUse model;
  std::string model_name; // of the one that answers
  Generation generation;
  std::atomic<bool>* gone = nullptr;
  Metrics* metrics = nullptr;
  std::unique_ptr<Run> run;

  // Begins; again for another answer to the same question.
  void start() { run = std::make_unique<Run>(*model, generation, *gone, *metrics); }
};

// From a parsed request to a job that has not started: finds the model, counts, refuses.
ApiResult<std::shared_ptr<Job>> make_job(Api& api, GenerationRequest request, HttpRequest& http,
                                         const KeepAlive& keep = {});

// Starts, and waits a moment: what is refused at once gets a status and no stream.
ApiResult<void> start_job(Job& job);

// The reply of a request without streaming: as soon as it is there; after a minute the headers go
// out and spaces follow, because clients give up on silent connections.
HttpReply wait_and_reply(std::shared_ptr<Job> job, std::function<std::string(const Answer&)> body,
                         ApiStyle style);

struct RunWriter {
  std::function<bool(std::string text)> text;
  std::function<bool(TokenChoice token)> token = [](TokenChoice) { return true; };
  // Nothing was sent for a while, or work goes on: what it does, as "encoding picture 1/2".
  std::function<bool(const std::string& progress)> ping;
};
// Writes what the run does until it ends; false: nobody reads.
bool write_run(Run& run, const RunWriter& writer);

// The name that replies have for the model that was asked for.
std::string shown_model(Api& api, std::string_view asked);
// "PREFIX" and 24 random digits.
std::string random_id(std::string_view prefix);
int64_t unix_seconds();
uint64_t random_seed();

// Tokens and times as llama.cpp's server names them, and what pinhole has beside them.
Json timings_json(const Answer& answer);
// Of each picture its size, what it was read at, its tokens.
Json pictures_json(const std::vector<Picture>& pictures);

} // namespace pinhole::serve
