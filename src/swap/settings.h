// The settings file, pinhole.toml: models, groups of models, the memory ceiling, times.
//
// Invariant: what parse_settings() returns is consistent: names and aliases are unique, each model
// is either a file or a command, references name what is there, numbers are within their bounds.
// Unknown keys are errors. Source: docs/pinhole.toml.md.
#pragma once

#include "base/result.h"
#include "swap/policy.h"

#include <csignal>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

enum class ModelRole { kText, kVision };

struct ModelSettings {
  std::string name;
  std::vector<std::string> aliases;
  int line = 0;

  std::string source;               // in this process: a path or hf:user/repo[:QUANT]; or
  std::vector<std::string> command; // in a process of its own: program and arguments
  std::string health_path = "/health";
  uint16_t port = 0; // where the command listens; 0: {port} is in it
  int stop_signal = SIGTERM;
  std::string log_path;

  ModelRole role = ModelRole::kText; // kVision: reads pictures
  std::string group = "default";
  bool is_pinned = false;
  Millis ttl_ms = kNever;
  int parallel = 1;                 // requests in flight
  std::optional<int64_t> ram_bytes; // without: planned (in this process) or measured
  bool is_measured = false;
  int64_t vram_bytes = 0;
  Millis load_timeout_ms = 300'000;
  Millis stop_timeout_ms = 10'000;
};

struct GroupSettings {
  std::string name;
  // Pictures sent to a text model: the group's vision model describes them, the text model answers.
  // Otherwise the vision model answers.
  bool describe_then_answer = false;
  std::string describe_prompt = "Describe this picture in detail. Write down all text in it.";
};

struct SwapSettings {
  std::optional<int64_t>
      ram_bytes; // ceiling; without: what the machine has when the program starts
  int64_t vram_bytes = 0;
  Millis max_wait_ms = 15'000;
  Millis min_residency_ms = 5'000;
  Millis drain_timeout_ms = 120'000;
  Millis request_timeout_ms = 600'000; // how long a request waits for its model
  int max_waiting = 1024;
  uint16_t first_port = 0, last_port = 0; // for {port}; 0: any
  std::string default_model;              // of requests that name none: always one of `models`
  std::vector<ModelSettings> models;      // at least one
  std::vector<GroupSettings> groups;      // every group that a model names
};

Result<SwapSettings> parse_settings(std::string_view text, const std::string& file);
Result<SwapSettings> read_settings(const std::string& path);

// "90", "90s", "500ms", "10min", "2h": at most 30 days. Nothing for other text.
std::optional<Millis> parse_duration_ms(std::string_view text);
// Words of a command line: separated by spaces, '...' and "..." and \ keep them together. No shell.
Result<std::vector<std::string>> split_command(std::string_view text);

} // namespace pinhole
