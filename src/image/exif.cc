// Orientation: read from EXIF (TIFF 6.0 IFD0, tag 0x0112) or XMP, and applied to pixels.
// Damaged metadata means "upright"; only the pixels decide whether a picture is readable.
// The eight cases follow PIL.ImageOps.exif_transpose.
#include "image/container.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace pinhole::image_internal {

namespace {

constexpr uint32_t kOrientationTag = 0x0112;
// TIFF field types that hold a small integer: SHORT, LONG, SSHORT, SLONG.
constexpr uint32_t kShort = 3, kLong = 4, kSignedShort = 8, kSignedLong = 9;

bool is_orientation(uint32_t value) { return value >= 1 && value <= 8; }

// Tile of the transposing loops: 32 rows x 96 bytes of both sides stay in a 32 KiB L1.
constexpr int64_t kTile = 32;

// out[y][x] = in[flip_rows ? height-1-x : x][flip_columns ? width-1-y : y]
Image transpose(const Image& in, bool flip_rows, bool flip_columns) {
  Image out;
  out.width = in.height;
  out.height = in.width;
  out.rgb.resize(in.rgb.size());
  for (int64_t y0 = 0; y0 < out.height; y0 += kTile) {
    const int64_t y1 = std::min(out.height, y0 + kTile);
    for (int64_t x0 = 0; x0 < out.width; x0 += kTile) {
      const int64_t x1 = std::min(out.width, x0 + kTile);
      for (int64_t y = y0; y < y1; ++y) {
        const int64_t in_x = flip_columns ? in.width - 1 - y : y;
        uint8_t* to = out.rgb.data() + (y * out.width + x0) * 3;
        for (int64_t x = x0; x < x1; ++x, to += 3) {
          const int64_t in_y = flip_rows ? in.height - 1 - x : x;
          const uint8_t* from = in.rgb.data() + (in_y * in.width + in_x) * 3;
          to[0] = from[0];
          to[1] = from[1];
          to[2] = from[2];
        }
      }
    }
  }
  return out;
}

void reverse_pixels(uint8_t* row, int64_t count) {
  for (int64_t left = 0, right = count - 1; left < right; ++left, --right) {
    std::swap_ranges(row + left * 3, row + left * 3 + 3, row + right * 3);
  }
}

} // namespace

int exif_orientation(Bytes tiff) {
  constexpr std::string_view kPrefix("Exif\0\0", 6);
  while (starts_with(tiff, kPrefix))
    tiff = tiff.subspan(kPrefix.size());
  if (tiff.size() < 8)
    return 0;
  const bool little = starts_with(tiff, "II");
  if (!little && !starts_with(tiff, "MM"))
    return 0;
  const auto u16 = [&](size_t i) { return little ? le16(tiff, i) : be16(tiff, i); };
  const auto u32 = [&](size_t i) { return little ? le32(tiff, i) : be32(tiff, i); };
  // 42, in either byte order: some writers get it wrong and Pillow accepts both.
  if (u16(2) != 42 && u16(2) != 42u << 8)
    return 0;
  const uint64_t ifd = u32(4);
  if (ifd + 2 > tiff.size())
    return 0;
  const uint64_t entry_count = u16(ifd);
  int orientation = 0;
  for (uint64_t i = 0; i < entry_count; ++i) {
    const uint64_t entry = ifd + 2 + i * 12;
    if (entry + 12 > tiff.size())
      break;
    if (u16(entry) != kOrientationTag || u32(entry + 4) != 1)
      continue;
    const uint32_t type = u16(entry + 2);
    uint32_t value = 0;
    if (type == kShort || type == kSignedShort)
      value = u16(entry + 8);
    if (type == kLong || type == kSignedLong)
      value = u32(entry + 8);
    orientation = is_orientation(value) ? static_cast<int>(value) : 1;
  }
  return orientation;
}

int xmp_orientation(Bytes packet) {
  const std::string_view text(reinterpret_cast<const char*>(packet.data()), packet.size());
  for (const std::string_view key : {"tiff:Orientation=\"", "tiff:Orientation>"}) {
    const size_t found = text.find(key);
    if (found == text.npos || found + key.size() >= text.size())
      continue;
    const uint32_t value = static_cast<uint8_t>(text[found + key.size()]) - uint32_t{'0'};
    if (is_orientation(value))
      return static_cast<int>(value);
  }
  return 1;
}

Image orient(Image image, int orientation) {
  const int64_t row_bytes = image.width * 3;
  uint8_t* rgb = image.rgb.data();
  switch (orientation) {
  case 2:
    for (int64_t y = 0; y < image.height; ++y)
      reverse_pixels(rgb + y * row_bytes, image.width);
    return image;
  case 3:
    reverse_pixels(rgb, image.width * image.height);
    return image;
  case 4:
    for (int64_t top = 0, bottom = image.height - 1; top < bottom; ++top, --bottom) {
      std::swap_ranges(rgb + top * row_bytes, rgb + (top + 1) * row_bytes,
                       rgb + bottom * row_bytes);
    }
    return image;
  case 5:
    return transpose(image, false, false);
  case 6:
    return transpose(image, true, false);
  case 7:
    return transpose(image, true, true);
  case 8:
    return transpose(image, false, true);
  default:
    return image;
  }
}

} // namespace pinhole::image_internal
