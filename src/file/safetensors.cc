#include "file/safetensors.h"

#include "base/checked.h"
#include "file/byte_reader.h"
#include "file/json_stream.h"
#include "file/printable.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <optional>
#include <utility>

namespace pinhole {

namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000; // the format's own limit
constexpr size_t kMaxTensors = 1u << 18;          // the largest published models have 100,000
constexpr size_t kMaxDims = 8;
constexpr size_t kMaxDtypeBytes = 32;
constexpr size_t kMaxNameBytes = 4096;

struct Dtype {
  std::string_view name;
  uint64_t bits;
};
// The format's dtypes and their sizes.
constexpr Dtype kDtypes[] = {
    {"F32", 32},    {"F16", 16},    {"BF16", 16},   {"BOOL", 8},    {"U8", 8},
    {"I8", 8},      {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F4", 4},
    {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U16", 16},    {"I16", 16},    {"U32", 32},
    {"I32", 32},    {"U64", 64},    {"I64", 64},    {"F64", 64},    {"C64", 64},
};

std::optional<FormatId> format_of(std::string_view dtype) {
  if (dtype == "F32")
    return FormatId::kF32;
  if (dtype == "F16")
    return FormatId::kF16;
  if (dtype == "BF16")
    return FormatId::kBF16;
  return std::nullopt;
}

// Values that are skipped (unknown keys): only their nesting is followed.
class Skipper {
 public:
  bool active() const { return active_; }
  void begin() { active_ = true; }
  // Each returns true: the token was part of the skipped value.
  bool open() { return ++depth_, true; }
  bool close() { return --depth_, value(); }
  bool value() {
    if (depth_ == 0)
      active_ = false;
    return true;
  }

 private:
  bool active_ = false;
  int64_t depth_ = 0;
};

// {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {...}}
class HeaderStream : public JsonStream {
 public:
  HeaderStream(std::string name, uint64_t base, uint64_t data_begin, uint64_t file_bytes,
               const std::byte* file, uint32_t part_idx, SafetensorsPart& part)
      : JsonStream(std::move(name), base), data_begin_(data_begin), file_bytes_(file_bytes),
        file_(file), part_idx_(part_idx), part_(part) {}

  bool null() override {
    if (skip_.active())
      return skip_.value();
    return (state_ == State::kTop && tensor_ == "__metadata__") || JsonStream::null();
  }
  bool boolean(bool b) override { return skip_.active() ? skip_.value() : JsonStream::boolean(b); }
  bool number_integer(int64_t n) override {
    return skip_.active() ? skip_.value() : JsonStream::number_integer(n);
  }
  bool number_float(double x, const std::string& text) override {
    return skip_.active() ? skip_.value() : JsonStream::number_float(x, text);
  }
  bool number_unsigned(uint64_t number) override {
    if (skip_.active())
      return skip_.value();
    if (state_ == State::kShape) {
      if (num_dims_ == kMaxDims) {
        return stop(fmt::format("{}: more than {} dimensions", context(), kMaxDims));
      }
      shape_[num_dims_++] = number;
      return true;
    }
    if (state_ == State::kOffsets) {
      if (num_offsets_ == 2)
        return stop(context() + ": data_offsets has more than 2 numbers");
      offsets_[num_offsets_++] = number;
      return true;
    }
    return JsonStream::number_unsigned(number);
  }
  bool string(std::string& text) override {
    if (skip_.active())
      return skip_.value();
    if (state_ == State::kMetadata)
      return true;
    if (state_ != State::kEntry || field_ != Field::kDtype)
      return JsonStream::string(text);
    if (text.empty() || text.size() > kMaxDtypeBytes) {
      return stop(fmt::format("{}: dtype {} is not a type's name", context(), printable(text, 40)));
    }
    dtype_ = text;
    field_ = Field::kNone;
    return true;
  }
  bool start_object(size_t elements) override {
    if (skip_.active())
      return skip_.open();
    switch (state_) {
    case State::kBegin:
      state_ = State::kTop;
      return true;
    case State::kTop:
      if (tensor_ == "__metadata__") {
        state_ = State::kMetadata;
        return true;
      }
      state_ = State::kEntry;
      field_ = Field::kNone;
      has_shape_ = has_offsets_ = false;
      dtype_.clear();
      num_dims_ = num_offsets_ = 0;
      return true;
    default:
      return JsonStream::start_object(elements);
    }
  }
  bool key(std::string& text) override {
    if (skip_.active())
      return true;
    if (state_ == State::kTop) {
      tensor_ = text;
      if (text.empty())
        return stop("a tensor has an empty name");
      if (text.size() <= kMaxNameBytes)
        return true;
      return stop(fmt::format("{}: a name of {} bytes, at most {} are allowed", context(),
                              text.size(), kMaxNameBytes));
    }
    if (state_ != State::kEntry)
      return true; // __metadata__
    if (text == "dtype" && dtype_.empty())
      field_ = Field::kDtype;
    else if (text == "shape" && !has_shape_)
      field_ = Field::kShape;
    else if (text == "data_offsets" && !has_offsets_)
      field_ = Field::kOffsets;
    else if (text == "dtype" || text == "shape" || text == "data_offsets") {
      return stop(context() + ": '" + text + "' occurs twice");
    } else {
      skip_.begin();
    }
    return true;
  }
  bool start_array(size_t elements) override {
    if (skip_.active())
      return skip_.open();
    if (state_ == State::kEntry && field_ == Field::kShape) {
      state_ = State::kShape;
    } else if (state_ == State::kEntry && field_ == Field::kOffsets) {
      state_ = State::kOffsets;
    } else {
      return JsonStream::start_array(elements);
    }
    return true;
  }
  bool end_array() override {
    if (skip_.active())
      return skip_.close();
    (state_ == State::kShape ? has_shape_ : has_offsets_) = true;
    state_ = State::kEntry;
    field_ = Field::kNone;
    return true;
  }
  bool end_object() override {
    if (skip_.active())
      return skip_.close();
    if (state_ == State::kMetadata) {
      state_ = State::kTop;
      return true;
    }
    if (state_ == State::kTop) {
      state_ = State::kEnd;
      return true;
    }
    state_ = State::kTop;
    const bool added = add_tensor();
    if (added)
      tensor_.clear();
    return added;
  }

 protected:
  std::string context() const override {
    return tensor_.empty() ? "the header" : "tensor " + printable(tensor_);
  }

 private:
  enum class State { kBegin, kTop, kMetadata, kEntry, kShape, kOffsets, kEnd };
  enum class Field { kNone, kDtype, kShape, kOffsets };

  bool add_tensor() {
    if (dtype_.empty() || !has_shape_ || num_offsets_ != 2) {
      const char* what = dtype_.empty() ? "dtype"
                         : !has_shape_  ? "shape"
                                        : "data_offsets (2 numbers)";
      return stop(fmt::format("{}: {} is missing", context(), what));
    }
    if (part_.tensors.size() + part_.others.size() == kMaxTensors) {
      return stop(fmt::format("more than {} tensors, the limit", kMaxTensors));
    }
    uint64_t elements = 1;
    for (size_t d = 0; d < num_dims_; ++d) {
      const auto product = checked_mul(elements, shape_[d]);
      if (!product || *product > static_cast<uint64_t>(INT64_MAX) ||
          shape_[d] > static_cast<uint64_t>(INT64_MAX)) {
        return stop(fmt::format("{}: dimension {} is {}, which makes 2^63 elements or more",
                                context(), d, shape_[d]));
      }
      elements = *product;
    }
    const auto [begin, end] = offsets_;
    const uint64_t data_bytes = file_bytes_ - data_begin_;
    if (begin > end || end > data_bytes) {
      return stop(
          Error{ErrorCode::kInvalidInput,
                fmt::format("{}: data_offsets [{}, {}] lie outside the file's {} data bytes",
                            context(), begin, end, data_bytes),
                name(), begin > end ? "" : "the file may be cut short: fetch it again"});
    }
    for (const Dtype& known : kDtypes) {
      if (known.name != dtype_)
        continue;
      const auto bits = checked_mul(elements, known.bits);
      if (!bits || *bits % 8 != 0 || *bits / 8 != end - begin) {
        return stop(
            fmt::format("{}: data_offsets [{}, {}] hold {} bytes, expected {} elements of {} "
                        "({} bits each)",
                        context(), begin, end, end - begin, elements, dtype_, known.bits));
      }
    }
    std::vector<int64_t> shape(shape_.begin(), shape_.begin() + num_dims_);
    const uint64_t offset = data_begin_ + begin;
    if (const auto format = format_of(dtype_)) {
      part_.tensors.push_back(
          {tensor_, *format, std::move(shape), file_ + offset, end - begin, part_idx_, offset});
    } else {
      part_.others.push_back(
          {tensor_, dtype_, std::move(shape), file_ + offset, end - begin, part_idx_, offset});
    }
    return true;
  }

  const uint64_t data_begin_, file_bytes_;
  const std::byte* const file_;
  const uint32_t part_idx_;
  SafetensorsPart& part_;

  State state_ = State::kBegin;
  Field field_ = Field::kNone;
  Skipper skip_;
  std::string tensor_, dtype_;
  bool has_shape_ = false, has_offsets_ = false;
  std::array<uint64_t, kMaxDims> shape_{};
  std::array<uint64_t, 2> offsets_{};
  size_t num_dims_ = 0, num_offsets_ = 0;
};

// All tensors together must fill the data part: the format allows neither gaps nor overlaps.
Status check_coverage(const SafetensorsPart& part, uint64_t data_begin, uint64_t file_bytes,
                      const std::string& name) {
  struct Range {
    uint64_t begin, end;
    const std::string* tensor;
  };
  std::vector<Range> ranges;
  ranges.reserve(part.tensors.size() + part.others.size());
  for (const auto& t : part.tensors)
    ranges.push_back({t.file_offset, t.file_offset + t.bytes, &t.name});
  for (const auto& t : part.others)
    ranges.push_back({t.file_offset, t.file_offset + t.bytes, &t.name});
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t expected = data_begin;
  for (const Range& range : ranges) {
    if (range.begin != expected) {
      return fail(
          ErrorCode::kInvalidInput,
          fmt::format("tensor {}: data_offsets begin at {}, expected {} (tensors must follow "
                      "each other without {})",
                      printable(*range.tensor), range.begin - data_begin, expected - data_begin,
                      range.begin < expected ? "overlap" : "gap"),
          fmt::format("{}, byte 0x{:x}", name, range.begin));
    }
    expected = range.end;
  }
  if (expected != file_bytes) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("{} bytes after the last tensor, expected the end of the file",
                            file_bytes - expected),
                fmt::format("{}, byte 0x{:x}", name, expected));
  }
  return {};
}

// {"metadata": {...}, "weight_map": {"tensor": "model-00001-of-00004.safetensors", ...}}
class IndexStream : public JsonStream {
 public:
  IndexStream(std::string name,
              FunctionRef<Status(const std::string& tensor, const std::string& shard)> entry)
      : JsonStream(std::move(name), 0), entry_(entry) {}

