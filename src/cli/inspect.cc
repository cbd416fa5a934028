// pinhole inspect: what is in a model's files, without loading them.
#include "base/units.h"
#include "cli/common.h"
#include "model/model.h"
#include "plan/memory.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <map>
#include <unistd.h>

namespace pinhole::cli {

namespace {

struct InspectOptions {
  std::string path, mmproj;
  bool tensors = false;
  bool json = false;
};

Json value_to_json(const GgufValue& value) {
  struct Visitor {
    Json operator()(const GgufArray& array) const {
      constexpr size_t kShown = 8;
      Json shown = Json::array();
      if (const auto strings = array.strings()) {
        for (size_t i = 0; i < std::min(kShown, strings->size()); ++i) {
          shown.push_back(std::string((*strings)[i]));
        }
      } else if (const auto numbers = array.numbers()) {
        for (size_t i = 0; i < std::min(kShown, numbers->size()); ++i) {
          shown.push_back((*numbers)[i]);
        }
      }
      return {{"count", array.count}, {"first", std::move(shown)}};
    }
    Json operator()(std::string_view text) const { return std::string(text); }
    Json operator()(uint64_t number) const { return number; }
    Json operator()(int64_t number) const { return number; }
    Json operator()(double number) const { return number; }
    Json operator()(bool flag) const { return flag; }
  };
  return std::visit(Visitor{}, value);
}

Json tensor_to_json(const Tensor& tensor) {
  return {{"name", tensor.name},   {"type", format_info(tensor.format).name},
          {"shape", tensor.shape}, {"bytes", tensor.bytes},
          {"part", tensor.part},   {"file_offset", tensor.file_offset}};
}

Json file_to_json(const ModelFile& file, bool with_tensors) {
  Json out = {{"path", file.path()},
              {"container", file.container() == Container::kGguf ? "gguf" : "huggingface"},
              {"parts", file.parts().size()},
              {"bytes", file.mapped_bytes()}};
  Json meta = Json::object();
  if (file.container() == Container::kGguf) {
    for (const GgufMeta::Entry& entry : file.gguf().entries()) {
      meta[entry.key] = value_to_json(entry.value);
    }
  } else {
    meta = file.config();
  }
  out["metadata"] = std::move(meta);
  std::map<std::string, std::pair<int64_t, uint64_t>> types;
  for (const Tensor& tensor : file.tensors()) {
    auto& [count, bytes] = types[std::string(format_info(tensor.format).name)];
    ++count;
    bytes += tensor.bytes;
  }
  for (const auto& [name, sums] : types) {
    out["types"][name] = {{"tensors", sums.first}, {"bytes", sums.second}};
  }
  out["tensors"] = file.tensors().size();
  if (with_tensors) {
    Json list = Json::array();
    for (const Tensor& tensor : file.tensors())
      list.push_back(tensor_to_json(tensor));
    out["tensor_list"] = std::move(list);
  }
  return out;
}

// Bytes by role and by part, each tensor once.
Json roles_to_json(const Model& model) {
  std::map<const Tensor*, Role> roles;
  for (const Graph* graph : {&model.text, &model.vision}) {
    for (const Weight& weight : graph->weights())
      roles.emplace(weight.tensor, weight.role);
  }
  static constexpr const char* kParts[] = {"text", "vision encoder", "projector"};
  Json out = Json::object();
  for (const char* part : kParts)
    out[part] = {{"bytes", 0}, {"roles", Json::object()}};
  for (const auto& [tensor, role] : roles) {
    Json& part = out[kParts[static_cast<int>(part_of(role))]];
    part["bytes"] = part["bytes"].get<uint64_t>() + tensor->bytes;
    Json& entry = part["roles"][std::string(role_name(role))];
    if (entry.is_null())
      entry = {{"tensors", 0}, {"bytes", 0}, {"types", Json::object()}};
    entry["tensors"] = entry["tensors"].get<int64_t>() + 1;
    entry["bytes"] = entry["bytes"].get<uint64_t>() + tensor->bytes;
    Json& type = entry["types"][std::string(format_info(tensor->format).name)];
    type = type.is_null() ? 1 : type.get<int64_t>() + 1;
  }
  return out;
}

Json model_to_json(const Model& model) {
  Json out = {
      {"family", model.family},
      {"name", model.name},
      {"hidden_size", model.hidden_size},
      {"num_hidden_layers", model.cache.layers},
      {"num_key_value_heads", model.cache.kv_heads},
      {"head_dim", model.cache.head_dim},
      {"vocab_size", model.vocab_size},
      {"max_position_embeddings", model.context_length},
      {"kv_cache_bytes_per_token_f16", kv_bytes_per_token(model.cache, kernels::KvType::kF16)},
      {"picture_cache_bytes_per_token_f16",
       picture_bytes_per_token(model.cache, kernels::KvType::kF16)},
      {"weight_bytes", model.weight_bytes},
      {"unused_tensors", model.unused_tensors}};
  if (model.pictures) {
    const PictureSpec& p = *model.pictures;
    out["pictures"] = {
        {"patch_size", p.patch_size},
        {"merge_size", p.merge_size},
        {"pixels_per_token", p.patch_size * p.merge_size * p.patch_size * p.merge_size},
        {"min_pixels", p.min_pixels},
        {"max_pixels", p.max_pixels}};
    if (p.max_tiles > 0)
      out["pictures"]["max_tiles"] = p.max_tiles;
  }
  out["sizes"] = roles_to_json(model);
  return out;
}

void print_file(const Json& file) {
  fmt::print("{}\n", bold(file["path"].get<std::string>(), STDOUT_FILENO));
  fmt::print("  {} with {} tensors in {} part(s), {}\n", file["container"].get<std::string>(),
             file["tensors"].get<size_t>(), file["parts"].get<size_t>(),
             format_bytes(file["bytes"].get<uint64_t>()));
  const Json types = file.value("types", Json::object());
  for (const auto& [type, sums] : types.items()) {
    fmt::print("  {:<8} {:>6} tensors {:>12}\n", type, sums["tensors"].get<int64_t>(),
               format_bytes(sums["bytes"].get<uint64_t>()));
  }
  fmt::print("  metadata\n");
  for (const auto& [key, value] : file["metadata"].items()) {
    std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    constexpr size_t kMaxShown = 100;
    if (text.size() > kMaxShown)
      text = text.substr(0, kMaxShown) + "…";
    fmt::print("    {:<44} {}\n", key, text);
  }
  if (!file.contains("tensor_list"))
    return;
  fmt::print("  tensors\n");
  for (const Json& tensor : file["tensor_list"]) {
    fmt::print("    {:<56} {:<6} [{}] {}\n", tensor["name"].get<std::string>(),
               tensor["type"].get<std::string>(),
               fmt::join(tensor["shape"].get<std::vector<int64_t>>(), ", "),
               format_bytes(tensor["bytes"].get<uint64_t>()));
  }
}

void print_model(const Json& model) {
  fmt::print("{} {}\n", bold("model", STDOUT_FILENO), model["name"].get<std::string>());
  fmt::print("  family {}, {} layers, hidden_size {}, {} kv heads x {}, vocabulary {}\n",
             model["family"].get<std::string>(), model["num_hidden_layers"].get<int64_t>(),
             model["hidden_size"].get<int64_t>(), model["num_key_value_heads"].get<int64_t>(),
             model["head_dim"].get<int64_t>(), model["vocab_size"].get<int64_t>());
  for (const auto& [part, sums] : model["sizes"].items()) {
    fmt::print("  {:<28} {:>12}\n", part, format_bytes(sums["bytes"].get<uint64_t>()));
    for (const auto& [role, entry] : sums["roles"].items()) {
      std::string types;
      for (const auto& [type, count] : entry["types"].items()) {
        types += fmt::format(" {}x{}", type, count.get<int64_t>());
      }
      fmt::print("    {:<26} {:>12} {}\n", role, format_bytes(entry["bytes"].get<uint64_t>()),
                 types);
    }
  }
  if (!model.contains("pictures")) {
    fmt::print(
        "  no vision part was found: this model reads text only; --mmproj names a projector\n");
  }
  const auto unused = model["unused_tensors"].get<std::vector<std::string>>();
  if (!unused.empty()) {
    fmt::print("  {} tensors are not used by this family: {}{}\n", unused.size(),
               fmt::join(unused.begin(),
                         unused.begin() + std::min<std::ptrdiff_t>(8, std::ssize(unused)), ", "),
               unused.size() > 8 ? ", …" : "");
  }
}

int run(const InspectOptions& options) {
  auto files = ModelFiles::open(options.path, options.mmproj);
  if (!files)
    return report(files.error());
  Json out = {{"files", Json::array({file_to_json(files->text, options.tensors)})}};
  if (files->projector)
    out["files"].push_back(file_to_json(*files->projector, options.tensors));
  // A file of an unknown family, or one that lacks tensors, is still shown; the reason comes last.
  const auto model = describe_model(*files);
  if (model)
    out["model"] = model_to_json(*model);
  else
    out["problem"] = model.error().text();

  if (options.json) {
    fmt::print("{}\n", out.dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    for (const Json& file : out["files"])
      print_file(file);
    if (model)
      print_model(out["model"]);
  }
  if (!model && !options.json)
    fmt::print(stderr, "pinhole: {}\n", model.error().text());
  return model ? kExitOk : kExitFailed;
}

} // namespace

void add_inspect(CLI::App& app, int& exit) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* inspect = app.add_subcommand("inspect", "Show metadata, tensors and sizes of a model");
  inspect->footer(
      "Exit code 1 when the family is unknown or tensors are missing (they are listed).\n\n"
      "Examples:\n"
      "  pinhole inspect Qwen3-VL-2B-Q4_K_M.gguf\n"
      "  pinhole inspect Qwen3-VL-2B-Instruct/ --tensors\n"
      "  pinhole inspect model.gguf --json | jq .model.sizes");
  inspect->add_option("path", options->path, "A .gguf file or a Hugging Face folder")->required();
  inspect->add_option("--mmproj", options->mmproj, "Picture projector (default: found beside it)");
  inspect->add_flag("--tensors", options->tensors, "List every tensor");
  inspect->add_flag("--json", options->json, "Print everything as JSON");
  inspect->callback([options, &exit] { exit = run(*options); });
}

} // namespace pinhole::cli
