// JPEG: a walk over the markers, then libjpeg-turbo with its defaults (accurate integer DCT, fancy
// upsampling), which is what Pillow uses, so that pixels are the same bit for bit.
// Invariant: the walk has seen the end-of-image marker, counted the scans and compared the coded
// bytes with the claimed size before the library allocates anything.
// Sources: ITU-T T.81 annex B; Pillow JpegDecode.c and Convert.c (CMYK).
#include "image/container.h"

#include "base/checked.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <jpeglib.h>

#include <jerror.h>

namespace pinhole::image_internal {

namespace {

// A scan can cost a few bytes and a pass over the whole picture: the number of scans is bounded,
// and so is scans x pixels. libjpeg-turbo's own scripts write 10 scans for a progressive colour
// picture.
constexpr uint64_t kMaxScans = 256;
constexpr uint64_t kMaxScanPixels = 3'200'000'000;

constexpr uint32_t kSoi = 0xd8, kEoi = 0xd9, kSos = 0xda, kApp1 = 0xe1, kTem = 0x01;

bool is_restart(uint32_t marker) { return marker >= 0xd0 && marker <= 0xd7; }
bool is_frame(uint32_t marker) {
  return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

tl::unexpected<Error> truncated(const std::string& where, uint64_t offset, std::string_view what) {
  return fail(ErrorCode::kInvalidInput, fmt::format("truncated JPEG: the file ends {}", what),
              at_byte(where, offset), "get the whole file again");
}

std::string_view unsupported_frame(uint32_t marker) {
  switch (marker) {
  case 0xc0:
  case 0xc1:
  case 0xc2:
  case 0xc9:
  case 0xca:
    return {};
  case 0xc3:
  case 0xcb:
    return "lossless JPEG";
  case 0xcd:
  case 0xce:
  case 0xcf:
  case 0xc5:
  case 0xc6:
  case 0xc7:
  default:
    return "hierarchical JPEG";
  }
}

Status read_frame(Bytes segment, uint32_t marker, uint64_t offset, const std::string& where,
                  FileWalk& out) {
  const std::string place = at_byte(where, offset);
  if (const auto name = unsupported_frame(marker); !name.empty()) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("is a {}; baseline, extended and progressive ones are read", name),
                place, "convert it to PNG");
  }
  if (out.width != 0)
    return fail(ErrorCode::kInvalidInput, "a second JPEG frame header", place);
  if (segment.size() < 6 || segment.size() < 6 + size_t{byte_at(segment, 5)} * 3) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("a JPEG frame header of {} bytes is too short", segment.size()), place);
  }
  if (const auto precision = byte_at(segment, 0); precision != 8) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("JPEG with {} bits per sample, expected 8", precision), place,
                "convert it to PNG");
  }
  out.height = be16(segment, 1);
  out.width = be16(segment, 3);
  out.component_count = byte_at(segment, 5);
  out.is_arithmetic = marker >= 0xc9;
  if (out.width == 0 || out.height == 0) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("JPEG of {} x {} px; both sides must be given in the header", out.width,
                            out.height),
                place);
  }
  if (out.component_count != 1 && out.component_count != 3 && out.component_count != 4) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("JPEG with {} components, expected 1, 3 or 4", out.component_count),
                place);
  }
  int64_t h_max = 1, v_max = 1;
  const auto sampling = [&](int i) { return byte_at(segment, 6 + i * 3 + 1); };
  for (int i = 0; i < out.component_count; ++i) {
    h_max = std::max<int64_t>(h_max, sampling(i) >> 4);
    v_max = std::max<int64_t>(v_max, sampling(i) & 15);
  }
  for (int i = 0; i < out.component_count; ++i) {
    const int64_t h = ceil_div(ceil_div(out.width * (sampling(i) >> 4), h_max), 8);
    const int64_t v = ceil_div(ceil_div(out.height * (sampling(i) & 15), v_max), 8);
    out.largest_plane_blocks = std::max<uint64_t>(out.largest_plane_blocks, h * v);
  }
  return {};
}

// First 0xFF at or after `offset`, or the end of the file.
uint64_t find_ff(Bytes file, uint64_t offset) {
  const void* found = std::memchr(file.data() + offset, 0xff, file.size() - offset);
  return found ? static_cast<const std::byte*>(found) - file.data() : file.size();
}

} // namespace

