#include "model/model.h"

#include "model/family.h"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <map>
#include <unordered_set>

namespace pinhole {

std::span<const Family> families() {
  static constexpr Family kFamilies[] = {
#define PINHOLE_FAMILY(name, gguf_arch, describe) {name, gguf_arch, describe},
#include "model/families.def"
#undef PINHOLE_FAMILY
  };
  return kFamilies;
}

namespace {

using OpenFile = FunctionRef<Result<ModelFile>(const std::string&)>;

Result<ModelFiles> open_with(OpenFile open, const std::string& path, const std::string& mmproj) {
  ModelFiles files;
  PINHOLE_TRY(files.text, open(path));
  if (!mmproj.empty()) {
    PINHOLE_TRY(files.projector, open(mmproj));
  } else if (!is_url(path) && files.text.container() == Container::kGguf) {
    PINHOLE_TRY(const std::optional<std::string> found, find_mmproj(files.text.path()));
    if (found) {
      PINHOLE_TRY(files.projector, open(*found));
    }
  }
  return files;
}

} // namespace

Result<ModelFiles> ModelFiles::open(const std::string& path, const std::string& mmproj) {
  return open_with([](const std::string& name) { return ModelFile::open(name); }, path, mmproj);
}

Result<ModelFiles> ModelFiles::open_to_plan(const std::string& path, const std::string& mmproj,
                                            const FetchProgress& progress) {
  if (is_url(path) || !path.ends_with(".json")) {
    const auto open = [&](const std::string& name) {
      return is_url(name) ? open_remote(name, progress) : ModelFile::open(name);
    };
    auto files = open_with(open, path, mmproj);
    std::error_code none;
    if (files || is_url(path) || files.error().code != ErrorCode::kNotFound ||
        !std::filesystem::is_regular_file(path + "/config.json", none))
      return files;
  }
  ModelFiles config;
  PINHOLE_TRY(config.text, ModelFile::open_config(path));
  return config;
}

namespace {

// general.name, or what the file or folder is called.
std::string display_name(const ModelFile& file) {
  if (file.gguf().find("general.name") != nullptr) {
    if (const auto name = file.gguf().string("general.name"))
      return std::string(*name);
  }
  return std::filesystem::path(file.path()).lexically_normal().stem().string();
}

// What is used follows from the graphs: every weight that an op reads points at its tensor.
void account_tensors(const ModelFiles& files, Model& model) {
  std::unordered_set<const Tensor*> used;
  for (const Graph* graph : {&model.text, &model.vision}) {
    for (const Weight& weight : graph->weights())
      used.insert(weight.tensor);
  }
  const auto visit = [&](const ModelFile& file) {
    std::map<uint32_t, uint64_t> first; // tensor of each part
    for (const Tensor& tensor : file.tensors()) {
      uint64_t& offset = first.try_emplace(tensor.part, tensor.file_offset).first->second;
      offset = std::min(offset, tensor.file_offset);
      if (used.contains(&tensor))
        model.weight_bytes += tensor.bytes;
      else
        model.unused_tensors.push_back(tensor.name);
    }
    for (const auto& [part, offset] : first)
      model.header_bytes += offset;
  };
  for (const Graph* graph : {&model.text, &model.vision}) {
    for (const auto& [name, tensor] : graph->declared_tensors())
      model.weight_bytes += tensor.bytes;
  }
  visit(files.text);
  if (files.projector)
    visit(*files.projector);
}

// What a configuration claims, before sums of it are trusted: nothing real is near this.
Status check_declared(const ModelFile& file, const Model& model) {
  constexpr uint64_t kMaxBytes = uint64_t{1} << 50;
  uint64_t bytes = 0;
  for (const Graph* graph : {&model.text, &model.vision}) {
    for (const auto& [name, tensor] : graph->declared_tensors()) {
      if (tensor.bytes > kMaxBytes - bytes) {
        return fail(ErrorCode::kTooLarge,
                    fmt::format("the sizes make more than {} bytes of weights", kMaxBytes),
                    file.config_path());
      }
      bytes += tensor.bytes;
    }
  }
  return {};
}

} // namespace

bool only_looks_up(const Model& model, const Op& op) {
  if (op.kind != OpKind::kEmbed)
    return false;
  const Graph& graph = model.text;
  const Tensor* table = graph.weight(op.weight).tensor;
  const auto reads_it = [&](const MatmulPart& part) {
    return graph.weight(part.weight).tensor == table;
  };
  return std::none_of(graph.ops().begin(), graph.ops().end(), [&](const Op& other) {
    return std::any_of(other.parts.begin(), other.parts.end(), reads_it);
  });
}

Result<Model> describe_model(const ModelFiles& files) {
  const ModelFile& file = files.text;
  const bool is_gguf = file.container() == Container::kGguf;
  std::string type;
  if (is_gguf) {
    PINHOLE_TRY(type, file.gguf().string("general.architecture"));
  } else {
    PINHOLE_TRY(type, json_string(file.config(), "model_type", file.config_path()));
  }
  std::vector<std::string_view> known;
  for (const Family& family : families()) {
    const std::string_view key = is_gguf ? family.gguf_arch : family.name;
    if (key.empty())
      continue;
    if (key == type) {
      auto model = family.describe(files);
      if (!model)
        return model;
      model->family = family.name;
      model->name = display_name(file);
      PINHOLE_CHECK(check_declared(file, *model));
      account_tensors(files, *model);
      return model;
    }
    known.push_back(key);
  }
  if (is_gguf && type == "clip") {
    return fail(ErrorCode::kInvalidInput, "this file is a picture projector (mmproj), not a model",
                file.path(),
                "give the text model's .gguf; the projector beside it is found by itself");
  }
  return fail(ErrorCode::kUnsupported,
              fmt::format("{} '{}' is not one of the families here: {}",
                          is_gguf ? "general.architecture" : "model_type", type,
                          fmt::join(known, ", ")),
              file.path());
}

} // namespace pinhole
