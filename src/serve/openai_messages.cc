#include "serve/openai_messages.h"

#include "serve/fields.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>

namespace pinhole::serve {

namespace {

class MessageReader {
 public:
  explicit MessageReader(const ContentOptions& options) : options_(options) {}

  ApiResult<void> message(const Json& message, const std::string& field);
  ApiResult<void> response_item(const Json& item, const std::string& field);
  Conversation& conversation() { return conversation_; }

 private:
  ApiResult<std::string> role(Fields& fields) const;
  ApiResult<void> content(const Json* value, const std::string& field, ChatTurn& turn);
  ApiResult<void> part(const Json& part, const std::string& field, ChatTurn& turn);
  ApiResult<void> picture(const Json& url, const Json* detail, const std::string& field,
                          ChatTurn& turn);
  ApiResult<void> call(const std::string& id, const std::string& name, const std::string& arguments,
                       const std::string& field, ChatTurn& turn);
  ApiResult<void> result_of(const std::string& id, ChatTurn& turn) const;

  const ContentOptions& options_;
  Conversation conversation_;
  std::map<std::string, std::string> call_names_; // by id
};

tl::unexpected<ApiError> no_object(const std::string& field, const Json& value) {
  return refuse(400, fmt::format("'{}' is {}, expected an object", field, shown(value)), field,
                "invalid_value");
}

ApiResult<std::string> MessageReader::role(Fields& fields) const {
  PINHOLE_API(const std::string role, fields.required_text("role"));
  if (role == "developer")
    return std::string("system");
  if (role == "system" || role == "user" || role == "assistant" || role == "tool")
    return role;
  return refuse(400,
                fmt::format("'{}' is '{}', expected system, developer, user, assistant or tool",
                            fields.name("role"), role.substr(0, 60)),
                fields.name("role"), "invalid_value");
}

ApiResult<void> MessageReader::picture(const Json& url, const Json* detail,
                                       const std::string& field, ChatTurn& turn) {
  if (!url.is_string())
    return refuse(400, fmt::format("'{}' is {}, expected a text", field, shown(url)), field,
                  "invalid_value");
  PictureBytes bytes;
  bytes.field = field;
  if (detail != nullptr) {
    const bool known = detail->is_string() && (*detail == "auto" || *detail == "low" ||
                                               *detail == "high" || *detail == "original");
    if (!known)
      return refuse(400, fmt::format("'detail' is {}, expected auto, low or high", shown(*detail)),
                    field, "invalid_value");
    bytes.low_detail = *detail == "low";
  }
  PINHOLE_API(bytes.bytes, read_picture_url(url.get_ref<const std::string&>(), field, options_));
  return add_picture(conversation_, turn, std::move(bytes));
}

ApiResult<void> MessageReader::part(const Json& part, const std::string& field, ChatTurn& turn) {
  if (!part.is_object())
    return no_object(field, part);
  Fields fields(part, field + ".");
  PINHOLE_API(const std::string type, fields.required_text("type"));
  if (type == "text" || type == "input_text" || type == "output_text" || type == "refusal") {
    PINHOLE_API(const std::string text,
                fields.required_text(type == "refusal" ? "refusal" : "text"));
    fields.ignore({"annotations", "logprobs", "cache_control"});
    turn.text += text;
    return fields.finish();
  }
  if (type == "image_url") {
    const Json* const holder = fields.find("image_url");
    PINHOLE_API_CHECK(fields.finish());
    if (holder != nullptr && holder->is_string()) // as some clients write it
      return picture(*holder, nullptr, field + ".image_url", turn);
    if (holder == nullptr || !holder->is_object())
      return refuse(400, fmt::format("'{}.image_url' is missing", field), field + ".image_url",
                    "missing");
    Fields inner(*holder, field + ".image_url.");
    const Json* const url = inner.find("url");
    const Json* const detail = inner.find("detail");
    PINHOLE_API_CHECK(inner.finish());
    if (url == nullptr)
      return refuse(400, fmt::format("'{}' is missing", inner.name("url")), inner.name("url"),
                    "missing");
    return picture(*url, detail, inner.name("url"), turn);
  }
  if (type == "input_image") {
    const Json* const url = fields.find("image_url");
    const Json* const detail = fields.find("detail");
    PINHOLE_API_CHECK(fields.reject("file_id", "files are not kept: send a data: URL"));
    PINHOLE_API_CHECK(fields.finish());
    if (url == nullptr)
      return refuse(400, fmt::format("'{}.image_url' is missing", field), field + ".image_url",
                    "missing");
    return picture(*url, detail, field + ".image_url", turn);
  }
  return refuse(
      400, fmt::format("'{}.type' is '{}', texts and pictures are read", field, type.substr(0, 60)),
      field + ".type", "unsupported_content");
}

ApiResult<void> MessageReader::content(const Json* value, const std::string& field,
                                       ChatTurn& turn) {
  if (value == nullptr)
    return {};
  if (value->is_string()) {
    turn.text += value->get_ref<const std::string&>();
    return {};
  }
  if (!value->is_array()) {
    return refuse(
        400, fmt::format("'{}' is {}, expected a text or a list of parts", field, shown(*value)),
        field, "invalid_value");
  }
  for (size_t i = 0; i < value->size(); ++i)
    PINHOLE_API_CHECK(part((*value)[i], fmt::format("{}[{}]", field, i), turn));
  return {};
}

ApiResult<void> MessageReader::call(const std::string& id, const std::string& name,
                                    const std::string& arguments, const std::string& field,
                                    ChatTurn& turn) {
  auto parsed = parse_json(arguments.empty() ? "{}" : arguments, field);
  if (!parsed || !parsed->is_object())
    return refuse(400, fmt::format("'{}' is no JSON object", field), field, "invalid_value");
  if (!turn.tool_calls.is_array())
    turn.tool_calls = Json::array();
  turn.tool_calls.push_back({{"type", "function"},
                             {"id", id},
                             {"function", {{"name", name}, {"arguments", std::move(*parsed)}}}});
  call_names_[id] = name;
  return {};
}

ApiResult<void> MessageReader::result_of(const std::string& id, ChatTurn& turn) const {
  turn.role = "tool";
  turn.tool_call_id = id;
  if (const auto name = call_names_.find(id); name != call_names_.end())
    turn.tool_name = name->second;
  return {};
}

ApiResult<void> MessageReader::message(const Json& message, const std::string& field) {
  if (!message.is_object())
    return no_object(field, message);
  Fields fields(message, field + ".");
  ChatTurn turn;
  PINHOLE_API(turn.role, role(fields));
  // What clients send back of an answer, and names that no template reads.
  fields.ignore(
      {"name", "refusal", "annotations", "audio", "parsed", "reasoning", "reasoning_content"});
  PINHOLE_API_CHECK(fields.reject("function_call", "use tool_calls"));
  PINHOLE_API_CHECK(content(fields.find("content"), field + ".content", turn));
  if (turn.role == "tool") {
    PINHOLE_API(const std::string id, fields.required_text("tool_call_id"));
    PINHOLE_API_CHECK(result_of(id, turn));
  }
  const Json* const calls = fields.find("tool_calls");
  PINHOLE_API_CHECK(fields.finish());
  if (calls != nullptr && (!calls->is_array() || turn.role != "assistant"))
    return refuse(400, fmt::format("'{}.tool_calls' must be an assistant's list", field),
                  field + ".tool_calls", "invalid_value");
  for (size_t i = 0; calls != nullptr && i < calls->size(); ++i) {
    const std::string where = fmt::format("{}.tool_calls[{}]", field, i);
    if (!(*calls)[i].is_object())
      return no_object(where, (*calls)[i]);
    Fields outer((*calls)[i], where + ".");
    PINHOLE_API(const auto id, outer.text("id"));
    const Json* const function = outer.find("function");
    if (function == nullptr || !function->is_object())
      return refuse(400, fmt::format("'{}.function' is missing", where), where, "missing");
    Fields inner(*function, where + ".function.");
    PINHOLE_API(const std::string name, inner.required_text("name"));
    PINHOLE_API(const auto arguments, inner.text("arguments"));
    PINHOLE_API_CHECK(
        call(id.value_or(""), name, arguments.value_or(""), inner.name("arguments"), turn));
  }
  conversation_.turns.push_back(std::move(turn));
  return {};
}

ApiResult<void> MessageReader::response_item(const Json& item, const std::string& field) {
  if (!item.is_object())
    return no_object(field, item);
  const Json* const type = json_find(item, "type");
  Fields fields(item, field + ".");
  fields.ignore({"type", "id", "status"});
  if (type != nullptr && *type == "function_call") {
    PINHOLE_API(const std::string id, fields.required_text("call_id"));
    PINHOLE_API(const std::string name, fields.required_text("name"));
    PINHOLE_API(const std::string arguments, fields.required_text("arguments"));
    PINHOLE_API_CHECK(fields.finish());
    auto& turns = conversation_.turns;
    if (turns.empty() || turns.back().role != "assistant")
      turns.push_back(ChatTurn{"assistant", "", {}});
    return call(id, name, arguments, fields.name("arguments"), turns.back());
  }
  if (type != nullptr && *type == "function_call_output") {
    PINHOLE_API(const std::string id, fields.required_text("call_id"));
    const Json* const output = fields.find("output");
    PINHOLE_API_CHECK(fields.finish());
    ChatTurn turn;
    PINHOLE_API_CHECK(result_of(id, turn));
    PINHOLE_API_CHECK(content(output, field + ".output", turn));
    conversation_.turns.push_back(std::move(turn));
    return {};
  }
  if (type != nullptr && *type == "reasoning")
    return {}; // another model's
  if (type != nullptr && *type != "message") {
    return refuse(400,
                  fmt::format("'{}.type' is {}, expected message, function_call or "
                              "function_call_output",
                              field, shown(*type)),
                  field + ".type", "unsupported_content");
  }
  ChatTurn turn;
  PINHOLE_API(turn.role, role(fields));
  PINHOLE_API_CHECK(content(fields.find("content"), field + ".content", turn));
  PINHOLE_API_CHECK(fields.finish());
  conversation_.turns.push_back(std::move(turn));
  return {};
}

ApiResult<void> check_count(const Json& list, const char* field) {
  if (!list.is_array() || list.empty())
    return refuse(400,
                  fmt::format("'{}' is {}, expected a list that is not empty", field, shown(list)),
                  field, "invalid_value");
  if (list.size() > kMaxTurns)
    return refuse(
        400,
        fmt::format("'{}' has {} entries, at most {} are accepted", field, list.size(), kMaxTurns),
        field, "invalid_value");
  return {};
}

} // namespace

ApiResult<Conversation> read_messages(const Json& messages, const ContentOptions& options) {
  PINHOLE_API_CHECK(check_count(messages, "messages"));
  MessageReader reader(options);
  for (size_t i = 0; i < messages.size(); ++i)
    PINHOLE_API_CHECK(reader.message(messages[i], fmt::format("messages[{}]", i)));
  return std::move(reader.conversation());
}

ApiResult<Conversation> read_response_input(const Json& input, const std::string& instructions,
                                            const ContentOptions& options) {
  MessageReader reader(options);
  if (!instructions.empty())
    reader.conversation().turns.push_back(ChatTurn{"system", instructions, {}});
  if (input.is_string()) {
    reader.conversation().turns.push_back(ChatTurn{"user", input.get<std::string>(), {}});
    return std::move(reader.conversation());
  }
  PINHOLE_API_CHECK(check_count(input, "input"));
  for (size_t i = 0; i < input.size(); ++i)
    PINHOLE_API_CHECK(reader.response_item(input[i], fmt::format("input[{}]", i)));
  return std::move(reader.conversation());
}

} // namespace pinhole::serve
