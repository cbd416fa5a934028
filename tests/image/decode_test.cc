// Decoding against Pillow (tests/image/data, written by make_cases.py), and what becomes of files
// that are cut, damaged, too large or of another kind.
#include "base/json.h"
#include "image/image.h"
#include "npy.h"

#include <gmock/gmock.h>

namespace pinhole {
namespace {

using testing::HasSubstr;

const std::string kData = PINHOLE_SOURCE_DIR "/tests/image/data/";

std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

Result<Image> decode(std::string_view file, const std::string& name,
                     AlphaPolicy alpha = AlphaPolicy::kDrop, DecodeLimits limits = {}) {
  return decode_picture(as_bytes(file), limits, alpha, name);
}

// Empty when both are the same, else where the first difference is and how large the largest.
std::string difference(const Image& image, const char* expected) {
  const auto* want = reinterpret_cast<const uint8_t*>(expected);
  size_t count = 0, first = 0;
  int largest = 0;
  for (size_t i = 0; i < image.rgb.size(); ++i) {
    if (image.rgb[i] == want[i])
      continue;
    if (count++ == 0)
      first = i;
    largest = std::max(largest, std::abs(int{image.rgb[i]} - int{want[i]}));
  }
  if (count == 0)
    return {};
  const int64_t pixel = static_cast<int64_t>(first) / 3;
  return std::to_string(count) + " values differ by up to " + std::to_string(largest) +
         ", the first at x " + std::to_string(pixel % image.width) + ", y " +
         std::to_string(pixel / image.width);
}

TEST(Decode, GivesPillowsPixels) {
  const auto index = read_json_file(kData + "cases.json");
  ASSERT_TRUE(index) << index.error().text();
  const std::string pixels = read_test_file(kData + "pixels.bin");
  int count = 0;
  for (const Json& item : (*index)["cases"]) {
    const std::string name = item["file"];
    SCOPED_TRACE(name);
    const std::string file = read_test_file(kData + name);
    const auto info = probe_picture(as_bytes(file), name);
    ASSERT_TRUE(info) << info.error().text();
    EXPECT_EQ(info->width, item["width"].get<int64_t>());
    EXPECT_EQ(info->height, item["height"].get<int64_t>());
    for (const auto& [key, alpha] : {std::pair("offset", AlphaPolicy::kDrop),
                                     std::pair("white_offset", AlphaPolicy::kWhite)}) {
      if (!item.contains(key))
        continue;
      const auto image = decode(file, name, alpha);
      ASSERT_TRUE(image) << image.error().text();
      ASSERT_EQ(image->width, info->width);
      ASSERT_EQ(image->height, info->height);
      const size_t offset = item[key];
      ASSERT_EQ(image->rgb.size(), static_cast<size_t>(image->width * image->height * 3));
      ASSERT_LE(offset + image->rgb.size(), pixels.size());
      EXPECT_EQ(difference(*image, pixels.data() + offset), "") << key;
    }
    ++count;
  }
  EXPECT_GE(count, 130);
}

TEST(Decode, OpaquePicturesIgnoreTheAlphaPolicy) {
  for (const char* name : {"jpeg_420.jpg", "png_rgb8.png", "png_grey16.png", "webp_lossy.webp"}) {
    const std::string file = read_test_file(kData + name);
    const auto dropped = decode(file, name), white = decode(file, name, AlphaPolicy::kWhite);
    ASSERT_TRUE(dropped && white) << name;
    EXPECT_EQ(dropped->rgb, white->rgb) << name;
  }
}

TEST(Resize, GivesTorchsPixels) {
  const auto index = read_json_file(kData + "resize.json");
  ASSERT_TRUE(index) << index.error().text();
  const std::string pixels = read_test_file(kData + "resize.bin");
  int count = 0;
  for (const Json& item : (*index)["cases"]) {
    SCOPED_TRACE(item.dump());
    Image image;
    image.width = item["width"];
    image.height = item["height"];
    const auto* picture = pixels.data() + item["picture_offset"].get<size_t>();
    image.rgb.assign(picture, picture + image.width * image.height * 3);
    const Size target{item["out_height"], item["out_width"]};
    const Image out =
        resize(image, target, item["mode"] == "bicubic" ? Filter::kBicubic : Filter::kBilinear);
    ASSERT_EQ(out.width, target.width);
    ASSERT_EQ(out.height, target.height);
    ASSERT_EQ(out.rgb.size(), static_cast<size_t>(out.width * out.height * 3));
    EXPECT_EQ(difference(out, pixels.data() + item["offset"].get<size_t>()), "");
    ++count;
  }
  EXPECT_GE(count, 28);
}

const char* const kSmallFiles[] = {
    "jpeg_420.jpg",
    "jpeg_420_progressive.jpg",
    "jpeg_grey.jpg",
    "jpeg_cmyk.jpg",
    "jpeg_restart.jpg",
    "jpeg_arithmetic.jpg",
    "jpeg_exif6.jpg",
    "png_rgb8.png",
    "png_rgba16_adam7.png",
    "png_palette4_alpha.png",
    "png_grey1.png",
    "png_animated.png",
    "webp_lossy.webp",
    "webp_lossy_alpha.webp",
    "webp_lossless_alpha.webp",
    "webp_animated.webp",
    "webp_exif6.webp",
};

TEST(Decode, RefusesEveryPrefix) {
  for (const std::string name : kSmallFiles) {
    const std::string file = read_test_file(kData + name);
    ASSERT_TRUE(decode(file, name)) << name;
    for (size_t length = 0; length < file.size(); ++length) {
      // A copy of its own, so that reading past the end is seen by the sanitizer.
      const std::vector<char> part(file.begin(), file.begin() + length);
      const auto image = decode({part.data(), part.size()}, name);
      ASSERT_FALSE(image) << name << " of " << length << " bytes";
      ASSERT_THAT(image.error().text(), HasSubstr(name));
      if (length >= 12) {
        ASSERT_THAT(image.error().message, HasSubstr("truncated")) << length;
        ASSERT_FALSE(image.error().hint.empty());
      }
      const auto info = probe_picture(as_bytes({part.data(), part.size()}), name);
      if (!info) {
        ASSERT_THAT(info.error().text(), HasSubstr(name));
      }
    }
  }
}

TEST(Decode, SurvivesEveryChangedByte) {
  for (const std::string name : kSmallFiles) {
    std::string file = read_test_file(kData + name);
    for (size_t i = 0; i < file.size(); ++i) {
      for (const int mask : {0xff, 0x01}) {
        file[i] = static_cast<char>(file[i] ^ mask);
        const auto image = decode(file, name, AlphaPolicy::kWhite, {1 << 20, 1 << 20});
        if (image) {
          ASSERT_EQ(image->rgb.size(), static_cast<size_t>(image->width * image->height * 3));
        } else {
          ASSERT_FALSE(image.error().message.empty());
          ASSERT_THAT(image.error().text(), HasSubstr(name));
        }
        file[i] = static_cast<char>(file[i] ^ mask);
      }
    }
  }
}

TEST(Decode, NamesMissingJpegDataBehindAnEndMarker) {
  std::string file = read_test_file(kData + "jpeg_444.jpg");
  file.erase(file.size() - 300, 298);
  const auto image = decode(file, "cut.jpg");
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().text(), HasSubstr("cut.jpg, byte "));
  EXPECT_THAT(image.error().text(), HasSubstr("premature end of data segment"));
}

TEST(Decode, NamesAPngChecksumError) {
  std::string file = read_test_file(kData + "png_rgb8.png");
  file[file.find("IDAT") + 20] ^= 1;
  const auto image = decode(file, "bits.png");
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().text(), HasSubstr("bits.png, byte "));
  EXPECT_THAT(image.error().text(), HasSubstr("damaged PNG"));
}

