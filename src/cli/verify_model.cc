// Model cases: prompts, positions, picture features, logits and greedy tokens against the
// reference.
#include "cli/verify_pixels.h"
#include "cli/verify_report.h"

#include "answer/loaded_model.h"
#include "answer/picture.h"
#include "answer/prompt.h"
#include "base/mapped_file.h"
#include "engine/session.h"
#include "file/npy.h"
#include "model/picture_config.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace pinhole::cli {

namespace fs = std::filesystem;

namespace {

// What a run is held to (golden/README.md): f32 arithmetic, reduced precision, quantised
// activations.
struct Tolerance {
  double max_logit = 2e-4;
  double max_feature = 1e-4;
  double rms_logit = 1e9;
  double min_cosine = 0.999;
  double min_feature_cosine = 0.999;
  double tie_margin = 0; // greedy steps below this margin may differ
};

Tolerance exact_tolerance(bool quantised) {
  Tolerance t;
  if (quantised)
    t.max_logit = 1e-3;
  return t;
}

Tolerance fast_tolerance(bool quantised) {
  Tolerance t;
  t.max_feature = 1e9;
  if (quantised) {
    t.max_logit = 0.5;
    t.rms_logit = 0.1;
    t.min_cosine = 0; // the bounds above are the measure
    t.tie_margin = 0.5;
  } else {
    t.max_logit = 1e9;
    t.tie_margin = 0.3;
  }
  return t;
}

struct ModelCase {
  fs::path folder;          // of case.json and the inputs
  fs::path expected_folder; // of logits.npy and greedy.json
  fs::path images_root;
  Json info;
};

Result<NpyArray> load(const fs::path& path) { return NpyArray::open(path.string()); }

// One case on one model in one mode.
class CaseRun {
 public:
  CaseRun(const LoadedModel& loaded, const ModelCase& the_case, const KernelChoice& kernels,
          const Tolerance& tolerance)
      : loaded_(loaded), case_(the_case), kernels_(kernels), tolerance_(tolerance) {}

  // Empty: passed. The measured errors are in detail().
  std::string run() {
    if (auto status = run_checked(); !status)
      return status.error().text();
    return failures_.empty() ? std::string() : fmt::format("{}", fmt::join(failures_, "; "));
  }
  const std::string& detail() const { return detail_; }

 private:
  void expect(bool ok, std::string failure) {
    if (!ok)
      failures_.push_back(std::move(failure));
  }
  std::string expected(const char* name) const { return (case_.expected_folder / name).string(); }
  std::string input(const char* name) const { return (case_.folder / name).string(); }

  Status run_checked() {
    PINHOLE_CHECK(prepare_pictures());
    PINHOLE_CHECK(check_prompt());
    PINHOLE_CHECK(make_session());
    PINHOLE_CHECK(encode_pictures());
    PINHOLE_CHECK(check_logits());
    return check_greedy();
  }

  Status prepare_pictures() {
    const Json* images = json_find(case_.info, "images");
    if (images == nullptr)
      return {};
    for (const Json& image : *images) {
      if (!loaded_.model.pictures)
        return fail(ErrorCode::kUnsupported, "no vision part was found");
      const std::string path = (case_.images_root / image.get<std::string>()).string();
      PINHOLE_TRY(std::string bytes, read_text_file(path, 256 << 20));
      PINHOLE_TRY(Picture picture,
                  open_picture(std::move(bytes), path, *loaded_.model.pictures, {}));
      grids_.insert(grids_.end(), static_cast<size_t>(picture.pieces), picture.grid);
      tokens_.push_back(picture.image_tokens);
      row_tokens_.push_back(picture.grid.width / picture.grid.merge);
      pictures_.push_back(std::move(picture));
    }
    if (!grids_.empty() && fs::exists(input("aspect_ratio_ids.npy")))
      PINHOLE_CHECK(check_arrangements());
    PINHOLE_CHECK(check_sizes());
    if (grids_.empty() || !fs::exists(input("image_grid_thw.npy")))
      return {};
    PINHOLE_TRY(const NpyArray grid, load(input("image_grid_thw.npy")));
    PINHOLE_TRY(const std::vector<int64_t> thw, grid.ints());
    for (size_t i = 0; i < grids_.size(); ++i) {
      const bool same = thw.size() == 3 * grids_.size() && thw[3 * i + 1] == grids_[i].height &&
                        thw[3 * i + 2] == grids_[i].width;
      expect(same,
             fmt::format("picture {} has a grid of {} x {}", i, grids_[i].height, grids_[i].width));
    }
    return {};
  }

