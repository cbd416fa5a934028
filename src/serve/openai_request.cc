#include "serve/openai_request.h"

#include "serve/api.h"
#include "serve/openai_messages.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole::serve {

namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 26;
constexpr int64_t kMaxChoices = 8;

// Members that ask for nothing that the answer would show.
void ignore_bookkeeping(Fields& fields) {
  fields.ignore({"user", "store", "metadata", "service_tier", "safety_identifier",
                 "prompt_cache_key", "prompt_cache_retention", "prediction", "cache_prompt",
                 "parallel_tool_calls"});
}

ApiResult<void> reject_unsupported(Fields& fields) {
  PINHOLE_API_CHECK(fields.reject("logit_bias", "tokens have no biases here", {Json::object()}));
  PINHOLE_API_CHECK(fields.reject("audio", "answers are text"));
  PINHOLE_API_CHECK(fields.reject("modalities", "answers are text", {Json::array({"text"})}));
  PINHOLE_API_CHECK(fields.reject("functions", "use tools"));
  PINHOLE_API_CHECK(fields.reject("function_call", "use tool_choice"));
  PINHOLE_API_CHECK(fields.reject("web_search_options", "nothing is searched"));
  PINHOLE_API_CHECK(fields.reject("reasoning_effort", "there is no such setting", {"none"}));
  return fields.reject("verbosity", "there is no such setting");
}

ApiResult<void> read_stream(Fields& fields, OpenAiRequest& out) {
  PINHOLE_API(const auto stream, fields.boolean("stream"));
  out.stream = stream.value_or(false);
  const Json* const options = fields.find("stream_options");
  if (options == nullptr)
    return {};
  if (!options->is_object())
    return refuse(400, "'stream_options' is no object", "stream_options", "invalid_value");
  Fields inner(*options, "stream_options.");
  PINHOLE_API(const auto usage, inner.boolean("include_usage"));
  out.include_usage = usage.value_or(false);
  inner.ignore({"include_obfuscation"});
  return inner.finish();
}

ApiResult<void> read_choices(Fields& fields, OpenAiRequest& out) {
  PINHOLE_API(const auto n, fields.integer("n", 1, kMaxChoices));
  out.num_choices = n.value_or(1);
  return {};
}

} // namespace

ApiResult<void> read_sampling(Fields& fields, AnswerOptions& options) {
  SamplingOptions& s = options.sampling;
  PINHOLE_API(const auto temperature, fields.number("temperature", 0, 2));
  PINHOLE_API(const auto top_p, fields.number("top_p", 0, 1));
  PINHOLE_API(const auto top_k, fields.integer("top_k", -1, 1 << 24));
  PINHOLE_API(const auto min_p, fields.number("min_p", 0, 1));
  PINHOLE_API(const auto presence, fields.number("presence_penalty", -2, 2));
  PINHOLE_API(const auto frequency, fields.number("frequency_penalty", -2, 2));
  PINHOLE_API(const auto repetition, fields.number("repetition_penalty", 0.01, 100));
  PINHOLE_API(const auto repeat, fields.number("repeat_penalty", 0.01, 100)); // llama.cpp's name
  PINHOLE_API(const auto seed, fields.integer("seed", INT64_MIN, INT64_MAX));
  PINHOLE_API(options.stop, fields.texts("stop", 16));
  s.temperature = temperature.value_or(0);
  s.top_p = top_p.value_or(1);
  s.top_k = std::max<int64_t>(0, top_k.value_or(0));
  s.min_p = min_p.value_or(0);
  s.presence_penalty = presence.value_or(0);
  s.frequency_penalty = frequency.value_or(0);
  s.repetition_penalty = repetition ? *repetition : repeat.value_or(1);
  s.seed = seed ? static_cast<uint64_t>(*seed) : random_seed();
  return {};
}

