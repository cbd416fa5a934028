#include "swap/settings.h"

#include "base/memory_limit.h"
#include "file/printable.h"
#include "swap/toml_node.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>
#include <initializer_list>
#include <set>

namespace pinhole {

namespace {

constexpr Millis kMaxDurationMs = 30LL * 24 * 3600 * 1000;
constexpr size_t kMaxModels = 256, kMaxAliases = 64, kMaxWords = 256;
constexpr size_t kMaxNameBytes = 128, kMaxTextBytes = 4096;
constexpr int64_t kMaxParallel = 1024, kMaxWaiting = 100'000, kMaxPort = 65535;

constexpr std::string_view kDurationForms = "a time such as \"90s\", \"10min\" or \"2h\"";
constexpr std::string_view kBytesForms = "a size such as \"6GiB\" or \"800M\"";

struct SignalName {
  std::string_view name;
  int number;
};
constexpr SignalName kSignals[] = {{"SIGTERM", SIGTERM}, {"SIGINT", SIGINT},
                                   {"SIGQUIT", SIGQUIT}, {"SIGHUP", SIGHUP},
                                   {"SIGKILL", SIGKILL}, {"SIGUSR1", SIGUSR1}};

// A table of the file, with the path of keys to it.
class Table {
 public:
  Table(const std::string& file, std::string path, const TomlNode& node)
      : file_(file), path_(std::move(path)), node_(node) {}

  std::string key_path(std::string_view key) const {
    return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
  }
  std::string where(const TomlNode& node) const {
    return fmt::format("{}, line {}", file_, node.line);
  }
  tl::unexpected<Error> wrong(std::string_view key, const TomlNode& node,
                              std::string_view expected) const {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("{} is {}, expected {}", key_path(key), node.shown(), expected),
                where(node));
  }
  const TomlNode& node() const { return node_; }
  const TomlNode* find(std::string_view key) const { return node_.find(key); }

  Status only(std::initializer_list<std::string_view> known) const {
    for (const auto& [key, value] : node_.members) {
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        return fail(ErrorCode::kInvalidInput,
                    fmt::format("{} is not a setting, expected one of: {}",
                                key_path(printable(key)), fmt::join(known, ", ")),
                    where(value));
      }
    }
    return {};
  }

  // Each leaves `out` as it is when the key is not there.
  Status text(std::string_view key, std::string& out, std::string_view expected) const {
    const TomlNode* node = find(key);
    if (node == nullptr)
      return {};
    if (node->kind != TomlNode::Kind::kText || node->text.empty() ||
        node->text.size() > kMaxTextBytes || node->text.find('\0') != std::string::npos)
      return wrong(key, *node, expected);
    out = node->text;
    return {};
  }
  Status boolean(std::string_view key, bool& out) const {
    const TomlNode* node = find(key);
    if (node != nullptr && node->kind != TomlNode::Kind::kBool)
      return wrong(key, *node, "true or false");
    if (node != nullptr)
      out = node->boolean;
    return {};
  }
  template <class T> Status integer(std::string_view key, int64_t min, int64_t max, T& out) const {
    const TomlNode* node = find(key);
    if (node == nullptr)
      return {};
    if (node->kind != TomlNode::Kind::kInteger || node->integer < min || node->integer > max)
      return wrong(key, *node, fmt::format("an integer from {} to {}", min, max));
    out = static_cast<T>(node->integer);
    return {};
  }
  Status bytes(std::string_view key, std::optional<int64_t>& out, std::string_view expected) const {
    const TomlNode* node = find(key);
    if (node == nullptr)
      return {};
    if (node->kind == TomlNode::Kind::kText)
      out = parse_bytes(node->text);
    else if (node->kind == TomlNode::Kind::kInteger && node->integer > 0)
      out = parse_bytes(std::to_string(node->integer));
    else
      out.reset();
    return out ? Status{} : Status{wrong(key, *node, expected)};
  }
  Status duration(std::string_view key, Millis& out, bool may_be_never = false) const {
    const TomlNode* node = find(key);
    if (node == nullptr)
      return {};
    std::optional<Millis> ms;
    if (node->kind == TomlNode::Kind::kInteger)
      ms = parse_duration_ms(std::to_string(node->integer));
    else if (node->kind == TomlNode::Kind::kText && may_be_never && node->text == "never")
      ms = kNever;
    else if (node->kind == TomlNode::Kind::kText)
      ms = parse_duration_ms(node->text);
    if (!ms) {
      return wrong(key, *node,
                   may_be_never ? fmt::format("{}, or \"never\"", kDurationForms)
                                : std::string(kDurationForms));
    }
    out = *ms;
    return {};
  }

