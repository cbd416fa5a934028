// Regular expressions, JSON schemas and choices from strangers: an error or a grammar; a grammar
// never leads where no text can end.
//
// Input: a byte that says which, the source, then optionally a zero byte and bytes that choose the
// way through the grammar.
#include "text/grammar/grammar.h"
#include "text/grammar/state_machine.h"
#include "text/utf8.h"

#include <cstdint>
#include <cstdlib>

using namespace pinhole;

namespace {

Result<Grammar> compile(uint8_t kind, std::string_view source) {
  if (kind % 4 == 0)
    return Grammar::from_regex(source);
  if (kind % 4 == 1) {
    std::vector<std::string> choices;
    for (size_t at = 0; at <= source.size();) {
      const size_t end = std::min(source.find(',', at), source.size());
      choices.emplace_back(source.substr(at, end - at));
      at = end + 1;
    }
    return Grammar::from_choices(choices);
  }
  PINHOLE_TRY(const Json schema, parse_json(source, "fuzz"));
  if (kind % 4 == 2)
    return Grammar::from_json_schema(schema);
  return Grammar::from_json_schema(Json{{"type", "string"}, {"pattern", schema}});
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 4096)
    return 0;
  std::string_view source(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t split = std::min(source.find('\0'), source.size());
  const std::string_view way = source.substr(std::min(split + 1, source.size()));
  const auto grammar = compile(data[0], source.substr(0, split));
  if (!grammar) {
    if (grammar.error().message.empty())
      std::abort();
    return 0;
  }
  grammar::StateMachine machine(grammar->program());
  auto state = machine.start();
  std::string text;
  bool lost = false;
  for (size_t i = 0; i < 200; ++i) {
    if (machine.crowded())
      state = machine.keep_only(state);
    // The first byte from the chosen one on that may come next.
    const auto wanted = static_cast<uint8_t>(i < way.size() ? way[i] : 97 * i);
    auto next = grammar::StateMachine::kDead;
    for (int offset = 0; offset < 256 && next == grammar::StateMachine::kDead; ++offset) {
      const auto byte = static_cast<uint8_t>(wanted + offset);
      next = machine.step(state, byte);
      if (next != grammar::StateMachine::kDead)
        text += static_cast<char>(byte);
    }
    lost = machine.lost_states() || lost;
    if (machine.accepts(state)) {
      const size_t whole = next == grammar::StateMachine::kDead ? text.size() : text.size() - 1;
      const std::string_view answer = std::string_view(text).substr(0, whole);
      if (utf8_valid_prefix(answer) != answer.size())
        std::abort();
      if (data[0] % 4 >= 2 && !Json::accept(answer))
        std::abort();
    } else if (next == grammar::StateMachine::kDead && !lost) {
      std::abort();
    }
    if (next == grammar::StateMachine::kDead)
      break;
    state = next;
  }
  return 0;
}
