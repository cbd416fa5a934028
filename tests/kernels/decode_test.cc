// Table::decode of every table and format against the scalar decoder, on random blocks.
#include "each_isa.h"

#include "quant/formats.h"

#include <cstring>

namespace pinhole::kernels {
namespace {

class Decode : public EachIsa {};
PINHOLE_FOR_EACH_ISA(Decode);

TEST_P(Decode, MatchesTheScalarDecoder) {
  std::mt19937 random(21);
  for (const FormatInfo& info : kFormats) {
    SCOPED_TRACE(std::string(info.name));
    for (int64_t blocks : {1, 2, 3, 7, 9}) {
      int64_t n = blocks * info.block_elements;
      if (info.block_elements == 1)
        n = blocks * 5 + 1;
      size_t bytes = static_cast<size_t>(row_bytes(info.id, n));
      std::vector<uint8_t> data(bytes + 1); // at an odd address, as in a mapped file
      for (uint8_t& b : data)
        b = static_cast<uint8_t>(random());
      std::vector<float> expected(static_cast<size_t>(n)), actual(static_cast<size_t>(n) + 1, 5.0f);
      decode_to_f32(info.id, data.data() + 1, expected.data(), n);
      table().decode(info.id, data.data() + 1, actual.data(), n);
      EXPECT_EQ(actual[n], 5.0f);
      float largest = 0.0f; // of this row: d * q - m may cancel
      for (float v : expected) {
        if (std::isfinite(v))
          largest = std::max(largest, std::abs(v));
      }
      for (int64_t i = 0; i < n; ++i) {
        if (std::isnan(expected[i])) {
          ASSERT_TRUE(std::isnan(actual[i])) << i;
        } else if (std::isinf(expected[i]) || info.block_elements == 1) {
          ASSERT_EQ(actual[i], expected[i]) << i;
        } else {
          ASSERT_NEAR(actual[i], expected[i], 2e-7f * largest) << i;
        }
      }
    }
  }
}

} // namespace
} // namespace pinhole::kernels
