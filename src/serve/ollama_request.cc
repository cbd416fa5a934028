#include "serve/ollama.h"
#include "serve/openai_request.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fmt/format.h>

namespace pinhole::serve {

namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 26;
constexpr double kMaxKeepSeconds = 3e8; // ten years

struct Unit {
  std::string_view name;
  double seconds;
};
constexpr Unit kUnits[] = {{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3},
                           {"s", 1},     {"m", 60},    {"h", 3600}};

KeepAlive keep_for(double seconds) {
  KeepAlive out;
  out.is_given = true;
  if (seconds >= 0 && seconds < kMaxKeepSeconds)
    out.time = std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
  return out;
}

// Go's durations: numbers with units, one after the other.
std::optional<double> parse_duration(std::string_view text) {
  double sign = 1, sum = 0;
  if (text.starts_with('-')) {
    sign = -1;
    text.remove_prefix(1);
  }
  if (text.empty())
    return std::nullopt;
  bool has_unit = true;
  while (!text.empty()) {
    double number = 0;
    const auto end =
        std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
    if (!has_unit || end.ec != std::errc{} || number < 0)
      return std::nullopt;
    text.remove_prefix(static_cast<size_t>(end.ptr - text.data()));
    const size_t letters = std::min(text.find_first_of("0123456789."), text.size());
    const std::string_view name = text.substr(0, letters);
    double unit = 1;
    has_unit = !name.empty(); // a number alone is seconds
    for (const Unit& known : kUnits) {
      if (known.name == name)
        unit = known.seconds;
    }
    const bool known = name.empty() || std::any_of(std::begin(kUnits), std::end(kUnits),
                                                   [&](const Unit& u) { return u.name == name; });
    if (!known)
      return std::nullopt;
    sum += number * unit;
    text.remove_prefix(letters);
  }
  return sign * sum;
}

ApiResult<void> read_options(Fields& fields, OllamaRequest& out) {
  const Json* const options = fields.find("options");
  const Json empty = Json::object();
  if (options != nullptr && !options->is_object())
    return refuse(400, "'options' is no object", "options", "invalid_value");
  Fields inner(options == nullptr ? empty : *options, "options.");
  AnswerOptions& answer = out.generation.options;
  PINHOLE_API_CHECK(read_sampling(inner, answer));
  PINHOLE_API(out.num_ctx, inner.integer("num_ctx", 1, kMaxTokens));
  PINHOLE_API(const auto num_predict, inner.integer("num_predict", -2, kMaxTokens));
  if (num_predict && *num_predict > 0)
    out.generation.max_tokens = num_predict;
  // Where and how it is computed is the server's matter.
  inner.ignore({"num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap",
                "use_mlock", "numa", "low_vram", "f16_kv", "vocab_only", "logits_all",
                "penalize_newline", "mirostat_tau", "mirostat_eta"});
  PINHOLE_API_CHECK(inner.reject("mirostat", "it is not there", {0}));
  PINHOLE_API_CHECK(inner.reject("tfs_z", "it is not there", {1}));
  PINHOLE_API_CHECK(inner.reject("typical_p", "it is not there", {1}));
  if (answer.sampling.repetition_penalty == 1)
    inner.ignore({"repeat_last_n"});
  else
    PINHOLE_API_CHECK(inner.reject("repeat_last_n", "the penalty looks at the whole text", {-1}));
  return inner.finish();
}

ApiResult<void> read_common(Fields& fields, OllamaRequest& out) {
  PINHOLE_API(const auto model, fields.text("model"));
  PINHOLE_API(const auto name, fields.text("name"));
  out.generation.model = model ? *model : name.value_or("");
  PINHOLE_API(const auto stream, fields.boolean("stream"));
  out.stream = stream.value_or(true);
  PINHOLE_API_CHECK(read_options(fields, out));
  if (const Json* const keep = fields.find("keep_alive")) {
    const auto parsed = parse_keep_alive(*keep);
    if (!parsed)
      return refuse(
          400,
          fmt::format("'keep_alive' is {}, expected seconds, or a text such as 5m", shown(*keep)),
          "keep_alive", "invalid_value");
    out.keep = *parsed;
  }
  PINHOLE_API_CHECK(fields.reject("think", "this model does not think", {false}));
  PINHOLE_API(const auto logprobs, fields.boolean("logprobs"));
  PINHOLE_API(const auto top, fields.integer("top_logprobs", 0, 20));
  if (logprobs.value_or(false))
    out.generation.options.top_logprobs = top.value_or(0);
  const Json* const format = fields.find("format");
  if (format == nullptr || (format->is_string() && *format == ""))
    return {};
  auto grammar =
      format->is_object() ? Grammar::from_json_schema(*format) : Grammar::from_json_object();
  if (!format->is_object() && *format != "json")
    return refuse(400, fmt::format("'format' is {}, expected json or a schema", shown(*format)),
                  "format", "invalid_value");
  if (!grammar)
    return tl::unexpected<ApiError>(to_api_error(grammar.error(), "format"));
  out.generation.options.grammar = std::move(*grammar);
  return {};
}

ApiResult<void> read_images(Fields& fields, Conversation& conversation, ChatTurn& turn) {
  const Json* const images = fields.find("images");
  if (images == nullptr)
    return {};
  if (!images->is_array())
    return refuse(400, "'images' is no list", fields.name("images"), "invalid_value");
  for (size_t i = 0; i < images->size(); ++i) {
    const std::string field = fmt::format("{}[{}]", fields.name("images"), i);
    if (!(*images)[i].is_string())
      return refuse(400, fmt::format("'{}' is no base64", field), field, "invalid_base64");
    PictureBytes picture;
    picture.field = field;
    PINHOLE_API(picture.bytes,
                read_base64_picture((*images)[i].get_ref<const std::string&>(), field));
    PINHOLE_API_CHECK(add_picture(conversation, turn, std::move(picture)));
    turn.picture_places.back() = 0; // they stand before the words
  }
  return {};
}

ApiResult<void> read_calls(const Json& calls, const std::string& field, ChatTurn& turn) {
  if (!calls.is_array())
    return refuse(400, fmt::format("'{}' is no list", field), field, "invalid_value");
  turn.tool_calls = Json::array();
  for (const Json& call : calls) {
    const Json* const function = json_find(call, "function");
    const Json* const name = function == nullptr ? nullptr : json_find(*function, "name");
    const Json* const arguments = function == nullptr ? nullptr : json_find(*function, "arguments");
    if (name == nullptr || !name->is_string() || (arguments != nullptr && !arguments->is_object()))
      return refuse(400,
                    fmt::format("'{}' has a call without a function's name and arguments", field),
                    field, "invalid_value");
    turn.tool_calls.push_back(
        {{"type", "function"},
         {"function",
          {{"name", *name}, {"arguments", arguments == nullptr ? Json::object() : *arguments}}}});
  }
  return {};
}

ApiResult<ChatTurn> read_message(const Json& message, const std::string& field,
                                 Conversation& conversation) {
  if (!message.is_object())
    return refuse(400, fmt::format("'{}' is no object", field), field, "invalid_value");
  Fields fields(message, field + ".");
  ChatTurn turn;
  PINHOLE_API(turn.role, fields.required_text("role"));
  if (turn.role != "system" && turn.role != "user" && turn.role != "assistant" &&
      turn.role != "tool")
    return refuse(400,
                  fmt::format("'{}' is '{}', expected system, user, assistant or tool",
                              fields.name("role"), turn.role.substr(0, 60)),
                  fields.name("role"), "invalid_value");
  PINHOLE_API(const auto content, fields.text("content"));
  PINHOLE_API(const auto tool_name, fields.text("tool_name"));
  PINHOLE_API(const auto call_id, fields.text("tool_call_id"));
  turn.text = content.value_or("");
  turn.tool_name = tool_name.value_or("");
  turn.tool_call_id = call_id.value_or("");
  fields.ignore({"thinking", "logprobs"});
  PINHOLE_API_CHECK(read_images(fields, conversation, turn));
  if (const Json* const calls = fields.find("tool_calls"))
    PINHOLE_API_CHECK(read_calls(*calls, fields.name("tool_calls"), turn));
  PINHOLE_API_CHECK(fields.finish());
  return turn;
}

} // namespace

