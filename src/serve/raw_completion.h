// Goes on from a text as it is, on an answerer's session: completions without a chat template.
#pragma once

#include "answer/answerer.h"

#include <atomic>
#include <string_view>

namespace pinhole::serve {

Result<Answer> complete_raw(Answerer& answerer, std::string_view prompt,
                            const AnswerOptions& options, const AnswerEvents& events,
                            const std::atomic<bool>* cancel);

} // namespace pinhole::serve
