// pinhole verify: holds the engine against recorded reference results, of which golden/README.md of
// a collection describes the files.
#include "cli/verify_report.h"

#include "cli/common.h"

#include <algorithm>
#include <cstdio>
#include <fmt/format.h>

namespace pinhole::cli {

namespace fs = std::filesystem;

std::string VerifyReport::relative(const fs::path& path) const {
  std::error_code error;
  const fs::path out = fs::relative(path, root_, error);
  return error || out.empty() || out == "." ? path.filename().string() : out.string();
}

void VerifyReport::add(Outcome outcome, std::string name, std::string detail) {
  static constexpr const char* kWords[] = {"ok  ", "FAIL", "skip"};
  if (!json_) {
    fmt::print("{}  {}  {}\n", kWords[static_cast<int>(outcome)], name, detail);
    std::fflush(stdout);
  }
  cases_.push_back({outcome, std::move(name), std::move(detail)});
}

bool VerifyReport::finish() const {
  const auto count = [this](Outcome outcome) {
    return std::count_if(cases_.begin(), cases_.end(),
                         [outcome](const CaseReport& c) { return c.outcome == outcome; });
  };
  const auto passed = count(Outcome::kPassed);
  const auto failed = count(Outcome::kFailed);
  const auto skipped = count(Outcome::kSkipped);
  if (json_) {
    static constexpr const char* kWords[] = {"passed", "failed", "skipped"};
    Json cases = Json::array();
    for (const CaseReport& c : cases_) {
      cases.push_back({{"case", c.name},
                       {"outcome", kWords[static_cast<int>(c.outcome)]},
                       {"detail", c.detail}});
    }
    const Json out = {
        {"passed", passed}, {"failed", failed}, {"skipped", skipped}, {"cases", std::move(cases)}};
    fmt::print("{}\n", out.dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    if (skipped > 0)
      fmt::print("{} could not be checked; the reasons stand above\n", skipped);
    fmt::print("{} passed, {} failed\n", passed, failed);
  }
  return failed == 0 && passed > 0;
}

namespace {

struct Checker {
  KernelChoice kernels;
  VerifyReport& report;

  static bool any_file(const fs::path& folder, std::string_view ending) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      if (entry.is_regular_file() && entry.path().filename().string().ends_with(ending))
        return true;
    }
    return false;
  }

  // True when the folder is a known kind of case; its subfolders are then not looked at.
  bool check(const fs::path& folder) {
    const auto has = [&folder](const char* name) { return fs::exists(folder / name); };
    if (has("config.json") && has("cases")) {
      verify_model_folder(folder, kernels, report);
      return true;
    }
    if (has("hf/config.json") && has("hf/cases") && any_file(folder, ".gguf")) {
      verify_gguf_folder(folder, kernels, report);
      return true;
    }
    if (has("rendered.json")) {
      verify_chat_templates(folder, report);
      return true;
    }
    if (has("smart_resize.json")) {
      verify_preprocessing(folder, report);
      return true;
    }
    if (has("index.json") && has("all_types.gguf")) {
      verify_dequantisation(folder, kernels, report);
      return true;
    }
    if (has("index.json") && any_file(folder, ".safetensors")) {
      report.add(Outcome::kSkipped, report.relative(folder),
                 "bitsandbytes tensors are not read yet");
      return true;
    }
    if (has("expected.json") && any_file(folder, ".config.json")) {
      verify_footprints(folder, report);
      return true;
    }
    if (has("fixture.json") && has("config.json")) {
      const auto config = read_json_file((folder / "config.json").string());
      const Json* type = config ? json_find(*config, "model_type") : nullptr;
      report.add(Outcome::kSkipped, report.relative(folder),
                 fmt::format("model_type {} is not one of the families here",
                             type == nullptr ? "?" : type->dump()));
      return true;
    }
    if (any_file(folder, ".inp")) {
      verify_tokenizers(folder, report);
      return true;
    }
    return false;
  }

  // Returns whether anything was recognised.
  bool walk(const fs::path& folder, int depth) {
    if (check(folder))
      return true;
    if (depth == 0)
      return false;
    std::vector<fs::path> below;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      if (entry.is_directory() && !entry.is_symlink())
        below.push_back(entry.path());
    }
    std::sort(below.begin(), below.end());
    bool found = false;
    for (const fs::path& path : below) {
      if (interrupted())
        return found;
      found = walk(path, depth - 1) || found;
    }
    return found;
  }
};

} // namespace

void add_verify(CLI::App& app, int& exit) {
  struct Options {
    std::vector<std::string> folders;
    ComputeOptions compute;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verify =
      app.add_subcommand("verify", "Hold the engine against recorded reference results");
  verify->footer(
      "Walks the folders and checks every kind of case it recognises: models (Hugging Face\n"
      "folders and GGUF), tokenizers, chat templates, picture preprocessing, element types.\n"
      "Models are run twice: in f32 throughout (exact), and as `ask` runs them.\n"
      "The last line is 'N passed, N failed'; the exit code is 0 when nothing failed.\n\n"
      "Examples:\n"
      "  pinhole verify ../shared/golden\n"
      "  PINHOLE_ISA=avx2 pinhole verify my-cases/qwen3_vl");
  verify->add_option("folder", options->folders, "Folders with cases")
      ->required()
      ->check(CLI::ExistingDirectory);
  verify->add_flag("--json", options->json, "Print the results as JSON");
  verify->add_option("--threads", options->compute.threads, "Threads that compute")
      ->check(CLI::Range(1, 1024));
  verify->callback([options, &exit] {
    auto kernels = options->compute.resolve();
    if (!kernels) {
      exit = report(kernels.error());
      return;
    }
    VerifyReport verdict(options->json, {});
    if (!options->json) {
      fmt::print("kernels: {}, {} threads\n", kernels->table->isa, kernels->num_threads);
    }
    for (const std::string& folder : options->folders) {
      verdict.set_root(fs::path(folder));
      Checker checker{*kernels, verdict};
      if (!checker.walk(fs::path(folder), 8)) {
        verdict.add(Outcome::kFailed, folder, "holds no case that is recognised");
      }
    }
    const bool ok = verdict.finish();
    exit = interrupted() ? kExitInterrupted : ok ? kExitOk : kExitFailed;
  });
}

} // namespace pinhole::cli
