// WebP: a walk over the RIFF chunks, then libwebp. Of an animation the first frame is shown on a
// transparent black canvas, as Pillow opens it.
// Invariant: chunk lengths are held against the file, and the bitstream's size against the canvas,
// before the picture is allocated.
// Source: WebP container specification (developers.google.com/speed/webp/docs/riff_container).
#include "image/container.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <webp/decode.h>

namespace pinhole::image_internal {

namespace {

constexpr uint64_t kRiffHeaderBytes = 12;
constexpr uint64_t kChunkHeaderBytes = 8;
constexpr uint64_t kFrameHeaderBytes = 16;   // of an ANMF chunk
constexpr uint64_t kLosslessHeaderBytes = 5; // signature, sides, alpha flag, version
constexpr uint32_t kAnimationFlag = 0x02;
constexpr int kAlphaIsLossless = 1; // compression method of an ALPH chunk
// libwebp makes a table of up to 20 kB for each; its own encoder writes at most 2600 of them.
constexpr uint64_t kMaxPrefixGroups = 4096;

tl::unexpected<Error> truncated(const std::string& where, uint64_t offset, std::string_view what) {
  return fail(ErrorCode::kInvalidInput, fmt::format("truncated WebP: the file ends {}", what),
              at_byte(where, offset), "get the whole file again");
}

std::string_view status_name(VP8StatusCode status) {
  switch (status) {
  case VP8_STATUS_OK:
    return "no error";
  case VP8_STATUS_OUT_OF_MEMORY:
    return "out of memory";
  case VP8_STATUS_BITSTREAM_ERROR:
    return "the bitstream breaks the format's rules";
  case VP8_STATUS_UNSUPPORTED_FEATURE:
    return "a feature that libwebp does not support";
  case VP8_STATUS_SUSPENDED:
  case VP8_STATUS_NOT_ENOUGH_DATA:
    return "the bitstream ends too early";
  default:
    return "the decoder refused its parameters";
  }
}

Status check_prefix_groups(Bytes stream, const FileWalk& walk, uint64_t offset,
                           const std::string& where) {
  const auto groups = count_prefix_groups(stream, walk.frame_width, walk.frame_height);
  if (!groups) {
    return fail(ErrorCode::kInvalidInput, "damaged WebP: unreadable lossless header",
                at_byte(where, offset));
  }
  if (*groups > kMaxPrefixGroups) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("WebP with {} groups of prefix codes, more than the limit of {}",
                            *groups, kMaxPrefixGroups),
                at_byte(where, offset), "convert it to PNG");
  }
  return {};
}

// Takes the first VP8 or VP8L chunk of `chunks`, which begin at `offset` of the file, and the ALPH
// chunk before it.
Status read_picture(Bytes chunks, uint64_t offset, Walk walk, const std::string& where,
                    FileWalk& out) {
  Bytes alpha;
  uint64_t alpha_at = 0, at = 0;
  while (at + kChunkHeaderBytes <= chunks.size()) {
    const Bytes type = chunks.subspan(at, 4);
    const uint64_t length = le32(chunks, at + 4), begin = at + kChunkHeaderBytes;
    const uint64_t end = begin + length;
    if (end > chunks.size() && walk == Walk::kWhole) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("damaged WebP: a chunk of {} bytes where {} are left", length,
                              chunks.size() - begin),
                  at_byte(where, offset + at));
    }
    const Bytes payload = chunks.subspan(begin, std::min<uint64_t>(length, chunks.size() - begin));
    const bool is_lossless = starts_with(type, "VP8L");
    if (starts_with(type, "ALPH")) {
      alpha = payload;
      alpha_at = at;
    } else if (is_lossless || starts_with(type, "VP8 ")) {
      WebPBitstreamFeatures features{};
      out.frame = chunks.subspan(at, kChunkHeaderBytes + payload.size());
      const auto status = WebPGetFeatures(reinterpret_cast<const uint8_t*>(out.frame.data()),
                                          out.frame.size(), &features);
      if (status == VP8_STATUS_NOT_ENOUGH_DATA) {
        return truncated(where, offset + chunks.size(), "within the header of the picture");
      }
      if (status != VP8_STATUS_OK) {
        return fail(ErrorCode::kInvalidInput,
                    fmt::format("damaged WebP: the header of the picture is unreadable: {}",
                                status_name(status)),
                    at_byte(where, offset + begin));
      }
      out.frame_width = features.width;
      out.frame_height = features.height;
      out.has_alpha = features.has_alpha != 0 || (!is_lossless && !alpha.empty());
      if (walk == Walk::kHeader) {
        return {};
      }
      if (is_lossless) {
        return check_prefix_groups(payload.subspan(kLosslessHeaderBytes), out,
                                   offset + begin + kLosslessHeaderBytes, where);
      }
      if (!alpha.empty()) {
        out.frame_with_alpha = chunks.subspan(alpha_at, end - alpha_at);
        if ((byte_at(alpha, 0) & 3) == kAlphaIsLossless) {
          return check_prefix_groups(alpha.subspan(1), out,
                                     offset + alpha_at + kChunkHeaderBytes + 1, where);
        }
      }
      return {};
    }
    at = end + (length & 1);
  }
  if (walk == Walk::kHeader) {
    return {};
  }
  return fail(ErrorCode::kInvalidInput, "WebP without picture data", at_byte(where, offset));
}