 private:
  const std::string& file_;
  const std::string path_;
  const TomlNode& node_;
};

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes &&
         std::none_of(name.begin(), name.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

constexpr std::string_view kNameForms = "a name of 1 to 128 bytes without control characters";

Status read_aliases(const Table& table, ModelSettings& model) {
  constexpr std::string_view kExpected = "a list of at most 64 names";
  const TomlNode* node = table.find("aliases");
  if (node == nullptr)
    return {};
  if (node->kind != TomlNode::Kind::kArray || node->items.size() > kMaxAliases)
    return table.wrong("aliases", *node, kExpected);
  for (const TomlNode& item : node->items) {
    if (item.kind != TomlNode::Kind::kText || !is_name(item.text))
      return table.wrong("aliases", item, kNameForms);
    model.aliases.push_back(item.text);
  }
  return {};
}

Status read_command(const Table& table, ModelSettings& model) {
  constexpr std::string_view kExpected =
      "a command such as \"llama-server -m FILE --port {port}\", or a list of its words";
  const TomlNode* node = table.find("cmd");
  if (node == nullptr)
    return {};
  if (node->kind == TomlNode::Kind::kText) {
    auto words = split_command(node->text);
    if (!words)
      return table.wrong("cmd", *node, fmt::format("{} ({})", kExpected, words.error().message));
    model.command = std::move(*words);
  } else if (node->kind == TomlNode::Kind::kArray) {
    for (const TomlNode& item : node->items) {
      if (item.kind != TomlNode::Kind::kText)
        return table.wrong("cmd", item, kExpected);
      model.command.push_back(item.text);
    }
  }
  const auto has_zero = [](const auto& word) { return word.find('\0') != std::string::npos; };
  if (model.command.empty() || model.command.size() > kMaxWords || model.command[0].empty() ||
      std::any_of(model.command.begin(), model.command.end(), has_zero)) {
    return table.wrong("cmd", *node, kExpected);
  }
  return {};
}

// Keys that only a command has.
Status read_external(const Table& table, ModelSettings& model) {
  if (model.command.empty()) {
    for (const std::string_view key : {"health", "port", "stop_signal", "stop_timeout", "log"}) {
      if (const TomlNode* node = table.find(key))
        return table.wrong(key, *node, "it only beside cmd");
    }
    return {};
  }
  constexpr std::string_view kHealthForms = "a path such as \"/health\"";
  PINHOLE_CHECK(table.text("health", model.health_path, kHealthForms));
  for (const std::string_view host : {"http://127.0.0.1:{port}", "http://localhost:{port}"}) {
    if (model.health_path.starts_with(host))
      model.health_path.erase(0, host.size());
  }
  const bool is_path = model.health_path.starts_with("/") &&
                       std::all_of(model.health_path.begin(), model.health_path.end(),
                                   [](char c) { return c > 0x20 && c < 0x7f; });
  if (!is_path)
    return table.wrong("health", *table.find("health"), kHealthForms);
  PINHOLE_CHECK(table.integer("port", 1, kMaxPort, model.port));
  const bool has_place =
      std::any_of(model.command.begin(), model.command.end(),
                  [](const auto& word) { return word.find("{port}") != std::string::npos; });
  if (!has_place && model.port == 0)
    return table.wrong("cmd", *table.find("cmd"), "{port} in it, or the key port beside it");
  if (has_place && model.port != 0)
    return table.wrong("port", *table.find("port"), "it only beside a cmd without {port}");
  std::string signal;
  PINHOLE_CHECK(table.text("stop_signal", signal, "the name of a signal"));
  if (!signal.empty()) {
    const auto found = std::find_if(std::begin(kSignals), std::end(kSignals),
                                    [&](const SignalName& s) { return s.name == signal; });
    if (found == std::end(kSignals)) {
      return table.wrong("stop_signal", *table.find("stop_signal"),
                         "SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1 or SIGKILL");
    }
    model.stop_signal = found->number;
  }
  PINHOLE_CHECK(table.duration("stop_timeout", model.stop_timeout_ms));
  return table.text("log", model.log_path, "the path of a file");
}

Status read_memory(const Table& table, ModelSettings& model) {
  const TomlNode* ram = table.find("ram");
  if (ram != nullptr && ram->kind == TomlNode::Kind::kText && ram->text == "measure") {
    if (model.command.empty())
      return table.wrong("ram", *ram, "a size: a model in this process is planned, not measured");
    model.is_measured = true;
  } else {
    PINHOLE_CHECK(
        table.bytes("ram", model.ram_bytes, fmt::format("{}, or \"measure\"", kBytesForms)));
    model.is_measured = ram == nullptr && !model.command.empty();
  }
  if (model.is_pinned && model.is_measured) {
    return table.wrong(
        "pin", *table.find("pin"),
        "ram = \"SIZE\" beside it: what is pinned must be known before it is loaded");
  }
  std::optional<int64_t> vram;
  PINHOLE_CHECK(table.bytes("vram", vram, kBytesForms));
  model.vram_bytes = vram.value_or(0);
  return {};
}

Result<ModelSettings> read_model(const Table& table, std::string name, Millis ttl_ms) {
  PINHOLE_CHECK(
      table.only({"model", "cmd", "aliases", "role", "group", "pin", "ttl", "parallel", "ram",
                  "vram", "load_timeout", "health", "port", "stop_signal", "stop_timeout", "log"}));
  ModelSettings model;
  model.name = std::move(name);
  model.line = table.node().line;
  model.ttl_ms = ttl_ms;
  PINHOLE_CHECK(read_aliases(table, model));
  PINHOLE_CHECK(table.text("model", model.source, "a path, or hf:user/repo[:QUANT]"));
  PINHOLE_CHECK(read_command(table, model));
  if (model.source.empty() == model.command.empty()) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("{} has {} 'model' {} 'cmd', expected one of them",
                            printable(model.name), model.source.empty() ? "neither" : "both",
                            model.source.empty() ? "nor" : "and"),
                table.where(table.node()));
  }
  std::string role;
  PINHOLE_CHECK(table.text("role", role, "\"text\" or \"vision\""));
  if (!role.empty() && role != "text" && role != "vision")
    return table.wrong("role", *table.find("role"), "\"text\" or \"vision\"");
  model.role = role == "vision" ? ModelRole::kVision : ModelRole::kText;
  PINHOLE_CHECK(table.text("group", model.group, kNameForms));
  if (!is_name(model.group))
    return table.wrong("group", *table.find("group"), kNameForms);
  PINHOLE_CHECK(table.boolean("pin", model.is_pinned));
  PINHOLE_CHECK(table.duration("ttl", model.ttl_ms, true));
  PINHOLE_CHECK(table.integer("parallel", 1, kMaxParallel, model.parallel));
  PINHOLE_CHECK(table.duration("load_timeout", model.load_timeout_ms));
  PINHOLE_CHECK(read_external(table, model));
  PINHOLE_CHECK(read_memory(table, model));
  return model;
}

