#include "model/blocks.h"

#include <cmath>
#include <fmt/format.h>
#include <numbers>

namespace pinhole {

namespace {

Status check(const Llama3Rope& rope, const std::string& where) {
  for (const double value : {rope.theta, rope.factor, rope.low_freq_factor, rope.high_freq_factor,
                             rope.original_max_position_embeddings}) {
    if (!(value > 0) || !std::isfinite(value)) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("a number of the rope is {}, expected a positive one", value), where);
    }
  }
  if (rope.factor < 1 || rope.low_freq_factor >= rope.high_freq_factor) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("rope factor {}, low_freq_factor {}, high_freq_factor {}; expected at "
                            "least 1, and the second below the third",
                            rope.factor, rope.low_freq_factor, rope.high_freq_factor),
                where);
  }
  return {};
}

} // namespace

Result<Llama3Rope> llama3_rope_from_hf(const HfReaderScope& text, double default_theta) {
  Llama3Rope rope;
  PINHOLE_TRY(rope.theta, text.number_or("rope_theta", default_theta));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* object = json_find(text.object(), key);
    if (object == nullptr)
      continue;
    const std::string where = text.where() + ", " + key;
    if (!object->is_object())
      return fail(ErrorCode::kInvalidInput, fmt::format("'{}' is not an object", key), where);
    const HfReaderScope scope(*object, where);
    PINHOLE_TRY(rope.theta, scope.number_or("rope_theta", rope.theta));
    const Json* type = json_find(*object, "rope_type");
    if (type == nullptr)
      type = json_find(*object, "type");
    if (type == nullptr || *type == "default")
      continue;
    if (*type != "llama3") {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("rope type {} is not supported here, only 'default' and 'llama3'",
                              type->dump(-1, ' ', false, Json::error_handler_t::replace)),
                  where);
    }
    PINHOLE_TRY(rope.factor, scope.number_or("factor", 8));
    PINHOLE_TRY(rope.low_freq_factor, scope.number_or("low_freq_factor", 1));
    PINHOLE_TRY(rope.high_freq_factor, scope.number_or("high_freq_factor", 4));
    PINHOLE_TRY(rope.original_max_position_embeddings,
                scope.number_or("original_max_position_embeddings", 8192));
  }
  PINHOLE_CHECK(check(rope, text.where()));
  return rope;
}

std::vector<float> llama3_inv_freq(const Llama3Rope& rope, int64_t dim) {
  std::vector<float> out = rope_inv_freq(rope.theta, dim);
  if (rope.factor == 1)
    return out;
  const auto old_context = static_cast<float>(rope.original_max_position_embeddings);
  const auto factor = static_cast<float>(rope.factor);
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto high = static_cast<float>(rope.high_freq_factor);
  for (float& frequency : out) {
    // wavelen = 2 * math.pi / inv_freq
    const float wave = 2 * std::numbers::pi_v<float> / frequency;
    if (wave < old_context / high)
      continue;
    if (wave > old_context / low) {
      frequency /= factor;
      continue;
    }
    // smooth_factor = (old_context_len / wavelen - low_freq_factor) / (high - low)
    const float smooth = (old_context / wave - low) / (high - low);
    // (1 - smooth_factor) * inv_freq_llama / factor + smooth_factor * inv_freq_llama
    frequency = (1 - smooth) * frequency / factor + smooth * frequency;
  }
  return out;
}

} // namespace pinhole