// An ANMF chunk: its place on the canvas, then the picture's own chunks.
Status read_frame(Bytes payload, uint64_t offset, Walk walk, const std::string& where,
                  FileWalk& out) {
  if (payload.size() < kFrameHeaderBytes) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("WebP animation frame of {} bytes, expected at least {}",
                            payload.size(), kFrameHeaderBytes),
                at_byte(where, offset));
  }
  out.frame_x = int64_t{le24(payload, 0)} * 2;
  out.frame_y = int64_t{le24(payload, 3)} * 2;
  PINHOLE_CHECK(read_picture(payload.subspan(kFrameHeaderBytes), offset + kFrameHeaderBytes, walk,
                             where, out));
  if (out.frame_x + out.frame_width > out.width || out.frame_y + out.frame_height > out.height) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("WebP animation frame of {} x {} px at ({}, {}) leaves its canvas of "
                            "{} x {} px",
                            out.frame_width, out.frame_height, out.frame_x, out.frame_y, out.width,
                            out.height),
                at_byte(where, offset));
  }
  return {};
}

} // namespace

Result<FileWalk> walk_webp(Bytes file, Walk walk, const std::string& where) {
  FileWalk out;
  const uint64_t riff_end = uint64_t{le32(file, 4)} + 8;
  if (walk == Walk::kWhole && riff_end > file.size()) {
    return truncated(where, file.size(),
                     fmt::format("before byte {}, where its header says it does", riff_end));
  }
  const Bytes riff = file.first(std::min<uint64_t>(riff_end, file.size()));
  int from_xmp = 1;
  uint64_t picture_at = file.size(); // of the still picture: its ALPH chunk, or its bitstream
  uint64_t offset = kRiffHeaderBytes;
  while (offset + kChunkHeaderBytes <= riff.size()) {
    const Bytes type = riff.subspan(offset, 4);
    const uint64_t length = le32(riff, offset + 4);
    const uint64_t begin = offset + kChunkHeaderBytes;
    const bool is_whole = begin + length <= riff.size();
    if (!is_whole && walk == Walk::kWhole) {
      return fail(ErrorCode::kInvalidInput,
                  fmt::format("damaged WebP: a chunk of {} bytes where {} are left", length,
                              riff.size() - begin),
                  at_byte(where, offset));
    }
    const Bytes payload = riff.subspan(begin, is_whole ? length : riff.size() - begin);
    if (starts_with(type, "VP8X") && offset == kRiffHeaderBytes) {
      if (payload.size() < 10)
        break;
      out.is_animated = (byte_at(payload, 0) & kAnimationFlag) != 0;
      out.width = int64_t{le24(payload, 4)} + 1;
      out.height = int64_t{le24(payload, 7)} + 1;
    } else if (starts_with(type, "ALPH")) {
      picture_at = std::min(picture_at, offset);
    } else if (starts_with(type, "ANMF") && out.is_animated && out.frame.empty()) {
      // A probe of a file's beginning needs the canvas only.
      if (is_whole || walk == Walk::kWhole) {
        PINHOLE_CHECK(read_frame(payload, begin, walk, where, out));
      }
    } else if ((starts_with(type, "VP8 ") || starts_with(type, "VP8L")) && !out.is_animated &&
               out.frame.empty()) {
      picture_at = std::min(picture_at, offset);
      PINHOLE_CHECK(read_picture(riff.subspan(picture_at), picture_at, walk, where, out));
      if (out.width == 0) {
        out.width = out.frame_width;
        out.height = out.frame_height;
      } else if (out.width != out.frame_width || out.height != out.frame_height) {
        return fail(ErrorCode::kInvalidInput,
                    fmt::format("damaged WebP: a picture of {} x {} px on a canvas of {} x {}",
                                out.frame_width, out.frame_height, out.width, out.height),
                    at_byte(where, begin));
      }
    } else if (starts_with(type, "EXIF")) {
      out.orientation = exif_orientation(payload);
    } else if (starts_with(type, "XMP ")) {
      from_xmp = xmp_orientation(payload);
    }
    offset = begin + length + (length & 1);
  }
  if (out.orientation == 0)
    out.orientation = from_xmp;
  if (out.width == 0)
    return truncated(where, riff.size(), "before the picture's size");
  if (walk == Walk::kWhole && out.frame.empty()) {
    return fail(ErrorCode::kInvalidInput, "WebP without picture data", where);
  }
  return out;
}

