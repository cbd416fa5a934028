#include "serve/api.h"

#include "serve/describe.h"

#include <chrono>
#include <ctime>
#include <fmt/format.h>
#include <random>

namespace pinhole::serve {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kSilence{60}; // before a reply that is not streamed begins all the same
constexpr seconds kSpaces{10};  // between two signs of life
constexpr milliseconds kProgress{1'000};
constexpr milliseconds kFirstLook{100};

std::mt19937_64& generator() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return random;
}

} // namespace

std::string shown_model(Api& api, std::string_view asked) {
  const auto card = api.registry.find(asked);
  return card ? card->name : std::string(asked);
}

std::string random_id(std::string_view prefix) {
  std::string out(prefix);
  out += fmt::format("{:016x}{:08x}", generator()(), generator()() & 0xFFFFFFFFu);
  return out;
}

int64_t unix_seconds() { return static_cast<int64_t>(std::time(nullptr)); }

uint64_t random_seed() { return generator()(); }

ApiResult<std::shared_ptr<Job>> make_job(Api& api, GenerationRequest request, HttpRequest& http,
                                         const KeepAlive& keep) {
  if (api.metrics.processing >= api.options.max_waiting) {
    api.metrics.add_failure(ErrorCode::kBusy);
    ApiError error = to_api_error({ErrorCode::kBusy,
                                   fmt::format("{} requests wait already", api.options.max_waiting),
                                   {},
                                   {}});
    return tl::unexpected<ApiError>(std::move(error));
  }
  auto job = std::make_shared<Job>();
  PINHOLE_API(const ModelRoute route,
              api.registry.route(request.model, !request.conversation.pictures.empty()));
  if (!route.describes.empty())
    PINHOLE_API_CHECK(describe_pictures(api, route, request.conversation, http));
  PINHOLE_API(job->model, api.registry.acquire(route.answers, keep, *http.gone));
  job->model_name = shown_model(api, route.answers);
  PINHOLE_API(job->generation, prepare(request, *job->model));
  job->gone = http.gone;
  job->metrics = &api.metrics;
  return job;
}

ApiResult<void> start_job(Job& job) {
  job.start();
  job.run->wait_for_sign(kFirstLook);
  if (job.run->has_ended() && !job.run->answer())
    return tl::unexpected<ApiError>(to_api_error(job.run->answer().error()));
  return {};
}

HttpReply wait_and_reply(std::shared_ptr<Job> job, std::function<std::string(const Answer&)> body,
                         ApiStyle style) {
  HttpReply reply;
  if (job->run->wait_for(kSilence)) {
    const auto& answer = job->run->answer();
    if (!answer)
      return error_reply(to_api_error(answer.error()), style);
    reply.body = body(*answer);
    return reply;
  }
  reply.stream = [job = std::move(job), body = std::move(body)](HttpSink& sink) {
    do {
      if (!sink.write(" ")) // may stand before any JSON
        return false;
    } while (!job->run->wait_for(kSpaces));
    const auto& answer = job->run->answer();
    return answer && sink.write(body(*answer)); // an error cuts the connection
  };
  return reply;
}

bool write_run(Run& run, const RunWriter& writer) {
  auto written = Clock::now();
  std::string stage = "waiting";
  while (true) {
    auto event = run.next(kProgress);
    const auto now = Clock::now();
    if (!event) {
      if (run.has_ended())
        return true;
      if (now - written < kSpaces)
        continue;
    } else if (event->kind != RunEvent::Kind::kProgress) {
      written = now;
      if (event->kind == RunEvent::Kind::kText ? !writer.text(std::move(event->text))
                                               : !writer.token(std::move(event->token)))
        return false;
      continue;
    } else {
      stage = fmt::format("{} {}/{}", event->text, event->done, event->total);
      if (now - written < kProgress)
        continue;
    }
    written = now;
    if (!writer.ping(stage))
      return false;
  }
}

Json timings_json(const Answer& answer) {
  const AnswerTimings& t = answer.timings;
  const int64_t read = answer.prompt_tokens - answer.reused_tokens;
  const auto rate = [](int64_t count, double ms) {
    return count > 0 && ms > 0 ? Json(static_cast<double>(count) / ms * 1000) : Json();
  };
  return {{"cache_n", answer.reused_tokens},
          {"prompt_n", read},
          {"prompt_ms", t.prefill},
          {"prompt_per_second", rate(read, t.prefill)},
          {"predicted_n", answer.generated_tokens},
          {"predicted_ms", t.decode},
          {"predicted_per_second", rate(answer.generated_tokens - 1, t.decode)},
          {"picture_n", answer.picture_tokens},
          {"picture_ms", t.picture},
          {"encode_ms", t.encode},
          {"first_token_ms", t.first_token}};
}

Json pictures_json(const std::vector<Picture>& pictures) {
  Json out = Json::array();
  for (const Picture& picture : pictures) {
    out.push_back({{"width", picture.width_px},
                   {"height", picture.height_px},
                   {"read_at", {picture.target.width, picture.target.height}},
                   {"tokens", picture.tokens}});
  }
  return out;
}

} // namespace pinhole::serve
