// PNG: a walk over the chunks, then libpng row by row into 8-bit RGB as Pillow's convert("RGB")
// gives it: 16-bit samples keep their high byte, except 16-bit grey, which Pillow holds as integers
// and clips at 255. An APNG shows its first frame (the IDAT one), as any PNG reader does.
// Invariant: the walk has seen IEND and compared the compressed bytes with the claimed size before
// the picture is allocated; ancillary chunks never reach libpng, except tRNS where alpha counts.
// Sources: PNG specification, 3rd edition; Pillow PngImagePlugin.py, Convert.c.
#include "image/container.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <png.h>

namespace pinhole::image_internal {

namespace {

constexpr uint64_t kSignatureBytes = 8;
constexpr uint64_t kChunkOverheadBytes = 12; // length, type, CRC
constexpr uint64_t kMaxDeflateRatio = 1032;  // zlib technical details, "maximum compression factor"
constexpr uint32_t kMaxChunkBytes = 0x7fffffff;

uint32_t channel_count(uint32_t color_type) {
  switch (color_type) {
  case PNG_COLOR_TYPE_GRAY:
  case PNG_COLOR_TYPE_PALETTE:
    return 1;
  case PNG_COLOR_TYPE_GRAY_ALPHA:
    return 2;
  case PNG_COLOR_TYPE_RGB:
    return 3;
  case PNG_COLOR_TYPE_RGB_ALPHA:
    return 4;
  default:
    return 0;
  }
}

bool is_valid_depth(uint32_t depth, uint32_t color_type) {
  switch (color_type) {
  case PNG_COLOR_TYPE_GRAY:
    return depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16;
  case PNG_COLOR_TYPE_PALETTE:
    return depth == 1 || depth == 2 || depth == 4 || depth == 8;
  default:
    return depth == 8 || depth == 16;
  }
}

Status read_ihdr(Bytes data, const std::string& where, FileWalk& out) {
  const std::string place = at_byte(where, kSignatureBytes + 8);
  if (data.size() != 13) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("PNG header of {} bytes, expected 13", data.size()), place);
  }
  out.width = be32(data, 0);
  out.height = be32(data, 4);
  if (out.width == 0 || out.height == 0 || out.width > kMaxChunkBytes ||
      out.height > kMaxChunkBytes) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("PNG of {} x {} px; both sides must be 1 to 2147483647", out.width, out.height),
        place);
  }
  const uint32_t depth = byte_at(data, 8), color_type = byte_at(data, 9);
  if (channel_count(color_type) == 0 || !is_valid_depth(depth, color_type)) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("PNG with colour type {} and bit depth {}, which do not exist together",
                            color_type, depth),
                place);
  }
  out.bits_per_pixel = depth * channel_count(color_type);
  return {};
}

tl::unexpected<Error> truncated(const std::string& where, uint64_t offset, std::string_view what) {
  return fail(ErrorCode::kInvalidInput, fmt::format("truncated PNG: the file ends {}", what),
              at_byte(where, offset), "get the whole file again");
}

} // namespace

Result<FileWalk> walk_png(Bytes file, Walk walk, const std::string& where) {
  using namespace std::string_view_literals;
  FileWalk out;
  int from_xmp = 1;
  bool has_end = false;
  uint64_t offset = kSignatureBytes;
  while (!has_end && offset + 8 <= file.size()) {
    const uint64_t length = be32(file, offset);
    const Bytes type = file.subspan(offset + 4, 4);
    if (length > kMaxChunkBytes) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("PNG chunk of {} bytes, more than the format allows", length),
                  at_byte(where, offset));
    }
    if (offset + kChunkOverheadBytes + length > file.size())
      break;
    const Bytes data = file.subspan(offset + 8, length);
    if (offset == kSignatureBytes) {
      if (!starts_with(type, "IHDR")) {
        return fail(ErrorCode::kInvalidInput, "PNG that does not begin with its header (IHDR)",
                    at_byte(where, offset));
      }
      PINHOLE_CHECK(read_ihdr(data, where, out));
    } else if (starts_with(type, "IDAT")) {
      out.data_bytes += length;
    } else if (starts_with(type, "eXIf")) {
      out.orientation = exif_orientation(data);
    } else if (starts_with(type, "iTXt") && starts_with(data, "XML:com.adobe.xmp\0\0"sv)) {
      from_xmp = xmp_orientation(data);
    } else if (starts_with(type, "IEND")) {
      has_end = true;
    }
    offset += kChunkOverheadBytes + length;
  }
  if (out.orientation == 0)
    out.orientation = from_xmp;
  if (out.width == 0)
    return truncated(where, file.size(), "within the header");
  if (walk == Walk::kHeader)
    return out;
  if (!has_end) {
    return truncated(where, file.size(),
                     out.data_bytes == 0 ? "before the picture data"
                                         : "before the end chunk (IEND)");
  }
  const uint64_t pixel_bytes = static_cast<uint64_t>(out.height) *
                               ((static_cast<uint64_t>(out.width) * out.bits_per_pixel) / 8);
  if (out.data_bytes < pixel_bytes / kMaxDeflateRatio) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("truncated PNG: {} bytes of picture data cannot hold {} x {} px, which "
                            "take at least {}",
                            out.data_bytes, out.width, out.height, pixel_bytes / kMaxDeflateRatio),
                where, "get the whole file again");
  }
  return out;
}

