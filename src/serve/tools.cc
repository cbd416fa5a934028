#include "serve/tools.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole::serve {

namespace {

constexpr std::string_view kOpen = "<tool_call>";
constexpr std::string_view kClose = "</tool_call>";

bool is_tool_name(std::string_view name) {
  return !name.empty() && name.size() <= 128 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.' || c == ':';
  });
}

ApiResult<Json> read_tool(const Json& entry, const std::string& field, bool is_flat) {
  if (!entry.is_object())
    return refuse(400, fmt::format("'{}' is {}, expected an object", field, shown(entry)), field);
  Fields outer(entry, field + ".");
  PINHOLE_API(const auto type, outer.text("type"));
  if (type.value_or("function") != "function") {
    return refuse(400, fmt::format("'{}.type' is '{}', only 'function' is there", field, *type),
                  field + ".type", "unsupported_parameter");
  }
  const Json* const function = is_flat ? &entry : outer.find("function");
  if (function == nullptr || !function->is_object())
    return refuse(400, fmt::format("'{}.function' is missing", field), field + ".function");
  Fields fields(*function, field + (is_flat ? "." : ".function."));
  PINHOLE_API(const std::string name, fields.required_text("name"));
  PINHOLE_API(const auto description, fields.text("description"));
  const Json* const parameters = fields.find("parameters");
  if (!is_tool_name(name)) {
    return refuse(400,
                  fmt::format("'{}' is no name: letters, digits, _ and - are", fields.name("name")),
                  fields.name("name"), "invalid_value");
  }
  if (parameters != nullptr && !parameters->is_object()) {
    return refuse(400,
                  fmt::format("'{}' is {}, expected a JSON schema", fields.name("parameters"),
                              shown(*parameters)),
                  fields.name("parameters"), "invalid_value");
  }
  Json out = {{"name", name}};
  if (description)
    out["description"] = *description;
  out["parameters"] = parameters != nullptr
                          ? *parameters
                          : Json{{"type", "object"}, {"properties", Json::object()}};
  return Json{{"type", "function"}, {"function", std::move(out)}};
}

const std::string& name_of(const Json& tool) {
  return tool["function"]["name"].get_ref<const std::string&>();
}

// Leaves the one tool of that name.
ApiResult<void> keep_only(const std::string& name, ToolRequest& request) {
  for (const Json& tool : request.tools) {
    if (name_of(tool) == name) {
      const Json only = tool;
      request.tools = Json::array({only});
      request.is_required = true;
      return {};
    }
  }
  return refuse(
      400, fmt::format("tool_choice names '{}', which is not among the tools", name.substr(0, 100)),
      "tool_choice", "invalid_value");
}

} // namespace

ApiResult<ToolRequest> read_tools(const Json* tools, const Json* choice, bool is_flat) {
  ToolRequest out;
  if (tools != nullptr && !tools->is_array())
    return refuse(400, fmt::format("'tools' is {}, expected a list", shown(*tools)), "tools");
  if (tools != nullptr) {
    if (tools->size() > kMaxTools)
      return refuse(400, fmt::format("{} tools, at most {} are accepted", tools->size(), kMaxTools),
                    "tools");
    for (size_t i = 0; i < tools->size(); ++i) {
      PINHOLE_API(Json tool, read_tool((*tools)[i], fmt::format("tools[{}]", i), is_flat));
      out.tools.push_back(std::move(tool));
    }
  }
  if (choice == nullptr || (choice->is_string() && *choice == "auto"))
    return out;
  if (choice->is_string() && *choice == "none") {
    out.tools = Json::array();
    return out;
  }
  if (!out.are_offered())
    return refuse(400, "'tool_choice' asks for a call, but there are no tools", "tool_choice",
                  "invalid_value");
  if (choice->is_string() && *choice == "required") {
    out.is_required = true;
    return out;
  }
  const Json* const function = is_flat ? choice : json_find(*choice, "function");
  const Json* const type = json_find(*choice, "type");
  const Json* const name = function == nullptr ? nullptr : json_find(*function, "name");
  if (type != nullptr && *type == "function" && name != nullptr && name->is_string()) {
    PINHOLE_API_CHECK(keep_only(name->get<std::string>(), out));
    return out;
  }
  return refuse(400,
                fmt::format("'tool_choice' is {}, expected auto, none, required or a function",
                            shown(*choice)),
                "tool_choice", "unsupported_parameter");
}

