// What a walk over a picture file's markers or chunks finds before any pixel is decoded: size,
// orientation, where the file ends. Every length in the file is checked against the bytes that
// exist, and the walk allocates nothing.
//
// Sources: ITU-T T.81 (JPEG), W3C PNG 3rd edition, the WebP container specification.
#pragma once

#include "image/image.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace pinhole::image_internal {

using Bytes = std::span<const std::byte>;

inline uint8_t byte_at(Bytes bytes, size_t i) { return std::to_integer<uint8_t>(bytes[i]); }
inline uint32_t be16(Bytes b, size_t i) { return uint32_t{byte_at(b, i)} << 8 | byte_at(b, i + 1); }
inline uint32_t be32(Bytes b, size_t i) { return be16(b, i) << 16 | be16(b, i + 2); }
inline uint32_t le16(Bytes b, size_t i) { return byte_at(b, i) | uint32_t{byte_at(b, i + 1)} << 8; }
inline uint32_t le24(Bytes b, size_t i) { return le16(b, i) | uint32_t{byte_at(b, i + 2)} << 16; }
inline uint32_t le32(Bytes b, size_t i) { return le16(b, i) | le16(b, i + 2) << 16; }
bool starts_with(Bytes bytes, std::string_view prefix);

struct FileWalk {
  int64_t width = 0; // as stored, before orientation
  int64_t height = 0;
  int orientation = 0;               // EXIF 1..8
  uint64_t data_bytes = 0;           // compressed picture data seen
  uint64_t scan_count = 0;           // JPEG: SOS markers
  int component_count = 0;           // JPEG
  bool is_arithmetic = false;        // JPEG: arithmetic coding
  uint64_t largest_plane_blocks = 0; // JPEG: 8x8 blocks of the largest component
  uint32_t bits_per_pixel = 0;       // PNG
  bool is_animated = false;          // WebP
  bool has_alpha = false;            // WebP
  Bytes frame{};                     // WebP: the (first) picture's VP8 or VP8L chunk
  Bytes frame_with_alpha{};          // WebP: from its ALPH chunk to its end; empty without
  int64_t frame_x = 0, frame_y = 0, frame_width = 0, frame_height = 0; // WebP: its place
};

// kHeader stops where size and orientation are known and accepts a file whose rest is missing;
// kWhole goes to the end of the picture and makes a missing end an error.
enum class Walk { kHeader, kWhole };

Result<FileWalk> walk_jpeg(Bytes file, Walk walk, const std::string& where);
Result<FileWalk> walk_png(Bytes file, Walk walk, const std::string& where);
Result<FileWalk> walk_webp(Bytes file, Walk walk, const std::string& where);

// The decoders proper: `walk` is a kWhole one of the same file whose size the limits admit. The
// picture comes as stored, without its orientation.
Result<Image> decode_jpeg(Bytes file, const FileWalk& walk, const std::string& where);
Result<Image> decode_png(Bytes file, const FileWalk& walk, AlphaPolicy alpha,
                         const std::string& where);
Result<Image> decode_webp(const FileWalk& walk, AlphaPolicy alpha, const std::string& where);

// Tag 0x0112 of IFD0 in a TIFF block (with or without the leading "Exif\0\0"); 0 when there is
// none or the block is damaged (a picture is not refused for its metadata), 1 for a value that does
// not exist.
int exif_orientation(Bytes tiff);
// tiff:Orientation of an XMP packet, which Pillow consults when EXIF has no orientation; 1 if none.
int xmp_orientation(Bytes packet);

// Applies an EXIF orientation as PIL.ImageOps.exif_transpose does.
Image orient(Image image, int orientation);

// RGBA -> RGB over white in place: [pixels, 4] in, the first pixels*3 bytes out. Rounds as Pillow's
// paste with a mask.
void blend_on_white(uint8_t* pixels, size_t pixel_count);

// Groups of prefix codes that a lossless WebP image stream of width x height asks for; nullopt when
// the stream is damaged before it says.
std::optional<uint64_t> count_prefix_groups(Bytes stream, uint64_t width, uint64_t height);

std::string at_byte(const std::string& where, uint64_t offset);

} // namespace pinhole::image_internal
