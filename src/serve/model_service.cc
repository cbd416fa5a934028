#include "serve/model_service.h"

#include "answer/answer_service.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <utility>
#include <vector>

namespace pinhole::serve {

namespace {

// Whose keys and values stay at once, where layers attend to pictures.
constexpr int64_t kCachedPictures = 2;

constexpr int64_t kDefaultParallel = 4;

// Conversations side by side (answer/answer_service.h).
class ParallelService : public ModelService {
 public:
  ParallelService(std::unique_ptr<AnswerService> service, const ServiceOptions& options,
                  const PictureOptions& pictures)
      : service_(std::move(service)), options_(options), pictures_(pictures) {}

  Result<Answer> answer(std::span<const ChatTurn> turns, std::span<Picture> pictures,
                        const AnswerOptions& options, const AnswerEvents& events,
                        const std::atomic<bool>* cancel) override {
    return service_->answer(turns, pictures, options, pictures_, events, cancel);
  }
  Result<Answer> complete(std::string_view prompt, const AnswerOptions& options,
                          const AnswerEvents& events, const std::atomic<bool>* cancel) override {
    return service_->complete(prompt, options, events, cancel);
  }

  const LoadedModel& loaded() const override { return service_->loaded(); }
  const MemoryPlan& plan() const override { return service_->plan(); }
  const Residency& residency() const override { return service_->residency(); }
  const KernelChoice& kernels() const override { return options_.kernels; }
  int64_t reserved_bytes() const override { return service_->counters().reserved_bytes; }
  int64_t limit_bytes() const override { return options_.memory_bytes; }
  const PictureOptions& picture_options() const override { return pictures_; }
  // Each of the answers at a time may have one.
  int64_t grammar_bytes() const override { return options_.grammar_bytes / options_.parallel; }
  ServiceStatus status() const override {
    const AnswerService::Counters counters = service_->counters();
    return {counters.running, counters.queued};
  }
  bool is_advancing() const override { return service_->is_advancing(kStalledMs); }

 private:
  static constexpr int64_t kStalledMs = 120'000; // longer than any run of a model that is used

  std::unique_ptr<AnswerService> service_;
  ServiceOptions options_;
  PictureOptions pictures_;
};

// Pictures of every shape that may come: the square one has the most pixels, the long ones may have
// more patches.
Result<std::vector<Picture>> largest_pictures(const PictureSpec& spec,
                                              const PictureOptions& options) {
  std::vector<Picture> out;
  const auto side = static_cast<int64_t>(
      std::max(1.0, std::sqrt(static_cast<double>(options.limits.max_pixels))));
  const std::pair<int64_t, int64_t> shapes[] = {
      {side, side}, {side * 2, side / 2}, {side / 2, side * 2}};
  for (const auto& [width, height] : shapes) {
    PINHOLE_TRY(Picture picture, plan_picture(width, std::max<int64_t>(1, height),
                                              "the largest picture", spec, options));
    out.push_back(std::move(picture));
  }
  return out;
}

// How a service is laid out, from its options and the model's bounds.
struct ServiceShape {
  Answerer::Limits limits;
  PictureOptions pictures;
  std::vector<Picture> planned; // for which there is room
};

Result<ServiceShape> service_shape(const LoadedModel& loaded, const ServiceOptions& options) {
  const Model& model = loaded.model;
  ServiceShape out;
  Answerer::Limits& limits = out.limits;
  limits.context_tokens = options.context_tokens > 0
                              ? options.context_tokens
                              : std::min(kDefaultContext, model.context_length);
  if (limits.context_tokens > model.context_length) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("a context of {} tokens, the model was made for {}",
                            limits.context_tokens, model.context_length),
                "--ctx", "lower it");
  }
  limits.chunk_tokens = std::min(options.chunk_tokens, limits.context_tokens);
  if (options.memory_bytes > 0)
    limits.memory_bytes = std::max<int64_t>(1, options.memory_bytes - options.grammar_bytes);
  if (!model.pictures)
    return out;
  const PictureSpec& spec = *model.pictures;
  PictureOptions& pictures = out.pictures;
  pictures.limits.max_pixels = static_cast<uint64_t>(options.max_image_pixels);
  pictures.max_tokens = options.max_image_tokens;
  if (pictures.max_tokens == 0 && spec.square_px == 0) {
    const int64_t side = spec.patch_size * spec.merge_size;
    const int64_t own = spec.max_pixels / (side * side);
    pictures.max_tokens = std::max<int64_t>(1, std::min(own, limits.context_tokens * 3 / 4));
  }
  PINHOLE_TRY(out.planned, largest_pictures(spec, pictures));
  for (const Picture& picture : out.planned)
    limits.max_patches = std::max(limits.max_patches, picture.grid.patches());
  if (pictures.max_tokens > 0)
    limits.max_patches =
        std::max(limits.max_patches, pictures.max_tokens * spec.merge_size * spec.merge_size);
  limits.feature_tokens = limits.context_tokens; // all pictures that a conversation can name
  if (model.cache.has_cross()) {                 // of which each is one of its tokens
    limits.feature_tokens =
        std::max(limits.feature_tokens, kCachedPictures * out.planned.front().feature_tokens());
  }
  out.planned.resize(1);
  return out;
}

int64_t most_parallel(const Model& model, const ServiceOptions& options) {
  if (options.parallel > 0)
    return options.parallel;
  return model.cache.has_cross() ? 1 : kDefaultParallel;
}

} // namespace

int64_t mapped_bytes(const ModelService& service) {
  const Residency& residency = service.residency();
  return residency.streams() ? residency.resident_bytes : service.plan().mapped_bytes;
}

Result<MemoryPlan> plan_service(const LoadedModel& loaded, const ServiceOptions& options) {
  PINHOLE_TRY(const ServiceShape service, service_shape(loaded, options));
  const SessionOptions session = service.limits.session_options(
      loaded, service.planned, options.kernels, most_parallel(loaded.model, options));
  return plan_memory(loaded.model, session.shape, options.kernels);
}

Result<std::unique_ptr<ModelService>> make_service(const LoadedModel& loaded,
                                                   const ServiceOptions& options) {
  PINHOLE_TRY(ServiceShape shape, service_shape(loaded, options));
  AnswerService::Options service;
  service.limits = shape.limits;
  service.pictures = std::move(shape.planned);
  service.max_queue = options.max_waiting;
  ServiceOptions chosen = options;
  chosen.parallel = most_parallel(loaded.model, options);
  while (true) {
    service.parallel = chosen.parallel;
    auto answers = AnswerService::create(loaded, service, options.kernels);
    const bool fits = answers && !(*answers)->residency().streams();
    if (!fits && options.parallel == 0 && chosen.parallel > 1) {
      chosen.parallel /= 2;
      continue;
    }
    if (!answers)
      return tl::unexpected(std::move(answers.error()));
    return std::make_unique<ParallelService>(std::move(*answers), chosen, shape.pictures);
  }
}

} // namespace pinhole::serve
