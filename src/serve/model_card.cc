#include "serve/model_card.h"

#include "answer/prompt.h"
#include "base/sha256.h"
#include "quant/formats.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <system_error>

namespace pinhole::serve {

namespace {

namespace fs = std::filesystem;

// The element type that most bytes of the text part have.
std::string main_type(const ModelFile& file) {
  std::map<std::string, uint64_t> bytes;
  for (const Tensor& tensor : file.tensors())
    bytes[std::string(format_info(tensor.format).name)] += tensor.bytes;
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? std::string() : most->first;
}

std::string template_text(const ModelFile& file) {
  if (file.container() == Container::kHuggingFace)
    return file.chat_template().value_or(std::string());
  const auto text = file.gguf().string("tokenizer.chat_template");
  return text ? std::string(*text) : std::string();
}

} // namespace

std::string name_from_path(const std::string& path) {
  fs::path clean = fs::path(path).lexically_normal();
  if (!clean.has_filename())
    clean = clean.parent_path();
  return clean.extension() == ".gguf" ? clean.stem().string() : clean.filename().string();
}

ModelCard describe_model(const LoadedModel& loaded, const std::string& name,
                         const std::vector<std::string>& aliases) {
  ModelCard card;
  const Model& model = loaded.model;
  card.name = name;
  card.aliases = aliases;
  card.family = model.family;
  card.title = model.name;
  card.quantisation = main_type(loaded.files.text);
  card.model_context_tokens = model.context_length;
  card.hidden_size = model.hidden_size;
  card.layers = model.cache.layers;
  card.reads_pictures = model.pictures.has_value();
  card.knows_tools = template_knows_tools(loaded);
  card.chat_template = template_text(loaded.files.text);
  Sha256 hash;
  hash.update(card.name.data(), card.name.size());
  const auto add = [&](const ModelFile& file) {
    for (const Tensor& tensor : file.tensors())
      card.parameters += tensor.elements();
    for (const MappedFile& part : file.parts()) {
      std::error_code error;
      const auto time = fs::last_write_time(part.path(), error);
      const int64_t seconds = error ? 0
                                    : std::chrono::duration_cast<std::chrono::seconds>(
                                          std::chrono::file_clock::to_sys(time).time_since_epoch())
                                          .count();
      card.modified_s = std::max(card.modified_s, seconds);
      const auto bytes = static_cast<int64_t>(part.bytes().size());
      card.file_bytes += bytes;
      const int64_t facts[] = {bytes, seconds};
      hash.update(facts, sizeof facts);
    }
  };
  add(loaded.files.text);
  if (loaded.files.projector)
    add(*loaded.files.projector);
  card.digest = to_hex(hash.finish());
  return card;
}

} // namespace pinhole::serve
