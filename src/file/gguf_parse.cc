// One GGUF part: header, key-values, tensor table. See gguf_reader.h.
#include "base/checked.h"
#include "file/byte_reader.h"
#include "file/gguf_reader.h"
#include "file/printable.h"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>
#include <utility>

namespace pinhole {

namespace {

constexpr uint64_t kMaxKeyValues = 1u << 16; // real files hold some 40
constexpr uint64_t kMaxKeyBytes = 65535;     // the specification's
constexpr uint64_t kMaxNameBytes = 1024;     // the specification says 64, some writers pass it
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kMinKeyValueBytes = 8 + 1 + 4 + 1;   // key length, key, type, value
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 4 + 8; // name length, name, dims, type, offset
constexpr uint64_t kDefaultAlignment = 32;

struct PlainType {
  uint32_t number;
  std::string_view name;
  uint64_t bytes;
};
// Element types of the specification that no kernel reads: kept as other tensors.
constexpr PlainType kPlainTypes[] = {
    {24, "I8", 1}, {25, "I16", 2}, {26, "I32", 4}, {27, "I64", 8}, {28, "F64", 8}};

std::string_view note_on_type(uint32_t number) {
  switch (number) {
  case 4:
    return " (Q4_2, removed from the format)";
  case 5:
    return " (Q4_3, removed from the format)";
  case 9:
    return " (Q8_1, not a storage type)";
  case 15:
    return " (Q8_K, not a storage type)";
  case 31:
  case 32:
  case 33:
    return " (an interleaved Q4_0, removed from the format)";
  case 36:
  case 37:
  case 38:
    return " (an interleaved IQ4_NL, removed from the format)";
  default:
    return "";
  }
}

Status read_header(ByteReader& reader, uint64_t& num_tensors, uint64_t& num_keys) {
  PINHOLE_TRY(const auto magic, reader.take(4, "the magic 'GGUF'"));
  const std::string_view text(reinterpret_cast<const char*>(magic.data()), 4);
  if (text == "FUGG") {
    return fail(ErrorCode::kUnsupported, "big-endian GGUF, only little-endian files are read",
                reader.where(0), "convert it with gguf-convert-endian");
  }
  if (text != "GGUF") {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("not a GGUF file: it begins with {}, expected 'GGUF'", printable(text)),
                reader.where(0),
                text == "vers" ? "this is a Git LFS pointer, fetch the file itself" : "");
  }
  PINHOLE_TRY(const uint32_t version, reader.read<uint32_t>("the version"));
  if ((version & 0xffff) == 0 && version != 0) {
    return fail(
        ErrorCode::kUnsupported,
        fmt::format("big-endian GGUF (version bytes 0x{:08x}), only little-endian files are read",
                    version),
        reader.where(4), "convert it with gguf-convert-endian");
  }
  if (version != 2 && version != 3) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("GGUF version {}, versions 2 and 3 are read", version),
                reader.where(4));
  }
  PINHOLE_TRY(num_tensors, reader.read<uint64_t>("the tensor count"));
  PINHOLE_TRY(num_keys, reader.read<uint64_t>("the key-value count"));
  struct Count {
    const char* what;
    uint64_t value, min_bytes, limit, offset;
  };
  for (const Count& count : {Count{"tensors", num_tensors, kMinTensorBytes, kMaxGgufTensors, 8},
                             Count{"key-values", num_keys, kMinKeyValueBytes, kMaxKeyValues, 16}}) {
    const uint64_t fit = reader.remaining() / count.min_bytes;
    if (count.value > fit) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("the header claims {} {}, the remaining {} bytes hold at most {}",
                              count.value, count.what, reader.remaining(), fit),
                  reader.where(count.offset));
    }
    if (count.value > count.limit) {
      return fail(ErrorCode::kTooLarge,
                  fmt::format("the header claims {} {}, the limit is {}", count.value, count.what,
                              count.limit),
                  reader.where(count.offset));
    }
  }
  return {};
}

Result<GgufType> read_type(ByteReader& reader, const std::string& what) {
  const uint64_t begin = reader.offset();
  PINHOLE_TRY(const uint32_t number, reader.read<uint32_t>(what));
  if (number > static_cast<uint32_t>(GgufType::kFloat64)) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("{} has type number {}, expected 0 to 12", what, number),
                reader.where(begin));
  }
  return static_cast<GgufType>(number);
}