  bool has_map() const { return has_map_; }

  bool null() override { return skip_.active() ? skip_.value() : JsonStream::null(); }
  bool boolean(bool b) override { return skip_.active() ? skip_.value() : JsonStream::boolean(b); }
  bool number_integer(int64_t n) override {
    return skip_.active() ? skip_.value() : JsonStream::number_integer(n);
  }
  bool number_unsigned(uint64_t n) override {
    return skip_.active() ? skip_.value() : JsonStream::number_unsigned(n);
  }
  bool number_float(double x, const std::string& text) override {
    return skip_.active() ? skip_.value() : JsonStream::number_float(x, text);
  }
  bool start_array(size_t elements) override {
    return skip_.active() ? skip_.open() : JsonStream::start_array(elements);
  }
  bool end_array() override { return skip_.active() ? skip_.close() : true; }
  bool start_object(size_t elements) override {
    if (skip_.active())
      return skip_.open();
    if (depth_ == 2)
      return JsonStream::start_object(elements);
    ++depth_;
    return true;
  }
  bool end_object() override {
    if (skip_.active())
      return skip_.close();
    --depth_;
    return true;
  }
  bool key(std::string& text) override {
    if (skip_.active())
      return true;
    if (depth_ == 2) {
      tensor_ = text;
    } else if (text != "weight_map") {
      skip_.begin();
    } else if (has_map_) {
      return stop("'weight_map' occurs twice");
    } else {
      has_map_ = true;
    }
    return true;
  }
  bool string(std::string& shard) override {
    if (skip_.active())
      return skip_.value();
    if (depth_ != 2)
      return JsonStream::string(shard);
    const bool plain = shard.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos &&
                       shard.ends_with(".safetensors") && shard[0] != '.' && shard.size() <= 255;
    if (!plain) {
      return stop(fmt::format("{}: shard {} is not the plain name of a .safetensors file",
                              context(), printable(shard)));
    }
    auto status = entry_(tensor_, shard);
    return status ? true : stop(std::move(status.error()));
  }

