// What `pinhole verify` found: one line per case, counted.
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "plan/layout.h"

#include <filesystem>
#include <string>
#include <vector>

namespace pinhole::cli {

enum class Outcome { kPassed, kFailed, kSkipped };

struct CaseReport {
  Outcome outcome = Outcome::kPassed;
  std::string name;   // the case's folder or file, relative to the root that was named
  std::string detail; // errors measured, or the reason
};

class VerifyReport {
 public:
  VerifyReport(bool json, std::filesystem::path root) : json_(json), root_(std::move(root)) {}

  void set_root(std::filesystem::path root) { root_ = std::move(root); }
  std::string relative(const std::filesystem::path& path) const;
  // Prints the line at once (unless JSON is wanted).
  void add(Outcome outcome, std::string name, std::string detail);
  void passed_if(bool ok, std::string name, std::string detail) {
    add(ok ? Outcome::kPassed : Outcome::kFailed, std::move(name), std::move(detail));
  }
  // The last line, or the JSON document; true when nothing failed.
  bool finish() const;

 private:
  bool json_;
  std::filesystem::path root_;
  std::vector<CaseReport> cases_;
};

// Each checks one recognised folder and reports its cases.
void verify_model_folder(const std::filesystem::path& folder, const KernelChoice& kernels,
                         VerifyReport& report);
void verify_gguf_folder(const std::filesystem::path& folder, const KernelChoice& kernels,
                        VerifyReport& report);
void verify_tokenizers(const std::filesystem::path& folder, VerifyReport& report);
void verify_chat_templates(const std::filesystem::path& folder, VerifyReport& report);
void verify_preprocessing(const std::filesystem::path& folder, VerifyReport& report);
void verify_dequantisation(const std::filesystem::path& folder, const KernelChoice& kernels,
                           VerifyReport& report);
void verify_footprints(const std::filesystem::path& folder, VerifyReport& report);

} // namespace pinhole::cli