Status check_bools(std::span<const std::byte> raw, ByteReader& reader, const std::string& what) {
  for (size_t i = 0; i < raw.size(); ++i) {
    const auto value = std::to_integer<unsigned>(raw[i]);
    if (value > 1) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("{} is a bool of {}, expected 0 or 1", what, value),
                  reader.where(reader.offset() - raw.size() + i));
    }
  }
  return {};
}

Result<GgufArray> read_array(ByteReader& reader, const std::string& what) {
  GgufArray array;
  PINHOLE_TRY(array.element_type, read_type(reader, what));
  const uint64_t count_offset = reader.offset();
  if (array.element_type == GgufType::kArray) {
    return fail(ErrorCode::kUnsupported, what + " is an array of arrays, which is not read",
                reader.where(count_offset - 4));
  }
  PINHOLE_TRY(array.count, reader.read<uint64_t>(what));
  const bool strings = array.element_type == GgufType::kString;
  const uint64_t min_bytes = strings ? 8 : gguf_type_bytes(array.element_type);
  if (array.count > reader.remaining() / min_bytes) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("{} claims {} elements of type {}, the remaining {} bytes hold at most {}",
                    what, array.count, gguf_type_name(array.element_type), reader.remaining(),
                    reader.remaining() / min_bytes),
        reader.where(count_offset));
  }
  if (!strings) {
    PINHOLE_TRY(array.raw, reader.take(array.count * min_bytes, what));
    if (array.element_type == GgufType::kBool)
      PINHOLE_CHECK(check_bools(array.raw, reader, what));
    return array;
  }
  ByteReader begin = reader;
  for (uint64_t i = 0; i < array.count; ++i) {
    auto element = reader.read_string("an element");
    if (!element)
      return fail_in(fmt::format("{}, element {} of {}", what, i, array.count),
                     std::move(element.error()));
  }
  PINHOLE_TRY(array.raw, begin.take(reader.offset() - begin.offset(), what));
  return array;
}

template <class T, class Wide>
Result<GgufValue> read_as(ByteReader& reader, const std::string& what) {
  PINHOLE_TRY(const T value, reader.read<T>(what));
  return GgufValue(static_cast<Wide>(value));
}

Result<GgufValue> read_value(ByteReader& reader, GgufType type, const std::string& what) {
  switch (type) {
  case GgufType::kUint8:
    return read_as<uint8_t, uint64_t>(reader, what);
  case GgufType::kInt8:
    return read_as<int8_t, int64_t>(reader, what);
  case GgufType::kUint16:
    return read_as<uint16_t, uint64_t>(reader, what);
  case GgufType::kInt16:
    return read_as<int16_t, int64_t>(reader, what);
  case GgufType::kUint32:
    return read_as<uint32_t, uint64_t>(reader, what);
  case GgufType::kInt32:
    return read_as<int32_t, int64_t>(reader, what);
  case GgufType::kFloat32:
    return read_as<float, double>(reader, what);
  case GgufType::kUint64:
    return read_as<uint64_t, uint64_t>(reader, what);
  case GgufType::kInt64:
    return read_as<int64_t, int64_t>(reader, what);
  case GgufType::kFloat64:
    return read_as<double, double>(reader, what);
  case GgufType::kBool: {
    PINHOLE_TRY(const auto raw, reader.take(1, what));
    PINHOLE_CHECK(check_bools(raw, reader, what));
    return GgufValue(raw[0] != std::byte{0});
  }
  case GgufType::kString: {
    PINHOLE_TRY(const std::string_view value, reader.read_string(what));
    return GgufValue(value);
  }
  case GgufType::kArray: {
    PINHOLE_TRY(const GgufArray value, read_array(reader, what));
    return GgufValue(value);
  }
  }
  return fail(ErrorCode::kInvalidInput, what + " has an unknown type", reader.where());
}

Status read_key_values(ByteReader& reader, uint64_t count, GgufMeta& meta) {
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t begin = reader.offset();
    auto key = reader.read_string(fmt::format("key {} of {}", i, count), kMaxKeyBytes);
    if (!key)
      return tl::unexpected<Error>(std::move(key.error()));
    if (key->empty()) {
      return fail(ErrorCode::kInvalidInput, fmt::format("key {} of {} is empty", i, count),
                  reader.where(begin));
    }
    const std::string what = "key " + printable(*key);
    PINHOLE_TRY(const GgufType type, read_type(reader, what));
    PINHOLE_TRY(GgufValue value, read_value(reader, type, what));
    meta.add({std::string(*key), type, std::move(value)});
  }
  const auto& entries = meta.entries();
  std::vector<uint32_t> order(entries.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return entries[a].key < entries[b].key; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (entries[order[i]].key == entries[order[i - 1]].key) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("metadata key {} occurs twice", printable(entries[order[i]].key)),
                  reader.name());
    }
  }
  return {};
}

