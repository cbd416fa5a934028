// What the APIs tell of a model, from its files: no weight is read.
#pragma once

#include "answer/loaded_model.h"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace pinhole::serve {

// What may be told of a model: no path.
struct ModelCard {
  std::string name;
  std::vector<std::string> aliases;
  std::string family, title, quantisation; // as the files say
  int64_t parameters = 0;
  int64_t file_bytes = 0;
  int64_t context_tokens = 0, model_context_tokens = 0;
  int64_t hidden_size = 0, layers = 0;
  bool reads_pictures = false;
  bool knows_tools = false; // its chat template does
  std::string digest;       // of name, sizes and times of its files: the same file, the same digest
  int64_t modified_s = 0;   // since 1970
  std::string chat_template;

  bool is_loaded = false;
  bool is_external = false; // in a process of its own
  // Anonymous memory and mapped weights: while it is loaded, or as they are planned.
  int64_t reserved_bytes = 0, mapped_bytes = 0;
  std::optional<std::chrono::milliseconds> expires_in; // when it is unloaded; nothing: never
};

// The model's name in the APIs where none is given: its file's, without ".gguf".
std::string name_from_path(const std::string& path);

// All but what depends on how it is loaded.
ModelCard describe_model(const LoadedModel& loaded, const std::string& name,
                         const std::vector<std::string>& aliases);

} // namespace pinhole::serve