namespace {

// Everything that lives across longjmp.
struct Decoder {
  png_structp png;
  png_infop info;
  Bytes file;
  uint64_t offset;
  char message[256];
};

// Frees libpng's side however decode_png is left.
struct DecoderOwner : Decoder {
  ~DecoderOwner() { png_destroy_read_struct(&png, &info, nullptr); }
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto& decoder = *static_cast<Decoder*>(png_get_error_ptr(png));
  std::snprintf(decoder.message, sizeof decoder.message, "%s", message);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep to, size_t count) {
  auto& decoder = *static_cast<Decoder*>(png_get_io_ptr(png));
  if (count > decoder.file.size() - decoder.offset)
    png_error(png, "the file ends too early");
  std::memcpy(to, decoder.file.data() + decoder.offset, count);
  decoder.offset += count;
}

// What the rows that libpng hands out hold.
enum class RowKind { kRgb, kRgba, kGrey16 };

// Runs libpng up to the first row; false after an error.
bool start(Decoder& decoder, const FileWalk& walk, AlphaPolicy alpha, RowKind& kind) {
  decoder.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &decoder, on_error, on_warning);
  if (decoder.png == nullptr)
    return false;
  decoder.info = png_create_info_struct(decoder.png);
  if (decoder.info == nullptr)
    return false;
  png_structp png = decoder.png;
  if (setjmp(png_jmpbuf(png)) != 0)
    return false;
  png_set_user_limits(png, static_cast<png_uint_32>(walk.width),
                      static_cast<png_uint_32>(walk.height));
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  if (alpha == AlphaPolicy::kDrop) {
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER,
                                reinterpret_cast<png_const_bytep>("tRNS"), 1);
  }
  png_set_read_fn(png, &decoder, on_read);
  png_read_info(png, decoder.info);

  const uint32_t color_type = png_get_color_type(png, decoder.info);
  const uint32_t depth = png_get_bit_depth(png, decoder.info);
  const bool has_key = png_get_valid(png, decoder.info, PNG_INFO_tRNS) != 0;
  const bool has_alpha = (color_type & PNG_COLOR_MASK_ALPHA) != 0;
  png_set_interlace_handling(png);
  if (depth == 16 && color_type == PNG_COLOR_TYPE_GRAY) {
    kind = RowKind::kGrey16;
  } else {
    png_set_expand(png);
    png_set_strip_16(png);
    png_set_gray_to_rgb(png);
    if (alpha == AlphaPolicy::kDrop)
      png_set_strip_alpha(png);
    kind = alpha == AlphaPolicy::kWhite && (has_alpha || has_key) ? RowKind::kRgba : RowKind::kRgb;
  }
  png_read_update_info(png, decoder.info);
  return true;
}

int bytes_per_pixel(RowKind kind) {
  return kind == RowKind::kRgb ? 3 : kind == RowKind::kRgba ? 4 : 2;
}

// Reads every row to pixels [height, width, bytes_per_pixel]; false after an error.
bool read_rows(Decoder& decoder, const FileWalk& walk, RowKind kind, uint8_t* pixels) {
  png_structp png = decoder.png;
  if (setjmp(png_jmpbuf(png)) != 0)
    return false;
  const size_t row_bytes = static_cast<size_t>(walk.width) * bytes_per_pixel(kind);
  if (png_get_rowbytes(png, decoder.info) != row_bytes)
    png_error(png, "unexpected row size");
  const int pass_count = png_get_interlace_type(png, decoder.info) == PNG_INTERLACE_ADAM7 ? 7 : 1;
  for (int pass = 0; pass < pass_count; ++pass) {
    for (int64_t y = 0; y < walk.height; ++y)
      png_read_row(png, pixels + y * row_bytes, nullptr);
  }
  png_read_end(png, nullptr);
  return true;
}

// [pixels] big-endian 16-bit grey -> RGB in the same buffer, from the back: Pillow clips at 255.
void widen_grey16(uint8_t* pixels, size_t pixel_count) {
  for (size_t i = pixel_count; i-- > 0;) {
    const uint8_t grey = pixels[i * 2] != 0 ? 255 : pixels[i * 2 + 1];
    std::memset(pixels + i * 3, grey, 3);
  }
}

} // namespace

Result<Image> decode_png(Bytes file, const FileWalk& walk, AlphaPolicy alpha,
                         const std::string& where) {
  Image image;
  image.width = walk.width;
  image.height = walk.height;
  const size_t pixel_count = static_cast<size_t>(walk.width) * walk.height;
  DecoderOwner decoder{};
  decoder.file = file;
  RowKind kind = RowKind::kRgb;
  bool ok = start(decoder, walk, alpha, kind);
  if (ok) {
    image.rgb.resize(pixel_count * std::max(3, bytes_per_pixel(kind)));
    ok = read_rows(decoder, walk, kind, image.rgb.data());
  }
  if (!ok) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("damaged PNG of {} bytes: {}", file.size(), decoder.message),
                at_byte(where, decoder.offset));
  }
  if (kind == RowKind::kGrey16)
    widen_grey16(image.rgb.data(), pixel_count);
  if (kind == RowKind::kRgba) {
    blend_on_white(image.rgb.data(), pixel_count);
    image.rgb.resize(pixel_count * 3);
  }
  return image;
}

} // namespace pinhole::image_internal
