#include "file/npy.h"

#include "base/checked.h"
#include "file/byte_reader.h"
#include "file/printable.h"

#include <cstring>
#include <fmt/format.h>
#include <optional>
#include <string_view>
#include <utility>

namespace pinhole {

namespace {

constexpr size_t kMaxDims = 32; // NumPy's own limit before 2.0
constexpr uint64_t kMaxHeaderBytes = 65536;

struct TypeRow {
  std::string_view descr;
  NpyType type;
  uint64_t bytes;
};
constexpr TypeRow kTypes[] = {{"<f4", NpyType::kF32, 4},
                              {"<i4", NpyType::kI32, 4},
                              {"<i8", NpyType::kI64, 8},
                              {"|u1", NpyType::kU8, 1},
                              {"|b1", NpyType::kBool, 1}};

const TypeRow& row_of(NpyType type) { return kTypes[static_cast<int>(type)]; }

// The header's Python dict: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const ByteReader& reader, uint64_t base)
      : text_(text), reader_(reader), base_(base) {}

  std::optional<std::string_view> descr;
  std::optional<bool> fortran_order;
  std::optional<std::vector<int64_t>> shape;

  Status parse() {
    if (!accept('{'))
      return wrong("'{'");
    while (!accept('}')) {
      PINHOLE_TRY(const std::string_view key, quoted());
      if (!accept(':'))
        return wrong("':'");
      if (key == "descr") {
        PINHOLE_TRY(descr, quoted());
      } else if (key == "fortran_order") {
        if (accept_word("True"))
          fortran_order = true;
        else if (accept_word("False"))
          fortran_order = false;
        else
          return wrong("True or False");
      } else if (key == "shape") {
        PINHOLE_TRY(shape, tuple());
      } else {
        return wrong("the keys descr, fortran_order and shape");
      }
      if (accept(','))
        continue;
      if (!accept('}'))
        return wrong("',' or '}'");
      break;
    }
    skip_space();
    if (at_ != text_.size())
      return wrong("the end of the header");
    if (!descr || !fortran_order || !shape)
      return wrong("descr, fortran_order and shape");
    return {};
  }

 private:
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n'))
      ++at_;
  }
  bool accept(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c)
      return false;
    ++at_;
    return true;
  }
  bool accept_word(std::string_view word) {
    skip_space();
    if (!text_.substr(at_).starts_with(word))
      return false;
    at_ += word.size();
    return true;
  }
  Result<std::string_view> quoted() {
    skip_space();
    const char quote = accept('\'') ? '\'' : accept('"') ? '"' : '\0';
    if (quote == '\0')
      return wrong("a quoted word");
    const size_t end = text_.find(quote, at_);
    if (end == std::string_view::npos)
      return wrong("a closing quote");
    const std::string_view word = text_.substr(at_, end - at_);
    at_ = end + 1;
    return word;
  }
  Result<std::vector<int64_t>> tuple() {
    std::vector<int64_t> dims;
    if (!accept('('))
      return wrong("'('");
    while (!accept(')')) {
      skip_space();
      uint64_t dim = 0;
      const size_t begin = at_;
      for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
        const auto tenfold = checked_mul(dim, 10);
        const auto next = tenfold ? checked_add(*tenfold, text_[at_] - '0') : std::nullopt;
        if (!next || *next > static_cast<uint64_t>(INT64_MAX))
          return wrong("a 64-bit dimension");
        dim = *next;
      }
      if (at_ == begin || dims.size() == kMaxDims)
        return wrong("at most 32 dimensions");
      dims.push_back(static_cast<int64_t>(dim));
      if (accept(','))
        continue;
      if (!accept(')'))
        return wrong("',' or ')'");
      break;
    }
    return dims;
  }
  tl::unexpected<Error> wrong(const char* expected) const {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("the header has {}, expected {}",
                            at_ < text_.size() ? printable(text_.substr(at_), 20) : "its end",
                            expected),
                reader_.where(base_ + at_));
  }

  std::string_view text_;
  const ByteReader& reader_;
  uint64_t base_;
  size_t at_ = 0;
};

tl::unexpected<Error> wrong_type(const NpyArray& array, const char* expected) {
  return fail(ErrorCode::kInvalidInput,
              fmt::format("an array of '{}', expected {}", row_of(array.type).descr, expected),
              array.name);
}

} // namespace