Result<uint64_t> read_alignment(const GgufMeta& meta, const std::string& name) {
  PINHOLE_TRY(const int64_t alignment, meta.integer_or("general.alignment", kDefaultAlignment));
  if (alignment <= 0 || alignment % 8 != 0 || alignment > UINT32_MAX) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("key 'general.alignment' is {}, expected a multiple of 8", alignment),
                name);
  }
  return static_cast<uint64_t>(alignment);
}

// A row of the tensor table, with the place of its offset field for errors.
struct TensorInfo {
  OtherTensor tensor; // data and file_offset not set yet
  std::optional<FormatId> format;
  uint64_t offset = 0;
  uint64_t field = 0;
};

Result<TensorInfo> read_tensor_info(ByteReader& reader, uint64_t idx, uint64_t count) {
  TensorInfo info;
  PINHOLE_TRY(
      const auto name,
      reader.read_string(fmt::format("the name of tensor {} of {}", idx, count), kMaxNameBytes));
  const std::string what = "tensor " + printable(name);
  if (name.empty()) {
    return fail(ErrorCode::kInvalidInput, fmt::format("tensor {} of {} has no name", idx, count),
                reader.where(reader.offset() - 8));
  }
  info.tensor.name = name;
  const uint64_t dims_offset = reader.offset();
  PINHOLE_TRY(const uint32_t num_dims, reader.read<uint32_t>(what));
  if (num_dims > kMaxDims) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("{} has {} dimensions, at most {} are allowed", what, num_dims, kMaxDims),
        reader.where(dims_offset));
  }
  uint64_t elements = 1;
  uint64_t first_dim = 1;
  info.tensor.shape.resize(num_dims);
  for (uint32_t d = 0; d < num_dims; ++d) {
    const uint64_t begin = reader.offset();
    PINHOLE_TRY(const uint64_t dim, reader.read<uint64_t>(what));
    const auto product = checked_mul(elements, dim);
    if (dim == 0 || !product || *product > static_cast<uint64_t>(INT64_MAX)) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("{}: dimension {} is {}, expected at least 1 and fewer than 2^63 "
                              "elements in all",
                              what, d, dim),
                  reader.where(begin));
    }
    elements = *product;
    if (d == 0)
      first_dim = dim;
    info.tensor.shape[num_dims - 1 - d] = static_cast<int64_t>(dim);
  }
  const uint64_t type_offset = reader.offset();
  PINHOLE_TRY(const uint32_t type, reader.read<uint32_t>(what));
  uint64_t block_elements = 1;
  uint64_t block_bytes = 0;
  for (const FormatInfo& format : kFormats) {
    if (format.gguf_type != type)
      continue;
    info.format = format.id;
    block_elements = static_cast<uint64_t>(format.block_elements);
    block_bytes = static_cast<uint64_t>(format.block_bytes);
    info.tensor.type = format.name;
  }
  for (const PlainType& plain : kPlainTypes) {
    if (plain.number != type)
      continue;
    block_bytes = plain.bytes;
    info.tensor.type = plain.name;
  }
  if (block_bytes == 0) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("{} has type number {}{}, which is not known here", what, type,
                            note_on_type(type)),
                reader.where(type_offset));
  }
  if (first_dim % block_elements != 0) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("{}: its first dimension is {}, expected a multiple of {}, the block of {}",
                    what, first_dim, block_elements, info.tensor.type),
        reader.where(dims_offset + 4));
  }
  const auto bytes = checked_mul(elements / block_elements, block_bytes);
  if (!bytes) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("{}: {} elements of {} pass 2^64 bytes", what, elements, info.tensor.type),
        reader.where(dims_offset));
  }
  info.tensor.bytes = *bytes;
  info.field = reader.offset();
  PINHOLE_TRY(info.offset, reader.read<uint64_t>(what));
  return info;
}

