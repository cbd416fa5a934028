#include "model/yarn.h"

#include "model/blocks.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace pinhole {

namespace {

constexpr double kPi = 3.14159265358979323846;

Status check(const YarnRope& rope, const std::string& where) {
  const auto positive = [](double value) { return value > 0 && std::isfinite(value); };
  const std::pair<const char*, double> numbers[] = {{"rope_theta", rope.theta},
                                                    {"factor", rope.factor},
                                                    {"beta_fast", rope.beta_fast},
                                                    {"beta_slow", rope.beta_slow}};
  for (const auto& [name, value] : numbers) {
    if (!positive(value)) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("'{}' is {}, expected a positive number", name, value), where);
    }
  }
  if (rope.is_scaled && rope.theta <= 1) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("'rope_theta' is {}, expected more than 1", rope.theta), where);
  }
  for (const double value : {rope.mscale.value_or(0), rope.mscale_all_dim.value_or(0),
                             rope.attention_factor.value_or(0), rope.query_growth}) {
    if (!std::isfinite(value) || value < 0)
      return fail(ErrorCode::kInvalidInput, "a factor of the rope is negative or not finite",
                  where);
  }
  return {};
}

Result<std::optional<double>> optional_number(const HfReaderScope& read, const char* key) {
  if (json_find(read.object(), key) == nullptr)
    return std::optional<double>();
  PINHOLE_TRY(const double value, read.number_or(key, 0));
  return std::optional(value);
}

Status read_yarn(const HfReaderScope& read, int64_t max_position_embeddings, YarnRope& rope) {
  rope.is_scaled = true;
  PINHOLE_TRY(rope.factor, read.number_or("factor", 1));
  PINHOLE_TRY(rope.beta_fast, read.number_or("beta_fast", 32));
  PINHOLE_TRY(rope.beta_slow, read.number_or("beta_slow", 1));
  PINHOLE_TRY(rope.mscale, optional_number(read, "mscale"));
  PINHOLE_TRY(rope.mscale_all_dim, optional_number(read, "mscale_all_dim"));
  PINHOLE_TRY(rope.attention_factor, optional_number(read, "attention_factor"));
  PINHOLE_TRY(rope.truncate, json_bool_or(read.object(), "truncate", true, read.where()));
  PINHOLE_TRY(
      rope.original_max_position_embeddings,
      read.integer_or("original_max_position_embeddings", max_position_embeddings, 1, kMaxContext));
  PINHOLE_TRY(rope.query_growth, read.number_or("llama_4_scaling_beta", 0));
  return {};
}

// 0.1 * mscale * math.log(scale) + 1.0
double magnitude(double scale, double mscale) {
  return scale <= 1 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0;
}

} // namespace

Result<YarnRope> yarn_rope_from_hf(const HfReaderScope& text, int64_t max_position_embeddings) {
  YarnRope rope;
  PINHOLE_TRY(rope.theta, text.number_or("rope_theta", 10000.0));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* scaling = json_find(text.object(), key);
    if (scaling == nullptr)
      continue;
    const std::string where = text.where() + ", " + key;
    if (!scaling->is_object())
      return fail(ErrorCode::kInvalidInput, fmt::format("'{}' is not an object", key),
                  text.where());
    const HfReaderScope read(*scaling, where);
    PINHOLE_TRY(rope.theta, read.number_or("rope_theta", rope.theta));
    std::string type = "default";
    for (const char* type_key : {"type", "rope_type"}) {
      if (json_find(*scaling, type_key) != nullptr) {
        PINHOLE_TRY(type, json_string(*scaling, type_key, where));
      }
    }
    if (type == "yarn") {
      PINHOLE_CHECK(read_yarn(read, max_position_embeddings, rope));
    } else if (type != "default" && type != "dynamic") {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("rope type '{}' is not supported here, only 'default', 'dynamic' and "
                              "'yarn'",
                              type),
                  where);
    }
  }
  PINHOLE_CHECK(check(rope, text.where()));
  return rope;
}