  // aspect_ratio_ids [1, pictures].
  Status check_arrangements() {
    PINHOLE_TRY(const NpyArray array, load(input("aspect_ratio_ids.npy")));
    PINHOLE_TRY(const std::vector<int64_t> ids, array.ints());
    expect(ids.size() == grids_.size(), "not an aspect ratio for each picture");
    for (size_t i = 0; i < std::min(ids.size(), grids_.size()); ++i) {
      expect(ids[i] == grids_[i].arrangement(),
             fmt::format("picture {} lies on {} x {} tiles, aspect ratio {}, expected {}", i,
                         grids_[i].tile_rows, grids_[i].tile_cols, grids_[i].arrangement(),
                         ids[i]));
    }
    return {};
  }

  // image_sizes.npy [pictures, 2]: height and width in pixels.
  Status check_sizes() {
    if (pictures_.empty() || !fs::exists(input("image_sizes.npy")))
      return {};
    PINHOLE_TRY(const NpyArray array, load(input("image_sizes.npy")));
    PINHOLE_TRY(const std::vector<int64_t> sizes, array.ints());
    for (size_t i = 0; i < pictures_.size(); ++i) {
      const Size& own = pictures_[i].target;
      expect(sizes.size() == 2 * pictures_.size() && sizes[2 * i] == own.height &&
                 sizes[2 * i + 1] == own.width,
             fmt::format("picture {} is read at {} x {} px", i, own.width, own.height));
    }
    return {};
  }

  Status check_prompt() {
    PINHOLE_TRY(const NpyArray ids_array, load(input("input_ids.npy")));
    PINHOLE_TRY(const std::vector<int64_t> ids, ids_array.ints());
    const Json* text = json_find(case_.info, "prompt");
    ids_.assign(ids.begin(), ids.end());
    if (text != nullptr && text->is_string()) {
      PINHOLE_TRY(std::vector<TokenId> own,
                  encode_prompt(loaded_, text->get<std::string>(), tokens_, row_tokens_));
      // The reference's processor leaves BOS to its tokenizer, which puts it before the prompt even
      // where that begins with one.
      const auto bos = loaded_.tokenizer.bos();
      if (bos && text->get<std::string>().starts_with(loaded_.tokenizer.piece(*bos))) {
        const std::vector<TokenId> added = loaded_.tokenizer.encode("", true, true);
        own.insert(own.begin(), added.begin(), added.end());
      }
      expect(own == ids_, "the prompt's token ids differ");
    }
    PINHOLE_TRY(prompt_, place_pictures(loaded_, ids_, grids_));
    if (!fs::exists(input("position_ids.npy")))
      return {};
    PINHOLE_TRY(const NpyArray positions_array, load(input("position_ids.npy")));
    PINHOLE_TRY(const std::vector<int64_t> positions, positions_array.ints());
    const size_t n = prompt_.tokens.size();
    bool same = positions.size() == 3 * n;
    for (size_t i = 0; same && i < n; ++i) {
      for (size_t axis = 0; axis < 3; ++axis) {
        same = same && positions[axis * n + i] == prompt_.tokens[i].position[axis];
      }
    }
    expect(same, "positions differ");
    if (const Json* delta = json_find(case_.info, "rope_delta")) {
      expect(prompt_.next_position == static_cast<int64_t>(n) + delta->get<int64_t>(),
             "rope_delta differs");
    }
    return {};
  }

  Status make_session() {
    RunShape shape;
    shape.context_tokens = static_cast<int64_t>(prompt_.tokens.size()) + 64;
    shape.chunk_tokens = 24; // several chunks, so that the cache is read across their borders
    for (const PatchGrid& grid : grids_) {
      if (loaded_.model.pictures->sees_itself_whole)
        shape.chunk_tokens = std::max(shape.chunk_tokens, grid.tokens());
      shape.max_patches = std::max(shape.max_patches, grid.patches());
      shape.feature_tokens += grid.tokens();
    }
    is_cross_ = loaded_.model.cache.has_cross();
    shape.output_rows = shape.chunk_tokens;
    PINHOLE_TRY(session_, Session::create(loaded_.model, {shape, kernels_}));
    return {};
  }

