#include "file/hf_reader.h"

#include "file/folder.h"
#include "file/printable.h"
#include "file/safetensors.h"

#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <iterator>
#include <map>
#include <utility>

namespace pinhole {

namespace {

constexpr uint64_t kMaxIndexBytes = 256u << 20;
constexpr uint64_t kMaxTokenizerBytes = 256u << 20; // the largest published one has 35 MB
constexpr size_t kMaxConfigValues = 1u << 18;       // 6,000 added tokens have 50,000
constexpr size_t kMaxShards = 4096;

std::string join(const std::string& folder, std::string_view name) {
  return (std::filesystem::path(folder) / name).string();
}

// Values in JSON text, at most: one per separator or bracket outside strings.
size_t count_values(std::string_view text) {
  size_t count = 1;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == ',' || c == '[' || c == '{') {
      ++count;
    }
  }
  return count;
}

std::string_view as_text(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

Result<MappedFile> open_bounded(const std::string& path, uint64_t max_bytes) {
  PINHOLE_TRY(MappedFile file, MappedFile::open(path));
  if (file.bytes().size() <= max_bytes)
    return file;
  return fail(
      ErrorCode::kTooLarge,
      fmt::format("{} bytes, the limit for this file is {}", file.bytes().size(), max_bytes), path);
}

Result<Json> read_config(const std::string& folder, std::string_view name) {
  const std::string path = join(folder, name);
  PINHOLE_TRY(const MappedFile file, open_bounded(path, kMaxConfigBytes));
  return parse_config(as_text(file), path);
}

// Null when the file does not exist.
Result<Json> read_optional_config(const std::string& folder, std::string_view name) {
  if (!is_file(join(folder, name)))
    return Json();
  return read_config(folder, name);
}

Result<std::optional<std::string>> read_optional_text(const std::string& folder,
                                                      std::string_view name, uint64_t max_bytes) {
  const std::string path = join(folder, name);
  if (!is_file(path))
    return std::nullopt;
  PINHOLE_TRY(const MappedFile file, open_bounded(path, max_bytes));
  return std::string(as_text(file));
}

// The value of "chat_template": a string, or a list of {"name", "template"} with one named
// "default".
Result<std::optional<std::string>> template_in(const Json& config, const std::string& where) {
  const Json* value = json_find(config, "chat_template");
  if (value == nullptr)
    return std::nullopt;
  if (value->is_string())
    return value->get<std::string>();
  if (value->is_array()) {
    for (const Json& item : *value) {
      const Json* name = json_find(item, "name");
      const Json* text = json_find(item, "template");
      if (name != nullptr && text != nullptr && *name == "default" && text->is_string()) {
        return text->get<std::string>();
      }
    }
  }
  return fail(ErrorCode::kInvalidInput,
              "'chat_template' is neither a string nor a list with one named 'default'", where);
}

tl::unexpected<Error> no_weights(const std::string& folder, const FolderFiles& files) {
  const bool pickle = is_file(join(folder, "pytorch_model.bin")) ||
                      is_file(join(folder, "pytorch_model.bin.index.json"));
  if (!files.safetensors.empty()) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("{} .safetensors files ({}{}) and no model.safetensors.index.json that "
                            "says which hold the model",
                            files.safetensors.size(), files.safetensors[0],
                            files.safetensors.size() > 1 ? ", ..." : ""),
                folder);
  }
  return fail(ErrorCode::kNotFound,
              "has config.json but no weights; looked for model.safetensors, "
              "model.safetensors.index.json, a single *.safetensors and a .gguf",
              folder,
              pickle ? "pytorch_model.bin is a Python pickle, which is not read: save the model as "
                       "safetensors"
                     : "fetch the weights into this folder");
}

} // namespace

Result<Json> parse_config(std::string_view text, const std::string& where) {
  const size_t num_values = count_values(text);
  if (num_values > kMaxConfigValues) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("JSON of up to {} values, the limit for a configuration is {}",
                            num_values, kMaxConfigValues),
                where);
  }
  PINHOLE_TRY(Json json, parse_json(text, where));
  if (json.is_object())
    return json;
  return fail(ErrorCode::kInvalidInput,
              fmt::format("the top level is {}, expected an object", json.type_name()), where);
}

Status HfReader::read_configs(ModelFile& model) {
  const std::string& folder = model.path_;
  PINHOLE_TRY(model.config_, read_config(folder, "config.json"));
  PINHOLE_TRY(model.preprocessor_config_, read_optional_config(folder, "preprocessor_config.json"));
  PINHOLE_TRY(model.processor_config_, read_optional_config(folder, "processor_config.json"));
  // transformers 5 may save the picture settings inside the processor's only.
  if (model.preprocessor_config_.is_null()) {
    const Json* inner = json_find(model.processor_config_, "image_processor");
    if (inner != nullptr && inner->is_object())
      model.preprocessor_config_ = *inner;
  }
  PINHOLE_TRY(model.generation_config_, read_optional_config(folder, "generation_config.json"));
  PINHOLE_TRY(model.tokenizer_config_, read_optional_config(folder, "tokenizer_config.json"));
  PINHOLE_TRY(model.tokenizer_json_,
              read_optional_text(folder, "tokenizer.json", kMaxTokenizerBytes));
  PINHOLE_TRY(model.chat_template_,
              read_optional_text(folder, "chat_template.jinja", kMaxConfigBytes));
  if (!model.chat_template_) {
    PINHOLE_TRY(const Json json, read_optional_config(folder, "chat_template.json"));
    PINHOLE_TRY(model.chat_template_, template_in(json, join(folder, "chat_template.json")));
  }
  if (!model.chat_template_) {
    PINHOLE_TRY(model.chat_template_,
                template_in(model.tokenizer_config_, join(folder, "tokenizer_config.json")));
  }
  return {};
}