Result<FileWalk> walk_jpeg(Bytes file, Walk walk, const std::string& where) {
  FileWalk out;
  bool has_exif = false;
  int from_xmp = 1;
  bool in_scan = false;
  uint64_t offset = 2; // after SOI
  while (true) {
    // Between segments, libjpeg skips whatever is not a marker; within a scan those are its data.
    const uint64_t ff = find_ff(file, offset);
    if (in_scan)
      out.data_bytes += ff - offset;
    offset = ff;
    while (offset < file.size() && byte_at(file, offset) == 0xff)
      ++offset;
    if (offset >= file.size()) {
      return truncated(where, file.size(),
                       out.width == 0        ? "before the frame header"
                       : out.scan_count == 0 ? "before the picture data"
                                             : "before the end-of-image marker");
    }
    const uint32_t marker = byte_at(file, offset++);
    if (marker == 0 || is_restart(marker) || marker == kTem) {
      if (in_scan)
        out.data_bytes += 2;
      continue;
    }
    if (marker == kSoi) {
      return fail(ErrorCode::kInvalidInput, "a second JPEG start-of-image marker",
                  at_byte(where, offset - 2));
    }
    in_scan = false;
    if (marker == kEoi)
      break;

    if (offset + 2 > file.size())
      return truncated(where, file.size(), "within a marker");
    const uint64_t length = be16(file, offset);
    if (length < 2) {
      return fail(
          ErrorCode::kInvalidInput,
          fmt::format("JPEG segment FF{:02X} of length {}, expected at least 2", marker, length),
          at_byte(where, offset));
    }
    if (offset + length > file.size()) {
      return truncated(
          where, file.size(),
          fmt::format("within segment FF{:02X} of {} bytes at byte {}", marker, length, offset));
    }
    const Bytes segment = file.subspan(offset + 2, length - 2);
    if (is_frame(marker))
      PINHOLE_CHECK(read_frame(segment, marker, offset - 2, where, out));
    if (marker == kApp1 && out.scan_count == 0) {
      using namespace std::string_view_literals;
      constexpr auto kXmp = "http://ns.adobe.com/xap/1.0/\0"sv;
      if (!has_exif && starts_with(segment, "Exif\0"sv)) {
        has_exif = true;
        out.orientation = exif_orientation(segment);
      } else if (starts_with(segment, kXmp)) {
        from_xmp = xmp_orientation(segment.subspan(kXmp.size()));
      }
    }
    offset += length;
    if (marker == kSos) {
      if (out.width == 0) {
        return fail(ErrorCode::kInvalidInput, "JPEG picture data before the frame header",
                    at_byte(where, offset - length - 2));
      }
      ++out.scan_count;
      in_scan = true;
      if (walk == Walk::kHeader)
        break;
    }
  }
  if (out.orientation == 0)
    out.orientation = from_xmp;
  if (out.width == 0 || out.scan_count == 0) {
    return fail(ErrorCode::kInvalidInput,
                out.width == 0 ? "JPEG without a frame header" : "JPEG without picture data",
                at_byte(where, offset));
  }
  if (walk == Walk::kHeader)
    return out;

  const uint64_t pixels = static_cast<uint64_t>(out.width) * out.height;
  if (out.scan_count > kMaxScans ||
      (out.scan_count > 1 && out.scan_count * pixels > kMaxScanPixels)) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("JPEG of {} x {} px in {} scans; at most {} scans and {} pixels in all "
                            "of them together are decoded",
                            out.width, out.height, out.scan_count, kMaxScans, kMaxScanPixels),
                where, "save it again with fewer scans (a baseline JPEG)");
  }
  // A Huffman-coded block takes at least one bit, for its first DC code.
  if (!out.is_arithmetic && out.data_bytes < out.largest_plane_blocks / 8) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("truncated JPEG: {} bytes of picture data cannot hold {} x {} px, which "
                    "take at least {}",
                    out.data_bytes, out.width, out.height, out.largest_plane_blocks / 8),
        where, "get the whole file again");
  }
  return out;
}