ApiResult<std::optional<Grammar>> read_format(const Json* format, const std::string& field,
                                              bool is_flat) {
  if (format == nullptr)
    return std::nullopt;
  const Json* const type = json_find(*format, "type");
  if (type == nullptr || !type->is_string())
    return refuse(400, fmt::format("'{}.type' is missing", field), field, "invalid_value");
  if (*type == "text")
    return std::nullopt;
  if (*type == "json_object") {
    auto grammar = Grammar::from_json_object();
    if (!grammar)
      return tl::unexpected<ApiError>(to_api_error(grammar.error(), field));
    return std::optional<Grammar>(std::move(*grammar));
  }
  if (*type != "json_schema") {
    return refuse(400,
                  fmt::format("'{}.type' is {}, expected text, json_object or json_schema", field,
                              shown(*type)),
                  field, "unsupported_parameter");
  }
  const Json* const holder = is_flat ? format : json_find(*format, "json_schema");
  const Json* const schema = holder == nullptr ? nullptr : json_find(*holder, "schema");
  const std::string where = field + (is_flat ? ".schema" : ".json_schema.schema");
  if (schema == nullptr)
    return refuse(400, fmt::format("'{}' is missing", where), where, "missing");
  auto grammar = Grammar::from_json_schema(*schema);
  if (!grammar)
    return tl::unexpected<ApiError>(to_api_error(grammar.error(), where));
  return std::optional<Grammar>(std::move(*grammar));
}

ApiResult<OpenAiRequest> parse_chat_request(const Json& body, const ContentOptions& content) {
  OpenAiRequest out;
  Fields fields(body);
  PINHOLE_API(const auto model, fields.text("model"));
  out.generation.model = model.value_or("");
  PINHOLE_API_CHECK(read_sampling(fields, out.generation.options));
  PINHOLE_API(const auto max_tokens, fields.integer("max_tokens", 1, kMaxTokens));
  PINHOLE_API(const auto completion, fields.integer("max_completion_tokens", 1, kMaxTokens));
  out.generation.max_tokens = completion ? completion : max_tokens;
  PINHOLE_API_CHECK(read_stream(fields, out));
  PINHOLE_API_CHECK(read_choices(fields, out));
  PINHOLE_API(const auto logprobs, fields.boolean("logprobs"));
  PINHOLE_API(const auto top, fields.integer("top_logprobs", 0, 20));
  out.wants_logprobs = logprobs.value_or(false);
  if (top && !out.wants_logprobs)
    return refuse(400, "'top_logprobs' needs 'logprobs': true", "top_logprobs", "invalid_value");
  if (out.wants_logprobs)
    out.generation.options.top_logprobs = top.value_or(0);
  PINHOLE_API(out.generation.options.grammar,
              read_format(fields.find("response_format"), "response_format", false));
  const Json* const tools = fields.find("tools");
  PINHOLE_API(out.generation.tools, read_tools(tools, fields.find("tool_choice")));
  ignore_bookkeeping(fields);
  PINHOLE_API_CHECK(reject_unsupported(fields));
  const Json* const messages = fields.find("messages");
  PINHOLE_API_CHECK(fields.finish());
  if (messages == nullptr)
    return refuse(400, "'messages' is missing", "messages", "missing");
  PINHOLE_API(out.generation.conversation, read_messages(*messages, content));
  return out;
}

