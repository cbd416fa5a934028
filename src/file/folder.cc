#include "file/folder.h"

#include "file/gguf_reader.h"

#include <algorithm>
#include <filesystem>

namespace pinhole {

std::string to_lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

bool is_projector_name(std::string_view name) {
  return to_lower(name).find("mmproj") != std::string::npos;
}

bool is_file(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

Result<FolderFiles> list_model_files(const std::string& folder) {
  FolderFiles files;
  std::error_code error;
  std::filesystem::directory_iterator it(folder, error);
  for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    std::error_code ignored;
    if (!it->is_regular_file(ignored))
      continue;
    std::string name = it->path().filename().string();
    const std::string lower = to_lower(name);
    if (lower.ends_with(".safetensors")) {
      files.safetensors.push_back(std::move(name));
    } else if (lower.ends_with(".gguf")) {
      const auto split = parse_split_name(name);
      if (split && split->no != 1)
        continue;
      auto& list = is_projector_name(name) ? files.projectors : files.models;
      list.push_back(std::move(name));
    }
  }
  if (error) {
    return fail(ErrorCode::kIo, "cannot list the folder: " + error.message(), folder);
  }
  for (auto* list : {&files.safetensors, &files.models, &files.projectors}) {
    std::sort(list->begin(), list->end());
  }
  return files;
}

} // namespace pinhole
