#include "cli/plan_options.h"

#include "plan/recipe.h"

#include <algorithm>
#include <array>

namespace pinhole::cli {

namespace {

// Quantisations that are searched: each a step of quality that people tell apart.
constexpr std::array<std::string_view, 5> kSearched = {"f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m"};
constexpr int64_t kLeastContext = 512;

class Search {
 public:
  Search(const std::vector<QuantisedModel>& models, const PlanRequest& request,
         const KernelChoice& kernels, const KernelRates& rates, const Place& place)
      : models_(models), request_(request), kernels_(kernels), rates_(rates), place_(place) {}

  std::vector<PlanOption> run() {
    const QuantisedModel* best = nullptr;     // least quantised that fits as asked
    const QuantisedModel* smallest = nullptr; // most quantised that does
    const QuantisedModel* on_gpu = nullptr;   // least quantised with all of it on the GPU
    for (const QuantisedModel& one : models_) {
      const auto planned = plan_run(one.model, request_, kernels_, place_);
      if (!planned || planned->verdict() != Verdict::kFits)
        continue;
      best = best == nullptr ? &one : best;
      smallest = &one;
      if (on_gpu == nullptr && planned->offload.all())
        on_gpu = &one;
    }
    if (best == nullptr) {
      give_way();
      return std::move(out_);
    }
    add("as asked, least quantised", *best, request_);
    if (on_gpu != nullptr)
      add("all on the GPU", *on_gpu, request_);
    add("fastest", *smallest, request_);
    longest(*smallest);
    largest(*smallest);
    return std::move(out_);
  }

 private:
  static constexpr auto fits = [](const PlannedRun& run) {
    return run.verdict() == Verdict::kFits;
  };

  // Nothing fits as asked: the smallest weights with less context, smaller pictures, or both; or
  // the run as asked, streamed.
  void give_way() {
    const QuantisedModel& smallest = models_.back();
    longest(smallest);
    largest(smallest);
    PlanRequest less = request_;
    for (less.context_tokens = request_.context_tokens / 2; less.context_tokens >= kLeastContext;
         less.context_tokens /= 2) {
      const Size picture = largest_picture(smallest.model, less, kernels_, place_, fits);
      if (picture.width == 0)
        continue;
      less.images = {{picture, 0}};
      add("less of both", smallest, less);
      break;
    }
    add("as asked, streamed", smallest, request_);
  }

  void longest(const QuantisedModel& one) {
    PlanRequest longer = request_;
    longer.context_tokens = longest_context(one.model, request_, kernels_, place_, fits);
    if (longer.context_tokens > 0)
      add("longest context", one, longer);
  }

  void largest(const QuantisedModel& one) {
    PlanRequest larger = request_;
    larger.images = {{largest_picture(one.model, request_, kernels_, place_, fits), 0}};
    if (larger.images[0].size.width > 0)
      add("largest picture", one, larger);
  }

  // Unless the same is there already, or it cannot be.
  void add(std::string_view what, const QuantisedModel& one, const PlanRequest& request) {
    auto planned = plan_run(one.model, request, kernels_, place_);
    if (!planned || planned->verdict() == Verdict::kNone ||
        planned->question.prompt_tokens > request.context_tokens)
      return;
    const bool known = std::any_of(out_.begin(), out_.end(), [&](const PlanOption& other) {
      return other.weights == one.weights && other.context_tokens == request.context_tokens &&
             other.run.question.prompt_tokens == planned->question.prompt_tokens;
    });
    if (known)
      return;
    PlanOption option;
    option.what = what;
    option.weights = one.weights;
    option.weight_bytes = static_cast<int64_t>(one.model.weight_bytes);
    option.context_tokens = request.context_tokens;
    option.run = std::move(*planned);
    option.speed = speed_of(one.model, option.run, kernels_, rates_, place_, 0);
    out_.push_back(std::move(option));
  }

  const std::vector<QuantisedModel>& models_;
  const PlanRequest& request_;
  const KernelChoice& kernels_;
  const KernelRates& rates_;
  const Place& place_;
  std::vector<PlanOption> out_;
};

} // namespace

std::vector<QuantisedModel> quantised_models(const Model& model, const std::string& weights) {
  std::vector<QuantisedModel> out;
  out.push_back({weights.empty() ? "as they are" : weights, model});
  for (const std::string_view recipe : kSearched) {
    QuantisedModel one{std::string(recipe), model};
    if (apply_recipe(recipe, one.model) && one.model.weight_bytes < out.back().model.weight_bytes)
      out.push_back(std::move(one));
  }
  return out;
}

std::vector<PlanOption> find_options(const std::vector<QuantisedModel>& models,
                                     const PlanRequest& request, const KernelChoice& kernels,
                                     const KernelRates& rates, const Place& place) {
  return Search(models, request, kernels, rates, place).run();
}

} // namespace pinhole::cli
