#include "file/gguf_reader.h"

#include "file/printable.h"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <iterator>
#include <utility>

namespace pinhole {

namespace {

constexpr std::string_view kSuffix = ".gguf";
constexpr size_t kDigits = 5;

// The number in exactly five digits.
std::optional<uint32_t> five_digits(std::string_view text) {
  if (text.size() != kDigits)
    return std::nullopt;
  uint32_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9')
      return std::nullopt;
    value = value * 10 + static_cast<uint32_t>(c - '0');
  }
  return value;
}

// What this part says about the whole; an absent split.count means that it is the whole.
Status check_split_keys(const GgufPart& part, const std::string& path, uint32_t part_idx,
                        uint32_t num_parts) {
  PINHOLE_TRY(const int64_t count, part.meta.integer_or("split.count", 0));
  if (count != num_parts && !(num_parts == 1 && count == 0)) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("key 'split.count' is {}, the file's name says {} part(s)", count, num_parts),
        path,
        num_parts == 1 ? "a part of a split model must keep its name NAME-00001-of-0000N.gguf"
                       : "");
  }
  PINHOLE_TRY(const int64_t no, part.meta.integer_or("split.no", part_idx));
  if (no != part_idx) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("key 'split.no' is {}, expected {} (from 0) in this part", no, part_idx), path);
  }
  return {};
}

} // namespace

std::optional<SplitName> parse_split_name(std::string_view path) {
  // ...-00001-of-00003.gguf
  constexpr std::string_view kOf = "-of-";
  constexpr size_t kTail = 1 + kDigits + kOf.size() + kDigits + kSuffix.size();
  if (path.size() <= kTail || !path.ends_with(kSuffix))
    return std::nullopt;
  const std::string_view tail = path.substr(path.size() - kTail);
  if (tail[0] != '-' || tail.substr(1 + kDigits, kOf.size()) != kOf)
    return std::nullopt;
  const auto no = five_digits(tail.substr(1, kDigits));
  const auto count = five_digits(tail.substr(1 + kDigits + kOf.size(), kDigits));
  if (!no || !count || *no == 0 || *no > *count)
    return std::nullopt;
  return SplitName{path.substr(0, path.size() - kTail), *no, *count};
}

std::string split_part_path(std::string_view stem, uint32_t no, uint32_t count) {
  return fmt::format("{}-{:05}-of-{:05}{}", stem, no, count, kSuffix);
}

Result<ModelFile> GgufReader::open(const std::string& path) {
  const auto split = parse_split_name(path);
  const uint32_t num_parts = split ? split->count : 1;
  std::vector<std::string> paths;
  if (num_parts > kMaxGgufParts) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("its name says {} parts, the limit is {}", num_parts, kMaxGgufParts),
                path);
  }
  if (split) {
    std::string missing;
    size_t num_missing = 0;
    for (uint32_t no = 1; no <= num_parts; ++no) {
      paths.push_back(split_part_path(split->stem, no, num_parts));
      std::error_code error;
      if (std::filesystem::exists(paths.back(), error))
        continue;
      if (++num_missing <= 5)
        missing += (missing.empty() ? "" : ", ") + paths.back();
    }
    if (num_missing > 0) {
      return fail(ErrorCode::kNotFound,
                  fmt::format("{} of the model's {} parts are missing: {}{}", num_missing,
                              num_parts, missing, num_missing > 5 ? " ..." : ""),
                  path, "put all parts into one folder");
    }
  } else {
    paths.push_back(path);
  }
  return open_parts(path, paths, [&](size_t idx) { return MappedFile::open(paths[idx]); });
}

Result<ModelFile> GgufReader::open_parts(const std::string& path,
                                         const std::vector<std::string>& names,
                                         FunctionRef<Result<MappedFile>(size_t idx)> open_part) {
  const auto num_parts = static_cast<uint32_t>(names.size());
  ModelFile model;
  model.container_ = Container::kGguf;
  model.path_ = path;
  int64_t expected_tensors = -1;
  for (uint32_t i = 0; i < num_parts; ++i) {
    PINHOLE_TRY(MappedFile file, open_part(i));
    PINHOLE_TRY(GgufPart part, parse(file.bytes(), names[i], i));
    PINHOLE_CHECK(check_split_keys(part, names[i], i, num_parts));
    PINHOLE_TRY(const int64_t total, part.meta.integer_or("split.tensors.count", -1));
    if (i == 0)
      expected_tensors = total;
    if (total != expected_tensors && total != -1) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("key 'split.tensors.count' is {}, the first part says {}", total,
                              expected_tensors),
                  names[i]);
    }
    model.parts_.push_back(std::move(file));
    if (i == 0) {
      model.gguf_ = std::move(part.meta);
      model.tensors_ = std::move(part.tensors);
      model.others_ = std::move(part.others);
      continue;
    }
    if (model.tensors_.size() + part.tensors.size() > kMaxGgufTensors) {
      return fail(ErrorCode::kTooLarge,
                  fmt::format("more than {} tensors, the limit", kMaxGgufTensors), names[i]);
    }
    std::move(part.tensors.begin(), part.tensors.end(), std::back_inserter(model.tensors_));
    std::move(part.others.begin(), part.others.end(), std::back_inserter(model.others_));
  }
  const size_t num_tensors = model.tensors_.size() + model.others_.size();
  if (num_parts > 1 && expected_tensors >= 0 &&
      static_cast<uint64_t>(expected_tensors) != num_tensors) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("key 'split.tensors.count' is {}, the {} parts hold {} tensors",
                            expected_tensors, num_parts, num_tensors),
                names[0]);
  }
  PINHOLE_CHECK(model.index_tensors());
  return model;
}

} // namespace pinhole
