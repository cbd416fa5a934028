#include "file/model_file.h"

#include "file/folder.h"
#include "file/gguf_reader.h"
#include "file/hf_reader.h"
#include "file/http.h"
#include "file/printable.h"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <numeric>

namespace pinhole {

namespace {

namespace fs = std::filesystem;

// Position of `name` in the sorted index range, or nullopt.
template <class T>
std::optional<uint32_t> lookup(const std::vector<T>& tensors, const uint32_t* begin,
                               const uint32_t* end, std::string_view name) {
  const uint32_t* it = std::lower_bound(begin, end, name, [&](uint32_t idx, std::string_view key) {
    return tensors[idx].name < key;
  });
  if (it == end || tensors[*it].name != name)
    return std::nullopt;
  return *it;
}

template <class T>
void sort_by_name(const std::vector<T>& tensors, uint32_t* begin, uint32_t* end) {
  std::iota(begin, end, 0);
  std::sort(begin, end, [&](uint32_t a, uint32_t b) { return tensors[a].name < tensors[b].name; });
}

// First name that two neighbours of the sorted range share, or null.
template <class T>
const T* find_duplicate(const std::vector<T>& tensors, const uint32_t* begin, const uint32_t* end) {
  const uint32_t* it = std::adjacent_find(
      begin, end, [&](uint32_t a, uint32_t b) { return tensors[a].name == tensors[b].name; });
  return it == end ? nullptr : &tensors[*it];
}

Result<ModelFile> open_folder(const std::string& folder) {
  const bool has_config = is_file((fs::path(folder) / "config.json").string());
  PINHOLE_TRY(const FolderFiles files, list_model_files(folder));
  if (has_config && (!files.safetensors.empty() || files.models.empty())) {
    return HfReader::open(folder);
  }
  if (files.models.size() == 1) {
    return GgufReader::open((fs::path(folder) / files.models[0]).string());
  }
  if (files.models.size() > 1) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("the folder holds {} models: {}", files.models.size(),
                            fmt::join(files.models, ", ")),
                folder, "name one of them");
  }
  if (!files.projectors.empty()) {
    return fail(ErrorCode::kNotFound,
                fmt::format("the folder holds only a picture projector ({}), no text model",
                            files.projectors[0]),
                folder, "put the model's .gguf beside it");
  }
  return fail(ErrorCode::kNotFound,
              fmt::format("no model in this folder; looked for config.json with *.safetensors, and "
                          "for a .gguf{}",
                          files.safetensors.empty() ? "" : "; config.json is missing"),
              folder);
}

} // namespace

Result<ModelFile> ModelFile::open(const std::string& path) {
  if (is_url(path)) {
    return fail(ErrorCode::kUnsupported, "is a URL; only plan reads a model over the network",
                shown_name(path), "download it first");
  }
  std::error_code error;
  if (fs::is_directory(path, error))
    return open_folder(path);
  const std::string lower = to_lower(path);
  if (lower.ends_with(".safetensors"))
    return HfReader::open_weights(path);
  if (lower.ends_with(".json")) {
    return fail(ErrorCode::kInvalidInput, "a JSON file, expected a .gguf or a model's folder", path,
                "name the folder that holds it");
  }
  return GgufReader::open(path);
}

Result<ModelFile> ModelFile::open_config(const std::string& path) {
  return HfReader::open_config(path);
}

std::string ModelFile::config_path() const {
  return to_lower(path_).ends_with(".json") ? path_ : path_ + "/config.json";
}

Status ModelFile::index_tensors() {
  by_name_.resize(tensors_.size() + others_.size());
  uint32_t* const begin = by_name_.data();
  uint32_t* const middle = begin + tensors_.size();
  uint32_t* const end = begin + by_name_.size();
  sort_by_name(tensors_, begin, middle);
  sort_by_name(others_, middle, end);
  const std::string* twice = nullptr;
  uint32_t part = 0;
  if (const Tensor* found = find_duplicate(tensors_, begin, middle)) {
    twice = &found->name;
    part = found->part;
  }
  if (const OtherTensor* found = find_duplicate(others_, middle, end)) {
    twice = &found->name;
    part = found->part;
  }
  for (const OtherTensor& other : others_) {
    if (find(other.name) == nullptr)
      continue;
    twice = &other.name;
    part = other.part;
  }
  if (twice == nullptr)
    return {};
  return fail(ErrorCode::kInvalidInput, fmt::format("tensor {} occurs twice", printable(*twice)),
              parts_[part].path());
}

const Tensor* ModelFile::find(std::string_view name) const {
  const uint32_t* begin = by_name_.data();
  const auto idx = lookup(tensors_, begin, begin + tensors_.size(), name);
  return idx ? &tensors_[*idx] : nullptr;
}

const OtherTensor* ModelFile::find_other(std::string_view name) const {
  const uint32_t* begin = by_name_.data() + tensors_.size();
  const auto idx = lookup(others_, begin, begin + others_.size(), name);
  return idx ? &others_[*idx] : nullptr;
}

uint64_t ModelFile::mapped_bytes() const {
  uint64_t bytes = 0;
  for (const MappedFile& part : parts_)
    bytes += part.bytes().size();
  return bytes;
}

} // namespace pinhole