Result<Image> decode_webp(const FileWalk& walk, AlphaPolicy alpha, const std::string& where) {
  const bool with_alpha = walk.has_alpha && alpha == AlphaPolicy::kWhite;
  const int64_t channels = with_alpha ? 4 : 3;
  Image image;
  image.width = walk.width;
  image.height = walk.height;
  // The canvas begins as transparent black: black where alpha is dropped, white beneath a blend.
  const bool fills_canvas = walk.frame_width == walk.width && walk.frame_height == walk.height;
  const uint8_t background = !fills_canvas && alpha == AlphaPolicy::kWhite && !with_alpha ? 255 : 0;
  const size_t pixel_count = static_cast<size_t>(walk.width) * walk.height;
  image.rgb.resize(pixel_count * channels, background);

  WebPDecoderConfig config;
  if (!WebPInitDecoderConfig(&config)) {
    return fail(ErrorCode::kUnsupported, "libwebp at run time differs from the one built against",
                where);
  }
  const int64_t stride = walk.width * channels;
  const int64_t first = walk.frame_y * stride + walk.frame_x * channels;
  config.output.colorspace = with_alpha ? MODE_RGBA : MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = image.rgb.data() + first;
  config.output.u.RGBA.stride = static_cast<int>(stride);
  config.output.u.RGBA.size = image.rgb.size() - first;
  // Without its ALPH chunk the same bitstream decodes to the same colours.
  const Bytes source =
      with_alpha && !walk.frame_with_alpha.empty() ? walk.frame_with_alpha : walk.frame;
  const auto status =
      WebPDecode(reinterpret_cast<const uint8_t*>(source.data()), source.size(), &config);
  WebPFreeDecBuffer(&config.output);
  if (status != VP8_STATUS_OK) {
    return fail(status == VP8_STATUS_OUT_OF_MEMORY ? ErrorCode::kTooLarge
                                                   : ErrorCode::kInvalidInput,
                fmt::format("damaged WebP of {} x {} px: {}", walk.frame_width, walk.frame_height,
                            status_name(status)),
                where);
  }
  if (with_alpha) {
    blend_on_white(image.rgb.data(), pixel_count);
    image.rgb.resize(pixel_count * 3);
  }
  return image;
}

} // namespace pinhole::image_internal