namespace {

// Everything that lives across longjmp. libjpeg sees the C parts; nothing here has a destructor.
struct Decoder {
  jpeg_decompress_struct info;
  jpeg_error_mgr errors;
  jpeg_source_mgr source;
  std::jmp_buf jump;
  const uint8_t* begin;
  char message[JMSG_LENGTH_MAX];
  int message_code;
  bool is_truncated;
  bool is_out_of_memory;
};

Decoder& decoder_of(j_common_ptr info) { return *static_cast<Decoder*>(info->client_data); }

[[noreturn]] void leave(j_common_ptr info) {
  Decoder& decoder = decoder_of(info);
  decoder.message_code = info->err->msg_code;
  decoder.is_out_of_memory = info->err->msg_code == JERR_OUT_OF_MEMORY;
  info->err->format_message(info, decoder.message);
  std::longjmp(decoder.jump, 1);
}

// Warnings that leave every pixel as it was meant.
bool is_harmless(int code) {
  return code == JWRN_EXTRANEOUS_DATA || code == JWRN_ADOBE_XFORM || code == JWRN_JFIF_MAJOR ||
         code == JWRN_NOT_SEQUENTIAL;
}

void on_message(j_common_ptr info, int level) {
  if (level < 0 && !is_harmless(info->err->msg_code))
    leave(info);
}

void on_print(j_common_ptr) {}

void source_nothing(j_decompress_ptr) {}

boolean source_end(j_decompress_ptr info) {
  decoder_of(reinterpret_cast<j_common_ptr>(info)).is_truncated = true;
  info->err->msg_code = JWRN_JPEG_EOF;
  leave(reinterpret_cast<j_common_ptr>(info));
}

void source_skip(j_decompress_ptr info, long count) {
  if (count <= 0)
    return;
  if (static_cast<size_t>(count) > info->src->bytes_in_buffer)
    source_end(info);
  info->src->next_input_byte += count;
  info->src->bytes_in_buffer -= count;
}

// a*b/255 rounded, as Pillow's MULDIV255.
uint32_t muldiv255(uint32_t a, uint32_t b) {
  const uint32_t sum = a * b + 128;
  return (sum + (sum >> 8)) >> 8;
}

// libjpeg's CMYK as Adobe stores it (inverted) -> RGB, as Pillow's convert("RGB").
void cmyk_to_rgb(const uint8_t* in, int64_t width, uint8_t* out) {
  for (int64_t x = 0; x < width; ++x, in += 4, out += 3) {
    const uint32_t white = in[3]; // 255 - K
    for (int c = 0; c < 3; ++c) {
      const int32_t value = static_cast<int32_t>(white - muldiv255(255u - in[c], white));
      out[c] = static_cast<uint8_t>(std::clamp(value, 0, 255));
    }
  }
}

// Runs the library; false after a jump, with the reason in `decoder`. `cmyk_row` [width, 4] is used
// only with four components. No object with a destructor may live in this frame.
bool run(Decoder& decoder, Bytes file, const FileWalk& walk, uint8_t* rgb, uint8_t* cmyk_row) {
  jpeg_decompress_struct& info = decoder.info;
  info.err = jpeg_std_error(&decoder.errors);
  decoder.errors.error_exit = leave;
  decoder.errors.emit_message = on_message;
  decoder.errors.output_message = on_print;
  info.client_data = &decoder;
  if (setjmp(decoder.jump) != 0)
    return false;
  jpeg_create_decompress(&info);
  decoder.begin = reinterpret_cast<const uint8_t*>(file.data());
  decoder.source.next_input_byte = decoder.begin;
  decoder.source.bytes_in_buffer = file.size();
  decoder.source.init_source = source_nothing;
  decoder.source.fill_input_buffer = source_end;
  decoder.source.skip_input_data = source_skip;
  decoder.source.resync_to_restart = jpeg_resync_to_restart;
  decoder.source.term_source = source_nothing;
  info.src = &decoder.source;
  jpeg_read_header(&info, TRUE);
  // Both were read by the walk too, which the buffers are made for.
  if (info.image_width != walk.width || info.image_height != walk.height ||
      info.num_components != walk.component_count) {
    std::snprintf(decoder.message, sizeof decoder.message, "two frame headers disagree");
    return false;
  }
  info.out_color_space = walk.component_count == 4 ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&info);
  const size_t row_bytes = static_cast<size_t>(walk.width) * 3;
  while (info.output_scanline < info.output_height) {
    uint8_t* row = rgb + info.output_scanline * row_bytes;
    if (cmyk_row == nullptr) {
      jpeg_read_scanlines(&info, &row, 1);
      continue;
    }
    uint8_t* four = cmyk_row;
    jpeg_read_scanlines(&info, &four, 1);
    cmyk_to_rgb(cmyk_row, walk.width, row);
  }
  jpeg_finish_decompress(&info);
  return true;
}

} // namespace

Result<Image> decode_jpeg(Bytes file, const FileWalk& walk, const std::string& where) {
  Image image;
  image.width = walk.width;
  image.height = walk.height;
  image.rgb.resize(static_cast<size_t>(walk.width) * walk.height * 3);
  std::vector<uint8_t> cmyk_row;
  if (walk.component_count == 4)
    cmyk_row.resize(static_cast<size_t>(walk.width) * 4);

  Decoder decoder{};
  const bool ok =
      run(decoder, file, walk, image.rgb.data(), cmyk_row.empty() ? nullptr : cmyk_row.data());
  const uint64_t offset =
      decoder.begin ? static_cast<uint64_t>(decoder.source.next_input_byte - decoder.begin) : 0;
  if (decoder.info.mem != nullptr)
    jpeg_destroy_decompress(&decoder.info);
  if (ok)
    return image;
  if (decoder.is_truncated)
    return truncated(where, file.size(), "within the picture data");
  return fail(decoder.is_out_of_memory ? ErrorCode::kTooLarge : ErrorCode::kInvalidInput,
              fmt::format("damaged JPEG of {} bytes: {}", file.size(), decoder.message),
              at_byte(where, offset));
}

} // namespace pinhole::image_internal
