// After a session is made, neither a picture nor a prompt nor a token costs an allocation: malloc,
// mmap and their kin are replaced by ones that count, on every thread.
#include "engine/sampler.h"
#include "engine/session.h"

#include "fixture.h"
#include "support/memory_root.h"

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PINHOLE_COUNTS_MALLOC 0 // the sanitizer has replaced malloc itself
#else
#define PINHOLE_COUNTS_MALLOC 1
#endif

namespace {
std::atomic<int64_t> g_allocations{0};
std::atomic<int64_t> g_mappings{0}; // asked of the system
} // namespace

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

void* mmap(void* at, size_t length, int protection, int flags, int fd, off_t offset) noexcept {
  ++g_mappings;
  return reinterpret_cast<void*>(
      syscall(SYS_mmap, at, length, protection, flags, fd, static_cast<long>(offset)));
}
void* mmap64(void* at, size_t length, int protection, int flags, int fd, off64_t offset) noexcept {
  return mmap(at, length, protection, flags, fd, offset);
}
void* mremap(void* old, size_t old_length, size_t length, int flags, ...) noexcept {
  ++g_mappings;
  va_list rest;
  va_start(rest, flags);
  void* at = (flags & MREMAP_FIXED) != 0 ? va_arg(rest, void*) : nullptr;
  va_end(rest);
  return reinterpret_cast<void*>(syscall(SYS_mremap, old, old_length, length, flags, at));
}
int brk(void* end) noexcept {
  ++g_mappings;
  return reinterpret_cast<int (*)(void*)>(dlsym(RTLD_NEXT, "brk"))(end);
}
void* sbrk(intptr_t bytes) noexcept {
  ++g_mappings;
  return reinterpret_cast<void* (*)(intptr_t)>(dlsym(RTLD_NEXT, "sbrk"))(bytes);
}
// Advice creates memory only where it fills pages for writing.
int madvise(void* at, size_t length, int advice) noexcept {
  if (advice == MADV_POPULATE_WRITE)
    ++g_mappings;
  return static_cast<int>(syscall(SYS_madvise, at, length, advice));
}
}
#endif

namespace pinhole {
namespace {

using testing::Described;
using testing::encode;
using testing::FakePicture;
using testing::kernel_choice;
using testing::picture_prompt;
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

// Allocations and mappings since it was made.
class Counts {
 public:
  int64_t allocations() const { return g_allocations - allocations_; }
  int64_t mappings() const { return g_mappings - mappings_; }

 private:
  const int64_t allocations_ = g_allocations, mappings_ = g_mappings;
};

TEST_P(Allocations, TheCountersCount) {
  const Counts vector;
  auto* value = new std::vector<int>(1000);
  EXPECT_EQ(vector.allocations(), 2);
  delete value;
  const Counts thread;
  std::thread([&] { free(malloc(10)); }).join();
  EXPECT_GT(thread.allocations(), 1);

  const Counts counts;
  constexpr size_t kBytes = 1 << 16;
  void* map = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(map, MAP_FAILED);
  EXPECT_EQ(counts.mappings(), 1);
  map = mremap(map, kBytes, 2 * kBytes, MREMAP_MAYMOVE);
  ASSERT_NE(map, MAP_FAILED);
  EXPECT_EQ(counts.mappings(), 2);
  static_cast<char*>(map)[2 * kBytes - 1] = 1;
  EXPECT_EQ(madvise(map, kBytes, MADV_DONTNEED), 0);
  EXPECT_EQ(counts.mappings(), 2);
  munmap(map, 2 * kBytes);
  EXPECT_NE(sbrk(0), nullptr);
  EXPECT_EQ(counts.mappings(), 3);
  // Of the library's own code: its memory comes through the replaced mmap.
  take(AnonymousMemory::reserve(kBytes, "test"));
  EXPECT_EQ(counts.mappings(), 4);
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
      const std::vector<uint64_t> allowed(
          static_cast<size_t>(described_->model.vocab_size) / 64 + 1, 0x5555);
      const Counts counts;
      for (size_t i = 20; i < prompt.size(); ++i) {
        const auto logits = session->step(prompt[i]);
        if (!logits)
          break;
        sampler.sample(*logits);
        sampler.sample(*logits, allowed);
      }
      EXPECT_EQ(counts.allocations(), 0) << "exact " << exact << ", " << threads << " threads";
      EXPECT_EQ(counts.mappings(), 0) << "exact " << exact << ", " << threads << " threads";
      EXPECT_EQ(session->length(), 120);
    }
  }
}

// Tokens of three sequences at once, one of them a prompt that is copied and read in parts.
TEST_P(Allocations, NoneForABatch) {
  const Model& model = described_->model;
  RunShape shape = shape_of(128, 16);
  shape.parallel = 3;
  const auto session =
      take(Session::create(model, {shape, kernel_choice(false, 2, kernels::KvType::kF16)}));
  const auto prompt = random_prompt(model, 100, 4);
  const Counts counts;
  bool all_ran = true;
  for (size_t i = 0; i < 90; i += 9) {
    const Session::Part parts[] = {{0, std::span(prompt).subspan(i / 9, 1), 1},
                                   {2, std::span(prompt).subspan(i, 9), 1},
                                   {1, std::span(prompt).subspan(i / 9, 2), 0}};
    all_ran = all_ran && session->run(parts).has_value();
  }
  session->copy_prefix(2, 0, session->common_prefix(prompt, 2));
  EXPECT_EQ(counts.allocations(), 0);
  EXPECT_EQ(counts.mappings(), 0);
  EXPECT_TRUE(all_ran);
  EXPECT_EQ(session->length(0), 90);
  EXPECT_EQ(session->length(1), 20);
}

