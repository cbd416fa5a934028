#include "model/layer_kinds.h"

#include <cmath>
#include <fmt/format.h>

namespace pinhole {

namespace {

Status check(const LayerKinds& kinds, const std::string& where) {
  for (const RopeBase& rope : {kinds.full, kinds.sliding}) {
    if (!(rope.theta > 0) || !std::isfinite(rope.theta) || !(rope.factor > 0) ||
        !std::isfinite(rope.factor)) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("a rope of base {} and scaling factor {}, expected positive numbers",
                              rope.theta, rope.factor),
                  where);
    }
  }
  return {};
}

std::vector<bool> by_pattern(int64_t num_layers, int64_t pattern) {
  // "sliding_attention" if bool((i + 1) % sliding_window_pattern) else "full_attention"
  std::vector<bool> out;
  for (int64_t layer = 0; layer < num_layers; ++layer)
    out.push_back((layer + 1) % pattern != 0);
  return out;
}

// {rope_theta, rope_type, factor}
Status read_rope(const Json& object, const std::string& where, RopeBase& rope) {
  PINHOLE_TRY(rope.theta, json_double_or(object, "rope_theta", rope.theta, where));
  for (const char* key : {"rope_type", "type"}) {
    const Json* type = json_find(object, key);
    if (type == nullptr || *type == "default")
      continue;
    if (*type != "linear") {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("rope type {} is not supported here, only 'default' and 'linear'",
                              type->dump(-1, ' ', false, Json::error_handler_t::replace)),
                  where);
    }
    PINHOLE_TRY(rope.factor, json_double_or(object, "factor", rope.factor, where));
  }
  return {};
}

Status read_layer_types(const Json& types, const std::string& where, std::vector<bool>& out) {
  if (!types.is_array() || types.size() != out.size()) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("'layer_types' is not a list of {} layers", out.size()), where);
  }
  for (size_t layer = 0; layer < out.size(); ++layer) {
    out[layer] = types[layer] == "sliding_attention";
    if (!out[layer] && types[layer] != "full_attention") {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("layer {} is neither sliding_attention nor full_attention", layer),
                  where);
    }
  }
  return {};
}

} // namespace

Result<LayerKinds> layer_kinds_from_hf(const HfReaderScope& read, int64_t num_layers,
                                       const LayerKinds& defaults, int64_t pattern) {
  LayerKinds kinds = defaults;
  const std::string& where = read.where();
  PINHOLE_TRY(kinds.sliding_window,
              read.integer_or("sliding_window", defaults.sliding_window, 1, kMaxContext));
  PINHOLE_TRY(pattern, read.integer_or("_sliding_window_pattern", pattern, 1, kMaxCount));
  PINHOLE_TRY(pattern, read.integer_or("sliding_window_pattern", pattern, 1, kMaxCount));
  kinds.is_sliding = by_pattern(num_layers, pattern);
  if (const Json* types = json_find(read.object(), "layer_types"))
    PINHOLE_CHECK(read_layer_types(*types, where, kinds.is_sliding));
  PINHOLE_TRY(kinds.full.theta, read.number_or("rope_theta", kinds.full.theta));
  PINHOLE_TRY(kinds.sliding.theta, read.number_or("rope_local_base_freq", kinds.sliding.theta));
  if (const Json* scaling = json_find(read.object(), "rope_scaling"))
    PINHOLE_CHECK(read_rope(*scaling, where + ", rope_scaling", kinds.full));
  if (const Json* ropes = json_find(read.object(), "rope_parameters")) {
    const std::string at = where + ", rope_parameters";
    if (const Json* full = json_find(*ropes, "full_attention"))
      PINHOLE_CHECK(read_rope(*full, at + ", full_attention", kinds.full));
    if (const Json* sliding = json_find(*ropes, "sliding_attention"))
      PINHOLE_CHECK(read_rope(*sliding, at + ", sliding_attention", kinds.sliding));
  }
  PINHOLE_CHECK(check(kinds, where));
  return kinds;
}

Result<LayerKinds> layer_kinds_from_gguf(const ModelFile& file, const std::string& arch,
                                         int64_t num_layers, const LayerKinds& defaults,
                                         int64_t pattern) {
  LayerKinds kinds = defaults;
  const GgufMeta& gguf = file.gguf();
  PINHOLE_TRY(kinds.sliding_window, gguf_integer_or(file, arch + ".attention.sliding_window",
                                                    defaults.sliding_window, 1, kMaxContext));
  PINHOLE_TRY(pattern, gguf_integer_or(file, arch + ".attention.sliding_window_pattern", pattern, 1,
                                       kMaxCount));
  kinds.is_sliding = by_pattern(num_layers, pattern);
  PINHOLE_TRY(kinds.full.theta, gguf.number_or(arch + ".rope.freq_base", kinds.full.theta));
  PINHOLE_TRY(kinds.sliding.theta,
              gguf.number_or(arch + ".rope.freq_base_swa", kinds.sliding.theta));
  if (gguf.find(arch + ".rope.scaling.type") != nullptr) {
    PINHOLE_TRY(const std::string_view type, gguf.string(arch + ".rope.scaling.type"));
    if (type == "linear") {
      PINHOLE_TRY(kinds.full.factor, gguf.number_or(arch + ".rope.scaling.factor", 1.0));
    } else if (type != "none") {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("rope scaling '{}' is not supported here, only 'linear'", type),
                  file.path());
    }
  }
  PINHOLE_CHECK(check(kinds, file.path()));
  return kinds;
}

} // namespace pinhole
