// Which kind of picture a file is, and the way from its bytes to upright RGB.
// Invariant: limits are checked against the header before a decoder runs or a pixel is allocated.
#include "image/container.h"

#include "base/checked.h"

#include <algorithm>
#include <cctype>
#include <fmt/format.h>
#include <new>
#include <string_view>

namespace pinhole {

using namespace image_internal;

namespace {

constexpr size_t kTextSniffBytes = 1024; // how far an SVG or HTML tag is looked for

std::string_view as_text(Bytes bytes, size_t max) {
  return {reinterpret_cast<const char*>(bytes.data()), std::min(bytes.size(), max)};
}

// ISO base media files: the major brand at byte 8 says what is inside.
std::string_view iso_media_name(Bytes file) {
  if (file.size() < 12)
    return "an ISO media file";
  const std::string_view brand = as_text(file, 12).substr(8);
  if (brand == "avif" || brand == "avis")
    return "an AVIF picture";
  for (const std::string_view heic :
       {"heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"}) {
    if (brand == heic)
      return "a HEIC picture";
  }
  return "a video";
}

// A format that is recognised but not decoded; empty when the bytes say nothing.
std::string_view unsupported_name(Bytes file) {
  struct Signature {
    std::string_view prefix, name;
  };
  using namespace std::string_view_literals;
  static constexpr Signature kSignatures[] = {
      {"GIF87a"sv, "a GIF"},
      {"GIF89a"sv, "a GIF"},
      {"II*\0"sv, "a TIFF"},
      {"MM\0*"sv, "a TIFF"},
      {"II+\0"sv, "a BigTIFF"},
      {"MM\0+"sv, "a BigTIFF"},
      {"%PDF"sv, "a PDF"},
      {"8BPS"sv, "a Photoshop file"},
      {"\0\0\1\0"sv, "an ICO icon"},
      {"\0\0\0\x0cjP  "sv, "a JPEG 2000"},
      {"\xff\x4f\xff\x51"sv, "a JPEG 2000"},
      {"\0\0\0\x0cJXL "sv, "a JPEG XL"},
      {"\xff\x0a"sv, "a JPEG XL"},
      {"qoif"sv, "a QOI picture"},
      {"\x1a\x45\xdf\xa3"sv, "a Matroska or WebM video"},
      {"PK\3\4"sv, "a ZIP archive"},
      {"GGUF"sv, "a GGUF model file"},
  };
  for (const auto& [prefix, name] : kSignatures) {
    if (starts_with(file, prefix))
      return name;
  }
  if (file.size() >= 8 && as_text(file, 8).substr(4) == "ftyp")
    return iso_media_name(file);
  // "BM" is short: the reserved words of the header (bytes 6 to 9) are zero as well.
  if (starts_with(file, "BM") && file.size() >= 10 && le32(file, 6) == 0)
    return "a BMP";
  std::string head(as_text(file, kTextSniffBytes));
  std::transform(head.begin(), head.end(), head.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (head.find("<svg") != head.npos)
    return "an SVG";
  if (head.find("<!doctype html") != head.npos || head.find("<html") != head.npos) {
    return "an HTML page";
  }
  return {};
}

Result<PictureFormat> identify(Bytes file, const std::string& where) {
  using namespace std::string_view_literals;
  if (file.empty())
    return fail(ErrorCode::kInvalidInput, "the file is empty", where);
  if (starts_with(file, "\xff\xd8\xff"sv))
    return PictureFormat::kJpeg;
  if (starts_with(file, "\x89PNG\r\n\x1a\n"sv))
    return PictureFormat::kPng;
  if (starts_with(file, "RIFF") && file.size() >= 12 && as_text(file, 12).substr(8) == "WEBP") {
    return PictureFormat::kWebp;
  }
  if (starts_with(file, "\x89PNG"sv)) {
    return fail(ErrorCode::kInvalidInput,
                "a damaged PNG signature (the file is cut, or was copied as text)",
                at_byte(where, 4));
  }
  if (const std::string_view name = unsupported_name(file); !name.empty()) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("is {}; pictures are read as JPEG, PNG or WebP", name), where,
                "convert it to PNG");
  }
  std::string hex;
  for (size_t i = 0; i < std::min<size_t>(file.size(), 8); ++i) {
    hex += fmt::format("{}{:02x}", i > 0 ? " " : "", byte_at(file, i));
  }
  return fail(ErrorCode::kInvalidInput,
              fmt::format("is not a JPEG, PNG or WebP picture: it starts with {}", hex), where);
}

Result<FileWalk> walk_file(Bytes file, PictureFormat format, Walk walk, const std::string& where) {
  switch (format) {
  case PictureFormat::kJpeg:
    return walk_jpeg(file, walk, where);
  case PictureFormat::kPng:
    return walk_png(file, walk, where);
  case PictureFormat::kWebp:
    return walk_webp(file, walk, where);
  }
  return fail(ErrorCode::kUnsupported, "unknown picture format", where);
}

Status check_pixels(const FileWalk& walk, const DecodeLimits& limits, const std::string& where) {
  const auto pixels = checked_mul(walk.width, walk.height);
  if (pixels && *pixels <= limits.max_pixels)
    return {};
  return fail(ErrorCode::kTooLarge,
              fmt::format("{} x {} px is more than the limit of {} pixels", walk.width, walk.height,
                          limits.max_pixels),
              where, "make the picture smaller");
}

} // namespace