// The largest picture of the plan, then others in its place, and a context that is filled to the
// end: at once, and with the last tokens one by one. With all weights in memory, with as few as
// possible, and while others need memory.
TEST_P(Allocations, NoneForAFullContextWithTheLargestPicture) {
  const Model& model = described_->model;
  const KernelChoice kernels = kernel_choice(false, 2, kernels::KvType::kF16);
  const RunShape shape = shape_of(128, 16, 12 * 24, 100);
  const MemoryPlan plan = take(plan_memory(model, shape, kernels));
  int64_t least = plan.anonymous_bytes() + plan.program_mapped_bytes;
  while (!plan_residency(model, plan, least))
    least += 4096;
  const testing::MemoryRoot root;
  const FakePicture largest(model, 12, 24, 1), other(model, 8, 8, 2), third(model, 12, 20, 3);
  const Sha256Digest keep[] = {largest.digest};
  for (const int64_t limit : {int64_t{0}, least}) {
    for (const int64_t available_mib : {8192, 1024, 100}) {
      SCOPED_TRACE(::testing::Message() << "limit " << limit << ", available " << available_mib);
      root.set_available_mib(available_mib);
      SessionOptions options{shape, kernels, limit, described_->mapped_files(), root.options()};
      const auto session = take(Session::create(model, options));
      ASSERT_EQ(session->residency().streams(), limit > 0);
      const auto admitted = session->admit(keep);
      ASSERT_EQ(admitted.has_value(), available_mib > 100);
      const Counts counts;
      for (const FakePicture* picture : {&largest, &other, &third, &largest})
        encode(*session, *picture);
      EXPECT_EQ(counts.allocations(), 0);
      EXPECT_EQ(counts.mappings(), 0);

      auto prompt = picture_prompt(model, largest, encode(*session, largest), 5);
      for (const PromptToken& token : random_prompt(model, 128 - prompt.size(), 6))
        prompt.push_back(
            testing::text_token(token.id, 200 + static_cast<size_t>(token.position[0])));
      ASSERT_EQ(prompt.size(), 128u);
      const Counts prefill;
      const bool whole = session->prefill(prompt).has_value();
      session->truncate(100);
      bool stepped = true;
      for (size_t i = 100; i < prompt.size(); ++i)
        stepped = stepped && session->step(prompt[i]).has_value();
      EXPECT_EQ(prefill.allocations(), 0);
      EXPECT_EQ(prefill.mappings(), 0);
      EXPECT_TRUE(whole && stepped);
      EXPECT_EQ(session->length(), 128);
    }
  }
}

// Cross-attention: pictures that give way to each other, stand in another order or twice, and a
// context that is filled.
TEST(CrossAllocations, NoneForPicturesPromptsAndTokens) {
  REQUIRE_GOLDEN();
  const auto described = Described::open(testing::golden("mllama/tiny"));
  const Model& model = described->model;
  const FakePicture a = testing::tiled_picture(model, 1, 2, 1);
  const FakePicture b = testing::tiled_picture(model, 2, 2, 2);
  const FakePicture c = testing::tiled_picture(model, 1, 1, 3);
  const KernelChoice kernels = kernel_choice(false, 2, kernels::KvType::kF16);
  const RunShape shape = shape_of(64, 16, a.grid.patches(), 3 * a.grid.tokens());
  const auto session = take(Session::create(model, {shape, kernels, 0, described->mapped_files()}));
  const auto words = random_prompt(model, 64, 4);
  const auto prompt_of = [&](std::initializer_list<const FakePicture*> pictures) {
    auto out = words;
    size_t at = 5;
    for (const FakePicture* picture : pictures) {
      out[at].id = static_cast<int32_t>(model.vocab_size);
      std::memcpy(&out[at].picture_key, picture->digest.data(), sizeof out[at].picture_key);
      at += at < 6 ? 1 : 9;
    }
    return out;
  };
  const std::vector<std::vector<PromptToken>> prompts = {
      prompt_of({&a, &b, &c}), prompt_of({&c, &a}), prompt_of({&b, &a, &b}), words,
      prompt_of({&b})};
  for (const FakePicture* picture : {&a, &b, &c})
    encode(*session, *picture);
  const Counts counts;
  bool done = true;
  for (const auto& prompt : prompts) {
    done = done && session->prefill(std::span(prompt).first(40)).has_value();
    for (size_t i = 40; i < prompt.size(); ++i)
      done = done && session->step(prompt[i]).has_value();
  }
  encode(*session, c);
  if (PINHOLE_COUNTS_MALLOC) { // not under a sanitizer, where the rest is still worth running
    EXPECT_EQ(counts.allocations(), 0);
    EXPECT_EQ(counts.mappings(), 0);
  }
  EXPECT_TRUE(done);
}

INSTANTIATE_TEST_SUITE_P(Model, Allocations,
                         ::testing::Values("", "qwen3_vl_moe/tiny", "qwen2_5_vl/tiny",
                                           "mistral3/ministral3", "internvl/qwen2"),
                         [](const auto& param_info) {
                           const std::string name = param_info.param;
                           return name.empty() ? "bundled" : name.substr(0, name.find('/'));
                         });

} // namespace
} // namespace pinhole
