// Chat templates: any bytes as the template, rendered with a small fixed chat. Nothing may crash,
// hang, or pass the bounds; what renders once renders the same again.

#include "text/jinja_interpreter.h"
#include "text/jinja_parser.h"

#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace {

using pinhole::Json;

const Json& chat() {
  static const Json context = {
      {"messages",
       {{{"role", "system"}, {"content", "Be brief."}},
        {{"role", "user"},
         {"content", {{{"type", "image"}}, {{"type", "text"}, {"text", "Größe 😀?\n"}}}}},
        {{"role", "assistant"},
         {"content", ""},
         {"tool_calls",
          {{{"function", {{"name", "f"}, {"arguments", {{"x", 1}, {"y", 2.5}}}}}}}}}}},
      {"tools", {{{"type", "function"}, {"function", {{"name", "f"}, {"parameters", nullptr}}}}}},
      {"add_generation_prompt", true},
      {"bos_token", "<s>"},
      {"eos_token", "</s>"},
      {"strftime_now", "2024-02-29T23:59:60"},
      {"a", "apple"},
      {"d", {{"k", "v"}, {"n", nullptr}}},
      {"l", {3, 1, 2}},
      {"n", 7},
  };
  return context;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const auto ast = pinhole::jinja::parse_template(source, "fuzz.jinja");
  if (!ast)
    return 0;
  pinhole::jinja::Limits limits;
  limits.max_steps = 100'000;
  limits.max_bytes = 4u << 20;
  const auto first = pinhole::jinja::Interpreter(**ast, limits).render(chat());
  const auto second = pinhole::jinja::Interpreter(**ast, limits).render(chat());
  if (first.has_value() != second.has_value())
    std::abort();
  if (first && *first != *second)
    std::abort();
  if (first && first->size() > limits.max_bytes)
    std::abort();
  return 0;
}