namespace image_internal {

bool starts_with(Bytes bytes, std::string_view prefix) {
  return as_text(bytes, prefix.size()) == prefix;
}

std::string at_byte(const std::string& where, uint64_t offset) {
  return fmt::format("{}{}byte {}", where, where.empty() ? "" : ", ", offset);
}

void blend_on_white(uint8_t* pixels, size_t pixel_count) {
  const uint8_t* from = pixels;
  uint8_t* to = pixels;
  for (size_t i = 0; i < pixel_count; ++i, from += 4, to += 3) {
    const uint32_t alpha = from[3];
    for (int c = 0; c < 3; ++c) {
      const uint32_t sum = from[c] * alpha + 255 * (255 - alpha) + 128;
      to[c] = static_cast<uint8_t>((sum + (sum >> 8)) >> 8);
    }
  }
}

} // namespace image_internal

Result<PictureInfo> probe_picture(std::span<const std::byte> file, const std::string& where) {
  PINHOLE_TRY(const PictureFormat format, identify(file, where));
  PINHOLE_TRY(const FileWalk walk, walk_file(file, format, Walk::kHeader, where));
  PictureInfo info{format, walk.width, walk.height};
  if (walk.orientation >= 5)
    std::swap(info.width, info.height);
  return info;
}

Result<Image> decode_picture(std::span<const std::byte> file, const DecodeLimits& limits,
                             AlphaPolicy alpha, const std::string& where) {
  if (file.size() > limits.max_file_bytes) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("the file has {} bytes, more than the limit of {}", file.size(),
                            limits.max_file_bytes),
                where, "make the picture smaller");
  }
  PINHOLE_TRY(const PictureFormat format, identify(file, where));
  // The size is judged first: of two faults it is the one that a person can do something about.
  PINHOLE_TRY(const FileWalk header, walk_file(file, format, Walk::kHeader, where));
  PINHOLE_CHECK(check_pixels(header, limits, where));
  PINHOLE_TRY(const FileWalk walk, walk_file(file, format, Walk::kWhole, where));
  PINHOLE_CHECK(check_pixels(walk, limits, where));
  try {
    Result<Image> image = format == PictureFormat::kJpeg  ? decode_jpeg(file, walk, where)
                          : format == PictureFormat::kPng ? decode_png(file, walk, alpha, where)
                                                          : decode_webp(walk, alpha, where);
    if (!image)
      return image;
    return orient(std::move(*image), walk.orientation);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("no memory for {} x {} px ({} bytes)", walk.width, walk.height,
                            walk.width * walk.height * 3),
                where, "make the picture smaller");
  }
}

} // namespace pinhole
