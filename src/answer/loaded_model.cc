#include "answer/loaded_model.h"

#include "answer/gguf_tokenizer.h"

#include <algorithm>
#include <fmt/format.h>

namespace pinhole {

namespace {

// Tokens that end a turn in the chat formats of the families here, whatever a config says.
constexpr const char* kEndOfTurn[] = {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>",
                                      "</s>",       "<|end|>",       "<|eom_id|>"};

// ChatML: what a model without a template most likely was trained on.
constexpr const char* kFallbackTemplate =
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}"
    "{%- for content in message.content %}{%- if content.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{%- elif 'text' in content %}{{- content.text }}"
    "{%- endif %}{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

// Llama 3's form, with the picture's token of 3.2 Vision: for vocabularies that have its headers.
constexpr const char* kLlama3Template =
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}"
    "{%- for content in message.content %}{%- if content.type == 'image' %}{{- '<|image|>' }}"
    "{%- elif 'text' in content %}{{- content.text }}"
    "{%- endif %}{%- endfor %}{%- endif %}{{- '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}";

Result<std::string> template_source(const ModelFile& file, const Tokenizer& tokenizer) {
  const char* fallback = tokenizer.find("<|start_header_id|>") && tokenizer.find("<|eot_id|>")
                             ? kLlama3Template
                             : kFallbackTemplate;
  if (file.container() == Container::kHuggingFace)
    return file.chat_template().value_or(fallback);
  if (file.gguf().find("tokenizer.chat_template") == nullptr)
    return std::string(fallback);
  PINHOLE_TRY(const std::string_view text, file.gguf().string("tokenizer.chat_template"));
  return std::string(text);
}

} // namespace

int64_t measure_vocabulary(const ModelFile& file) {
  const auto tokenizer = tokenizer_from_model(file);
  return tokenizer ? tokenizer->table_bytes() : 0;
}

bool LoadedModel::is_stop(TokenId id) const {
  return std::find(stop_tokens.begin(), stop_tokens.end(), id) != stop_tokens.end();
}

Result<std::unique_ptr<LoadedModel>> load_model(const std::string& path,
                                                const std::string& mmproj) {
  PINHOLE_TRY(ModelFiles files, ModelFiles::open(path, mmproj));
  PINHOLE_TRY(Tokenizer tokenizer, tokenizer_from_model(files.text));
  PINHOLE_TRY(const std::string source, template_source(files.text, tokenizer));
  PINHOLE_TRY(ChatTemplate chat_template,
              ChatTemplate::parse(source, files.text.path() + ", chat template"));
  auto loaded = std::unique_ptr<LoadedModel>(new LoadedModel{
      std::move(files), Model{}, std::move(tokenizer), std::move(chat_template), {}, {}, -1, -1});
  // Described after the files stand at their final address: the graph points at their tensors.
  PINHOLE_TRY(loaded->model, describe_model(loaded->files));
  loaded->model.vocabulary_bytes = loaded->tokenizer.table_bytes();

  std::vector<TokenId>& stops = loaded->stop_tokens;
  for (const int64_t id : loaded->model.eos_token_ids)
    stops.push_back(static_cast<TokenId>(id));
  if (const auto eos = loaded->tokenizer.eos())
    stops.push_back(*eos);
  for (const char* name : kEndOfTurn) {
    const auto id = loaded->tokenizer.find(name);
    if (id && loaded->tokenizer.is_special(*id))
      stops.push_back(*id);
  }
  std::sort(stops.begin(), stops.end());
  stops.erase(std::unique(stops.begin(), stops.end()), stops.end());

  const int64_t vocab_size = loaded->tokenizer.vocab_size();
  for (int64_t id = 0; id < vocab_size; ++id) {
    const auto token = static_cast<TokenId>(id);
    if (loaded->tokenizer.is_special(token) && loaded->tokenizer.piece(token).size() > 1) {
      loaded->control_tokens.emplace_back(loaded->tokenizer.piece(token));
    }
  }
  if (const auto& pictures = loaded->model.pictures) {
    const std::pair<const std::string&, TokenId&> tokens[] = {
        {pictures->image_token, loaded->image_token_id},
        {pictures->row_break, loaded->row_break_id}};
    for (const auto& [text, token] : tokens) {
      const auto id = text.empty() ? TokenId{-1} : loaded->tokenizer.find(text);
      if (!id) {
        return fail(ErrorCode::kInvalidInput,
                    fmt::format("the vocabulary has no '{}', which stands for pictures", text),
                    loaded->files.text.path());
      }
      token = *id;
    }
  }
  return loaded;
}

} // namespace pinhole
