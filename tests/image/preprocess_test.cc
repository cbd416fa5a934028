// The Qwen preprocessing chain against transformers' processors: target sizes, resized pixels and
// normalised patches, all exact (shared/golden/preprocess).
#include "base/json.h"
#include "base/sha256.h"
#include "image/image.h"
#include "npy.h"
#include "support/golden.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace pinhole {
namespace {

const std::string kGolden = PINHOLE_GOLDEN_DIR "/preprocess/";

std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST(SmartResize, MatchesTheProcessorsTable) {
  REQUIRE_GOLDEN();
  std::istringstream table(read_test_file(kGolden + "smart_resize.tsv"));
  std::string line;
  std::getline(table, line);
  int rows = 0;
  while (std::getline(table, line)) {
    std::istringstream fields(line);
    std::string family, out_width, out_height;
    int64_t factor, width, height, min_pixels, max_pixels;
    fields >> family >> factor >> width >> height >> min_pixels >> max_pixels >> out_width >>
        out_height;
    const auto size = smart_resize({height, width}, factor, min_pixels, max_pixels);
    if (out_width == "ERROR") {
      EXPECT_FALSE(size) << line;
    } else {
      ASSERT_TRUE(size) << line << "\n" << size.error().text();
      EXPECT_EQ(*size, (Size{std::stoll(out_height), std::stoll(out_width)})) << line;
    }
    ++rows;
  }
  EXPECT_EQ(rows, 61);
}

TEST(SmartResize, RefusesWhatIsNotAPicture) {
  EXPECT_FALSE(smart_resize({0, 10}, 28, 3136, 1003520));
  EXPECT_FALSE(smart_resize({10, -1}, 28, 3136, 1003520));
  EXPECT_FALSE(smart_resize({10, 10}, 0, 3136, 1003520));
  EXPECT_FALSE(smart_resize({10, 10}, 28, 100, 50));
  EXPECT_FALSE(smart_resize({INT64_MAX, INT64_MAX}, 28, 3136, 1003520));
  // Both sides round to zero and no lower bound lifts them.
  EXPECT_FALSE(smart_resize({10, 10}, 28, 0, 1003520));
}

class Preprocess : public ::testing::TestWithParam<std::string> {};

TEST_P(Preprocess, MatchesTheProcessor) {
  REQUIRE_GOLDEN();
  const std::string folder = kGolden + GetParam() + "/";
  const auto meta = read_json_file(folder + "meta.json");
  ASSERT_TRUE(meta) << meta.error().text();
  const Json& processor = (*meta)["processor"];
  const std::string name = (*meta)["image"];
  const std::string file = read_test_file(kGolden + name);
  const auto image = decode_picture(as_bytes(file), {}, AlphaPolicy::kDrop, name);
  ASSERT_TRUE(image) << image.error().text();

  PatchLayout layout;
  layout.patch_size = processor["patch_size"];
  for (int c = 0; c < 3; ++c) {
    layout.mean[c] = processor["mean"][c];
    layout.std[c] = processor["std"][c];
  }
  const auto size = smart_resize({image->height, image->width}, layout.patch_size * 2,
                                 processor["min_pixels"], processor["max_pixels"]);
  ASSERT_TRUE(size) << size.error().text();
  ASSERT_EQ(size->width, (*meta)["resized_width"].get<int64_t>());
  ASSERT_EQ(size->height, (*meta)["resized_height"].get<int64_t>());

  const Image resized = resize(*image, *size, Filter::kBicubic);
  const auto expected = read_npy<uint8_t>(folder + "resized_uint8.npy");
  ASSERT_EQ(resized.rgb.size(), expected.size());
  EXPECT_TRUE(resized.rgb == expected) << "resized pixels differ";

  const int64_t rows = (*meta)["pixel_values_shape"][0],
                row_size = (*meta)["pixel_values_shape"][1];
  std::vector<float> patches(rows * row_size);
  write_patches(resized, layout, 0, rows, patches.data());
  const auto expected_rows = read_npy<float>(folder + "pixel_values_rows.npy");
  const auto saved = (*meta)["rows_saved"].get<std::vector<int64_t>>();
  ASSERT_EQ(expected_rows.size(), saved.size() * row_size);
  for (size_t i = 0; i < saved.size(); ++i) {
    for (int64_t j = 0; j < row_size; ++j) {
      ASSERT_EQ(patches[saved[i] * row_size + j], expected_rows[i * row_size + j])
          << "row " << saved[i] << " column " << j;
    }
  }
  Sha256 sha;
  sha.update(patches.data(), patches.size() * sizeof(float));
  EXPECT_EQ(to_hex(sha.finish()), (*meta)["pixel_values_f32_sha256"].get<std::string>());

  // Threads write ranges of rows: the same floats, whatever the ranges.
  std::vector<float> part(7 * row_size);
  for (int64_t row = 0; row < rows; row += 7) {
    const int64_t end = std::min(rows, row + 7);
    write_patches(resized, layout, row, end, part.data());
    ASSERT_TRUE(std::equal(part.begin(), part.begin() + (end - row) * row_size,
                           patches.begin() + row * row_size));
  }
  // One frame is the first (and every) frame of two.
  layout.temporal = 1;
  std::vector<float> still(rows * row_size / 2);
  write_patches(resized, layout, 0, rows, still.data());
  const int64_t plane = layout.patch_size * layout.patch_size;
  for (int64_t i = 0; i < rows * 3; ++i) {
    ASSERT_TRUE(std::equal(still.begin() + i * plane, still.begin() + (i + 1) * plane,
                           patches.begin() + i * 2 * plane));
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Preprocess,
                         ::testing::Values("down.qwen2_5_vl", "down.qwen3_vl", "strip.qwen2_5_vl",
                                           "strip.qwen3_vl", "up.qwen2_5_vl", "up.qwen3_vl"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

} // namespace
} // namespace pinhole
