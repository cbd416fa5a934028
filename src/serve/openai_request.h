// Bodies of OpenAI's chat/completions, completions and responses.
#pragma once

#include "serve/fields.h"
#include "serve/generation.h"

#include <string>

namespace pinhole::serve {

struct OpenAiRequest {
  GenerationRequest generation;
  bool stream = false;
  bool include_usage = false;
  int64_t num_choices = 1;
  bool wants_logprobs = false;
  bool echo = false;        // completions: the prompt stands before the answer
  std::string instructions; // responses: repeated in the reply
  Json text_format;         // responses: the same
};

ApiResult<OpenAiRequest> parse_chat_request(const Json& body, const ContentOptions& content);
ApiResult<OpenAiRequest> parse_completion_request(const Json& body);
ApiResult<OpenAiRequest> parse_responses_request(const Json& body, const ContentOptions& content);

// temperature, top_p, seed, penalties, stop and what llama.cpp's server has beside them.
ApiResult<void> read_sampling(Fields& fields, AnswerOptions& options);
// {type: "text", "json_object" or "json_schema"}; `is_flat`: the schema stands beside the type, as
// in responses, and not in a member json_schema.
ApiResult<std::optional<Grammar>> read_format(const Json* format, const std::string& field,
                                              bool is_flat);

} // namespace pinhole::serve