Status HfReader::add_part(ModelFile& model, const std::string& path) {
  PINHOLE_TRY(MappedFile file, MappedFile::open(path));
  const auto part_idx = static_cast<uint32_t>(model.parts_.size());
  PINHOLE_TRY(SafetensorsPart part, parse_safetensors(file.bytes(), path, part_idx));
  model.parts_.push_back(std::move(file));
  if (part_idx == 0) {
    model.tensors_ = std::move(part.tensors);
    model.others_ = std::move(part.others);
    return {};
  }
  std::move(part.tensors.begin(), part.tensors.end(), std::back_inserter(model.tensors_));
  std::move(part.others.begin(), part.others.end(), std::back_inserter(model.others_));
  return {};
}

Status HfReader::add_shards(ModelFile& model, const std::string& index_path) {
  PINHOLE_TRY(const MappedFile index, open_bounded(index_path, kMaxIndexBytes));
  std::map<std::string, uint32_t> shards; // name -> part; sorted, so parts follow the numbering
  PINHOLE_CHECK(for_each_index_entry(
      as_text(index), index_path, [&](const std::string&, const std::string& shard) -> Status {
        if (shards.size() == kMaxShards && !shards.contains(shard)) {
          return fail(ErrorCode::kTooLarge, fmt::format("more than {} shards", kMaxShards),
                      index_path);
        }
        shards.emplace(shard, 0);
        return {};
      }));
  std::vector<std::string> missing;
  for (auto& [name, part] : shards) {
    if (!is_file(join(model.path_, name)))
      missing.push_back(name);
  }
  if (!missing.empty()) {
    const size_t num_missing = missing.size();
    if (num_missing > 5)
      missing.resize(5);
    return fail(ErrorCode::kNotFound,
                fmt::format("{} of {} shards are missing: {}{}", num_missing, shards.size(),
                            fmt::join(missing, ", "), num_missing > 5 ? " ..." : ""),
                index_path, "fetch them into this folder");
  }
  for (auto& [name, part] : shards) {
    part = static_cast<uint32_t>(model.parts_.size());
    PINHOLE_CHECK(add_part(model, join(model.path_, name)));
  }
  PINHOLE_CHECK(model.index_tensors());
  return for_each_index_entry(
      as_text(index), index_path,
      [&](const std::string& tensor, const std::string& shard) -> Status {
        const Tensor* found = model.find(tensor);
        const OtherTensor* other = found == nullptr ? model.find_other(tensor) : nullptr;
        if (found == nullptr && other == nullptr) {
          return fail(
              ErrorCode::kNotFound,
              fmt::format("tensor {} should be in {}, no shard has it", printable(tensor), shard),
              index_path);
        }
        const uint32_t part = found != nullptr ? found->part : other->part;
        if (part == shards.at(shard))
          return {};
        return fail(ErrorCode::kInvalidInput,
                    fmt::format("tensor {} should be in {}, it is in {}", printable(tensor), shard,
                                model.parts_[part].path()),
                    index_path);
      });
}

Result<ModelFile> HfReader::open(const std::string& folder) {
  ModelFile model;
  model.container_ = Container::kHuggingFace;
  model.path_ = folder;
  PINHOLE_CHECK(read_configs(model));
  const std::string index = join(folder, "model.safetensors.index.json");
  if (is_file(join(folder, "model.safetensors"))) {
    PINHOLE_CHECK(add_part(model, join(folder, "model.safetensors")));
  } else if (is_file(index)) {
    PINHOLE_CHECK(add_shards(model, index));
    return model;
  } else {
    PINHOLE_TRY(const FolderFiles files, list_model_files(folder));
    if (files.safetensors.size() != 1)
      return no_weights(folder, files);
    PINHOLE_CHECK(add_part(model, join(folder, files.safetensors[0])));
  }
  PINHOLE_CHECK(model.index_tensors());
  return model;
}

Result<ModelFile> HfReader::open_config(const std::string& path) {
  if (!std::filesystem::is_directory(path)) {
    PINHOLE_TRY(const MappedFile file, open_bounded(path, kMaxConfigBytes));
    return read_config_text(as_text(file), path);
  }
  ModelFile model;
  model.container_ = Container::kHuggingFace;
  model.path_ = path;
  model.config_only_ = true;
  PINHOLE_CHECK(read_configs(model));
  return model;
}

Result<ModelFile> HfReader::read_config_text(std::string_view text, const std::string& name) {
  ModelFile model;
  model.container_ = Container::kHuggingFace;
  model.path_ = name;
  model.config_only_ = true;
  PINHOLE_TRY(model.config_, parse_config(text, name));
  return model;
}

Result<ModelFile> HfReader::open_weights(const std::string& path) {
  ModelFile model;
  model.container_ = Container::kHuggingFace;
  model.path_ = path;
  PINHOLE_CHECK(add_part(model, path));
  PINHOLE_CHECK(model.index_tensors());
  return model;
}

} // namespace pinhole