ApiResult<OpenAiRequest> parse_completion_request(const Json& body) {
  OpenAiRequest out;
  Fields fields(body);
  PINHOLE_API(const auto model, fields.text("model"));
  out.generation.model = model.value_or("");
  PINHOLE_API_CHECK(read_sampling(fields, out.generation.options));
  PINHOLE_API(const auto max_tokens, fields.integer("max_tokens", 1, kMaxTokens));
  out.generation.max_tokens = max_tokens.value_or(16); // as OpenAI's
  PINHOLE_API_CHECK(read_stream(fields, out));
  PINHOLE_API_CHECK(read_choices(fields, out));
  PINHOLE_API(const auto logprobs, fields.integer("logprobs", 0, 20));
  out.wants_logprobs = logprobs.has_value();
  out.generation.options.top_logprobs = logprobs.value_or(-1);
  PINHOLE_API(const auto echo, fields.boolean("echo"));
  out.echo = echo.value_or(false);
  PINHOLE_API_CHECK(fields.reject("suffix", "nothing is filled in"));
  PINHOLE_API_CHECK(fields.reject("best_of", "use n", {1}));
  ignore_bookkeeping(fields);
  PINHOLE_API_CHECK(fields.reject("logit_bias", "tokens have no biases here", {Json::object()}));
  const Json* prompt = fields.find("prompt");
  PINHOLE_API_CHECK(fields.finish());
  if (prompt != nullptr && prompt->is_array() && prompt->size() == 1 && (*prompt)[0].is_string())
    prompt = &(*prompt)[0];
  if (prompt == nullptr || !prompt->is_string()) {
    return refuse(400,
                  fmt::format("'prompt' is {}, expected a text (lists and token ids are not taken)",
                              prompt == nullptr ? "missing" : shown(*prompt)),
                  "prompt", "invalid_value");
  }
  if (out.echo && out.wants_logprobs)
    return refuse(400, "'echo' with 'logprobs' is not supported", "echo", "unsupported_parameter");
  out.generation.raw_prompt = prompt->get<std::string>();
  return out;
}

ApiResult<OpenAiRequest> parse_responses_request(const Json& body, const ContentOptions& content) {
  OpenAiRequest out;
  Fields fields(body);
  PINHOLE_API(const auto model, fields.text("model"));
  out.generation.model = model.value_or("");
  PINHOLE_API_CHECK(read_sampling(fields, out.generation.options));
  PINHOLE_API(out.generation.max_tokens, fields.integer("max_output_tokens", 1, kMaxTokens));
  PINHOLE_API(const auto stream, fields.boolean("stream"));
  out.stream = stream.value_or(false);
  PINHOLE_API(const auto instructions, fields.text("instructions"));
  out.instructions = instructions.value_or("");
  if (const Json* const text = fields.find("text")) {
    if (!text->is_object())
      return refuse(400, "'text' is no object", "text", "invalid_value");
    Fields inner(*text, "text.");
    const Json* const format = inner.find("format");
    PINHOLE_API(out.generation.options.grammar, read_format(format, "text.format", true));
    out.text_format = format == nullptr ? Json() : *format;
    PINHOLE_API_CHECK(inner.reject("verbosity", "there is no such setting", {"medium"}));
    PINHOLE_API_CHECK(inner.finish());
  }
  const Json* const tools = fields.find("tools");
  PINHOLE_API(out.generation.tools, read_tools(tools, fields.find("tool_choice"), true));
  ignore_bookkeeping(fields);
  fields.ignore({"include", "truncation", "stream_options"});
  if (const Json* const truncation = json_find(body, "truncation");
      truncation != nullptr && *truncation != "disabled")
    return refuse(400, "'truncation' is 'disabled' here: nothing is left out of a conversation",
                  "truncation", "unsupported_parameter");
  if (const Json* const include = json_find(body, "include");
      include != nullptr && include->is_array() && !include->empty())
    return refuse(400, "'include' is not supported", "include", "unsupported_parameter");
  PINHOLE_API_CHECK(fields.reject("previous_response_id", "responses are not kept: send the whole "
                                                          "conversation as input"));
  PINHOLE_API_CHECK(fields.reject("conversation", "conversations are not kept"));
  PINHOLE_API_CHECK(fields.reject("background", "nothing runs in the background", {false}));
  PINHOLE_API_CHECK(fields.reject("reasoning", "there is no such setting", {Json::object()}));
  PINHOLE_API_CHECK(fields.reject("prompt", "there are no stored prompts"));
  PINHOLE_API_CHECK(fields.reject("max_tool_calls", "there are no built-in tools"));
  PINHOLE_API_CHECK(fields.reject("top_logprobs", "responses have none", {0}));
  const Json* const input = fields.find("input");
  PINHOLE_API_CHECK(fields.finish());
  if (input == nullptr)
    return refuse(400, "'input' is missing", "input", "missing");
  PINHOLE_API(out.generation.conversation, read_response_input(*input, out.instructions, content));
  return out;
}

} // namespace pinhole::serve
