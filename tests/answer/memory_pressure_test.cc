// Questions while other programs take the memory: the one that runs is answered, the next is
// refused, and accepted again later.
#include "answer/answerer.h"

#include "kernels/select.h"
#include "support/golden.h"
#include "support/memory_root.h"

#include <gmock/gmock.h>

namespace pinhole {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::take;

TEST(AnswersUnderPressure, TheRunningOneEndsTheNextIsRefusedALaterOneAccepted) {
  const auto loaded =
      take(load_model(testing::source_path("models/pinhole-mini/pinhole-mini-f16.gguf")));
  const testing::MemoryRoot root;
  Answerer::Limits limits;
  limits.context_tokens = 400;
  limits.watch = root.options();
  const auto answerer = take(Answerer::create(
      *loaded, limits, {}, {take(kernels::select()), false, 1, kernels::KvType::kF16}));
  const std::vector<ChatTurn> turns{{"user", "List all boxes.", {}}};
  AnswerOptions options;
  options.max_new_tokens = 20;
  options.ignore_eos = true;
  int64_t calls = 0;
  bool take_memory = false;
  const auto on_text = [&](std::string_view) {
    if (take_memory)
      root.set_available_mib(100);
  };
  const auto on_progress = [&](std::string_view, int64_t, int64_t) { ++calls; };
  const auto ask = [&] { return answerer->answer(turns, {}, options, {}, {on_text, on_progress}); };

  const Answer before = take(ask());
  ASSERT_EQ(before.generated_tokens, 20);
  take_memory = true;
  EXPECT_EQ(take(ask()).ids, before.ids);
  calls = 0;
  const auto refused = ask();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge);
  EXPECT_THAT(refused.error().text(), AllOf(HasSubstr("100.00 MiB"), HasSubstr("ask again")));
  EXPECT_EQ(calls, 0); // nothing was begun
  take_memory = false;
  root.set_available_mib(8192);
  EXPECT_EQ(take(ask()).ids, before.ids);
}

} // namespace
} // namespace pinhole