TEST(Decode, HoldsTheLimits) {
  for (const char* name :
       {"jpeg_420.jpg", "png_rgb8.png", "webp_lossy.webp", "webp_animated.webp"}) {
    const std::string file = read_test_file(kData + name);
    const auto info = probe_picture(as_bytes(file), name);
    ASSERT_TRUE(info);
    const uint64_t pixels = info->width * info->height;
    EXPECT_TRUE(decode(file, name, AlphaPolicy::kDrop, {file.size(), pixels})) << name;
    const auto small = decode(file, name, AlphaPolicy::kDrop, {file.size(), pixels - 1});
    ASSERT_FALSE(small) << name;
    EXPECT_EQ(small.error().code, ErrorCode::kTooLarge);
    EXPECT_THAT(small.error().message, HasSubstr(std::to_string(pixels - 1)));
    EXPECT_THAT(small.error().message, HasSubstr(std::to_string(info->width) + " x "));
    const auto bytes = decode(file, name, AlphaPolicy::kDrop, {file.size() - 1, pixels});
    ASSERT_FALSE(bytes) << name;
    EXPECT_EQ(bytes.error().code, ErrorCode::kTooLarge);
    EXPECT_THAT(bytes.error().message, HasSubstr(std::to_string(file.size())));
  }
}

