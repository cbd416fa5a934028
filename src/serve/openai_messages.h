// Messages of OpenAI's APIs, as turns.
#pragma once

#include "base/json.h"
#include "serve/content.h"

#include <string>

namespace pinhole::serve {

// `messages` of chat/completions.
ApiResult<Conversation> read_messages(const Json& messages, const ContentOptions& options);
// `input` of responses: a text, or a list of messages, calls and their results. `instructions`
// stand before it all.
ApiResult<Conversation> read_response_input(const Json& input, const std::string& instructions,
                                            const ContentOptions& options);

} // namespace pinhole::serve
