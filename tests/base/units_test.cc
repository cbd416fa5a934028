// Sizes and times as people read them.
#include "base/units.h"

#include <cstdint>
#include <gtest/gtest.h>

namespace pinhole {
namespace {

TEST(Units, Bytes) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1), "1 B");
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1.00 KiB");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(1u << 20), "1.00 MiB");
  EXPECT_EQ(format_bytes((1u << 20) - 1), "1.00 MiB"); // never "1024.00 KiB"
  // Qwen3-VL-2B in nf4, of which 1.43 GiB is published.
  EXPECT_EQ(format_bytes(1537155072), "1.43 GiB");
  EXPECT_EQ(format_bytes(8510128128), "7.93 GiB");
  EXPECT_EQ(format_bytes(uint64_t{1} << 40), "1.00 TiB");
  EXPECT_EQ(format_bytes(UINT64_MAX), "16777216.00 TiB");
}

TEST(Units, Counts) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(12345), "12,345");
  EXPECT_EQ(format_count(151936), "151,936");
  EXPECT_EQ(format_count(1234567), "1,234,567");
  EXPECT_EQ(format_count(UINT64_MAX), "18,446,744,073,709,551,615");
}

TEST(Units, Times) {
  EXPECT_EQ(format_millis(0), "0 ms");
  EXPECT_EQ(format_millis(850), "850 ms");
  EXPECT_EQ(format_millis(12300), "12.3 s");
  EXPECT_EQ(format_millis(245000), "4 min 05 s");
  EXPECT_EQ(format_millis(3600000), "60 min 00 s");
  // Just below a unit's end: never "1000 ms" or "60.0 s".
  EXPECT_EQ(format_millis(999.7), "1.0 s");
  EXPECT_EQ(format_millis(59970), "1 min 00 s");
}

} // namespace
} // namespace pinhole
