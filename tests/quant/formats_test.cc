// The element types against libggml's own blocks and decoded values (golden/dequant), the look-ups,
// and the half-precision conversions against the definition of the formats.
#include "quant/formats.h"

#include "quant/half.h"
#include "quant/q8_0.h"
#include "support/golden.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace pinhole {
namespace {

std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

// The values of a version 1 .npy file of little-endian f32 in C order.
std::vector<float> read_npy_f32(const std::filesystem::path& path) {
  std::string bytes = read_bytes(path);
  EXPECT_EQ(bytes.substr(0, 6), "\x93NUMPY") << path;
  size_t begin = 10 + static_cast<uint8_t>(bytes[8]) + 256u * static_cast<uint8_t>(bytes[9]);
  EXPECT_NE(bytes.find("'<f4'"), std::string::npos) << path;
  std::vector<float> values((bytes.size() - begin) / 4);
  std::memcpy(values.data(), bytes.data() + begin, values.size() * 4);
  return values;
}

const std::filesystem::path kDequant = std::filesystem::path(PINHOLE_GOLDEN_DIR) / "dequant";

// Every entry, from an aligned and from an odd address: tensors of a mapped file lie anywhere.
TEST(Formats, DecodesAsGgmlDoes) {
  REQUIRE_GOLDEN();
  nlohmann::json index = nlohmann::json::parse(read_bytes(kDequant / "index.json"));
  int num_entries = 0;
  for (const auto& entry : index["entries"]) {
    std::string name = entry["type"];
    SCOPED_TRACE(entry["bin"].get<std::string>());
    std::optional<FormatId> id = format_from_name(name);
    ASSERT_TRUE(id.has_value());
    const FormatInfo& info = format_info(*id);
    EXPECT_EQ(info.gguf_type, entry["ggml_type_id"].get<uint32_t>());
    EXPECT_EQ(info.block_elements, entry["block_size"].get<int64_t>());
    EXPECT_EQ(info.block_bytes, entry["block_bytes"].get<int64_t>());
    int64_t rows = entry["rows"], cols = entry["cols"];
    EXPECT_EQ(row_bytes(*id, cols), entry["row_bytes"].get<int64_t>());
    std::string blocks = read_bytes(kDequant / entry["bin"].get<std::string>());
    std::vector<float> expected = read_npy_f32(kDequant / entry["expected"].get<std::string>());
    ASSERT_EQ(static_cast<int64_t>(blocks.size()), row_bytes(*id, cols) * rows);
    ASSERT_EQ(static_cast<int64_t>(expected.size()), rows * cols);
    for (size_t offset : {0, 1}) {
      std::string shifted = std::string(offset, 'x') + blocks;
      std::vector<float> actual(expected.size());
      decode_to_f32(*id, shifted.data() + offset, actual.data(), rows * cols);
      for (size_t i = 0; i < actual.size(); ++i) {
        if (std::isnan(expected[i])) {
          ASSERT_TRUE(std::isnan(actual[i])) << i;
        } else if (std::isinf(expected[i])) {
          ASSERT_EQ(actual[i], expected[i]) << i;
        } else {
          ASSERT_LE(std::abs(actual[i] - expected[i]), 1e-6f * std::abs(expected[i])) << i;
        }
      }
    }
    ++num_entries;
  }
  EXPECT_GE(num_entries, 40);
}

TEST(Formats, LooksUpByNumberAndName) {
  EXPECT_EQ(format_from_gguf_type(0), FormatId::kF32);
  EXPECT_EQ(format_from_gguf_type(12), FormatId::kQ4_K);
  EXPECT_EQ(format_from_gguf_type(30), FormatId::kBF16);
  EXPECT_EQ(format_from_gguf_type(4), std::nullopt); // Q4_2, long removed from GGUF
  EXPECT_EQ(format_from_gguf_type(0xffffffffu), std::nullopt);
  EXPECT_EQ(format_from_name("q4_k"), FormatId::kQ4_K);
  EXPECT_EQ(format_from_name("Bf16"), FormatId::kBF16);
  EXPECT_EQ(format_from_name("IQ2_xxs"), FormatId::kIQ2_XXS);
  EXPECT_EQ(format_from_name("q4"), std::nullopt);
  EXPECT_EQ(format_from_name("q4_kk"), std::nullopt);
  EXPECT_EQ(format_from_name(""), std::nullopt);
}

// GGUF numbers and names are keys: no two rows may share one.
TEST(Formats, RowsAreDistinct) {
  for (const FormatInfo& info : kFormats) {
    EXPECT_EQ(format_from_gguf_type(info.gguf_type), info.id) << info.name;
    EXPECT_EQ(format_from_name(info.name), info.id) << info.name;
  }
}

TEST(Formats, DecodesF32BitForBit) {
  const float values[] = {1.5f, -0.0f, 1e-42f, std::numeric_limits<float>::infinity()};
  float out[4];
  decode_to_f32(FormatId::kF32, values, out, 4);
  EXPECT_EQ(std::memcmp(values, out, sizeof(out)), 0);
}

double f16_value(uint16_t h) { // IEEE 754 binary16 by its definition
  int exponent = h >> 10 & 31, mantissa = h & 1023;
  double sign = h & 0x8000 ? -1.0 : 1.0;
  if (exponent == 31) {
    return mantissa ? std::numeric_limits<double>::quiet_NaN()
                    : sign * std::numeric_limits<double>::infinity();
  }
  return sign *
         (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

TEST(Half, EveryF16ToF32AndBack) {
  for (int h = 0; h < 65536; ++h) {
    uint16_t bits = static_cast<uint16_t>(h);
    float x = f16_to_f32(bits);
    double expected = f16_value(bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(x)) << h;
      ASSERT_TRUE(std::isnan(f16_to_f32(f32_to_f16(x)))) << h;
    } else {
      ASSERT_EQ(static_cast<double>(x), expected) << h;
      ASSERT_EQ(std::signbit(x), (h & 0x8000) != 0) << h;
      ASSERT_EQ(f32_to_f16(x), bits) << h;
    }
  }
}

TEST(Half, F16RoundsToNearestEven) {
  for (int h = 0; h < 0x7bff; ++h) { // between every two neighbours
    float low = f16_to_f32(static_cast<uint16_t>(h));
    float high = f16_to_f32(static_cast<uint16_t>(h + 1));
    float middle = low + (high - low) / 2; // exact
    ASSERT_EQ(f32_to_f16(middle), h % 2 == 0 ? h : h + 1) << h;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, low)), h) << h;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, high)), h + 1) << h;
    ASSERT_EQ(f32_to_f16(-middle), 0x8000 + (h % 2 == 0 ? h : h + 1)) << h;
  }
  EXPECT_EQ(f32_to_f16(65519.996f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(1e30f), 0x7c00);
  EXPECT_EQ(f32_to_f16(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(f32_to_f16(1e-30f), 0);
}

TEST(Half, Bf16RoundsToNearestEven) {
  EXPECT_EQ(f32_to_bf16(1.0f), 0x3f80);
  EXPECT_EQ(f32_to_bf16(f32_from_bits(0x3f808000)), 0x3f80); // tie to even
  EXPECT_EQ(f32_to_bf16(f32_from_bits(0x3f818000)), 0x3f82);
  EXPECT_EQ(f32_to_bf16(f32_from_bits(0x3f808001)), 0x3f81);
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(f32_from_bits(0x7f800001)))));
  EXPECT_EQ(bf16_to_f32(0xc049), f32_from_bits(0xc0490000));
}

