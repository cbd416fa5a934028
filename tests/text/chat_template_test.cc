// Chat templates against transformers' own rendering (golden/chat_templates), against jinja2 on
// many small templates (jinja_cases.json), and the bounds that hold for hostile ones.

#include "text/chat_template.h"

#include "base/json.h"
#include "support/golden.h"

#include <chrono>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <sstream>

namespace pinhole {
namespace {

using ::testing::HasSubstr;

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
         ::testing::PrintToString(got.substr(from, 100)) + "\n  expected ..." +
         ::testing::PrintToString(expected.substr(from, 100));
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
  REQUIRE_GOLDEN();
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
    SCOPED_TRACE("template " + ::testing::PrintToString(source));
    const Json context = entry.contains("context") ? entry["context"] : (*cases)["context"];
    const auto got = render(source, context);
    if (entry.contains("error")) {
      EXPECT_FALSE(got) << "expected the error " << entry["error"] << ", got: " << *got;
    } else {
      EXPECT_TRUE(got) << got.error().text();
      const std::string expected = entry["rendered"].get<std::string>();
      EXPECT_TRUE(got.value_or("") == expected) << first_difference(got.value_or(""), expected);
    }
    ++checked;
  }
  EXPECT_GT(checked, 500u);
}

TEST(ChatTemplate, ErrorsSayWhatIsWrongAndWhere) {
  struct Case {
    const char* source;
    const char* location;
    const char* message;
  };
  const Case cases[] = {
      {"ab\n  {{ x.y }}", "test.jinja, line 2, column 8", "'x' is undefined"},
      {"{{ 'é' + 1 }}", "test.jinja, line 1, column 8", "can only concatenate str (not \"int\")"},
      {"é世😀{{ [] + 1 }}", "test.jinja, line 1, column 10", "can only concatenate list"},
      {"\n\n{{ a|frobnicate }}", "test.jinja, line 3, column 6", "No filter named 'frobnicate'."},
      {"{{ a is frobnicated }}", "test.jinja, line 1, column 9", "No test named 'frobnicated'."},
      {"{% if 1 %}\n{{ 'a'|frobnicate }}{% endif %}", "test.jinja, line 2, column 8",
       "No filter named 'frobnicate' found."},
      {"a\n{% frobnicate %}", "test.jinja, line 2, column 4", "unknown tag 'frobnicate'"},
      {"{% include 'x' %}", "test.jinja, line 1, column 4", "'include'"},
      {"{% import 'x' as y %}", "test.jinja, line 1, column 4", "'import'"},
      {"{% from 'x' import y %}", "test.jinja, line 1, column 4", "'from'"},
      {"{% extends 'x' %}", "test.jinja, line 1, column 4", "'extends'"},
      {"{% block b %}{% endblock %}", "test.jinja, line 1, column 4", "'block'"},
      {"{{ 'a'.translate({}) }}", "test.jinja, line 1, column 8", "'translate'"},
      {"{{ lipsum() }}", "test.jinja, line 1, column 4", "'lipsum'"},
      {"{% if a %}\n{% for b in c %}\n{% endif %}", "test.jinja, line 3, column 4",
       "Encountered unknown tag 'endif'. Jinja was looking for the following tags: 'endfor' or "
       "'else'. The innermost block that needs to be closed is 'for'."},
      {"x\n{% if a %}", "test.jinja, line 2, column 11", "Unexpected end of template"},
      {"{{ a", "test.jinja, line 1, column 1", "expected '}}'"},
      {"{{ (1 }}", "test.jinja, line 1, column 7", "unexpected '}', expected ')'"},
      {"{{ 1 + }}", "test.jinja, line 1, column 8", "unexpected '}}', expected an expression"},
      {"{{ 'a }}", "test.jinja, line 1, column 4", "string has no end"},
      {"{{ 99999999999999999999 }}", "test.jinja, line 1, column 4", "64 bits"},
      {"{{ 9223372036854775807 + 1 }}", "test.jinja, line 1, column 24", "64 bits"},
      {"{{ ''.__class__ }}", "test.jinja, line 1, column 7",
       "'__class__' of 'str' object is unsafe"},
      {"\n {{ raise_exception('Roles must alternate') }}", "test.jinja, line 2, column 5",
       "Roles must alternate"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.source);
    const auto got = render(c.source, Json::object());
    ASSERT_FALSE(got) << *got;
    EXPECT_EQ(got.error().location, c.location);
    EXPECT_THAT(got.error().message, HasSubstr(c.message));
  }
}

TEST(ChatTemplate, RaisedExceptionIsTheWholeMessage) {
  const auto got = render("{{ raise_exception('Only ' ~ 2 ~ ' images') }}", Json::object());
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().message, "Only 2 images");
}

