// A model described from its files, and kept with them.
#pragma once

#include "model/model.h"
#include "support/golden.h"

#include <memory>
#include <string>
#include <vector>

namespace pinhole::testing {

struct Described {
  ModelFiles files;
  Model model; // points into files

  static std::unique_ptr<Described> open(const std::string& path, const std::string& mmproj = {}) {
    auto out = std::make_unique<Described>();
    out->files = take(ModelFiles::open(path, mmproj));
    out->model = take(describe_model(out->files));
    return out;
  }
  std::vector<const MappedFile*> mapped_files() const {
    std::vector<const MappedFile*> out;
    for (const MappedFile& part : files.text.parts())
      out.push_back(&part);
    if (files.projector) {
      for (const MappedFile& part : files.projector->parts())
        out.push_back(&part);
    }
    return out;
  }
  static std::unique_ptr<Described> bundled() {
    return open(source_path("models/pinhole-mini/pinhole-mini-f16.gguf"));
  }
};

} // namespace pinhole::testing
