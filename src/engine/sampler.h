// Chooses the next token from logits: penalties, temperature, top-k, top-p, min-p, seed; only among
// the tokens that a mask allows.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace pinhole {

struct SamplingOptions {
  double temperature = 0;        // 0: greedy
  int64_t top_k = 0;             // 0: all
  double top_p = 1;              // keep the most likely tokens that add up to this
  double min_p = 0;              // drop tokens below this share of the most likely one
  double repetition_penalty = 1; // divides positive, multiplies negative logits of tokens seen
  double presence_penalty = 0;   // subtracted once from tokens seen in the answer
  double frequency_penalty = 0;  // subtracted for each time they were
  uint64_t seed = 0;
};

class Sampler {
 public:
  // Scratch for `vocab_size` logits is allocated here, nothing in sample().
  Sampler(const SamplingOptions& options, int64_t vocab_size);

  // Tokens of the prompt count for the repetition penalty only.
  void see_prompt(int32_t token);
  // Picks a token and remembers it. `logits` [vocab_size]. Where `allowed` is not empty, only
  // tokens are picked whose bit is set in it (bit i % 64 of word i / 64; one must be).
  int32_t sample(std::span<const float> logits, std::span<const uint64_t> allowed = {});

 private:
  // Logits of tokens that are not allowed become -infinity; returns how many are left.
  size_t apply(std::span<const uint64_t> allowed);

  SamplingOptions options_;
  std::mt19937_64 random_;
  std::vector<float> logits_;
  std::vector<int32_t> order_;
  std::vector<uint8_t> in_prompt_;
  std::vector<int32_t> in_answer_; // how often
};

} // namespace pinhole
