// Where a GGUF's header ends, told from the first bytes of the file: what a reader over the network
// asks after each piece.
#include "file/gguf_reader.h"
#include "support/write_gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pinhole {
namespace {

using namespace pinhole::testing;
using ::testing::HasSubstr;

std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

GgufWriter small_model() {
  GgufWriter writer;
  writer.key_string("general.architecture", "test")
      .key<uint32_t>("test.block_count", kTypeU32, 2)
      .key<uint8_t>("test.flag", kTypeBool, 1)
      .key_strings("test.words", {"a", "bc", ""})
      .key_array<float>("test.scores", kTypeF32, {1, 2, 3})
      .tensor_f32("first.weight", {4, 2}, std::vector<float>(8, 1.0f))
      .tensor_f32("second.bias", {3}, {1, 2, 3});
  return writer;
}

TEST(GgufExtent, EveryBeginningAsksForMoreUntilTheHeaderIsThere) {
  const std::string head = small_model().head();
  const std::string file = small_model().bytes();
  for (size_t length = 0; length <= file.size(); ++length) {
    // A copy of just these bytes: a sanitizer sees a read beyond them.
    const std::vector<std::byte> first(as_bytes(file).begin(), as_bytes(file).begin() + length);
    const auto extent = GgufReader::header_extent(first, file.size(), "x.gguf");
    ASSERT_TRUE(extent) << length << ": " << extent.error().text();
    EXPECT_EQ(extent->complete, length >= head.size()) << length;
    if (extent->complete) {
      EXPECT_EQ(extent->bytes, head.size());
      continue;
    }
    EXPECT_GT(extent->bytes, length);
    EXPECT_LE(extent->bytes, head.size());
  }
}

TEST(GgufExtent, AFileThatEndsInItsHeaderIsCut) {
  const std::string head = small_model().head();
  for (size_t length = 0; length < head.size(); ++length) {
    const auto extent = GgufReader::header_extent(as_bytes(head).first(length), length, "cut.gguf");
    ASSERT_FALSE(extent) << length;
    EXPECT_THAT(extent.error().text(), HasSubstr("cut.gguf"));
  }
}

// An array of known element size says at once where it ends.
TEST(GgufExtent, TheLeastThatIsNeededIsToldAhead) {
  GgufWriter writer;
  writer.key_array("big", kTypeF32, std::vector<float>(1000));
  const std::string head = writer.head();
  const auto extent = GgufReader::header_extent(as_bytes(head).first(100), 1 << 20, "x.gguf");
  ASSERT_TRUE(extent) << extent.error().text();
  EXPECT_FALSE(extent->complete);
  EXPECT_EQ(extent->bytes, head.size());
}

// What the file cannot hold is refused from the bytes that claim it.
TEST(GgufExtent, ClaimsBeyondTheFileAreRefusedFromTheFirstBytes) {
  const uint64_t huge = uint64_t{1} << 60;
  GgufWriter text, list, words, tensors;
  text.key_raw("k", kTypeString, raw_bytes(huge));
  list.key_raw("k", kTypeArray, raw_bytes<uint32_t>(kTypeF32) + raw_bytes(huge));
  words.key_raw("k", kTypeArray, raw_bytes<uint32_t>(kTypeString) + raw_bytes(huge));
  tensors.claimed_tensors = huge;
  for (const GgufWriter* writer : {&text, &list, &words, &tensors}) {
    const std::string head = writer->head();
    const auto extent = GgufReader::header_extent(as_bytes(head), 1 << 30, "x.gguf");
    ASSERT_FALSE(extent);
    EXPECT_THAT(extent.error().text(), HasSubstr(std::to_string(huge)));
  }
}

TEST(GgufExtent, AFileOfAnotherKindIsRefusedFromItsFirstBytes) {
  const auto extent = GgufReader::header_extent(as_bytes("<!doctype html>"), 1 << 30, "x.gguf");
  ASSERT_FALSE(extent);
  EXPECT_THAT(extent.error().text(), HasSubstr("'<!do'"));
}

} // namespace
} // namespace pinhole
