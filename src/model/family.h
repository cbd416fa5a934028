// What a model family provides: see docs/howto/add-a-family.md. The rows are in families.def.
#pragma once

#include "model/model.h"

#include <span>
#include <string_view>

namespace pinhole {

struct Family {
  std::string_view name;      // "qwen3_vl"; also HF's model_type
  std::string_view gguf_arch; // general.architecture; empty: no GGUF of this family exists
  Result<Model> (*describe)(const ModelFiles& files);
};

std::span<const Family> families();

#define PINHOLE_FAMILY(name, gguf_arch, describe) Result<Model> describe(const ModelFiles& files);
#include "model/families.def"
#undef PINHOLE_FAMILY

} // namespace pinhole