std::string png_of(uint32_t width, uint32_t height, std::string_view rest) {
  std::string out("\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", 16);
  for (const uint32_t value : {width, height}) {
    for (int shift = 24; shift >= 0; shift -= 8)
      out.push_back(static_cast<char>(value >> shift));
  }
  out += std::string_view("\x08\x02\0\0\0", 5);
  return out.append("crc?").append(rest);
}

TEST(Decode, JudgesTheSizeBeforeAnythingElse) {
  // The checksum is wrong and the data are missing; the size is what is reported.
  const auto huge = decode(png_of(1u << 30, 1u << 30, ""), "huge.png");
  ASSERT_FALSE(huge);
  EXPECT_EQ(huge.error().code, ErrorCode::kTooLarge);
  EXPECT_THAT(huge.error().message, HasSubstr("1073741824 x 1073741824"));
  const auto zero = decode(png_of(0, 5, ""), "zero.png");
  ASSERT_FALSE(zero);
  EXPECT_EQ(zero.error().code, ErrorCode::kInvalidInput);
  EXPECT_THAT(zero.error().message, HasSubstr("0 x 5"));
}

// 2 KiB that claim 90 megapixels are refused without the 270 MB being touched.
TEST(Decode, RefusesAFewBytesThatClaimAHugePicture) {
  std::string jpeg = read_test_file(kData + "jpeg_420_progressive.jpg");
  const size_t frame = jpeg.find("\xff\xc2");
  ASSERT_NE(frame, jpeg.npos);
  jpeg.replace(frame + 5, 4, std::string("\x25\x1c\x25\x1c", 4)); // 9500 x 9500
  const auto image = decode(jpeg, "claim.jpg");
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message, HasSubstr("cannot hold 9500 x 9500 px"));

  const std::string chunk("\0\0\0\x05IDATxxxxxcrc?\0\0\0\0IEND\xae\x42\x60\x82", 29);
  const auto png = decode(png_of(9500, 9500, chunk), "claim.png");
  ASSERT_FALSE(png);
  EXPECT_THAT(png.error().message, HasSubstr("cannot hold 9500 x 9500 px"));
}

TEST(Decode, BoundsTheScansOfAJpeg) {
  const std::string file = read_test_file(kData + "jpeg_420_progressive.jpg");
  // The last scan again and again.
  const size_t scan = file.rfind("\xff\xda");
  const std::string last = file.substr(scan, file.size() - 2 - scan);
  std::string bomb = file.substr(0, file.size() - 2);
  for (int i = 0; i < 400; ++i)
    bomb += last;
  bomb += "\xff\xd9";
  const auto image = decode(bomb, "bomb.jpg");
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().code, ErrorCode::kTooLarge);
  EXPECT_THAT(image.error().message, HasSubstr("scans"));
}

// A lossless WebP of 8 x 8 px whose entropy image names group 65535, in 12 bytes of bitstream.
TEST(Decode, BoundsThePrefixGroupsOfALosslessWebp) {
  std::string bits;
  int used = 0;
  const auto put = [&](uint32_t value, int count) {
    for (int i = 0; i < count; ++i, ++used) {
      if (used % 8 == 0) {
        bits.push_back(0);
      }
      bits.back() = static_cast<char>(bits.back() | (value >> i & 1) << used % 8);
    }
  };
  put(0x2f, 8);
  put(7, 14);
  put(7, 14);
  put(0, 1 + 3);                // no alpha, version 0
  put(0, 1);                    // no transform
  put(0, 1);                    // no colour cache
  put(1, 1);                    // an entropy image
  put(0, 3);                    // of blocks of 4 x 4
  put(0, 1);                    // without a colour cache of its own
  for (int i = 0; i < 2; ++i) { // green and red: the one symbol 255
    put(1, 1);
    put(0, 1);
    put(1, 1);
    put(255, 8);
  }
  for (int i = 0; i < 3; ++i) { // blue, alpha, distance: the one symbol 0
    put(1, 4);
  }
  put(0, 32);
  put(0, 32);
  const auto le32 = [](size_t value) {
    std::string out;
    for (int shift = 0; shift < 32; shift += 8) {
      out.push_back(static_cast<char>(value >> shift));
    }
    return out;
  };
  bits.resize((bits.size() + 1) / 2 * 2);
  const std::string file = "RIFF" + le32(12 + bits.size()) + "WEBPVP8L" + le32(bits.size()) + bits;
  const auto image = decode(file, "groups.webp");
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().code, ErrorCode::kTooLarge);
  EXPECT_THAT(image.error().text(), HasSubstr("groups.webp, byte 25: WebP with 65536 groups"));
}

