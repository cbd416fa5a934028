// Pictures on their way into a prompt: what they cost is known from the header, and what a cache
// knows them by depends on their pixels and on how they are read.
#include "answer/picture.h"

#include "answer/loaded_model.h"
#include "support/golden.h"

#include <gmock/gmock.h>

namespace pinhole {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::take;

PictureSpec spec_of(int64_t patch, int64_t merge, int64_t min_pixels, int64_t max_pixels) {
  PictureSpec spec;
  spec.patch_size = patch;
  spec.merge_size = merge;
  spec.min_pixels = min_pixels;
  spec.max_pixels = max_pixels;
  return spec;
}

std::string sample(const std::string& name) {
  return testing::read_file(testing::source_path("models/pinhole-mini/samples/" + name));
}

TEST(OpenPicture, BoundsInTokensHold) {
  const PictureSpec spec = spec_of(16, 2, 65536, 16777216);
  const std::string bytes = sample("00_p1.png");
  for (const int64_t bound : {1, 4, 9, 64, 1000}) {
    PictureOptions options;
    options.max_tokens = bound;
    const Picture small = take(open_picture(bytes, "p", spec, options));
    EXPECT_LE(small.tokens, bound);
    EXPECT_GE(small.tokens, 1);
    EXPECT_EQ(small.tokens, small.target.height * small.target.width / (32 * 32));
    EXPECT_EQ(small.grid.height * 16, small.target.height);
    EXPECT_EQ(small.grid.width * 16, small.target.width);
    options = {};
    options.min_tokens = bound;
    EXPECT_GE(take(open_picture(bytes, "p", spec, options)).tokens, bound);
  }
  PictureOptions options;
  options.min_tokens = 10;
  options.max_tokens = 5;
  EXPECT_THAT(open_picture(bytes, "p", spec, options).error().text(),
              AllOf(HasSubstr("10"), HasSubstr("5"), HasSubstr("--max-image-tokens")));
}

// A PNG's signature and header: all that the size is read from.
std::string png_header(uint32_t width, uint32_t height) {
  const auto be = [](uint32_t v) {
    return std::string{static_cast<char>(v >> 24), static_cast<char>(v >> 16),
                       static_cast<char>(v >> 8), static_cast<char>(v)};
  };
  const std::string ihdr = "IHDR" + be(width) + be(height) + std::string("\x08\x02\0\0\0", 5);
  uint32_t crc = ~0u;
  for (const char c : ihdr) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit)
      crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return "\x89PNG\r\n\x1a\n" + be(13) + ihdr + be(~crc);
}

TEST(OpenPicture, MaxTokensHoldForEveryShape) {
  const PictureSpec spec = spec_of(16, 2, 65536, 16777216);
  for (const auto& [width, height] : {std::pair(32u, 32u),
                                      {2000u, 10u},
                                      {10u, 2000u},
                                      {1u, 200u},
                                      {640u, 480u},
                                      {4000u, 3000u},
                                      {33u, 6000u}}) {
    for (const int64_t bound : {1, 2, 3, 5, 16, 63, 64, 65, 100, 1024}) {
      PictureOptions options;
      options.max_tokens = bound;
      const Picture picture = take(open_picture(png_header(width, height), "p", spec, options));
      EXPECT_LE(picture.tokens, bound) << width << " x " << height;
      EXPECT_GE(picture.tokens, 1);
    }
  }
}

TEST(OpenPicture, PixelLimitIsCheckedBeforeDecoding) {
  PictureOptions options;
  options.limits.max_pixels = 100;
  const auto picture =
      open_picture(sample("00_p1.png"), "big.png", spec_of(16, 2, 1, 1 << 24), options);
  ASSERT_FALSE(picture);
  EXPECT_EQ(picture.error().code, ErrorCode::kTooLarge);
  EXPECT_THAT(picture.error().text(), AllOf(HasSubstr("big.png"), HasSubstr("100")));
}

TEST(DecodeForModel, DigestFollowsPixelsAndPreprocessing) {
  const PictureSpec spec = spec_of(16, 2, 1024, 16777216);
  const auto digest = [&](const std::string& name, const PictureSpec& s,
                          const PictureOptions& options = {}) {
    Picture picture = take(open_picture(sample(name), "p", s, options));
    EXPECT_FALSE(picture.digest);
    const Image image = take(decode_for_model(picture, s, options));
    EXPECT_EQ(image.width, picture.target.width);
    EXPECT_EQ(image.height, picture.target.height);
    return *picture.digest;
  };
  const auto want = digest("00_p1.png", spec);
  EXPECT_EQ(digest("00_p1.png", spec), want);
  EXPECT_NE(digest("01_p1.png", spec), want);
  PictureSpec other = spec;
  other.mean[1] += 0.25f;
  EXPECT_NE(digest("00_p1.png", other), want);
  other = spec;
  other.std[2] *= 2;
  EXPECT_NE(digest("00_p1.png", other), want);
  PictureOptions small;
  small.max_tokens = 4;
  EXPECT_NE(digest("00_p1.png", spec, small), want);
}

TEST(DecodeForModel, TruncatedPicturesAreErrors) {
  const PictureSpec spec = spec_of(16, 2, 1024, 16777216);
  const std::string bytes = sample("00_p1.png");
  for (const size_t length :
       {size_t{0}, size_t{7}, size_t{20}, bytes.size() / 2, bytes.size() - 20}) {
    auto picture = open_picture(bytes.substr(0, length), "cut.png", spec, {});
    if (!picture) {
      EXPECT_THAT(picture.error().text(), HasSubstr("cut.png"));
      continue;
    }
    const auto image = decode_for_model(*picture, spec, {});
    ASSERT_FALSE(image) << length;
    EXPECT_THAT(image.error().text(), HasSubstr("cut.png"));
  }
}

} // namespace
} // namespace pinhole
