// Picture preprocessing and element types against the reference.
#include "cli/verify_report.h"

#include "base/mapped_file.h"
#include "base/sha256.h"
#include "file/npy.h"
#include "image/image.h"
#include "plan/memory.h"
#include "plan/recipe.h"
#include "quant/formats.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace pinhole::cli {

namespace fs = std::filesystem;

namespace {

void check_smart_resize(const fs::path& file, VerifyReport& report) {
  const std::string name = report.relative(file);
  const auto cases = read_json_file(file.string());
  if (!cases || !cases->is_array()) {
    report.add(Outcome::kFailed, name, cases ? "is not a list" : cases.error().text());
    return;
  }
  size_t agree = 0;
  std::string first;
  for (const Json& c : *cases) {
    const auto number = [&c](const char* key) { return c.value(key, int64_t{0}); };
    const auto size = smart_resize({number("height"), number("width")}, number("factor"),
                                   number("min_pixels"), number("max_pixels"));
    const bool same = c.contains("error")
                          ? !size
                          : size && *size == Size{number("out_height"), number("out_width")};
    if (same)
      ++agree;
    else if (first.empty()) {
      first = fmt::format(", first difference at {} x {}", number("width"), number("height"));
    }
  }
  report.passed_if(agree == cases->size(), name,
                   fmt::format("{} of {} sizes agree{}", agree, cases->size(), first));
}

// One <image>.<processor> folder: the resized pixels and the patches.
Result<std::string> check_preprocessed(const fs::path& folder, const fs::path& root) {
  PINHOLE_TRY(const Json meta, read_json_file((folder / "meta.json").string()));
  const std::string where = (folder / "meta.json").string();
  PINHOLE_TRY(const std::string image_name, json_string(meta, "image", where));
  PINHOLE_TRY(const MappedFile file, MappedFile::open((root / image_name).string()));
  PINHOLE_TRY(const Image decoded,
              decode_picture(file.bytes(), {}, AlphaPolicy::kDrop, image_name));

  const Json processor = meta.value("processor", Json::object());
  PatchLayout layout;
  layout.patch_size = processor.value("patch_size", layout.patch_size);
  for (size_t i = 0; i < 3; ++i) {
    layout.mean[i] = processor.at("mean").at(i).get<float>();
    layout.std[i] = processor.at("std").at(i).get<float>();
  }
  PINHOLE_TRY(const Size target,
              smart_resize({decoded.height, decoded.width}, layout.patch_size * layout.merge_size,
                           processor.value("min_pixels", int64_t{0}),
                           processor.value("max_pixels", int64_t{0})));
  const Image resized = resize(decoded, target, Filter::kBicubic);

  PINHOLE_TRY(const NpyArray pixels, NpyArray::open((folder / "resized_uint8.npy").string()));
  PINHOLE_TRY(const std::span<const uint8_t> want, pixels.bytes());
  if (want.size() != resized.rgb.size()) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("resized to {} x {}, another size was expected", target.width, target.height));
  }
  int worst = 0;
  size_t different = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const int difference = std::abs(static_cast<int>(want[i]) - static_cast<int>(resized.rgb[i]));
    worst = std::max(worst, difference);
    different += difference != 0;
  }
  if (worst > 1 || different * 100 > want.size()) {
    return fail(ErrorCode::kInvalidInput, fmt::format("{} of {} pixel values differ, by up to {}",
                                                      different, want.size(), worst));
  }
  const int64_t rows = target.height / layout.patch_size * (target.width / layout.patch_size);
  const int64_t cols = 3 * layout.temporal * layout.patch_size * layout.patch_size;
  std::vector<float> patches(static_cast<size_t>(rows * cols));
  write_patches(resized, layout, 0, rows, patches.data());
  PINHOLE_TRY(const NpyArray saved, NpyArray::open((folder / "pixel_values_rows.npy").string()));
  PINHOLE_TRY(const std::span<const float> values, saved.floats());
  const Json& rows_saved = meta.at("rows_saved");
  double error = 0;
  for (size_t r = 0; r < rows_saved.size(); ++r) {
    const auto row = rows_saved[r].get<int64_t>();
    if (row >= rows || (r + 1) * static_cast<size_t>(cols) > values.size()) {
      return fail(ErrorCode::kInvalidInput, fmt::format("row {} of {} is expected", row, rows));
    }
    for (size_t c = 0; c < static_cast<size_t>(cols); ++c) {
      const double own = patches[static_cast<size_t>(row * cols) + c];
      error = std::max(error, std::abs(own - values[r * static_cast<size_t>(cols) + c]));
    }
  }
  if (error > 0.016) {
    return fail(ErrorCode::kInvalidInput, fmt::format("pixel values differ by {:.3e}", error));
  }
  Sha256 hash;
  hash.update(patches.data(), patches.size() * sizeof(float));
  const bool same_bits = to_hex(hash.finish()) == meta.value("pixel_values_f32_sha256", "");
  return fmt::format("{} of {} pixels differ, values by {:.1e}{}", different, want.size(), error,
                     same_bits ? ", all bits agree" : "");
}

} // namespace

