// Everything that answering needs from a model's files: the description, the tokenizer, the chat
// template. Opening maps the weights and reads the vocabulary; no weight is touched.
#pragma once

#include "base/result.h"
#include "model/model.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

#include <memory>
#include <string>
#include <vector>

namespace pinhole {

struct LoadedModel {
  ModelFiles files;
  Model model; // points into files
  Tokenizer tokenizer;
  ChatTemplate chat_template;
  std::vector<TokenId> stop_tokens;        // end of sequence, end of turn
  std::vector<std::string> control_tokens; // texts that must not come from a user's words
  TokenId image_token_id = -1;             // of one picture token; -1: the model reads no pictures
  TokenId row_break_id = -1;               // between rows of them; -1: none

  bool is_stop(TokenId id) const;
};

// `path` is a .gguf or a folder; `mmproj` may be empty (found beside the model). A chat template in
// `template_override` replaces the files' own. model.vocabulary_bytes is set.
Result<std::unique_ptr<LoadedModel>> load_model(const std::string& path,
                                                const std::string& mmproj = {});

// What the tokenizer's tables of this file will take in memory, by building them; 0 where it has
// none.
int64_t measure_vocabulary(const ModelFile& file);

} // namespace pinhole