// A member that must be a table, with all its members tables too: models, groups.
Result<std::vector<std::pair<std::string, Table>>>
tables_of(const Table& root, const std::string& file, std::string_view key) {
  std::vector<std::pair<std::string, Table>> out;
  const TomlNode* node = root.find(key);
  if (node == nullptr)
    return out;
  const std::string expected = fmt::format("tables: [{}.NAME]", key);
  if (node->kind != TomlNode::Kind::kTable)
    return root.wrong(key, *node, expected);
  const Table parent(file, std::string(key), *node);
  for (const auto& [name, member] : node->members) {
    if (!is_name(name)) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("{} is a name of {} bytes, expected {}",
                              parent.key_path(printable(name)), name.size(), kNameForms),
                  root.where(member));
    }
    if (member.kind != TomlNode::Kind::kTable)
      return parent.wrong(name, member, expected);
    out.emplace_back(name, Table(file, fmt::format("{}.{}", key, name), member));
  }
  return out;
}

Status read_groups(const Table& root, const std::string& file, SwapSettings& settings) {
  PINHOLE_TRY(const auto tables, tables_of(root, file, "groups"));
  std::set<std::string> named;
  for (const ModelSettings& model : settings.models)
    named.insert(model.group);
  for (const auto& [name, table] : tables) {
    PINHOLE_CHECK(table.only({"describe_then_answer", "describe_prompt"}));
    GroupSettings group{.name = name};
    PINHOLE_CHECK(table.boolean("describe_then_answer", group.describe_then_answer));
    PINHOLE_CHECK(table.text("describe_prompt", group.describe_prompt, "a question to the model"));
    if (named.erase(name) == 0) {
      return fail(
          ErrorCode::kNotFound,
          fmt::format("groups.{} has no model, expected one with group = \"{}\"", name, name),
          table.where(table.node()));
    }
    settings.groups.push_back(std::move(group));
  }
  for (const std::string& name : named)
    settings.groups.push_back({.name = name});
  for (const GroupSettings& group : settings.groups) {
    const ModelSettings* vision = nullptr;
    for (const ModelSettings& model : settings.models) {
      if (model.group != group.name || model.role != ModelRole::kVision)
        continue;
      if (vision != nullptr && group.describe_then_answer) {
        return fail(
            ErrorCode::kInvalidInput,
            fmt::format("group '{}' has two vision models, '{}' and '{}', expected one that "
                        "describes",
                        group.name, vision->name, model.name),
            fmt::format("{}, line {}", file, model.line));
      }
      vision = &model;
    }
    if (vision == nullptr && group.describe_then_answer) {
      return fail(
          ErrorCode::kNotFound,
          fmt::format("groups.{}.describe_then_answer is true, expected a model with role = "
                      "\"vision\" in the group",
                      group.name),
          root.where(*root.find("groups")->find(group.name)));
    }
  }
  return {};
}

