#include "serve/forecast.h"

#include "base/thread_pool.h"
#include "plan/moment.h"

namespace pinhole::serve {

namespace {

constexpr std::chrono::minutes kMomentAge{5};

} // namespace

void Forecaster::renew(const ModelService& service) {
  const auto now = std::chrono::steady_clock::now();
  const bool is_idle = service.status().processing == 0;
  const std::string& file = service.loaded().files.text.parts().front().path();
  if (measured_for_ == file && (now - measured_at_ < kMomentAge || !is_idle))
    return;
  const KernelChoice& kernels = service.kernels();
  const Model& model = service.loaded().model;
  ThreadPool threads(kernels.num_threads);
  rates_ = load_rates(kernels);
  const Disturbance others;
  bool measured = measure_rates(model.text, kernels, threads, rates_);
  if (model.pictures)
    measured = measure_rates(model.vision, kernels, threads, rates_) || measured;
  if (measured) {
    rates_.disturbed = rates_.disturbed || others.disturbed() || !is_idle;
    (void)save_rates(rates_); // forecasts do not need the file
  }
  measure_moment(model.text, nullptr, kernels, threads, rates_);
  measured_for_ = file;
  measured_at_ = std::chrono::steady_clock::now();
}

SpeedPlan Forecaster::forecast(const ModelService& service, const Generation& generation) {
  const std::lock_guard lock(mutex_);
  renew(service);
  QuestionShape question;
  question.chunk_tokens = service.plan().shape.chunk_tokens;
  question.prompt_tokens = generation.prompt_tokens;
  question.context_tokens = generation.prompt_tokens + generation.options.max_new_tokens;
  add_pictures(generation.pictures, service.loaded().model, question);
  Placement placement;
  placement.cpu = rates_; // weights are mapped and memory is touched already
  placement.residency = service.residency();
  return plan_speed(service.loaded().model, question, service.kernels().kv_type, placement);
}

} // namespace pinhole::serve