  Status encode_pictures() {
    if (pictures_.empty())
      return {};
    const PictureSpec& spec = *loaded_.model.pictures;
    Difference pixels;
    std::vector<PlacedPicture> placed;
    std::vector<Sha256Digest> keep;
    for (size_t i = 0; i < pictures_.size(); ++i) {
      const PatchGrid& grid = pictures_[i].grid;
      PINHOLE_TRY(const Image image, decode_for_model(pictures_[i], spec, {}));
      if (fs::exists(input("pixel_values.npy")))
        PINHOLE_CHECK(compare_pixels(input("pixel_values.npy"), image, pictures_, i, spec, pixels));
      for (int64_t piece = 0; piece < pictures_[i].pieces; ++piece) {
        keep.push_back(piece_digest(pictures_[i], piece));
        const int64_t first = piece * grid.patches();
        PINHOLE_TRY(const auto encoded, session_->encode(
                                            keep.back(), grid,
                                            [&](int64_t begin, int64_t end, float* out) {
                                              write_rows(image, pictures_[i], spec, first + begin,
                                                         first + end, out);
                                            },
                                            keep));
        if (is_cross_)
          keep_features(i, encoded.from_cache);
        placed.push_back({encoded.first_row, keep.back()});
      }
    }
    bind_pictures(prompt_, loaded_.image_token_id, grids_, placed);
    if (pixels.count > 0) {
      add_detail(fmt::format("pixels {:.1e}", pixels.max_abs));
      expect(pixels.max_abs <= 0.016, "pixel values differ");
    }
    return compare_features();
  }

  // Of pictures in cross-attention no features are kept but here; of one that was encoded for an
  // earlier place, that place's.
  void keep_features(size_t picture_idx, bool from_cache) {
    const PatchGrid& grid = pictures_[picture_idx].grid;
    const size_t size = static_cast<size_t>(grid.tokens() * loaded_.model.hidden_size);
    for (size_t i = 0; from_cache && i < picture_idx; ++i) {
      if (pictures_[i].digest != pictures_[picture_idx].digest)
        continue;
      const std::vector<float> same(features_.begin() + static_cast<std::ptrdiff_t>(i * size),
                                    features_.begin() +
                                        static_cast<std::ptrdiff_t>((i + 1) * size));
      features_.insert(features_.end(), same.begin(), same.end());
      return;
    }
    for (int64_t row = 0; row < grid.tokens(); ++row) {
      const std::span<const float> features = session_->encoded_row(row);
      features_.insert(features_.end(), features.begin(), features.end());
    }
  }

  Status compare_features() {
    Difference all;
    if (is_cross_ && fs::exists(input("vision_projected.npy"))) {
      PINHOLE_TRY(const NpyArray array, load(input("vision_projected.npy")));
      PINHOLE_TRY(const std::span<const float> want, array.floats());
      expect(features_.size() == want.size(),
             fmt::format("{} numbers of features, expected {}", features_.size(), want.size()));
      if (features_.size() == want.size())
        all.add(features_, want);
    }
    for (int32_t slot = 0; slot < loaded_.model.pictures->feature_slots; ++slot) {
      std::string path =
          input(slot == 0 ? "vision_merged.npy"
                          : fmt::format("vision_deepstack_{}.npy", slot - 1).c_str());
      if (slot == 0 && !fs::exists(path))
        path = input("vision_projected.npy");
      if (!fs::exists(path))
        continue;
      PINHOLE_TRY(const NpyArray array, load(path));
      PINHOLE_TRY(const std::span<const float> want, array.floats());
      const auto width = static_cast<size_t>(loaded_.model.pictures->feature_size);
      size_t row = 0;
      for (const PromptToken& token : prompt_.tokens) {
        if (token.feature_row < 0 || (row + 1) * width > want.size())
          continue;
        all.add(session_->feature_row(slot, token.feature_row), want.subspan(row * width, width));
        ++row;
      }
      expect(row * width == want.size(),
             fmt::format("{} rows of features, expected {}", row, want.size() / width));
    }
    if (all.count == 0)
      return {};
    add_detail(fmt::format("features {:.1e} (cos {:.6f})", all.max_abs, all.cosine()));
    expect(all.finite && all.max_abs <= tolerance_.max_feature,
           fmt::format("features differ by {:.3e}, allowed {:.0e}", all.max_abs,
                       tolerance_.max_feature));
    expect(all.cosine() >= tolerance_.min_feature_cosine,
           fmt::format("features' cosine is {:.6f}, expected {}", all.cosine(),
                       tolerance_.min_feature_cosine));
    return {};
  }

  void add_detail(const std::string& text) {
    if (!detail_.empty())
      detail_ += ", ";
    detail_ += text;
  }