Status read_ports(const Table& root, SwapSettings& settings) {
  const TomlNode* node = root.find("ports");
  if (node == nullptr)
    return {};
  const auto is_port = [](const TomlNode& item) {
    return item.kind == TomlNode::Kind::kInteger && item.integer >= 1 && item.integer <= kMaxPort;
  };
  if (node->kind != TomlNode::Kind::kArray || node->items.size() != 2 || !is_port(node->items[0]) ||
      !is_port(node->items[1]) || node->items[0].integer > node->items[1].integer) {
    return root.wrong("ports", *node, "the first and the last port: [9100, 9199]");
  }
  settings.first_port = static_cast<uint16_t>(node->items[0].integer);
  settings.last_port = static_cast<uint16_t>(node->items[1].integer);
  return {};
}

// Names and aliases are one set.
Status check_names(const std::string& file, const SwapSettings& settings) {
  std::set<std::string_view> seen;
  for (const ModelSettings& model : settings.models)
    seen.insert(model.name);
  for (const ModelSettings& model : settings.models) {
    for (const std::string& alias : model.aliases) {
      if (!seen.insert(alias).second) {
        return fail(
            ErrorCode::kInvalidInput,
            fmt::format("alias {} of model {} is taken, expected a name that no other model "
                        "or alias has",
                        printable(alias), printable(model.name)),
            fmt::format("{}, line {}", file, model.line));
      }
    }
  }
  return {};
}

Status read_default(const Table& root, SwapSettings& settings) {
  settings.default_model =
      std::min_element(settings.models.begin(), settings.models.end(),
                       [](const auto& a, const auto& b) { return a.line < b.line; })
          ->name; // the first of the file
  std::string name;
  PINHOLE_CHECK(root.text("default", name, "the name of a model"));
  if (name.empty())
    return {};
  for (const ModelSettings& model : settings.models) {
    if (model.name == name ||
        std::find(model.aliases.begin(), model.aliases.end(), name) != model.aliases.end()) {
      settings.default_model = model.name;
      return {};
    }
  }
  return root.wrong("default", *root.find("default"), "the name or alias of a model of this file");
}

} // namespace

