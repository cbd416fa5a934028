#include "serve/model_service.h"

#include "base/function_ref.h"
#include "serve/raw_completion.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fmt/format.h>
#include <mutex>
#include <utility>
#include <vector>

namespace pinhole::serve {

namespace {

// One conversation at a time on one session.
class LockedAnswerer : public ModelService {
 public:
  LockedAnswerer(std::unique_ptr<Answerer> answerer, const ServiceOptions& options,
                 const PictureOptions& pictures)
      : answerer_(std::move(answerer)), options_(options), pictures_(pictures) {}

  Result<Answer> answer(std::span<const ChatTurn> turns, std::span<Picture> pictures,
                        const AnswerOptions& options, const AnswerEvents& events,
                        const std::atomic<bool>* cancel) override {
    return in_turn(cancel, [&] {
      return answerer_->answer(turns, pictures, options, pictures_, events, cancel);
    });
  }

  Result<Answer> complete(std::string_view prompt, const AnswerOptions& options,
                          const AnswerEvents& events, const std::atomic<bool>* cancel) override {
    return in_turn(cancel,
                   [&] { return complete_raw(*answerer_, prompt, options, events, cancel); });
  }

  const LoadedModel& loaded() const override { return answerer_->loaded(); }
  const MemoryPlan& plan() const override { return answerer_->session().plan(); }
  const Residency& residency() const override { return answerer_->session().residency(); }
  const KernelChoice& kernels() const override { return options_.kernels; }
  int64_t reserved_bytes() const override { return answerer_->session().anonymous_bytes(); }
  int64_t limit_bytes() const override { return options_.memory_bytes; }
  const PictureOptions& picture_options() const override { return pictures_; }
  int64_t grammar_bytes() const override { return options_.grammar_bytes; }
  ServiceStatus status() const override { return {processing_, waiting_}; }
  bool is_advancing() const override { return true; }

 private:
  Result<Answer> in_turn(const std::atomic<bool>* cancel, FunctionRef<Result<Answer>()> work) {
    if (++waiting_ > options_.max_waiting + 1) {
      --waiting_;
      return fail(ErrorCode::kBusy, fmt::format("{} requests wait already", options_.max_waiting));
    }
    std::unique_lock lock(mutex_, std::defer_lock);
    while (!lock.try_lock_for(std::chrono::milliseconds(20))) {
      if (cancel != nullptr && *cancel) {
        --waiting_;
        return fail(ErrorCode::kCancelled, "the request was cancelled");
      }
    }
    --waiting_;
    processing_ = 1;
    auto answer = work();
    processing_ = 0;
    return answer;
  }

  std::unique_ptr<Answerer> answerer_;
  ServiceOptions options_;
  PictureOptions pictures_;
  std::timed_mutex mutex_;
  std::atomic<int64_t> waiting_{0}, processing_{0};
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
  out.planned.resize(1);
  return out;
}

} // namespace

Result<MemoryPlan> plan_service(const LoadedModel& loaded, const ServiceOptions& options) {
  PINHOLE_TRY(const ServiceShape service, service_shape(loaded, options));
  RunShape shape;
  shape.context_tokens = service.limits.context_tokens;
  shape.chunk_tokens = service.limits.chunk_tokens;
  shape.feature_tokens = service.limits.feature_tokens;
  shape.max_patches = service.limits.max_patches;
  add_pictures(service.planned, shape);
  return plan_memory(loaded.model, shape, options.kernels);
}

Result<std::unique_ptr<ModelService>> make_service(const LoadedModel& loaded,
                                                   const ServiceOptions& options) {
  PINHOLE_TRY(const ServiceShape service, service_shape(loaded, options));
  PINHOLE_TRY(auto answerer,
              Answerer::create(loaded, service.limits, service.planned, options.kernels));
  return std::make_unique<LockedAnswerer>(std::move(answerer), options, service.pictures);
}

} // namespace pinhole::serve
