#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace pinhole {

Sampler::Sampler(const SamplingOptions& options, int64_t vocab_size)
    : options_(options), random_(options.seed), logits_(static_cast<size_t>(vocab_size)),
      order_(static_cast<size_t>(vocab_size)), in_prompt_(static_cast<size_t>(vocab_size)),
      in_answer_(static_cast<size_t>(vocab_size)) {}

void Sampler::see_prompt(int32_t token) {
  if (token >= 0 && static_cast<size_t>(token) < in_prompt_.size()) {
    in_prompt_[static_cast<size_t>(token)] = 1;
  }
}

size_t Sampler::apply(std::span<const uint64_t> allowed) {
  constexpr float kForbidden = -std::numeric_limits<float>::infinity();
  constexpr float kLeast = std::numeric_limits<float>::lowest();
  size_t count = 0;
  for (size_t i = 0; i < logits_.size(); ++i) {
    const bool is_allowed = i / 64 < allowed.size() && ((allowed[i / 64] >> (i % 64)) & 1) != 0;
    if (!is_allowed)
      logits_[i] = kForbidden;
    else if (!(logits_[i] >= kLeast)) // also what is no number: still ahead of what is forbidden
      logits_[i] = kLeast;
    count += is_allowed ? 1 : 0;
  }
  return count;
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const uint64_t> allowed) {
  std::copy(logits.begin(), logits.end(), logits_.begin());
  // Order as in transformers and vLLM: penalties, then temperature, then the cuts.
  for (size_t i = 0; i < logits_.size(); ++i) {
    if (in_prompt_[i] == 0 && in_answer_[i] == 0)
      continue;
    const auto repetition = static_cast<float>(options_.repetition_penalty);
    logits_[i] = logits_[i] > 0 ? logits_[i] / repetition : logits_[i] * repetition;
    if (in_answer_[i] == 0)
      continue;
    logits_[i] -=
        static_cast<float>(options_.presence_penalty + options_.frequency_penalty * in_answer_[i]);
  }
  const size_t candidates = allowed.empty() ? logits_.size() : apply(allowed);
  int32_t chosen = 0;
  if (options_.temperature <= 0) {
    chosen =
        static_cast<int32_t>(std::max_element(logits_.begin(), logits_.end()) - logits_.begin());
  } else {
    // The candidates, most likely first; equal logits by id, so that a seed means one answer.
    std::iota(order_.begin(), order_.end(), 0);
    const auto more_likely = [this](int32_t a, int32_t b) {
      const float la = logits_[static_cast<size_t>(a)];
      const float lb = logits_[static_cast<size_t>(b)];
      return la != lb ? la > lb : a < b;
    };
    size_t count = std::max<size_t>(1, candidates);
    if (options_.top_k > 0)
      count = std::min(count, static_cast<size_t>(options_.top_k));
    std::partial_sort(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(count),
                      order_.end(), more_likely);
    const float best = logits_[static_cast<size_t>(order_[0])];
    const auto probability = [&](size_t rank) { // not normalised: the best one has 1
      const float logit = logits_[static_cast<size_t>(order_[rank])];
      return std::exp((static_cast<double>(logit) - best) / options_.temperature);
    };
    double total = 0;
    for (size_t i = 0; i < count; ++i)
      total += probability(i);
    if (options_.top_p < 1) {
      const double wanted = options_.top_p * total;
      double sum = 0;
      size_t kept = 0;
      while (kept < count && (kept == 0 || sum < wanted))
        sum += probability(kept++);
      count = kept;
    }
    if (options_.min_p > 0) {
      size_t kept = 1;
      while (kept < count && probability(kept) >= options_.min_p)
        ++kept;
      count = kept;
    }
    total = 0;
    for (size_t i = 0; i < count; ++i)
      total += probability(i);
    // [0, 1) from the top 53 bits: the same on every standard library.
    double target = static_cast<double>(random_() >> 11) * 0x1.0p-53 * total;
    size_t rank = 0;
    for (; rank + 1 < count; ++rank) {
      target -= probability(rank);
      if (target < 0)
        break;
    }
    chosen = order_[rank];
  }
  ++in_answer_[static_cast<size_t>(chosen)];
  return chosen;
}

} // namespace pinhole
