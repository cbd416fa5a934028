// Chat templates against transformers' own rendering (golden/chat_templates), against jinja2 on
// many small templates (jinja_cases.json), and the bounds that hold for hostile ones.

#include "text/chat_template.h"

#include "base/json.h"

#include <chrono>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <sstream>

namespace pinhole {
namespace {

using testing::HasSubstr;

constexpr const char* kGoldenDir = PINHOLE_GOLDEN_DIR "/chat_templates";
constexpr const char* kCasesFile = PINHOLE_SOURCE_DIR "/tests/text/jinja_cases.json";

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// The first place where two texts differ, with what is around it.
std::string first_difference(const std::string& got, const std::string& expected) {
  size_t at = 0;
  while (at < got.size() && at < expected.size() && got[at] == expected[at])
    ++at;
  const size_t from = at > 40 ? at - 40 : 0;
  return "first difference at byte " + std::to_string(at) + "\n  got      ..." +
         testing::PrintToString(got.substr(from, 100)) + "\n  expected ..." +
         testing::PrintToString(expected.substr(from, 100));
}

Result<std::string> render(const std::string& source, const Json& context) {
  auto parsed = ChatTemplate::parse(source, "test.jinja");
  if (!parsed)
    return tl::unexpected<Error>(parsed.error());
  return parsed->render(context);
}

std::string render_or_error(const std::string& source, const Json& context = Json::object()) {
  const auto out = render(source, context);
  return out ? *out : "ERROR " + out.error().text();
}

std::string error_of(const std::string& source, const Json& context = Json::object()) {
  const auto out = render(source, context);
  return out ? "no error, but: " + *out : out.error().text();
}

// "UndefinedError: 'x' is undefined" without the name of Python's exception.
std::string without_exception_name(const std::string& error) {
  const size_t colon = error.find(": ");
  return colon == std::string::npos ? error : error.substr(colon + 2);
}

Json context_of(const Json& entry) {
  Json context = Json::object();
  for (const char* key : {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"}) {
    context[key] = entry[key];
  }
  for (const auto& [key, value] : entry["kwargs"].items())
    context[key] = value;
  return context;
}

TEST(ChatTemplate, RendersEveryGoldenEntryAsTransformersDoes) {
  const auto golden = read_json_file(std::string(kGoldenDir) + "/rendered.json");
  ASSERT_TRUE(golden) << golden.error().text();
  size_t checked = 0;
  for (const Json& entry : (*golden)["entries"]) {
    const std::string name = entry["template"].get<std::string>();
    SCOPED_TRACE(name + ", case " + entry["case"].get<std::string>() + ", generation prompt " +
                 entry["add_generation_prompt"].dump());
    const auto got = render(read_text(std::string(kGoldenDir) + "/" + name), context_of(entry));
    if (entry.contains("error")) {
      ASSERT_FALSE(got) << "expected the error " << entry["error"] << ", got: " << *got;
      EXPECT_EQ(got.error().message, without_exception_name(entry["error"].get<std::string>()));
      EXPECT_THAT(got.error().location, HasSubstr("test.jinja, line "));
    } else {
      ASSERT_TRUE(got) << got.error().text();
      const std::string expected = entry["rendered"].get<std::string>();
      EXPECT_TRUE(*got == expected) << first_difference(*got, expected);
    }
    ++checked;
  }
  EXPECT_GT(checked, 200u);
}

// A value per case would be thousands of ctest entries: all of a group are checked in one test.
TEST(ChatTemplate, AgreesWithJinja2OnManySmallTemplates) {
  const auto cases = read_json_file(kCasesFile);
  ASSERT_TRUE(cases) << cases.error().text();
  size_t checked = 0;
  for (const Json& entry : (*cases)["cases"]) {
    const std::string source = entry["template"].get<std::string>();
    SCOPED_TRACE("template " + testing::PrintToString(source));
    const Json context = entry.contains("context") ? entry["context"] : (*cases)["context"];
    const auto got = render(source, context);
    if (entry.contains("error")) {
      EXPECT_FALSE(got) << "expected the error " << entry["error"] << ", got: " << *got;
    } else {
      EXPECT_TRUE(got) << got.error().text();
      const std::string expected = entry["rendered"].get<std::string>();
      if (got)
        EXPECT_TRUE(*got == expected) << first_difference(*got, expected);
    }
    ++checked;
  }
  EXPECT_GT(checked, 500u);
}

} // namespace
} // namespace pinhole
