// Tokens per second of 1, 2, 4 and 8 answers at once on one model, through the answer service: text
// questions, greedy, of a fixed length. The counts take turns, so that what the machine does
// meanwhile meets all of them.
//
//   batch_bench MODEL [--tokens 48] [--rounds 3] [--threads N]
#include "answer/answer_service.h"
#include "base/thread_pool.h"
#include "kernels/select.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace pinhole {
namespace {

struct Measured {
  int64_t count = 0;
  std::vector<double> tokens_per_second; // by round
  double best() const {
    return *std::max_element(tokens_per_second.begin(), tokens_per_second.end());
  }
};

// What `count` answers of `tokens` tokens reach together, prompts not counted.
Result<double> run(AnswerService& service, int64_t count, int64_t tokens) {
  const AnswerService::Counters before = service.counters();
  std::vector<std::thread> callers;
  std::vector<Status> outcomes(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    callers.emplace_back([&, i] {
      AnswerOptions options;
      options.max_new_tokens = tokens;
      options.ignore_eos = true;
      const std::vector<ChatTurn> turns{
          {"user", "Write a long story about the number " + std::to_string(i) + ".", {}}};
      const auto text = [](std::string_view) {};
      const auto progress = [](std::string_view, int64_t, int64_t) {};
      const auto answer = service.answer(turns, {}, options, {}, {text, progress});
      if (!answer)
        outcomes[static_cast<size_t>(i)] = tl::unexpected(answer.error());
    });
  }
  for (std::thread& caller : callers)
    caller.join();
  for (const Status& outcome : outcomes)
    PINHOLE_CHECK(outcome);
  const AnswerService::Counters after = service.counters();
  // The first token of each answer comes with its prompt.
  return static_cast<double>(after.generated_tokens - before.generated_tokens - count) /
         (after.decode_seconds - before.decode_seconds);
}

Status measure(const std::string& path, int64_t tokens, int64_t rounds, int threads) {
  PINHOLE_TRY(const auto loaded, load_model(path));
  PINHOLE_TRY(const kernels::Table* table, kernels::select());
  AnswerService::Options options;
  options.limits.context_tokens = 128 + tokens;
  options.parallel = 8;
  PINHOLE_TRY(
      const auto service,
      AnswerService::create(*loaded, options, {table, false, threads, kernels::KvType::kF16}));
  std::printf("%s, %s, %d threads, %ld tokens each\n", loaded->model.name.c_str(), table->isa,
              threads, static_cast<long>(tokens));
  std::vector<Measured> all{{1, {}}, {2, {}}, {4, {}}, {8, {}}};
  PINHOLE_CHECK(run(*service, 8, 2)); // weights come into memory
  for (int64_t round = 0; round < rounds; ++round) {
    for (Measured& one : all) {
      PINHOLE_TRY(const double rate, run(*service, one.count, tokens));
      one.tokens_per_second.push_back(rate);
    }
  }
  for (const Measured& one : all) {
    std::printf("%ld at once: %7.2f tokens/s in all, %5.2f x one;", static_cast<long>(one.count),
                one.best(), one.best() / all.front().best());
    for (const double rate : one.tokens_per_second)
      std::printf(" %.2f", rate);
    std::printf("\n");
  }
  return {};
}

} // namespace
} // namespace pinhole

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "batch_bench MODEL [--tokens 48] [--rounds 3] [--threads N]\n");
    return 2;
  }
  int64_t tokens = 48;
  int64_t rounds = 3;
  int threads = pinhole::usable_cores();
  for (int i = 2; i + 1 < argc; i += 2) {
    const long value = std::strtol(argv[i + 1], nullptr, 10);
    if (std::strcmp(argv[i], "--tokens") == 0)
      tokens = std::max(2L, value);
    else if (std::strcmp(argv[i], "--rounds") == 0)
      rounds = std::max(1L, value);
    else if (std::strcmp(argv[i], "--threads") == 0)
      threads = static_cast<int>(std::max(1L, value));
  }
  const pinhole::Status outcome = pinhole::measure(argv[1], tokens, rounds, threads);
  if (!outcome)
    std::fprintf(stderr, "%s\n", outcome.error().text().c_str());
  return outcome ? 0 : 1;
}
