// What a model thought of a token, out of its logits.
#pragma once

#include "answer/answer.h"

#include <cstdint>
#include <span>

namespace pinhole {

// `chosen` and the `top` most likely tokens by the softmax of `logits` [vocab_size]; of equal ones
// the lowest id first. Ids that the tokenizer does not know have no bytes.
TokenChoice choose_token(std::span<const float> logits, TokenId chosen, int64_t top,
                         const Tokenizer& tokenizer);

} // namespace pinhole
