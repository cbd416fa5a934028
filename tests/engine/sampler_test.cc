// The sampler on distributions small enough to know exactly.
#include "engine/sampler.h"

#include <cmath>
#include <gtest/gtest.h>
#include <map>
#include <numeric>
#include <set>

namespace pinhole {
namespace {

using Logits = std::vector<float>;

Logits logits_of(const std::vector<double>& probabilities) {
  Logits out;
  for (const double p : probabilities)
    out.push_back(static_cast<float>(std::log(p)) + 3); // a shift changes no probability
  return out;
}

std::vector<int> draw(const SamplingOptions& options, const Logits& logits, int count) {
  Sampler sampler(options, static_cast<int64_t>(logits.size()));
  std::vector<int> counts(logits.size(), 0);
  for (int i = 0; i < count; ++i)
    ++counts[static_cast<size_t>(sampler.sample(logits))];
  return counts;
}

// Pearson's statistic; entries of probability 0 must not occur at all.
double chi_square(const std::vector<int>& counts, const std::vector<double>& weights) {
  const double draws = std::accumulate(counts.begin(), counts.end(), 0.0);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = draws * weights[i] / total;
    if (expected == 0)
      EXPECT_EQ(counts[i], 0) << "token " << i;
    else
      sum += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  return sum;
}

// 99.9 % quantiles of chi-square for 1 to 7 degrees of freedom.
constexpr double kQuantile[] = {0, 10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32};

void expect_weights(const SamplingOptions& options, const std::vector<double>& probabilities,
                    const std::vector<double>& weights) {
  int kept = 0;
  for (const double weight : weights)
    kept += weight > 0;
  for (const uint64_t seed : {1, 2, 3}) {
    SamplingOptions seeded = options;
    seeded.seed = seed;
    const auto counts = draw(seeded, logits_of(probabilities), 40000);
    EXPECT_LE(chi_square(counts, weights), kQuantile[std::max(0, kept - 1)]) << "seed " << seed;
  }
}

SamplingOptions warm(double temperature = 1) {
  SamplingOptions options;
  options.temperature = temperature;
  return options;
}

const std::vector<double> kFour{0.15, 0.5, 0.05, 0.3};

TEST(Sampler, GreedyTakesTheLargestAndTheFirstOfEquals) {
  Sampler sampler({}, 5);
  EXPECT_EQ(sampler.sample(Logits{1, 7, 3, 7, 2}), 1);
  EXPECT_EQ(sampler.sample(Logits{-5, -5, -5, -5, -5}), 0);
  EXPECT_EQ(sampler.sample(Logits{-INFINITY, -INFINITY, -3, -INFINITY, -4}), 2);
  SamplingOptions options; // cuts and seeds mean nothing at temperature 0
  options.top_k = 3;
  options.top_p = 0.1;
  options.min_p = 0.9;
  options.seed = 99;
  EXPECT_EQ(Sampler(options, 3).sample(Logits{0, 1, 1}), 1);
}

TEST(Sampler, FrequenciesAreTheSoftmax) {
  expect_weights(warm(), kFour, kFour);
  expect_weights(warm(), {0.2, 0.01, 0.19, 0.3, 0.1, 0.05, 0.05, 0.1},
                 {0.2, 0.01, 0.19, 0.3, 0.1, 0.05, 0.05, 0.1});
  expect_weights(warm(), {0.25, 0.25, 0.25, 0.25}, {1, 1, 1, 1});
}

TEST(Sampler, TemperatureRaisesProbabilitiesToItsInverse) {
  for (const double temperature : {0.5, 2.0, 5.0}) {
    std::vector<double> weights;
    for (const double p : kFour)
      weights.push_back(std::pow(p, 1 / temperature));
    expect_weights(warm(temperature), kFour, weights);
  }
  expect_weights(warm(1e-4), kFour, {0, 1, 0, 0});
}

TEST(Sampler, TopKKeepsTheMostLikely) {
  SamplingOptions options = warm();
  options.top_k = 1;
  expect_weights(options, kFour, {0, 1, 0, 0});
  options.top_k = 2;
  expect_weights(options, kFour, {0, 0.5, 0, 0.3});
  options.top_k = 3;
  expect_weights(options, kFour, {0.15, 0.5, 0, 0.3});
  for (const int64_t k : {0, 4, 5, 1000}) {
    options.top_k = k;
    expect_weights(options, kFour, kFour);
  }
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesIt) {
  SamplingOptions options = warm();
  for (const auto& [p, weights] : std::map<double, std::vector<double>>{{0.0, {0, 1, 0, 0}},
                                                                        {0.3, {0, 1, 0, 0}},
                                                                        {0.49, {0, 1, 0, 0}},
                                                                        {0.51, {0, 0.5, 0, 0.3}},
                                                                        {0.79, {0, 0.5, 0, 0.3}},
                                                                        {0.81, {0.15, 0.5, 0, 0.3}},
                                                                        {0.96, kFour},
                                                                        {1.0, kFour}}) {
    options.top_p = p;
    expect_weights(options, kFour, weights);
  }
}

TEST(Sampler, TopPCountsWhatTopKLeft) {
  // Of the two most likely, 0.5 / 0.8 = 0.625 already reaches 0.6.
  SamplingOptions options = warm();
  options.top_k = 2;
  options.top_p = 0.6;
  expect_weights(options, kFour, {0, 1, 0, 0});
  options.top_p = 0.65;
  expect_weights(options, kFour, {0, 0.5, 0, 0.3});
}

TEST(Sampler, MinPIsAShareOfTheMostLikely) {
  SamplingOptions options = warm();
  for (const auto& [p, weights] : std::map<double, std::vector<double>>{{0.05, kFour},
                                                                        {0.11, {0.15, 0.5, 0, 0.3}},
                                                                        {0.29, {0.15, 0.5, 0, 0.3}},
                                                                        {0.31, {0, 0.5, 0, 0.3}},
                                                                        {0.61, {0, 1, 0, 0}},
                                                                        {1.0, {0, 1, 0, 0}}}) {
    options.min_p = p;
    expect_weights(options, kFour, weights);
  }
}

TEST(Sampler, CutsActOnTheHeatedDistribution) {
  // At temperature 2 the weights are the roots: 0.387, 0.707, 0.224, 0.548; shares of the largest
  // 0.55, 1, 0.32, 0.77.
  SamplingOptions options = warm(2);
  options.min_p = 0.5;
  expect_weights(options, kFour, {std::sqrt(0.15), std::sqrt(0.5), 0, std::sqrt(0.3)});
}

TEST(Sampler, SeedsReproduce) {
  const Logits logits = logits_of({0.2, 0.01, 0.19, 0.3, 0.1, 0.05, 0.05, 0.1});
  const auto sequence = [&](uint64_t seed) {
    SamplingOptions options = warm();
    options.seed = seed;
    Sampler sampler(options, 8);
    std::vector<int32_t> out;
    for (int i = 0; i < 50; ++i)
      out.push_back(sampler.sample(logits));
    return out;
  };
  EXPECT_EQ(sequence(42), sequence(42));
  std::set<std::vector<int32_t>> different;
  for (uint64_t seed = 0; seed < 20; ++seed)
    different.insert(sequence(seed));
  EXPECT_EQ(different.size(), 20u);
}

// transformers' RepetitionPenaltyLogitsProcessor: score / penalty above zero, score * penalty
// below, once for each token that occurs in prompt or answer.
TEST(Sampler, RepetitionPenaltyDividesOrMultipliesOnce) {
  SamplingOptions options;
  options.repetition_penalty = 2;
  {
    Sampler sampler(options, 3);
    sampler.see_prompt(0);
    sampler.see_prompt(0);
    const Logits logits{4, 3, 1.2f};
    EXPECT_EQ(sampler.sample(logits), 1); // 2, 3, 1.2
    EXPECT_EQ(sampler.sample(logits), 0); // 2, 1.5, 1.2
    EXPECT_EQ(sampler.sample(logits), 0); // still 2: once, however often
  }
  {
    Sampler sampler(options, 3);
    sampler.see_prompt(0);
    EXPECT_EQ(sampler.sample(Logits{-1, -1.5f, -9}), 1);    // -2, -1.5
    EXPECT_EQ(sampler.sample(Logits{-1, -1.5f, -2.5f}), 0); // -2, -3, -2.5
  }
  {
    Sampler sampler(options, 2);
    sampler.see_prompt(-1); // ids outside the vocabulary are ignored
    sampler.see_prompt(2);
    EXPECT_EQ(sampler.sample(Logits{1, 1.5f}), 1);
  }
}

// OpenAI's definition: logit - count * frequency_penalty - (count > 0) * presence_penalty, over the
// answer's tokens.
TEST(Sampler, PresencePenaltyIsTakenOnce) {
  SamplingOptions options;
  options.presence_penalty = 0.3;
  Sampler sampler(options, 2);
  sampler.see_prompt(0); // does not count
  const Logits logits{1.0f, 0.8f};
  EXPECT_EQ(sampler.sample(logits), 0);
  EXPECT_EQ(sampler.sample(logits), 1); // 0.7, 0.8
  EXPECT_EQ(sampler.sample(logits), 0); // 0.7, 0.5
  EXPECT_EQ(sampler.sample(logits), 0);
}

TEST(Sampler, FrequencyPenaltyIsTakenEachTime) {
  SamplingOptions options;
  options.frequency_penalty = 0.15;
  Sampler sampler(options, 2);
  sampler.see_prompt(0);
  const Logits logits{1.0f, 0.8f};
  std::vector<int32_t> got;
  for (int i = 0; i < 5; ++i)
    got.push_back(sampler.sample(logits));
  // 1.00|0.80  0.85|0.80  0.70|0.80  0.70|0.65  0.55|0.65
  EXPECT_EQ(got, (std::vector<int32_t>{0, 0, 1, 0, 1}));
}

TEST(Sampler, NegativePenaltiesFavourRepetition) {
  SamplingOptions options;
  options.presence_penalty = -1;
  Sampler sampler(options, 2);
  EXPECT_EQ(sampler.sample(Logits{0, 1}), 1);
  EXPECT_EQ(sampler.sample(Logits{1.5f, 1}), 1); // 1.5, 2
}

TEST(Sampler, LogitsThatAreNoNumbersGiveAToken) {
  for (const double temperature : {0.0, 1.0}) {
    SamplingOptions options = warm(temperature);
    options.top_p = 0.9;
    options.min_p = 0.1;
    Sampler sampler(options, 4);
    for (const Logits& logits : {Logits{NAN, NAN, NAN, NAN}, Logits{1, NAN, 2, INFINITY},
                                 Logits{-INFINITY, -INFINITY, -INFINITY, -INFINITY}}) {
      const int32_t token = sampler.sample(logits);
      EXPECT_GE(token, 0);
      EXPECT_LT(token, 4);
    }
  }
}

// --- masks ---

TEST(Sampler, OnlyAllowedTokensArePicked) {
  const std::vector<double> p{0.4, 0.3, 0.2, 0.1};
  const uint64_t mask[] = {0b1010};
  Sampler greedy({}, 4);
  EXPECT_EQ(greedy.sample(logits_of(p), mask), 1);
  Sampler sampler(warm(1), 4);
  std::vector<int> counts(4, 0);
  for (int i = 0; i < 40000; ++i)
    ++counts[static_cast<size_t>(sampler.sample(logits_of(p), mask))];
  EXPECT_LE(chi_square(counts, {0, 0.3, 0, 0.1}), kQuantile[1]);
}

// The cuts are made among what is left.
TEST(Sampler, CutsCountAllowedTokensOnly) {
  const std::vector<double> p{0.4, 0.3, 0.2, 0.1};
  const uint64_t mask[] = {0b1100};
  for (int cut = 0; cut < 3; ++cut) {
    SamplingOptions options = warm(1);
    if (cut == 0)
      options.top_k = 1;
    else if (cut == 1)
      options.top_p = 0.6;
    else
      options.min_p = 0.6;
    Sampler sampler(options, 4);
    for (int i = 0; i < 100; ++i)
      EXPECT_EQ(sampler.sample(logits_of(p), mask), 2) << cut;
  }
}

TEST(Sampler, MasksHoldWhateverTheLogits) {
  for (const double temperature : {0.0, 0.01, 1.0, 100.0}) {
    for (const float other : {-INFINITY, -1e30f, NAN, INFINITY, 1e30f}) {
      for (const float own : {-INFINITY, -1e30f, NAN, INFINITY, 1e30f}) {
        SamplingOptions options = warm(temperature);
        options.repetition_penalty = 1.5;
        options.presence_penalty = 1;
        Sampler sampler(options, 130);
        Logits logits(130, other);
        logits[129] = logits[64] = own;
        const uint64_t mask[] = {0, 1, 2};
        for (int i = 0; i < 20; ++i) {
          const int32_t token = sampler.sample(logits, mask);
          EXPECT_TRUE(token == 64 || token == 129) << token;
        }
      }
    }
  }
}

// A model may have more logits than the vocabulary has tokens.
TEST(Sampler, TokensBeyondTheMaskAreForbidden) {
  Logits logits(200, 5.0f);
  logits[3] = -5;
  const uint64_t mask[] = {8};
  Sampler sampler(warm(1), 200);
  for (int i = 0; i < 100; ++i)
    EXPECT_EQ(sampler.sample(logits, mask), 3);
}

} // namespace
} // namespace pinhole
