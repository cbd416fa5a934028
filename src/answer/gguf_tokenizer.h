// The tokenizer of a model file: tokenizer.ggml.* of a GGUF, tokenizer.json of a folder.
#pragma once

#include "base/result.h"
#include "file/model_file.h"
#include "text/tokenizer.h"

namespace pinhole {

Result<Tokenizer> tokenizer_from_model(const ModelFile& model);

} // namespace pinhole