Result<YarnRope> yarn_rope_from_gguf(const ModelFile& file, const std::string& arch,
                                     int64_t max_position_embeddings) {
  const GgufMeta& gguf = file.gguf();
  const std::string scaling = arch + ".rope.scaling.";
  YarnRope rope;
  PINHOLE_TRY(rope.theta, gguf.number_or(arch + ".rope.freq_base", 10000.0));
  std::string_view type = "none";
  if (gguf.find(scaling + "type") != nullptr) {
    PINHOLE_TRY(type, gguf.string(scaling + "type"));
  }
  if (type == "yarn") {
    rope.is_scaled = true;
    PINHOLE_TRY(rope.factor, gguf.number_or(scaling + "factor", 1));
    PINHOLE_TRY(rope.beta_fast, gguf.number_or(scaling + "yarn_beta_fast", 32));
    PINHOLE_TRY(rope.beta_slow, gguf.number_or(scaling + "yarn_beta_slow", 1));
    PINHOLE_TRY(rope.original_max_position_embeddings,
                gguf_integer_or(file, scaling + "original_context_length", max_position_embeddings,
                                1, kMaxContext));
    // What is written is mscale_all_dim; mscale is 1.
    PINHOLE_TRY(const double all_dim, gguf.number_or(scaling + "yarn_log_multiplier", 0));
    rope.mscale = 1;
    rope.mscale_all_dim = all_dim;
    PINHOLE_TRY(rope.query_growth, gguf.number_or(arch + ".attention.temperature_scale", 0));
  } else if (type != "none") {
    return fail(ErrorCode::kUnsupported,
                fmt::format("rope scaling '{}' is not supported here, only 'yarn'", type),
                file.path());
  }
  PINHOLE_CHECK(check(rope, file.path()));
  return rope;
}

std::vector<float> yarn_inv_freq(const YarnRope& rope, int64_t dim) {
  std::vector<float> out = rope_inv_freq(rope.theta, dim);
  if (!rope.is_scaled)
    return out;
  // find_correction_dim
  const auto correction = [&](double rotations) {
    const auto length = static_cast<double>(rope.original_max_position_embeddings);
    return static_cast<double>(dim) * std::log(length / (rotations * 2 * kPi)) /
           (2 * std::log(rope.theta));
  };
  double low = correction(rope.beta_fast);
  double high = correction(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high)
    high += 0.001;
  for (size_t i = 0; i < out.size(); ++i) {
    // linear_ramp_factor: 0 where waves are short and stay, 1 where they are stretched
    const float ramp =
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float stays = 1.0f - std::clamp(ramp, 0.0f, 1.0f);
    const float stretched = out[i] / static_cast<float>(rope.factor);
    out[i] = stretched * (1.0f - stays) + out[i] * stays;
  }
  return out;
}

double yarn_attention_factor(const YarnRope& rope) {
  if (!rope.is_scaled)
    return 1;
  if (rope.attention_factor)
    return *rope.attention_factor;
  const double mscale = rope.mscale.value_or(0);
  const double all_dim = rope.mscale_all_dim.value_or(0);
  if (mscale != 0 && all_dim != 0)
    return magnitude(rope.factor, mscale) / magnitude(rope.factor, all_dim);
  return magnitude(rope.factor, 1);
}

YarnAngles yarn_angles(Graph& g, ValueId positions, const YarnRope& rope, int64_t head_dim) {
  const std::vector<float> inv_freq = yarn_inv_freq(rope, head_dim);
  const std::vector<uint8_t> axis(inv_freq.size(), 0);
  Graph::RopeScale scale;
  scale.factor = static_cast<float>(yarn_attention_factor(rope));
  YarnAngles out{g.rope_table(positions, inv_freq, axis, scale), {}};
  if (rope.query_growth > 0) {
    scale.growth = static_cast<float>(rope.query_growth);
    scale.step = rope.original_max_position_embeddings;
    out.queries = g.rope_table(positions, inv_freq, axis, scale);
  }
  return out;
}

} // namespace pinhole