 protected:
  std::string context() const override {
    return tensor_.empty() ? "the index" : "tensor " + printable(tensor_);
  }

 private:
  FunctionRef<Status(const std::string&, const std::string&)> entry_;
  Skipper skip_;
  int depth_ = 0; // 1 in the top object, 2 in weight_map
  bool has_map_ = false;
  std::string tensor_;
};

} // namespace

Result<SafetensorsPart> parse_safetensors(std::span<const std::byte> bytes, const std::string& name,
                                          uint32_t part_idx) {
  ByteReader reader(bytes, name);
  PINHOLE_TRY(const uint64_t header_bytes, reader.read<uint64_t>("the header's length"));
  if (header_bytes > kMaxHeaderBytes || header_bytes > reader.remaining()) {
    const std::string_view begin(reinterpret_cast<const char*>(bytes.data()), 7);
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("the header claims {} bytes, the file holds {} more and the limit is {}",
                    header_bytes, reader.remaining(), kMaxHeaderBytes),
        reader.where(0),
        begin == "version" ? "this is a Git LFS pointer, fetch the file itself"
                           : "the file may be cut short, or is no safetensors file");
  }
  PINHOLE_TRY(const auto header, reader.take(header_bytes, "the header"));
  SafetensorsPart part;
  HeaderStream stream(name, 8, reader.offset(), bytes.size(), bytes.data(), part_idx, part);
  PINHOLE_CHECK(stream.run({reinterpret_cast<const char*>(header.data()), header.size()}));
  PINHOLE_CHECK(check_coverage(part, reader.offset(), bytes.size(), name));
  return part;
}

Status for_each_index_entry(
    std::string_view text, const std::string& name,
    FunctionRef<Status(const std::string& tensor, const std::string& shard)> entry) {
  IndexStream stream(name, entry);
  PINHOLE_CHECK(stream.run(text));
  if (!stream.has_map()) {
    return fail(ErrorCode::kInvalidInput, "key 'weight_map' is missing", name);
  }
  return {};
}

} // namespace pinhole
