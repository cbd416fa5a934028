// pinhole.toml: what it means, and what each mistake in it is answered with.

#include "swap/settings.h"
#include "swap/setup.h"

#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <iterator>

namespace pinhole {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The example of the documentation: the text between ```toml and ```.
std::string documented_example() {
  std::ifstream file(std::string(PINHOLE_SOURCE_DIR) + "/docs/pinhole.toml.md");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const std::string open = "```toml\n";
  const size_t begin = text.find(open) + open.size();
  return text.substr(begin, text.find("```", begin) - begin);
}

std::string problem_of(const std::string& text) {
  const auto settings = parse_settings(text, "pinhole.toml");
  return settings ? "no problem" : settings.error().text();
}

// One in-process model, with more lines in it.
std::string with(const std::string& lines) { return "[models.a]\nmodel = 'a.gguf'\n" + lines; }
// One external model.
std::string with_cmd(const std::string& lines) {
  return "[models.a]\ncmd = 'server {port}'\n" + lines;
}

TEST(Settings, the_documented_example) {
  const auto settings = parse_settings(documented_example(), "pinhole.toml");
  ASSERT_TRUE(settings) << settings.error().text();
  EXPECT_EQ(settings->ram_bytes, int64_t{24} << 30);
  EXPECT_EQ(settings->vram_bytes, int64_t{8} << 30);
  EXPECT_EQ(settings->max_wait_ms, 15'000);
  EXPECT_EQ(settings->first_port, 9100);
  EXPECT_EQ(settings->last_port, 9199);
  EXPECT_EQ(settings->default_model, "eyes");
  ASSERT_EQ(settings->models.size(), 3U);

  const ModelSettings& big = settings->models[0]; // by name
  EXPECT_EQ(big.name, "big-text");
  EXPECT_THAT(big.command, ElementsAre("llama-server", "-m", "/models/big text.gguf", "--host",
                                       "127.0.0.1", "--port", "{port}"));
  EXPECT_EQ(big.health_path, "/health");
  EXPECT_EQ(big.stop_signal, SIGINT);
  EXPECT_EQ(big.stop_timeout_ms, 20'000);
  EXPECT_EQ(big.ram_bytes, int64_t{14} << 30);
  EXPECT_EQ(big.parallel, 4);
  EXPECT_EQ(big.role, ModelRole::kText);
  EXPECT_THAT(big.aliases, ElementsAre("gpt-4o", "big"));

  const ModelSettings& eyes = settings->models[1];
  EXPECT_EQ(eyes.source, "/models/Qwen3-VL-4B-Instruct-Q4_K_M.gguf");
  EXPECT_EQ(eyes.role, ModelRole::kVision);
  EXPECT_TRUE(eyes.is_pinned);
  EXPECT_EQ(eyes.ttl_ms, 600'000);

  const ModelSettings& other = settings->models[2];
  EXPECT_TRUE(other.is_measured);
  EXPECT_EQ(other.port, 8089);
  EXPECT_EQ(other.ttl_ms, kNever);
  EXPECT_EQ(other.group, "lab");

  ASSERT_EQ(settings->groups.size(), 2U);
  EXPECT_TRUE(settings->groups[0].describe_then_answer);
  EXPECT_EQ(settings->groups[1].name, "lab");
  EXPECT_FALSE(settings->groups[1].describe_then_answer);
}

TEST(Settings, the_least_that_is_enough) {
  const auto settings = parse_settings(with(""), "pinhole.toml");
  ASSERT_TRUE(settings) << settings.error().text();
  EXPECT_FALSE(settings->ram_bytes);
  EXPECT_EQ(settings->default_model, "a");
  EXPECT_EQ(settings->models[0].ttl_ms, kNever);
  EXPECT_FALSE(settings->models[0].is_measured);
  const auto external = parse_settings(with_cmd(""), "pinhole.toml");
  ASSERT_TRUE(external) << external.error().text();
  EXPECT_TRUE(external->models[0].is_measured) << "without ram";
}

TEST(Settings, the_default_is_the_first_of_the_file) {
  const auto settings = parse_settings(
      "[models.z]\nmodel = 'z.gguf'\n[models.a]\nmodel = 'a.gguf'\naliases = ['gpt-4o']\n", "f");
  ASSERT_TRUE(settings);
  EXPECT_EQ(settings->default_model, "z");
  const auto named = parse_settings("default = 'gpt-4o'\n[models.z]\nmodel = 'z.gguf'\n"
                                    "[models.a]\nmodel = 'a.gguf'\naliases = ['gpt-4o']\n",
                                    "f");
  ASSERT_TRUE(named);
  EXPECT_EQ(named->default_model, "a");
}

// File, line, key, value, what is expected.
TEST(Settings, mistakes_name_line_key_value_and_what_is_expected) {
  EXPECT_EQ(problem_of("ram = 'lots'\n" + with("")),
            "pinhole.toml, line 1: ram is 'lots', expected a size such as \"6GiB\" or \"800M\"");
  EXPECT_EQ(problem_of("ram = -1\n" + with("")),
            "pinhole.toml, line 1: ram is -1, expected a size such as \"6GiB\" or \"800M\"");
  EXPECT_EQ(problem_of("vram = true\n" + with("")),
            "pinhole.toml, line 1: vram is true, expected a size such as \"6GiB\" or \"800M\"");
  EXPECT_EQ(problem_of("\nmax_wait = 'soon'\n" + with("")),
            "pinhole.toml, line 2: max_wait is 'soon', expected a time such as \"90s\", \"10min\" "
            "or \"2h\"");
  EXPECT_EQ(problem_of("max_waiting = 0\n" + with("")),
            "pinhole.toml, line 1: max_waiting is 0, expected an integer from 1 to 100000");
  EXPECT_EQ(problem_of("ports = [9200, 9100]\n" + with("")),
            "pinhole.toml, line 1: ports is a list, expected the first and the last port: [9100, "
            "9199]");
  EXPECT_EQ(problem_of("default = 'b'\n" + with("")),
            "pinhole.toml, line 1: default is 'b', expected the name or alias of a model of this "
            "file");
  EXPECT_EQ(problem_of(with("ttl = 'forever'")),
            "pinhole.toml, line 3: models.a.ttl is 'forever', expected a time such as \"90s\", "
            "\"10min\" or \"2h\", or \"never\"");
  EXPECT_EQ(problem_of(with("ttl = '31000min'")), "no problem");
  EXPECT_THAT(problem_of(with("ttl = '721h'")),
              HasSubstr("models.a.ttl is '721h', expected a time"));
  EXPECT_EQ(problem_of(with("pin = 'yes'")),
            "pinhole.toml, line 3: models.a.pin is 'yes', expected true or false");
  EXPECT_EQ(problem_of(with("role = 'eyes'")),
            "pinhole.toml, line 3: models.a.role is 'eyes', expected \"text\" or \"vision\"");
  EXPECT_EQ(problem_of(with("parallel = 2.5")),
            "pinhole.toml, line 3: models.a.parallel is 2.5, expected an integer from 1 to 1024");
  EXPECT_EQ(problem_of(with("ram = 'measure'")),
            "pinhole.toml, line 3: models.a.ram is 'measure', expected a size: a model in this "
            "process is planned, not measured");
  EXPECT_EQ(problem_of(with_cmd("ram = 1979-05-27")),
            "pinhole.toml, line 3: models.a.ram is a date or time, expected a size such as "
            "\"6GiB\" or \"800M\", or \"measure\"");
  EXPECT_EQ(
      problem_of(with_cmd("pin = true")),
      "pinhole.toml, line 3: models.a.pin is true, expected ram = \"SIZE\" beside it: what is "
      "pinned must be known before it is loaded");
  EXPECT_EQ(problem_of(with("group = \"a\\u0001\"")),
            "pinhole.toml, line 3: models.a.group is 'a\\x01', expected a name of 1 to 128 bytes "
            "without control characters");
  EXPECT_EQ(problem_of(with("aliases = 'b'")),
            "pinhole.toml, line 3: models.a.aliases is 'b', expected a list of at most 64 names");
  EXPECT_EQ(
      problem_of(with("aliases = ['b', 7]")),
      "pinhole.toml, line 3: models.a.aliases is 7, expected a name of 1 to 128 bytes without "
      "control characters");
  EXPECT_EQ(problem_of(with("health = '/health'")),
            "pinhole.toml, line 3: models.a.health is '/health', expected it only beside cmd");
}

TEST(Settings, mistakes_in_commands) {
  EXPECT_EQ(
      problem_of("[models.a]\ncmd = 'server'\n"),
      "pinhole.toml, line 2: models.a.cmd is 'server', expected {port} in it, or the key port "
      "beside it");
  EXPECT_EQ(problem_of(with_cmd("port = 80")),
            "pinhole.toml, line 3: models.a.port is 80, expected it only beside a cmd without "
            "{port}");
  EXPECT_EQ(problem_of("[models.a]\ncmd = 'server \"{port}'\n"),
            "pinhole.toml, line 2: models.a.cmd is 'server \"{port}', expected a command such as "
            "\"llama-server -m FILE --port {port}\", or a list of its words (a \" is not closed)");
  EXPECT_EQ(problem_of("[models.a]\ncmd = []\n"),
            "pinhole.toml, line 2: models.a.cmd is a list, expected a command such as "
            "\"llama-server -m FILE --port {port}\", or a list of its words");
  EXPECT_THAT(problem_of("[models.a]\ncmd = ['server', 1]\n"), HasSubstr("models.a.cmd is 1,"));
  EXPECT_EQ(problem_of(with_cmd("health = 'http://example.org/'")),
            "pinhole.toml, line 3: models.a.health is 'http://example.org/', expected a path such "
            "as \"/health\"");
  EXPECT_EQ(problem_of(with_cmd("health = '/a b'")),
            "pinhole.toml, line 3: models.a.health is '/a b', expected a path such as \"/health\"");
  EXPECT_EQ(problem_of(with_cmd("stop_signal = 'TERM'")),
            "pinhole.toml, line 3: models.a.stop_signal is 'TERM', expected SIGTERM, SIGINT, "
            "SIGQUIT, SIGHUP, SIGUSR1 or SIGKILL");
  EXPECT_EQ(problem_of(with_cmd("port = 70000")),
            "pinhole.toml, line 3: models.a.port is 70000, expected an integer from 1 to 65535");
  EXPECT_EQ(problem_of(with_cmd("log = ''")),
            "pinhole.toml, line 3: models.a.log is '', expected the path of a file");
}

TEST(Settings, mistakes_of_the_whole) {
  EXPECT_EQ(problem_of(""), "pinhole.toml: 0 models, expected 1 to 256: [models.NAME]");
  EXPECT_EQ(problem_of("models = 3"),
            "pinhole.toml, line 1: models is 3, expected tables: [models.NAME]");
  EXPECT_EQ(problem_of("[models]\na = 3"),
            "pinhole.toml, line 2: models.a is 3, expected tables: [models.NAME]");
  EXPECT_THAT(problem_of("[models.\"\"]\nmodel = 'a'"),
              HasSubstr("is a name of 0 bytes, expected"));
  EXPECT_EQ(problem_of("[models.a]\n"),
            "pinhole.toml, line 1: 'a' has neither 'model' nor 'cmd', expected one of them");
  EXPECT_EQ(problem_of(with("cmd = 'server {port}'")),
            "pinhole.toml, line 1: 'a' has both 'model' and 'cmd', expected one of them");
  EXPECT_THAT(
      problem_of("rma = '1G'\n" + with("")),
      HasSubstr("pinhole.toml, line 1: 'rma' is not a setting, expected one of: ram, vram"));
  EXPECT_THAT(problem_of(with("modle = 'b'")),
              HasSubstr("pinhole.toml, line 3: models.a.'modle' is not a setting"));
  EXPECT_EQ(problem_of(with("aliases = ['a']")),
            "pinhole.toml, line 1: alias 'a' of model 'a' is taken, expected a name that no other "
            "model or alias has");
  EXPECT_EQ(problem_of(with("[groups.g]\n")),
            "pinhole.toml, line 3: groups.g has no model, expected one with group = \"g\"");
  EXPECT_EQ(problem_of(with("[groups.default]\ndescribe_then_answer = true\n")),
            "pinhole.toml, line 3: groups.default.describe_then_answer is true, expected a model "
            "with role = \"vision\" in the group");
  EXPECT_EQ(
      problem_of("[models.a]\nmodel='a'\nrole='vision'\n[models.b]\nmodel='b'\nrole='vision'\n"
                 "[groups.default]\ndescribe_then_answer = true\n"),
      "pinhole.toml, line 4: group 'default' has two vision models, 'a' and 'b', expected one "
      "that describes");
  EXPECT_THAT(problem_of(with("[groups.default]\nprompt = 'x'")),
              HasSubstr("groups.default.'prompt' is not a setting"));
}

TEST(Settings, texts_that_are_not_toml_or_too_large) {
  EXPECT_THAT(problem_of("[models.a\n"), HasSubstr("pinhole.toml, line 1, column "));
  for (const char* key : {"[!", "[\n", "[a.!]", "[[ =", "a.! = 1", "! = 1", "a = { ! = 1 }"})
    EXPECT_THAT(problem_of(key), HasSubstr("not TOML")) << key;
  EXPECT_THAT(problem_of("a = 1\na = 2\n"), HasSubstr("line 2"));
  EXPECT_THAT(problem_of("a = '\xff'\n"), HasSubstr("not TOML"));
  EXPECT_EQ(problem_of("\n# \u00e9\n1.m\u0451\n"),
            "pinhole.toml, line 3: not TOML: a character that is not ASCII, expected those only in "
            "strings and comments");
  EXPECT_THAT(problem_of("a = \"\"\"\\\n\u0451\"\"\""), HasSubstr("not ASCII"));
  EXPECT_EQ(problem_of("# \u0451\n" + with("log = '\u0451'")),
            "pinhole.toml, line 4: models.a.log is '\\xd1\\x91', expected it only beside cmd");
  EXPECT_EQ(problem_of(with("aliases = ['\u0451', \"\\\"\u0451\", \"\"\"\"\u0451\"\"\"\"]")),
            "no problem");
  EXPECT_EQ(problem_of(std::string(300'000, '\n')),
            "pinhole.toml: 300000 bytes, expected at most 262144");
  std::string deep = "\na";
  for (int i = 0; i < 100'000; ++i)
    deep += ".a";
  EXPECT_EQ(problem_of(deep + " = 1"),
            "pinhole.toml, line 2: more than 128 dots in one line, expected a key of a few parts");
  EXPECT_THAT(problem_of("a = " + std::string(100, '[')), HasSubstr("not TOML"));
  EXPECT_THAT(problem_of(with("aliases = [" + std::string(65 * 3, ' ') + "]")),
              HasSubstr("no problem"));
  std::string many;
  for (int i = 0; i < 257; ++i)
    many += "[models.m" + std::to_string(i) + "]\nmodel = 'm'\n";
  EXPECT_EQ(problem_of(many), "pinhole.toml: 257 models, expected 1 to 256: [models.NAME]");
}

TEST(Settings, files) {
  const auto settings = read_settings("/no/such/pinhole.toml");
  ASSERT_FALSE(settings);
  EXPECT_EQ(settings.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(settings.error().text(),
            "/no/such/pinhole.toml: cannot be read: No such file or directory");
}

TEST(Settings, durations) {
  EXPECT_EQ(parse_duration_ms("90"), 90'000);
  EXPECT_EQ(parse_duration_ms("90s"), 90'000);
  EXPECT_EQ(parse_duration_ms("500ms"), 500);
  EXPECT_EQ(parse_duration_ms("10min"), 600'000);
  EXPECT_EQ(parse_duration_ms("2h"), 7'200'000);
  EXPECT_EQ(parse_duration_ms("0"), 0);
  for (const char* text : {"", "s", "-1", "1d", "1 s", "99999999999999999999", "9999999h"})
    EXPECT_FALSE(parse_duration_ms(text)) << text;
}

TEST(Settings, commands_are_split_without_a_shell) {
  EXPECT_THAT(*split_command("  a  b\tc\n"), ElementsAre("a", "b", "c"));
  EXPECT_THAT(*split_command(R"(a 'b c' "d \" e" f\ g '')"),
              ElementsAre("a", "b c", "d \" e", "f g", ""));
  EXPECT_THAT(*split_command("a $HOME *.gguf; rm"), ElementsAre("a", "$HOME", "*.gguf;", "rm"));
  EXPECT_FALSE(split_command("a 'b"));
}

TEST(Setup, policy_and_hosts_have_the_settings) {
  auto settings = parse_settings(documented_example(), "pinhole.toml");
  ASSERT_TRUE(settings);
  EXPECT_EQ(swap_config(*settings, 0).error().text(),
            "model 'eyes' has no planned bytes; give it ram = \"SIZE\"");
  settings->models[1].ram_bytes = int64_t{5} << 30;
  const auto config = swap_config(*settings, 0);
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->limits.ceiling, (MemoryBytes{int64_t{24} << 30, int64_t{8} << 30}));
  EXPECT_EQ(config->models[0].planned, (MemoryBytes{int64_t{14} << 30, int64_t{6} << 30}));
  EXPECT_EQ(config->models[0].max_in_flight, 4);
  EXPECT_TRUE(config->models[1].is_pinned);
  EXPECT_TRUE(config->models[2].is_measured);
  const ExternalOptions options = external_options(*settings, 0);
  EXPECT_EQ(options.first_port, 9100);
  EXPECT_EQ(options.stop_signal, SIGINT);
  EXPECT_EQ(options.planned.ram, int64_t{14} << 30);

  settings->models[1].ram_bytes = int64_t{25} << 30;
  EXPECT_EQ(swap_config(*settings, 0).error().text(),
            "pinned models need 25.00 GiB of RAM and 0 B of VRAM, the ceilings are 24.00 GiB and "
            "8.00 GiB; unpin one, or raise ram or vram");
  settings->ram_bytes.reset();
  EXPECT_EQ(swap_config(*settings, int64_t{30} << 30)->limits.ceiling.ram, int64_t{30} << 30);
}

TEST(Setup, pictures_go_to_the_vision_model_of_the_group) {
  auto settings = parse_settings(documented_example(), "pinhole.toml");
  ASSERT_TRUE(settings);
  const auto text = route_request(*settings, "big", false);
  ASSERT_TRUE(text);
  EXPECT_EQ(text->answers, 0U);
  EXPECT_FALSE(text->describes);
  const auto described = route_request(*settings, "gpt-4o", true);
  ASSERT_TRUE(described);
  EXPECT_EQ(described->answers, 0U);
  EXPECT_EQ(described->describes, 1U);
  EXPECT_THAT(described->describe_prompt, HasSubstr("Describe"));
  settings->groups[0].describe_then_answer = false;
  const auto redirected = route_request(*settings, "big-text", true);
  ASSERT_TRUE(redirected);
  EXPECT_EQ(redirected->answers, 1U);
  EXPECT_TRUE(redirected->was_redirected);
  EXPECT_EQ(route_request(*settings, "", true)->answers, 1U) << "the default";
  EXPECT_EQ(route_request(*settings, "other", true).error().text(),
            "model 'other' reads no pictures, and group 'lab' has no model that does; ask a vision "
            "model, or put one into the group");
  const auto none = route_request(*settings, "gpt-5\n", false);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(none.error().text(), "no model 'gpt-5\\x0a'; the models are: big-text, eyes, other");
}

} // namespace
} // namespace pinhole