  Status check_logits() {
    if (!fs::exists(expected("logits.npy"))) {
      return session_->prefill_all_logits(prompt_.tokens,
                                          [&](int64_t, std::span<const float> logits) {
                                            last_logits_.assign(logits.begin(), logits.end());
                                          });
    }
    PINHOLE_TRY(const NpyArray array, load(expected("logits.npy")));
    PINHOLE_TRY(const std::span<const float> want, array.floats());
    const auto vocab = static_cast<size_t>(loaded_.model.vocab_size);
    if (want.size() != prompt_.tokens.size() * vocab) {
      return fail(
          ErrorCode::kInvalidInput,
          fmt::format("{} logits, expected {} x {}", want.size(), prompt_.tokens.size(), vocab),
          expected("logits.npy"));
    }
    Difference all;
    PINHOLE_CHECK(session_->prefill_all_logits(
        prompt_.tokens, [&](int64_t row, std::span<const float> logits) {
          all.add(logits, want.subspan(static_cast<size_t>(row) * vocab, vocab));
          last_logits_.assign(logits.begin(), logits.end());
        }));
    logit_error_ = all.max_abs;
    add_detail(fmt::format("max |dlogit| {:.1e}, rel {:.1e}", all.max_abs, all.relative()));
    expect(
        all.finite && all.max_abs <= tolerance_.max_logit,
        fmt::format("logits differ by {:.3e}, allowed {:.0e}", all.max_abs, tolerance_.max_logit));
    expect(all.rms() <= tolerance_.rms_logit,
           fmt::format("logits differ by rms {:.3f}, allowed {}", all.rms(), tolerance_.rms_logit));
    expect(
        all.cosine() >= tolerance_.min_cosine,
        fmt::format("logits' cosine is {:.6f}, expected {}", all.cosine(), tolerance_.min_cosine));
    return {};
  }

  Status check_greedy() {
    if (!fs::exists(expected("greedy.json")))
      return {};
    PINHOLE_TRY(const Json greedy, read_json_file(expected("greedy.json")));
    const Json* tokens = json_find(greedy, "tokens");
    const Json* margins = json_find(greedy, "margin_top1_top2");
    if (tokens == nullptr || !tokens->is_array() || margins == nullptr ||
        margins->size() != tokens->size()) {
      return fail(ErrorCode::kInvalidInput, "no tokens with margins", expected("greedy.json"));
    }
    const double tie = std::max(tolerance_.tie_margin, 4 * logit_error_);
    int32_t position = prompt_.next_position;
    size_t same = 0;
    std::string note;
    for (size_t i = 0; i < tokens->size(); ++i) {
      const auto best = std::max_element(last_logits_.begin(), last_logits_.end());
      const auto own = static_cast<int32_t>(best - last_logits_.begin());
      const auto want = (*tokens)[i].get<int32_t>();
      const double margin = (*margins)[i].get<double>();
      if (own == want) {
        ++same;
      } else if (margin > tie) {
        expect(false, fmt::format("greedy step {} gives {}, expected {} (margin {:.3f}, tie below "
                                  "{:.1e})",
                                  i, own, want, margin, tie));
      } else {
        note = fmt::format(", step {} a tie by {:.3f}", i, margin);
      }
      if (i + 1 == tokens->size())
        break;
      // The reference's own token is fed, so that one tie does not decide the rest.
      PINHOLE_TRY(const std::span<const float> logits,
                  session_->step({want, {position, position, position}}));
      ++position;
      last_logits_.assign(logits.begin(), logits.end());
    }
    add_detail(fmt::format("greedy {}/{}{}", same, tokens->size(), note));
    return {};
  }

