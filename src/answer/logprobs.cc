#include "answer/logprobs.h"

#include <algorithm>
#include <cmath>

namespace pinhole {

TokenChoice choose_token(std::span<const float> logits, TokenId chosen, int64_t top,
                         const Tokenizer& tokenizer) {
  const float best = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits)
    sum += std::exp(static_cast<double>(logit) - best);
  const double log_sum = best + std::log(sum);
  const auto entry = [&](TokenId id) {
    return TokenLogprob{id, std::string(tokenizer.piece(id)),
                        static_cast<float>(logits[static_cast<size_t>(id)] - log_sum)};
  };
  TokenChoice out{entry(chosen), {}};
  const auto count = static_cast<size_t>(std::clamp<int64_t>(
      top, 0, std::min(kMaxTopLogprobs, static_cast<int64_t>(logits.size()))));
  if (count == 0)
    return out;
  // The `count` best so far, best first: few of the vocabulary get past the last of them.
  std::vector<TokenId> ids;
  ids.reserve(count + 1);
  const auto more_likely = [&](TokenId a, TokenId b) {
    const float la = logits[static_cast<size_t>(a)];
    const float lb = logits[static_cast<size_t>(b)];
    return la != lb ? la > lb : a < b;
  };
  for (TokenId id = 0; id < static_cast<TokenId>(logits.size()); ++id) {
    if (ids.size() == count && !more_likely(id, ids.back()))
      continue;
    ids.insert(std::upper_bound(ids.begin(), ids.end(), id, more_likely), id);
    if (ids.size() > count)
      ids.pop_back();
  }
  for (const TokenId id : ids)
    out.top.push_back(entry(id));
  return out;
}

} // namespace pinhole