std::optional<Millis> parse_duration_ms(std::string_view text) {
  int64_t value = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || value < 0)
    return std::nullopt;
  const std::string_view unit(rest, static_cast<size_t>(text.data() + text.size() - rest));
  const int64_t factor = unit == "ms"                  ? 1
                         : unit.empty() || unit == "s" ? 1000
                         : unit == "min"               ? 60'000
                         : unit == "h"                 ? 3'600'000
                                                       : 0;
  if (factor == 0 || value > kMaxDurationMs / factor)
    return std::nullopt;
  return value * factor;
}

Result<std::vector<std::string>> split_command(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool is_space = c == ' ' || c == '\t' || c == '\n' || c == '\r';
    if (c == '\\' && quote != '\'' && i + 1 < text.size()) {
      word += text[++i];
      in_word = true;
    } else if (quote != 0 && c == quote) {
      quote = 0;
    } else if (quote != 0) {
      word += c;
    } else if (c == '"' || c == '\'') {
      quote = c;
      in_word = true;
    } else if (is_space) {
      if (in_word)
        words.push_back(std::move(word));
      word.clear();
      in_word = false;
    } else {
      word += c;
      in_word = true;
    }
  }
  if (quote != 0)
    return fail(ErrorCode::kInvalidInput, fmt::format("a {} is not closed", quote));
  if (in_word)
    words.push_back(std::move(word));
  return words;
}

Result<SwapSettings> parse_settings(std::string_view text, const std::string& file) {
  PINHOLE_TRY(const TomlNode node, parse_toml(text, file));
  const Table root(file, "", node);
  PINHOLE_CHECK(
      root.only({"ram", "vram", "ttl", "max_wait", "min_residency", "drain_timeout",
                 "request_timeout", "max_waiting", "ports", "default", "models", "groups"}));
  SwapSettings settings;
  PINHOLE_CHECK(root.bytes("ram", settings.ram_bytes, kBytesForms));
  std::optional<int64_t> vram;
  PINHOLE_CHECK(root.bytes("vram", vram, kBytesForms));
  settings.vram_bytes = vram.value_or(0);
  Millis ttl_ms = kNever;
  PINHOLE_CHECK(root.duration("ttl", ttl_ms, true));
  PINHOLE_CHECK(root.duration("max_wait", settings.max_wait_ms));
  PINHOLE_CHECK(root.duration("min_residency", settings.min_residency_ms));
  PINHOLE_CHECK(root.duration("drain_timeout", settings.drain_timeout_ms));
  PINHOLE_CHECK(root.duration("request_timeout", settings.request_timeout_ms));
  PINHOLE_CHECK(root.integer("max_waiting", 1, kMaxWaiting, settings.max_waiting));
  PINHOLE_CHECK(read_ports(root, settings));

  PINHOLE_TRY(const auto tables, tables_of(root, file, "models"));
  if (tables.empty() || tables.size() > kMaxModels) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("{} models, expected 1 to {}: [models.NAME]", tables.size(), kMaxModels), file);
  }
  for (const auto& [name, table] : tables) {
    PINHOLE_TRY(ModelSettings model, read_model(table, name, ttl_ms));
    settings.models.push_back(std::move(model));
  }
  PINHOLE_CHECK(check_names(file, settings));
  PINHOLE_CHECK(read_groups(root, file, settings));
  PINHOLE_CHECK(read_default(root, settings));
  return settings;
}

Result<SwapSettings> read_settings(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return fail(ErrorCode::kNotFound, fmt::format("cannot be read: {}", std::strerror(errno)),
                path);
  std::string text(kMaxTomlBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad())
    return fail(ErrorCode::kIo, fmt::format("cannot be read: {}", std::strerror(errno)), path);
  text.resize(static_cast<size_t>(file.gcount()));
  return parse_settings(text, path);
}

} // namespace pinhole
