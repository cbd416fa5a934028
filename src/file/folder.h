// The model files in a folder, by name only.
#pragma once

#include "base/result.h"

#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

struct FolderFiles {
  std::vector<std::string> safetensors; // plain names, sorted
  std::vector<std::string> models;      // .gguf that are no projector; of split ones the first part
  std::vector<std::string> projectors;  // .gguf with mmproj in the name
};

Result<FolderFiles> list_model_files(const std::string& folder);

bool is_file(const std::string& path); // follows links
bool is_projector_name(std::string_view name);
std::string to_lower(std::string_view text);

} // namespace pinhole
