// Which projector belongs to a text GGUF, by file names alone. Names as publishers choose them:
// mmproj-NAME-f16.gguf, NAME-mmproj-F16.gguf, NAME.mmproj-Q8_0.gguf, mmproj-F16.gguf, and the model
// NAME-Q4_K_M.gguf, NAME-UD-Q4_K_XL.gguf, NAME.i1-IQ4_XS.gguf, NAME-Q8_0-00001-of-00002.gguf.
#include "file/folder.h"
#include "file/gguf_reader.h"
#include "file/model_file.h"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace pinhole {

namespace {

// Parts of a name between '-' and '.', in lower case.
std::vector<std::string> words_of(std::string_view name) {
  std::vector<std::string> words(1);
  for (const char c : to_lower(name)) {
    if (c == '-' || c == '.')
      words.emplace_back();
    else
      words.back() += c;
  }
  std::erase(words, "");
  return words;
}

bool has_digit_at(std::string_view word, size_t i) {
  return i < word.size() && word[i] >= '0' && word[i] <= '9';
}

// f16, bf16, q4_k_m, q8_0, iq2_xxs, tq1_0, mxfp4, nvfp4 ...
bool is_precision(std::string_view word) {
  if (word == "f32" || word == "f16" || word == "bf16" || word == "fp16" || word == "fp32")
    return true;
  if (word == "mxfp4" || word == "nvfp4" || word == "mxfp4_moe")
    return true;
  if (word.starts_with("iq") || word.starts_with("tq"))
    return has_digit_at(word, 2);
  return word.starts_with("q") && has_digit_at(word, 1) && (word.size() == 2 || word[2] == '_');
}

struct Name {
  std::string base;      // words without mmproj and precision, joined by '-'
  std::string precision; // empty when the name has none
};

Name analyse(std::string_view file_name) {
  if (const auto split = parse_split_name(file_name))
    file_name = split->stem;
  else
    file_name.remove_suffix(std::string_view(".gguf").size());
  Name name;
  std::vector<std::string> kept;
  for (const std::string& word : words_of(file_name)) {
    if (is_precision(word)) {
      name.precision = word == "fp16" ? "f16" : word == "fp32" ? "f32" : word;
    } else if (word != "mmproj" && word != "ud" && word != "i1" && word != "imat") {
      kept.push_back(word);
    }
  }
  name.base = fmt::format("{}", fmt::join(kept, "-"));
  return name;
}

// Length of the shared name: one must be the other, or its beginning up to a '-'.
size_t shared_length(const std::string& a, const std::string& b) {
  const auto& [shorter, longer] =
      std::minmax(a, b, [](const auto& x, const auto& y) { return x.size() < y.size(); });
  if (shorter.empty() || !longer.starts_with(shorter))
    return 0;
  return longer.size() == shorter.size() || longer[shorter.size()] == '-' ? shorter.size() : 0;
}

int rank_precision(const std::string& precision, const std::string& of_model) {
  if (precision == of_model && !precision.empty())
    return 0;
  int rank = 1;
  for (const char* known : {"f16", "bf16", "q8_0", "f32"}) {
    if (precision == known)
      return rank;
    ++rank;
  }
  return rank;
}

} // namespace

Result<std::optional<std::string>> find_mmproj(const std::string& gguf_path) {
  const std::filesystem::path path(gguf_path);
  const std::string file_name = path.filename().string();
  if (!to_lower(file_name).ends_with(".gguf") || is_projector_name(file_name))
    return std::nullopt;
  const std::string folder = path.has_parent_path() ? path.parent_path().string() : ".";
  PINHOLE_TRY(const FolderFiles files, list_model_files(folder));
  const auto& candidates = files.projectors;
  const auto in_folder = [&](const std::string& name) {
    return path.has_parent_path() ? (path.parent_path() / name).string() : name;
  };
  if (candidates.empty())
    return std::nullopt;
  if (candidates.size() == 1)
    return in_folder(candidates[0]);

  const Name model = analyse(file_name);
  // The candidates whose name shares most with the model's; all of them when they have one base.
  std::vector<std::string> best;
  size_t best_length = 0;
  bool one_base = true;
  for (const std::string& candidate : candidates) {
    const Name name = analyse(candidate);
    one_base = one_base && name.base == analyse(candidates[0]).base;
    const size_t length =
        2 * shared_length(name.base, model.base) + (name.base == model.base ? 1 : 0);
    if (length < best_length || length <= 1)
      continue;
    if (length > best_length)
      best.clear();
    best_length = length;
    best.push_back(candidate);
  }
  if (best.empty() && one_base)
    best = candidates;
  const auto less = [&](const std::string& a, const std::string& b) {
    return rank_precision(analyse(a).precision, model.precision) <
           rank_precision(analyse(b).precision, model.precision);
  };
  const std::string base = best.empty() ? "" : analyse(best[0]).base;
  const bool same = std::all_of(best.begin(), best.end(), [&](const std::string& name) {
    return analyse(name).base == base;
  });
  if (!best.empty() && same)
    return in_folder(*std::min_element(best.begin(), best.end(), less));
  return fail(ErrorCode::kInvalidInput,
              fmt::format("{} projectors lie beside the model and none is named after it: {}",
                          candidates.size(), fmt::join(candidates, ", ")),
              gguf_path, "name one with --mmproj");
}

} // namespace pinhole