// encode_block is the identity on what it produced, stays within half a step, and takes the largest
// magnitude to +-127: what defines ggml's reference quantiser.
TEST(Q8_0, Encodes) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 200; ++round) {
    float x[32], y[32];
    float largest = 0;
    for (float& v : x) {
      v = normal(random) * std::pow(10.0f, static_cast<float>(round % 5 - 2));
      largest = std::max(largest, std::abs(v));
    }
    BlockQ8_0 block;
    encode_block(x, block);
    float d = f16_to_f32(block.d);
    EXPECT_NEAR(d, largest / 127, largest / 127 / 1024);
    decode_block(block, y);
    int largest_q = 0;
    for (int i = 0; i < 32; ++i) {
      // Half a step, and what the rounding of d to f16 moves 127 steps.
      ASSERT_LE(std::abs(x[i] - y[i]), largest / 127 * (0.5f + 127.0f / 2048)) << i;
      ASSERT_EQ(block.qs[i], static_cast<int8_t>(std::round(x[i] * (1.0f / (largest / 127)))));
      largest_q = std::max(largest_q, std::abs(static_cast<int>(block.qs[i])));
    }
    EXPECT_EQ(largest_q, 127);
  }
}

TEST(Q8_0, EncodesZerosAndSpecialValues) {
  float x[32] = {};
  BlockQ8_0 block;
  encode_block(x, block);
  EXPECT_EQ(block.d, 0);
  for (int8_t q : block.qs)
    EXPECT_EQ(q, 0);
  x[3] = std::numeric_limits<float>::quiet_NaN();
  x[4] = 1.0f;
  encode_block(x, block);
  EXPECT_EQ(block.qs[3], 0);
  EXPECT_EQ(block.qs[4], 127);
  x[5] = -std::numeric_limits<float>::infinity();
  encode_block(x, block);
  EXPECT_EQ(block.d, 0x7c00);
}

} // namespace
} // namespace pinhole
