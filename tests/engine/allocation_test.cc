// After a session is made, a generated token costs no allocation: malloc and its kin are replaced
// by ones that count, on every thread.
#include "engine/sampler.h"
#include "engine/session.h"

#include "fixture.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <thread>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PINHOLE_COUNTS_MALLOC 0 // the sanitizer has replaced malloc itself
#else
#define PINHOLE_COUNTS_MALLOC 1
#endif

namespace {
std::atomic<int64_t> g_allocations{0};
}

#if PINHOLE_COUNTS_MALLOC
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

void* malloc(size_t size) {
  ++g_allocations;
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  ++g_allocations;
  return __libc_calloc(count, size);
}
void* realloc(void* old, size_t size) {
  ++g_allocations;
  return __libc_realloc(old, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  ++g_allocations;
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** out, size_t alignment, size_t size) {
  ++g_allocations;
  *out = __libc_memalign(alignment, size);
  return *out == nullptr ? ENOMEM : 0;
}
}
#endif

namespace pinhole {
namespace {

using testing::Described;
using testing::kernel_choice;
using testing::random_prompt;
using testing::shape_of;
using testing::take;

class Allocations : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!PINHOLE_COUNTS_MALLOC)
      GTEST_SKIP() << "under a sanitizer malloc cannot be counted";
    const std::string name = GetParam();
    if (!name.empty())
      REQUIRE_GOLDEN();
    described_ = name.empty() ? Described::bundled() : Described::open(testing::golden(name));
  }
  std::unique_ptr<Described> described_;
};

TEST_P(Allocations, TheCounterCounts) {
  const int64_t before = g_allocations;
  auto* value = new std::vector<int>(1000);
  EXPECT_EQ(g_allocations - before, 2);
  delete value;
  std::thread([&] { free(malloc(10)); }).join();
  EXPECT_GT(g_allocations - before, 2);
}

TEST_P(Allocations, NoneForAToken) {
  for (const bool exact : {true, false}) {
    for (const int threads : {1, 2}) {
      const auto session = take(Session::create(
          described_->model,
          {shape_of(128, 16), kernel_choice(exact, threads, kernels::KvType::kF16)}));
      const auto prompt = random_prompt(described_->model, 120, 3);
      SamplingOptions options;
      options.temperature = 0.7;
      options.top_k = 40;
      options.top_p = 0.9;
      options.repetition_penalty = 1.1;
      Sampler sampler(options, described_->model.vocab_size);
      take(session->prefill(std::span(prompt).first(20)));
      const int64_t before = g_allocations;
      for (size_t i = 20; i < prompt.size(); ++i) {
        const auto logits = session->step(prompt[i]);
        if (!logits)
          break;
        sampler.sample(*logits);
      }
      EXPECT_EQ(g_allocations - before, 0) << "exact " << exact << ", " << threads << " threads";
      EXPECT_EQ(session->length(), 120);
    }
  }
}

TEST_P(Allocations, NoneForAPrefill) {
  const auto session = take(Session::create(
      described_->model, {shape_of(128, 16), kernel_choice(false, 2, kernels::KvType::kF16)}));
  const auto prompt = random_prompt(described_->model, 100, 4);
  const int64_t before = g_allocations;
  const auto logits = session->prefill(prompt);
  EXPECT_EQ(g_allocations - before, 0);
  EXPECT_TRUE(logits);
}

INSTANTIATE_TEST_SUITE_P(Model, Allocations,
                         ::testing::Values("", "qwen3_vl_moe/tiny", "qwen2_5_vl/tiny"),
                         [](const auto& param_info) {
                           const std::string name = param_info.param;
                           return name.empty() ? "bundled" : name.substr(0, name.find('/'));
                         });

} // namespace
} // namespace pinhole