std::optional<KeepAlive> parse_keep_alive(const Json& value) {
  if (value.is_number())
    return keep_for(value.get<double>());
  if (!value.is_string())
    return std::nullopt;
  const auto seconds = parse_duration(value.get_ref<const std::string&>());
  if (!seconds)
    return std::nullopt;
  return keep_for(*seconds);
}

ApiResult<OllamaRequest> parse_ollama_generate(const Json& body) {
  OllamaRequest out;
  Fields fields(body);
  PINHOLE_API_CHECK(read_common(fields, out));
  PINHOLE_API(const auto prompt, fields.text("prompt"));
  PINHOLE_API(const auto system, fields.text("system"));
  PINHOLE_API(const auto raw, fields.boolean("raw"));
  PINHOLE_API_CHECK(fields.reject("suffix", "nothing is filled in", {""}));
  PINHOLE_API_CHECK(fields.reject("template", "the model's own is used", {""}));
  PINHOLE_API_CHECK(
      fields.reject("context", "send the conversation to /api/chat", {Json::array()}));
  ChatTurn turn{"user", prompt.value_or(""), {}};
  Conversation& conversation = out.generation.conversation;
  PINHOLE_API_CHECK(read_images(fields, conversation, turn));
  PINHOLE_API_CHECK(fields.finish());
  out.only_loads = turn.text.empty() && turn.pictures.empty();
  if (raw.value_or(false)) {
    if (!turn.pictures.empty())
      return refuse(400, "'images' with 'raw' are not supported", "images", "invalid_value");
    out.generation.raw_prompt = turn.text;
    return out;
  }
  if (system && !system->empty())
    conversation.turns.push_back(ChatTurn{"system", *system, {}});
  conversation.turns.push_back(std::move(turn));
  return out;
}

ApiResult<OllamaRequest> parse_ollama_chat(const Json& body) {
  OllamaRequest out;
  out.is_chat = true;
  Fields fields(body);
  PINHOLE_API_CHECK(read_common(fields, out));
  const Json* const messages = fields.find("messages");
  const Json* const tools = fields.find("tools");
  PINHOLE_API_CHECK(fields.finish());
  PINHOLE_API(out.generation.tools, read_tools(tools, nullptr));
  if (messages != nullptr && !messages->is_array())
    return refuse(400, "'messages' is no list", "messages", "invalid_value");
  if (messages != nullptr && messages->size() > kMaxTurns)
    return refuse(400, fmt::format("more than {} messages", kMaxTurns), "messages");
  for (size_t i = 0; messages != nullptr && i < messages->size(); ++i) {
    PINHOLE_API(ChatTurn turn, read_message((*messages)[i], fmt::format("messages[{}]", i),
                                            out.generation.conversation));
    out.generation.conversation.turns.push_back(std::move(turn));
  }
  out.only_loads = out.generation.conversation.turns.empty();
  return out;
}

} // namespace pinhole::serve