Result<NpyArray> NpyArray::parse(std::span<const std::byte> bytes, const std::string& name) {
  ByteReader reader(bytes, name);
  PINHOLE_TRY(const auto magic, reader.take(6, "the magic"));
  if (std::memcmp(magic.data(), "\x93NUMPY", 6) != 0) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("not a .npy file: it begins with {}",
                            printable({reinterpret_cast<const char*>(magic.data()), 6})),
                reader.where(0));
  }
  PINHOLE_TRY(const uint8_t major, reader.read<uint8_t>("the version"));
  PINHOLE_CHECK(reader.read<uint8_t>("the version"));
  if (major < 1 || major > 3) {
    return fail(ErrorCode::kUnsupported,
                fmt::format(".npy version {}, versions 1 to 3 are read", major), reader.where(6));
  }
  uint64_t header_bytes = 0;
  if (major == 1) {
    PINHOLE_TRY(header_bytes, reader.read<uint16_t>("the header's length"));
  } else {
    PINHOLE_TRY(header_bytes, reader.read<uint32_t>("the header's length"));
  }
  if (header_bytes > kMaxHeaderBytes) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("the header claims {} bytes, the limit is {}", header_bytes, kMaxHeaderBytes),
        reader.where(8));
  }
  const uint64_t header_offset = reader.offset();
  PINHOLE_TRY(const auto header, reader.take(header_bytes, "the header"));
  HeaderParser parser({reinterpret_cast<const char*>(header.data()), header.size()}, reader,
                      header_offset);
  PINHOLE_CHECK(parser.parse());

  NpyArray array;
  array.name = name;
  array.shape = std::move(*parser.shape);
  if (*parser.fortran_order && array.shape.size() > 1) {
    return fail(ErrorCode::kUnsupported, "an array in Fortran order, only C order is read", name);
  }
  const TypeRow* found = nullptr;
  for (const TypeRow& row : kTypes) {
    if (row.descr == *parser.descr)
      found = &row;
  }
  if (found == nullptr) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("an array of {}; <f4, <i4, <i8, |u1 and |b1 are read",
                            printable(*parser.descr, 20)),
                name);
  }
  array.type = found->type;
  uint64_t wanted = found->bytes;
  for (const int64_t dim : array.shape) {
    const auto product = checked_mul(wanted, static_cast<uint64_t>(dim));
    if (!product || *product > static_cast<uint64_t>(INT64_MAX)) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("dimension {} makes 2^63 bytes or more", dim), name);
    }
    wanted = *product;
  }
  if (wanted != reader.remaining()) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("{} bytes of data, expected {} for this shape and type",
                            reader.remaining(), wanted),
                reader.where());
  }
  PINHOLE_TRY(array.raw, reader.take(wanted, "the data"));
  return array;
}

Result<NpyArray> NpyArray::open(const std::string& path) {
  PINHOLE_TRY(MappedFile file, MappedFile::open(path));
  PINHOLE_TRY(NpyArray array, parse(file.bytes(), path));
  array.file = std::move(file);
  return array;
}

int64_t NpyArray::elements() const { return static_cast<int64_t>(raw.size() / row_of(type).bytes); }

Result<std::span<const float>> NpyArray::floats() const {
  if (type != NpyType::kF32)
    return wrong_type(*this, "floats ('<f4')");
  if (reinterpret_cast<uintptr_t>(raw.data()) % alignof(float) != 0) {
    return fail(ErrorCode::kInvalidInput, "the header's length leaves the floats unaligned", name);
  }
  return std::span(reinterpret_cast<const float*>(raw.data()), raw.size() / sizeof(float));
}

Result<std::span<const uint8_t>> NpyArray::bytes() const {
  if (type != NpyType::kU8 && type != NpyType::kBool)
    return wrong_type(*this, "bytes or bools");
  return std::span(reinterpret_cast<const uint8_t*>(raw.data()), raw.size());
}

Result<std::vector<int64_t>> NpyArray::ints() const {
  if (type != NpyType::kI32 && type != NpyType::kI64)
    return wrong_type(*this, "integers");
  std::vector<int64_t> out(raw.size() / row_of(type).bytes);
  for (size_t i = 0; i < out.size(); ++i) {
    if (type == NpyType::kI64) {
      std::memcpy(&out[i], raw.data() + i * 8, 8);
    } else {
      int32_t value;
      std::memcpy(&value, raw.data() + i * 4, 4);
      out[i] = value;
    }
  }
  return out;
}

} // namespace pinhole