// Sets data and file_offset; the range must lie inside the file and on the alignment.
Status place(TensorInfo& info, std::span<const std::byte> file, const GgufPart& part,
             const ByteReader& reader) {
  const std::string what = "tensor " + printable(info.tensor.name);
  if (info.offset % part.alignment != 0) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("{}: offset {} is not a multiple of the alignment {}", what,
                            info.offset, part.alignment),
                reader.where(info.field));
  }
  const auto begin = checked_add(part.data_offset, info.offset);
  const auto end = begin ? checked_add(*begin, info.tensor.bytes) : std::nullopt;
  if (!end || *end > file.size()) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("{}: {} bytes at data offset {} (data begins at byte 0x{:x}) do not fit "
                    "into the file's {} bytes",
                    what, info.tensor.bytes, info.offset, part.data_offset, file.size()),
        reader.where(info.field), "the file may be cut short: fetch it again");
  }
  info.tensor.file_offset = *begin;
  info.tensor.data = file.data() + *begin;
  return {};
}

// Two tensors that share bytes are a corrupt table: every writer lays them out one after the other.
Status check_overlaps(const GgufPart& part, const std::string& name) {
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
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].begin < ranges[i - 1].end) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("tensors {} (bytes 0x{:x} to 0x{:x}) and {} (from 0x{:x}) overlap",
                              printable(*ranges[i - 1].tensor), ranges[i - 1].begin,
                              ranges[i - 1].end, printable(*ranges[i].tensor), ranges[i].begin),
                  name);
    }
  }
  return {};
}

// Everything before the tensor table.
Status read_head(ByteReader& reader, GgufPart& part, uint64_t& num_tensors) {
  uint64_t num_keys = 0;
  PINHOLE_CHECK(read_header(reader, num_tensors, num_keys));
  part.meta.set_location(reader.name());
  PINHOLE_CHECK(read_key_values(reader, num_keys, part.meta));
  PINHOLE_TRY(part.alignment, read_alignment(part.meta, reader.name()));
  return {};
}

Status skip_table(ByteReader& reader, uint64_t num_tensors) {
  for (uint64_t i = 0; i < num_tensors; ++i)
    PINHOLE_CHECK(read_tensor_info(reader, i, num_tensors));
  return {};
}

} // namespace

Result<GgufExtent> GgufReader::header_extent(std::span<const std::byte> first, uint64_t file_bytes,
                                             const std::string& name) {
  ByteReader reader(first, file_bytes, name);
  GgufPart part;
  uint64_t num_tensors = 0;
  Status outcome = read_head(reader, part, num_tensors);
  if (outcome)
    outcome = skip_table(reader, num_tensors);
  if (outcome)
    return GgufExtent{true, reader.offset()};
  if (reader.needed() > 0)
    return GgufExtent{false, reader.needed()};
  return tl::unexpected<Error>(std::move(outcome.error()));
}

Result<GgufPart> GgufReader::parse(std::span<const std::byte> bytes, const std::string& name,
                                   uint32_t part_idx) {
  ByteReader reader(bytes, name);
  uint64_t num_tensors = 0;
  GgufPart part;
  PINHOLE_CHECK(read_head(reader, part, num_tensors));

  // The table is read twice: data_offset is known only at its end, and a second pass costs less
  // than keeping every row's offset.
  const ByteReader table = reader;
  PINHOLE_CHECK(skip_table(reader, num_tensors));
  const auto padded = checked_add(reader.offset(), part.alignment - 1);
  if (!padded)
    return fail(ErrorCode::kInvalidInput, "data offset passes 2^64", reader.where());
  part.data_offset = *padded / part.alignment * part.alignment;

  part.tensors.reserve(num_tensors);
  reader = table;
  for (uint64_t i = 0; i < num_tensors; ++i) {
    PINHOLE_TRY(TensorInfo info, read_tensor_info(reader, i, num_tensors));
    PINHOLE_CHECK(place(info, bytes, part, reader));
    OtherTensor& raw = info.tensor;
    raw.part = part_idx;
    if (info.format) {
      part.tensors.push_back({std::move(raw.name), *info.format, std::move(raw.shape), raw.data,
                              raw.bytes, part_idx, raw.file_offset});
    } else {
      part.others.push_back(std::move(raw));
    }
  }
  PINHOLE_CHECK(check_overlaps(part, name));
  return part;
}

} // namespace pinhole