TEST(ChatTemplate, DateIsWhatTheContextSays) {
  const std::string source = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}"
                             "{% else %}none{% endif %}";
  EXPECT_EQ(render_or_error(source), "none");
  EXPECT_EQ(render_or_error(source, {{"strftime_now", "2024-07-26"}}), "26 Jul 2024");
  EXPECT_EQ(render_or_error("{{ strftime_now('%A %H:%M:%S') }}",
                            {{"strftime_now", "2000-02-29T23:05:59"}}),
            "Tuesday 23:05:59");
  EXPECT_THAT(error_of("{{ strftime_now('%Y') }}"), HasSubstr("pass today's date"));
  for (const char* bad : {"yesterday", "2024-13-01", "2023-02-29", "2024-01-01T25:00:00", ""}) {
    EXPECT_THAT(error_of("{{ 1 }}", {{"strftime_now", bad}}), HasSubstr("YYYY-MM-DD")) << bad;
  }
}

TEST(ChatTemplate, ToolsAndDocumentsAreNoneWhenTheCallerHasNone) {
  EXPECT_EQ(render_or_error("{{ tools is none }}{{ documents is none }}"
                            "{{ add_generation_prompt }}{{ messages is defined }}"),
            "TrueTrueFalseFalse");
  EXPECT_EQ(render_or_error("{{ tools }}", {{"tools", {1}}}), "[1]");
}

// transformers' sandbox refuses these; templates made for other engines need them (Kimi-K2).
TEST(ChatTemplate, ListsAndDictsOfATemplateCanChange) {
  EXPECT_EQ(render_or_error("{% set l = [1] %}{% set _ = l.append(2) %}{{ l }}"), "[1, 2]");
  EXPECT_EQ(render_or_error("{% set l = [1] %}{% set _ = l.extend(l) %}{{ l.pop(0) }}{{ l }}"),
            "1[1]");
  EXPECT_EQ(render_or_error("{% set l = [1, 2] %}{% set _ = l.insert(1, 'x') %}{{ l.index(2) }}"),
            "2");
  EXPECT_EQ(render_or_error("{% set d = {} %}{% set _ = d.update({'a': 1}, b=2) %}{{ d }}"
                            "{{ d.pop('a') }}{{ d }}{{ d.setdefault('c', 3) }}"),
            "{'a': 1, 'b': 2}1{'b': 2}3");
  const Json context = {{"l", {1}}};
  EXPECT_EQ(render_or_error("{% set _ = l.append(2) %}{{ l }}", context), "[1, 2]");
  EXPECT_EQ(context["l"].size(), 1u);
}

TEST(ChatTemplate, OneTemplateRendersManyTimes) {
  const auto parsed = ChatTemplate::parse("{% set x = (x or 0) + 1 %}{{ x }}{{ y }}", "t");
  ASSERT_TRUE(parsed);
  for (int i = 0; i < 3; ++i) {
    const auto got = parsed->render({{"x", i}, {"y", "é"}});
    ASSERT_TRUE(got);
    EXPECT_EQ(*got, std::to_string(i + 1) + "é");
  }
}

TEST(ChatTemplate, ContextMustBeAnObjectOf64BitNumbers) {
  EXPECT_THAT(error_of("a", Json::array()), HasSubstr("must be an object"));
  EXPECT_THAT(error_of("{{ x }}", {{"x", UINT64_MAX}}), HasSubstr("18446744073709551615"));
  Json deep = Json::array();
  for (int i = 0; i < 500; ++i)
    deep = Json::array({deep});
  EXPECT_THAT(error_of("{{ x }}", {{"x", deep}}), HasSubstr("nested deeper than"));
}

TEST(ChatTemplate, InvalidUtf8PassesThrough) {
  EXPECT_EQ(render_or_error("{{ x }}{{ x|length }}{{ x[1:] }}", {{"x", "\xff\xc3z"}}),
            "\xff\xc3z3\xc3z");
  EXPECT_EQ(render_or_error("\xf0\x9f{{ 1 }}\x80"), "\xf0\x9f"
                                                    "1\x80");
}

std::string repeat(const std::string& text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i)
    out += text;
  return out;
}

