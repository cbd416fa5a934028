// Tools: what a request offers, how the model is told, and the calls in what it writes.
//
// A model writes a call as <tool_call>{"name": ..., "arguments": {...}}</tool_call> (Qwen, Hermes).
// Where a call is required, a grammar holds the answer to one, without the marks.
#pragma once

#include "answer/answerer.h"
#include "serve/api_error.h"
#include "serve/fields.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole::serve {

inline constexpr size_t kMaxTools = 128;

struct ToolRequest {
  Json tools = Json::array(); // {type: "function", function: {name, description, parameters}}
  bool is_required = false;   // the answer is a call, of one of `tools`
  bool are_offered() const { return !tools.empty(); }
};

// `tools` and `tool_choice` of chat/completions (and, with `is_flat`, of responses, where a
// function's members stand beside its type). Either may be null.
ApiResult<ToolRequest> read_tools(const Json* tools, const Json* choice, bool is_flat = false);

// Puts the tools where the chat template finds them; for one that knows none, words about them
// stand before the conversation.
void offer_tools(const ToolRequest& request, bool template_knows, std::vector<ChatTurn>& turns);

// The answer is one call.
ApiResult<Grammar> tool_grammar(const ToolRequest& request);

struct ToolCall {
  std::string name;
  Json arguments; // an object
};
// {"name": ..., "arguments": {...}}; nothing when it is something else.
std::optional<ToolCall> parse_tool_call(std::string_view text);

// Takes the calls out of an answer as it streams.
class ToolCallFilter {
 public:
  struct Out {
    std::string text; // what is certainly no call
    std::vector<ToolCall> calls;
  };
  // `only_call`: all of the answer is one.
  explicit ToolCallFilter(bool only_call) : only_call_(only_call) {}
  Out push(std::string_view text);
  Out finish(); // what was held back: as text, where it is no call after all

 private:
  bool only_call_;
  bool in_call_ = false;
  std::string held_;
};

} // namespace pinhole::serve
