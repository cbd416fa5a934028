// "What if it were quantised": the formats that llama-quantize would choose, put into a described
// model, so that plans can be made for files that nobody has made yet.
#pragma once

#include "base/function_ref.h"
#include "model/model.h"

#include <string>
#include <string_view>
#include <vector>

namespace pinhole {

// Names that apply_recipe takes: "f32", "bf16", "q4_k_m" ...
std::vector<std::string_view> recipe_names();

// Sets the formats of the model's weights. f32, f16, bf16 and nf4 (what bitsandbytes makes of the
// linear layers, the rest at 16 bit) are for all of the model; the others
// are for the text part (norms and routers stay F32) and leave the vision part as it is, or F16
// where that has no file. weight_bytes follows. The model can be planned then, but not run.
// Source: llama.cpp, llama_tensor_get_type in src/llama-quant.cpp.
Status apply_recipe(std::string_view name, Model& model);

// Bytes of the weights with one role, each tensor once.
struct RoleBytes {
  Role role;
  int64_t tensors = 0;
  int64_t elements = 0;
  int64_t bytes = 0;
};
// Of all roles that occur, in the order of Role.
std::vector<RoleBytes> bytes_by_role(const Model& model);
// Of the tensors for which `counts` holds, all roles together.
int64_t bytes_of_tensors(const Model& model, FunctionRef<bool(const Tensor*)> counts);

// What `from_pretrained` of transformers holds, in bytes: get_memory_footprint().
struct TransformersFootprint {
  int64_t parameters = 0;
  int64_t linear =
      0; // of them weights of nn.Linear other than lm_head: what bitsandbytes quantises
  int64_t float32_bytes() const { return 4 * parameters; }
  int64_t bfloat16_bytes() const { return 2 * parameters; }
  // Two weights a byte; the rest stays at 16 bit. Its constants (see below) are not counted there.
  int64_t nf4_bytes() const { return linear / 2 + 2 * (parameters - linear); }
  // Double-quantised: an 8-bit constant per 64 weights, and an f32 per 256 of these.
  int64_t nf4_constant_bytes() const { return linear / 64 + linear / 64 / 256 * 4; }
};
TransformersFootprint transformers_footprint(const Model& model);

} // namespace pinhole