void offer_tools(const ToolRequest& request, bool template_knows, std::vector<ChatTurn>& turns) {
  if (!request.are_offered() || turns.empty())
    return;
  if (template_knows) {
    turns[0].tools = request.tools;
    return;
  }
  std::string words = "You may call these functions:\n<tools>\n";
  for (const Json& tool : request.tools)
    words += dump(tool) + "\n";
  words += "</tools>\nTo call one, write\n<tool_call>\n"
           "{\"name\": <its name>, \"arguments\": <an object>}\n</tool_call>";
  if (turns[0].role == "system") {
    turns[0].text += "\n\n" + words;
  } else {
    turns.insert(turns.begin(), ChatTurn{"system", words, {}});
  }
  // A template that knows no tools knows neither calls nor results.
  for (ChatTurn& turn : turns) {
    if (turn.tool_calls.is_array()) {
      for (const Json& call : turn.tool_calls) {
        const Json said = {{"name", call["function"]["name"]},
                           {"arguments", call["function"]["arguments"]}};
        turn.text += fmt::format("{}<tool_call>\n{}\n</tool_call>", turn.text.empty() ? "" : "\n",
                                 dump(said));
      }
      turn.tool_calls = nullptr;
    }
    if (turn.role == "tool") {
      turn.role = "user";
      turn.text = fmt::format("<tool_response>\n{}\n</tool_response>", turn.text);
    }
  }
}

ApiResult<Grammar> tool_grammar(const ToolRequest& request) {
  Json choices = Json::array();
  for (const Json& tool : request.tools) {
    choices.push_back(
        {{"type", "object"},
         {"properties",
          {{"name", {{"const", name_of(tool)}}}, {"arguments", tool["function"]["parameters"]}}},
         {"required", {"name", "arguments"}},
         {"additionalProperties", false}});
  }
  const Json schema = choices.size() == 1 ? choices[0] : Json{{"anyOf", choices}};
  auto grammar = Grammar::from_json_schema(schema);
  if (!grammar)
    return tl::unexpected<ApiError>(to_api_error(grammar.error(), "tools"));
  return std::move(*grammar);
}

std::optional<ToolCall> parse_tool_call(std::string_view text) {
  auto json = parse_json(text, "a tool call");
  if (!json)
    return std::nullopt;
  const Json* const name = json_find(*json, "name");
  const Json* arguments = json_find(*json, "arguments");
  if (arguments == nullptr)
    arguments = json_find(*json, "parameters"); // as Llama writes it
  if (name == nullptr || !name->is_string())
    return std::nullopt;
  if (arguments != nullptr && !arguments->is_object())
    return std::nullopt;
  return ToolCall{name->get<std::string>(), arguments == nullptr ? Json::object() : *arguments};
}

ToolCallFilter::Out ToolCallFilter::push(std::string_view text) {
  Out out;
  held_ += text;
  if (only_call_)
    return out;
  while (true) {
    if (!in_call_) {
      const size_t at = held_.find(kOpen);
      if (at == std::string::npos) {
        // What may be the beginning of the mark stays.
        size_t keep = std::min(held_.size(), kOpen.size() - 1);
        while (keep > 0 && !held_.ends_with(kOpen.substr(0, keep)))
          --keep;
        out.text += held_.substr(0, held_.size() - keep);
        held_.erase(0, held_.size() - keep);
        return out;
      }
      out.text += held_.substr(0, at);
      held_.erase(0, at + kOpen.size());
      in_call_ = true;
    }
    const size_t end = held_.find(kClose);
    if (end == std::string::npos)
      return out;
    const std::string inside = held_.substr(0, end);
    held_.erase(0, end + kClose.size());
    in_call_ = false;
    if (auto call = parse_tool_call(inside))
      out.calls.push_back(std::move(*call));
    else
      out.text += fmt::format("{}{}{}", kOpen, inside, kClose);
  }
}

ToolCallFilter::Out ToolCallFilter::finish() {
  Out out;
  std::string rest;
  rest.swap(held_);
  if (only_call_ || in_call_) {
    if (auto call = parse_tool_call(rest))
      out.calls.push_back(std::move(*call)); // the closing mark may be a stop token
    else
      out.text = in_call_ ? std::string(kOpen) + rest : rest;
  } else {
    out.text = std::move(rest);
  }
  in_call_ = false;
  return out;
}

} // namespace pinhole::serve
