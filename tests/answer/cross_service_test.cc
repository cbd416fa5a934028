// A model that attends to its pictures from layers of their own, behind the service: the answers
// that it gives alone, whatever was asked before.
#include "answer/answer_service.h"

#include "kernels/select.h"
#include "support/golden.h"

#include <gmock/gmock.h>

namespace pinhole {
namespace {

using ::testing::HasSubstr;
using testing::take;

// Llama 3.2's layout; the collection's model comes without a template.
constexpr const char* kTemplate =
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<|image|>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}"
    "<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n";

const LoadedModel& cross_model() {
  static const testing::ModelCopy files(testing::golden("mllama/tiny"));
  static const auto loaded = [] {
    files.replace("chat_template.jinja", kTemplate);
    return take(load_model(files.path()));
  }();
  return *loaded;
}

KernelChoice exact_kernels() { return {take(kernels::select()), true, 1, kernels::KvType::kF32}; }

std::vector<Picture> open_pictures(const std::vector<std::string>& names) {
  std::vector<Picture> out;
  for (const std::string& name : names) {
    const std::string path = testing::source_path("tests/golden/cases/mllama_tiles/images/" + name);
    out.push_back(
        take(open_picture(testing::read_file(path), path, *cross_model().model.pictures, {})));
  }
  return out;
}

Answerer::Limits limits() {
  Answerer::Limits out;
  out.context_tokens = 200;
  return out;
}

AnswerOptions short_answer() {
  AnswerOptions out;
  out.max_new_tokens = 12;
  return out;
}

constexpr auto kNoText = [](std::string_view) {};
constexpr auto kNoProgress = [](std::string_view, int64_t, int64_t) {};

std::vector<ChatTurn> ask_about(size_t pictures) {
  ChatTurn turn{"user", "Which is it?", {}};
  for (size_t i = 0; i < pictures; ++i)
    turn.pictures.push_back(i);
  return {turn};
}

std::vector<TokenId> alone(const std::vector<std::string>& names) {
  std::vector<Picture> pictures = open_pictures(names);
  const auto answerer = take(Answerer::create(cross_model(), limits(), pictures, exact_kernels()));
  return take(answerer->answer(ask_about(names.size()), pictures, short_answer(), {},
                               {kNoText, kNoProgress}))
      .ids;
}

TEST(CrossService, AnswersAsAloneWhateverWasAskedBefore) {
  REQUIRE_GOLDEN();
  AnswerService::Options options;
  options.limits = limits();
  options.parallel = 1;
  options.pictures = open_pictures({"tall.png", "clear.png", "grey.png"});
  const auto service = take(AnswerService::create(cross_model(), options, exact_kernels()));
  for (const std::vector<std::string>& names :
       {std::vector<std::string>{"tall.png"}, {}, {"clear.png", "grey.png"}, {"tall.png"}}) {
    std::vector<Picture> pictures = open_pictures(names);
    const Answer answer = take(service->answer(ask_about(names.size()), pictures, short_answer(),
                                               {}, {kNoText, kNoProgress}));
    EXPECT_EQ(answer.ids, alone(names)) << names.size() << " pictures";
    EXPECT_EQ(answer.ids.empty(), false);
  }
}

TEST(CrossService, SeveralAtATimeAreRefusedByName) {
  REQUIRE_GOLDEN();
  AnswerService::Options options;
  options.limits = limits();
  options.parallel = 2;
  const auto refused = AnswerService::create(cross_model(), options, exact_kernels());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(refused.error().message, HasSubstr("gives one at a time"));
}

} // namespace
} // namespace pinhole