TEST(Probe, NamesFormatsThatItDoesNotRead) {
  using namespace std::string_view_literals;
  const std::pair<std::string_view, const char*> kinds[] = {
      {"GIF89a\1\0\1\0"sv, "is a GIF"},
      {"GIF87a\1\0\1\0"sv, "is a GIF"},
      {"BM\x46\0\0\0\0\0\0\0\x36\0\0\0"sv, "is a BMP"},
      {"II*\0\x08\0\0\0"sv, "is a TIFF"},
      {"MM\0*\0\0\0\x08"sv, "is a TIFF"},
      {"\0\0\0\x18"
       "ftypheic\0\0\0\0"sv,
       "is a HEIC"},
      {"\0\0\0\x18"
       "ftypmif1\0\0\0\0"sv,
       "is a HEIC"},
      {"\0\0\0\x1c"
       "ftypavif\0\0\0\0"sv,
       "is an AVIF"},
      {"\0\0\0\x1c"
       "ftypisom\0\0\0\0"sv,
       "is a video"},
      {"%PDF-1.7\n"sv, "is a PDF"},
      {"<svg xmlns=\"http://www.w3.org/2000/svg\"/>"sv, "is an SVG"},
      {"<?xml version=\"1.0\"?>\n<!-- a -->\n<SVG></SVG>"sv, "is an SVG"},
      {"<!DOCTYPE html><html>"sv, "is an HTML page"},
      {"\0\0\0\x0cjP  \r\n\x87\n"sv, "is a JPEG 2000"},
      {"\0\0\0\x0cJXL \r\n\x87\n"sv, "is a JPEG XL"},
  };
  for (const auto& [file, expected] : kinds) {
    const auto info = probe_picture(as_bytes(file), "photo.jpg");
    ASSERT_FALSE(info) << expected;
    EXPECT_EQ(info.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(info.error().text(), HasSubstr(std::string("photo.jpg: ") + expected));
    EXPECT_THAT(info.error().text(), HasSubstr("convert it to PNG"));
    EXPECT_FALSE(decode(file, "photo.jpg"));
  }
  for (const std::string_view file :
       {"BMX is not a bitmap"sv, "hello world"sv, "RIFF\4\0\0\0WAVE"sv, "\0"sv, "\xff\xd8"sv}) {
    const auto info = probe_picture(as_bytes(file), "x");
    ASSERT_FALSE(info);
    EXPECT_EQ(info.error().code, ErrorCode::kInvalidInput) << file;
    EXPECT_THAT(info.error().message, HasSubstr("it starts with"));
  }
  const auto empty = probe_picture({}, "empty.png");
  ASSERT_FALSE(empty);
  EXPECT_THAT(empty.error().text(), HasSubstr("empty.png: the file is empty"));
}

TEST(Probe, NeedsOnlyTheBeginning) {
  const std::pair<const char*, PictureFormat> files[] = {{"jpeg_exif6.jpg", PictureFormat::kJpeg},
                                                         {"png_exif6.png", PictureFormat::kPng},
                                                         {"webp_lossy.webp", PictureFormat::kWebp}};
  for (const auto& [name, format] : files) {
    const std::string file = read_test_file(kData + name);
    const auto whole = probe_picture(as_bytes(file), name);
    const auto part =
        probe_picture(as_bytes(std::string_view(file).substr(0, file.size() - 40)), name);
    ASSERT_TRUE(whole && part) << name;
    EXPECT_EQ(part->format, format);
    EXPECT_EQ(part->width, whole->width);
    EXPECT_EQ(part->height, whole->height);
  }
}

} // namespace
} // namespace pinhole