  const LoadedModel& loaded_;
  const ModelCase& case_;
  KernelChoice kernels_;
  Tolerance tolerance_;
  std::vector<Picture> pictures_;
  std::vector<PatchGrid> grids_;
  std::vector<int64_t> tokens_, row_tokens_; // of each picture
  std::vector<TokenId> ids_;
  Prompt prompt_;
  std::unique_ptr<Session> session_;
  bool is_cross_ = false;
  std::vector<float> features_; // of all pictures in cross-attention
  std::vector<float> last_logits_;
  double logit_error_ = 0;
  std::vector<std::string> failures_;
  std::string detail_;
};

// Exact, then as `ask` computes (with an f16 cache).
void run_case(const LoadedModel& loaded, const ModelCase& the_case, bool quantised,
              const KernelChoice& kernels, const std::string& name, VerifyReport& report) {
  const Json* options = json_find(the_case.info, "processor_kwargs");
  if (options != nullptr && !options->empty()) {
    report.add(Outcome::kSkipped, name,
               fmt::format("options of the reference's processor are not known here: {}",
                           options->dump(-1, ' ', false, Json::error_handler_t::replace)));
    return;
  }
  std::string failure;
  std::string detail;
  for (const bool exact : {true, false}) {
    KernelChoice choice = kernels;
    choice.exact = exact;
    choice.kv_type = exact ? kernels::KvType::kF32 : kernels::KvType::kF16;
    CaseRun run(loaded, the_case, choice,
                exact ? exact_tolerance(quantised) : fast_tolerance(quantised));
    const std::string failed = run.run();
    const std::string mode = exact ? "exact: " : fmt::format(" | {}: ", kernels.table->isa);
    detail += mode + run.detail();
    if (!failed.empty())
      failure += (failure.empty() ? "" : "; ") + mode + failed;
  }
  report.passed_if(failure.empty(), name, failure.empty() ? detail : failure + " (" + detail + ")");
}

std::vector<ModelCase> list_cases(const fs::path& cases, const fs::path& images_root) {
  std::vector<ModelCase> out;
  for (const auto& entry : fs::directory_iterator(cases)) {
    if (!fs::exists(entry.path() / "case.json"))
      continue;
    auto info = read_json_file((entry.path() / "case.json").string());
    out.push_back({entry.path(), entry.path(), images_root, info ? *info : Json::object()});
  }
  std::sort(out.begin(), out.end(),
            [](const ModelCase& a, const ModelCase& b) { return a.folder < b.folder; });
  return out;
}

void report_load_failure(const Error& error, const std::string& name, VerifyReport& report) {
  const bool unsupported = error.code == ErrorCode::kUnsupported;
  report.add(unsupported ? Outcome::kSkipped : Outcome::kFailed, name, error.text());
}

} // namespace

void verify_model_folder(const fs::path& folder, const KernelChoice& kernels,
                         VerifyReport& report) {
  const std::string name = report.relative(folder);
  auto loaded = load_model(folder.string());
  if (!loaded)
    return report_load_failure(loaded.error(), name, report);
  for (const ModelCase& the_case : list_cases(folder / "cases", folder)) {
    run_case(**loaded, the_case, false, kernels, report.relative(the_case.folder), report);
  }
}

void verify_gguf_folder(const fs::path& folder, const KernelChoice& kernels, VerifyReport& report) {
  std::vector<fs::path> texts;
  std::vector<fs::path> projectors;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string file = entry.path().filename().string();
    if (!file.ends_with(".gguf"))
      continue;
    (file.find("mmproj") != std::string::npos ? projectors : texts).push_back(entry.path());
  }
  std::sort(texts.begin(), texts.end());
  std::sort(projectors.begin(), projectors.end());
  const auto preprocessor = read_json_file((folder / "hf/preprocessor_config.json").string());
  for (const fs::path& text : texts) {
    // Expected values of this file's dequantised weights, where they differ from the unquantised.
    const fs::path own_expected = folder / "expected" / text.stem();
    for (const fs::path& projector : projectors) {
      const std::string name = report.relative(text) + " + " + projector.stem().string();
      auto loaded = load_model(text.string(), projector.string());
      if (!loaded) {
        report_load_failure(loaded.error(), name, report);
        continue;
      }
      LoadedModel& model = **loaded;
      if (preprocessor && model.model.pictures) {
        const auto status = read_preprocessor_config(
            *preprocessor, (folder / "hf/preprocessor_config.json").string(),
            *model.model.pictures);
        if (!status)
          report.add(Outcome::kFailed, name, status.error().text());
      }
      const bool quantised = std::any_of(
          model.files.text.tensors().begin(), model.files.text.tensors().end(),
          [](const Tensor& tensor) { return format_info(tensor.format).block_elements > 1; });
      for (ModelCase& the_case : list_cases(folder / "hf/cases", folder / "hf")) {
        if (fs::exists(own_expected)) {
          the_case.expected_folder = own_expected / the_case.folder.filename();
        } else if (quantised) {
          report.add(Outcome::kSkipped, name, "no expected values for this quantisation");
          continue;
        }
        run_case(model, the_case, quantised, kernels,
                 name + " " + the_case.folder.filename().string(), report);
      }
    }
  }
}

} // namespace pinhole::cli