void verify_preprocessing(const fs::path& folder, VerifyReport& report) {
  check_smart_resize(folder / "smart_resize.json", report);
  std::vector<fs::path> cases;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (fs::exists(entry.path() / "meta.json"))
      cases.push_back(entry.path());
  }
  std::sort(cases.begin(), cases.end());
  for (const fs::path& path : cases) {
    Result<std::string> outcome = fail(ErrorCode::kInvalidInput, "meta.json lacks a key");
    try { // json's at() on a file whose structure is another
      outcome = check_preprocessed(path, folder);
    } catch (const nlohmann::json::exception& error) {
      outcome = fail(ErrorCode::kInvalidInput, error.what());
    }
    report.passed_if(outcome.has_value(), report.relative(path),
                     outcome ? *outcome : outcome.error().text());
  }
}

void verify_dequantisation(const fs::path& folder, const KernelChoice& kernels,
                           VerifyReport& report) {
  const auto index = read_json_file((folder / "index.json").string());
  const Json* entries = index ? json_find(*index, "entries") : nullptr;
  if (entries == nullptr) {
    report.add(Outcome::kFailed, report.relative(folder),
               index ? "index.json has no 'entries'" : index.error().text());
    return;
  }
  for (const Json& entry : *entries) {
    const std::string bin = entry.value("bin", "");
    const std::string name = report.relative(folder / bin);
    const auto format = format_from_gguf_type(entry.value("ggml_type_id", ~0U));
    if (!format) {
      report.add(Outcome::kSkipped, name,
                 fmt::format("element type {} is not known here", entry.value("type", "?")));
      continue;
    }
    const auto blocks = MappedFile::open((folder / bin).string());
    const auto expected = NpyArray::open((folder / entry.value("expected", "")).string());
    const auto want = expected ? expected->floats()
                               : Result<std::span<const float>>(tl::unexpected(expected.error()));
    if (!blocks || !want) {
      report.add(Outcome::kFailed, name, (blocks ? want.error() : blocks.error()).text());
      continue;
    }
    const auto count = static_cast<int64_t>(want->size());
    if (count % format_info(*format).block_elements != 0 ||
        static_cast<int64_t>(blocks->bytes().size()) != row_bytes(*format, count)) {
      report.add(Outcome::kFailed, name, "size and number of elements do not fit");
      continue;
    }
    std::vector<float> own(want->size());
    kernels.table->decode(*format, blocks->bytes().data(), own.data(), count);
    double worst = 0;
    for (size_t i = 0; i < own.size(); ++i) {
      const double a = own[i];
      const double b = (*want)[i];
      if (a == b || (std::isnan(a) && std::isnan(b)))
        continue;
      worst = std::max(worst, std::abs(a - b) / std::max(std::abs(b), 1e-30));
    }
    report.passed_if(worst <= 1e-6, name,
                     fmt::format("{} elements, relative error {:.1e}", own.size(), worst));
  }
}

void verify_footprints(const fs::path& folder, VerifyReport& report) {
  const auto expected = read_json_file((folder / "expected.json").string());
  if (!expected || !expected->is_object()) {
    report.add(Outcome::kFailed, report.relative(folder),
               expected ? "expected.json is not an object" : expected.error().text());
    return;
  }
  for (const auto& [name, wanted] : expected->items()) {
    const fs::path config = folder / (name + ".config.json");
    const auto files = ModelFiles::open_to_plan(config.string());
    const auto model = files ? describe_model(*files) : fail_in("", files.error());
    if (!model) {
      const bool skip = model.error().code == ErrorCode::kUnsupported;
      report.add(skip ? Outcome::kSkipped : Outcome::kFailed, report.relative(config),
                 model.error().message);
      continue;
    }
    const TransformersFootprint found = transformers_footprint(*model);
    std::string wrong;
    const auto compare = [&](std::string_view what, const Json& value, int64_t ours) {
      if (value != ours)
        wrong += fmt::format("{} {} where the reference has {}; ", what, ours, value.dump());
    };
    const Json bytes = wanted.value("footprint_bytes", Json::object());
    compare("parameters", wanted.value("parameters", Json()), found.parameters);
    compare("linear weights", wanted.value("linear_weight_parameters", Json()), found.linear);
    compare("float32", bytes.value("float32", Json()), found.float32_bytes());
    compare("bfloat16", bytes.value("bfloat16", Json()), found.bfloat16_bytes());
    compare("nf4", bytes.value("nf4_double_quant_bitsandbytes", Json()), found.nf4_bytes());
    compare("KV cache", wanted.value("kv_cache_bytes_per_token_f16", Json()),
            kv_bytes_per_token(model->cache, kernels::KvType::kF16));
    report.passed_if(wrong.empty(), report.relative(config),
                     wrong.empty() ? fmt::format("{} bytes in bfloat16, {} in nf4",
                                                 found.bfloat16_bytes(), found.nf4_bytes())
                                   : wrong);
  }
}

} // namespace pinhole::cli