// Templates that would hang, overflow the stack or fill the memory: each must fail, and quickly.
TEST(ChatTemplate, HostileTemplatesFailWithinBounds) {
  const std::string loop = "{% for i in range(100000) %}";
  const std::string end = "{% endfor %}";
  const std::map<std::string, std::string> cases = {
      {"endless macro", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"},
      {"endless macro in arguments", "{% macro m(x) %}{{ m(m(x)) }}{% endmacro %}{{ m(1) }}"},
      {"endless recursive loop", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"},
      {"endless default", "{% macro m(x=m()) %}{{ x }}{% endmacro %}{{ m() }}"},
      {"endless caller",
       "{% macro m() %}{% call m() %}{% endcall %}{{ caller }}{% endmacro %}{{ m() }}"},
      {"nested loops", loop + loop + loop + "{% set x = 1 %}" + end + end + end},
      {"empty nested loops", repeat(loop, 20) + repeat(end, 20)},
      {"doubling text",
       "{% set ns = namespace(s='ab') %}" + loop + "{% set ns.s = ns.s + ns.s %}" + end},
      {"growing text",
       "{% set ns = namespace(s='ab' * 10000) %}" + loop + "{% set ns.s = ns.s ~ 'x' %}" + end},
      {"doubling list",
       "{% set ns = namespace(s=[1]) %}" + loop + "{% set ns.s = ns.s + ns.s %}" + end},
      {"output", loop + loop + repeat("x", 1000) + end + end},
      {"repetition", "{{ 'abc' * 9000000000000000000 }}"},
      {"list repetition", "{{ [1] * 4611686018427387904 }}"},
      {"tuple repetition", "{{ ((1, 2) * 100000000)|length }}"},
      {"range", "{{ range(0, 9223372036854775807)|list }}"},
      {"range bounds",
       "{{ range(-9223372036854775807, 9223372036854775807, 9223372036854775807) }}"},
      {"center", "{{ 'a'.center(9223372036854775807) }}"},
      {"center filter", "{{ 'a'|center(99999999999) }}"},
      {"zfill", "{{ 'a'.zfill(9223372036854775807) }}"},
      {"expandtabs", "{{ ('\t' * 1000).expandtabs(9223372036854775807) }}"},
      {"indent", "{{ ('\n' * 100000)|indent(1000000, true, true) }}"},
      {"indent width", "{{ 'a'|indent(9223372036854775807) }}"},
      {"tojson indent", "{{ [1]|tojson(indent=9223372036854775807) }}"},
      {"tojson indent depth", "{{ [[[[1]]]]|tojson(indent=30000000) }}"},
      {"format width", "{{ '%9999999999d' % 1 }}"},
      {"format star", "{{ '%*d' % (9223372036854775807, 1) }}"},
      {"format braces", "{{ '{:9999999999}'.format(1) }}"},
      {"format precision", "{{ '{:.999999999f}'.format(1.5) }}"},
      {"format index", "{{ '{99999999999999999999}'.format(1) }}"},
      {"replace", "{% set x = 'a' * 100000 %}{{ x|replace('a', x) }}"},
      {"replace empty", "{% set x = 'a' * 100000 %}{{ x|replace('', x) }}"},
      {"join", "{% set x = 'a' * 100000 %}{{ ([x] * 100000)|join(x) }}"},
      {"batch", "{{ [1]|batch(9223372036854775807, 1)|list }}"},
      {"slice", "{{ [1]|slice(9223372036854775807, 1)|list }}"},
      {"power", "{{ 10 ** 100 }}"},
      {"negation", "{{ -(-9223372036854775807 - 1) }}"},
      {"division", "{{ (-9223372036854775807 - 1) // -1 }}"},
      {"absolute value", "{{ (-9223372036854775807 - 1)|abs }}"},
      {"list in itself", "{% set l = [] %}{% set _ = l.append(l) %}{{ l }}"},
      {"list in itself to json", "{% set l = [] %}{% set _ = l.append(l) %}{{ l|tojson }}"},
      {"lists in themselves compared", "{% set l = [] %}{% set m = [] %}{% set _ = l.append(m) "
                                       "%}{% set _ = m.append(l) %}{{ l == m }}"},
      {"tuples as keys", "{% set ns = namespace(t=(1,)) %}{% for i in range(60) %}"
                         "{% set ns.t = (ns.t, ns.t) %}{% endfor %}{{ {ns.t: 1} }}"},
      {"doubling print", "{% set ns = namespace(t=[1]) %}{% for i in range(60) %}"
                         "{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.t }}"},
      {"doubling to json", "{% set ns = namespace(t=[1]) %}{% for i in range(60) %}"
                           "{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.t|tojson }}"},
      {"doubling comparison",
       "{% set a = namespace(t=[1]) %}{% set b = namespace(t=[1]) %}{% for i in range(60) %}"
       "{% set a.t = [a.t, a.t] %}{% set b.t = [b.t, b.t] %}{% endfor %}{{ a.t == b.t }}"},
      {"doubling sort",
       "{% set a = namespace(t=[1]) %}{% set b = namespace(t=[1]) %}"
       "{% for i in range(60) %}{% set a.t = [a.t, a.t] %}{% set b.t = [b.t, b.t] %}"
       "{% endfor %}{{ [a.t, b.t]|sort }}"},
      {"scan in a loop", "{% set x = 'a' * 30000000 %}" + loop + "{{ 'b' in x }}" + end},
      {"length in a loop",
       "{% set x = 'é' * 10000000 %}" + loop + "{{ x|length }}{{ x[9] }}" + end},
      {"strip in a loop", "{% set x = 'ab' * 1000000 %}" + loop + "{{ x.strip(x) }}" + end},
      {"split", "{% set x = 'a ' * 10000000 %}{{ x.split() }}{{ x.split(' ') }}{{ x|list }}"},
      {"many macros",
       loop + "{% macro m() %}{{ i }}{% endmacro %}" + end + loop + loop + end + end},
      {"unique", "{{ range(100000)|map('string')|map('int')|unique|list|length }}"},
      {"insert", "{% set l = [0] * 1000000 %}" + loop + "{% set _ = l.insert(0, 1) %}" + end},
      {"parentheses", "{{ " + repeat("(", 100000) + "1" + repeat(")", 100000) + " }}"},
      {"open brackets", "{{ " + repeat("[", 100000)},
      {"dicts", "{{ " + repeat("{1:", 50000) + "1" + repeat("}", 50000) + " }}"},
      {"unary minus", "{{ " + repeat("-", 100000) + "1 }}"},
      {"not", "{{ " + repeat("not ", 100000) + "1 }}"},
      {"sum", "{{ 1" + repeat("+1", 100000) + " }}"},
      {"attributes", "{{ x" + repeat(".x", 100000) + " }}"},
      {"filters", "{{ x" + repeat("|list", 50000) + " }}"},
      {"calls", "{{ x" + repeat("()", 100000) + " }}"},
      {"conditionals", "{{ 1" + repeat(" if 1 else 1", 30000) + " }}"},
      {"nested blocks", repeat("{% if 1 %}", 20000)},
      {"nested loops in the source", repeat("{% for a in b %}", 20000)},
      {"nested targets", "{% set " + repeat("(", 100000) + " %}"},
      {"open comments", repeat("{#", 200000)},
      {"open raw", repeat("{% raw %}{% endraw", 20000)},
      {"too long", repeat("x", 600000)},
  };
  for (const auto& [name, source] : cases) {
    SCOPED_TRACE(name);
    const auto start = std::chrono::steady_clock::now();
    const auto got = render(source, Json::object());
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_FALSE(got) << "rendered " << got->size() << " bytes";
    if (!got) {
      EXPECT_LT(got.error().message.size(), 300u);
      EXPECT_THAT(got.error().text(), HasSubstr("test.jinja"));
    }
    EXPECT_LT(seconds.count(), 20) << "even with sanitizers";
  }
}

TEST(ChatTemplate, DeepValuesAreNoTrouble) {
  EXPECT_EQ(render_or_error("{% set ns = namespace(t=[]) %}{% for i in range(100000) %}"
                            "{% set ns.t = [ns.t] %}{% endfor %}{{ ns.t|length }}"),
            "1");
  EXPECT_EQ(
      render_or_error("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns.me.me is defined }}"),
      "True");
  const std::string nested = repeat("{% if 1 %}", 100) + "x" + repeat("{% endif %}", 100);
  EXPECT_EQ(render_or_error(nested), "x");
  EXPECT_EQ(render_or_error("{{ " + repeat("(", 60) + "1" + repeat(")", 60) + " }}"), "1");
  EXPECT_EQ(render_or_error("{{ 1" + repeat(" + 1", 300) + " }}"), "301");
  EXPECT_EQ(render_or_error("{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}x{% endmacro %}"
                            "{{ m(100) }}"),
            repeat("x", 101));
}

// A long chat is not hostile: what a rendering may use grows with its context.
TEST(ChatTemplate, LongChatsRender) {
  REQUIRE_GOLDEN();
  Json messages = Json::array();
  for (int i = 0; i < 3000; ++i) {
    messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"},
                        {"content", repeat("All work and no play. ", 100)}});
  }
  const Json context = {{"messages", messages}, {"add_generation_prompt", true}};
  for (const char* name : {"Qwen3.5-4B", "google-gemma-4-31B-it", "Qwen3-VL-Instruct"}) {
    const auto got =
        render(read_text(std::string(kGoldenDir) + "/templates/" + name + ".jinja"), context);
    ASSERT_TRUE(got) << name << ": " << got.error().text();
    EXPECT_GT(got->size(), 6'000'000u);
  }
}

} // namespace
} // namespace pinhole
