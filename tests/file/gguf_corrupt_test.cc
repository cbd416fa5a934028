// GGUF files that are wrong: each kind of damage is refused with file, place and reason.
#include "file/gguf_reader.h"
#include "file/model_file.h"
#include "support/temp_dir.h"
#include "support/write_gguf.h"

#include <chrono>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pinhole {
namespace {

using namespace pinhole::testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

GgufWriter small_model() {
  GgufWriter writer;
  writer.key_string("general.architecture", "test")
      .key<uint32_t>("test.block_count", kTypeU32, 2)
      .key_strings("test.words", {"a", "bc", ""})
      .key_array<uint8_t>("test.flags", kTypeBool, {1, 0})
      .tensor_f32("first.weight", {4, 2}, std::vector<float>(8, 1.0f))
      .tensor_f32("second.bias", {3}, {1, 2, 3});
  return writer;
}

struct Damage {
  const char* name;
  std::function<std::string()> make;
  std::vector<std::string> reasons; // each must be in the message
};

void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }

std::string with_tensor(GgufWriter::TensorRow row) {
  return small_model().tensor(std::move(row)).bytes();
}

std::string changed(const std::string& marker, size_t skip, const std::string& bytes) {
  std::string file = small_model().bytes();
  file.replace(file.find(marker) + marker.size() + skip, bytes.size(), bytes);
  return file;
}

const std::vector<Damage>& damages() {
  static const std::vector<Damage> kDamages = {
      {"Empty", [] { return std::string(); }, {"magic"}},
      {"WrongMagic",
       [] { return "GGML" + small_model().bytes().substr(4); },
       {"'GGML'", "'GGUF'", "0x0"}},
      {"LfsPointer",
       [] { return std::string("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"); },
       {"Git LFS"}},
      {"BigEndianVersion",
       [] {
         std::string file = small_model().bytes();
         std::swap(file[4], file[7]);
         return file;
       },
       {"big-endian", "0x4"}},
      {"BigEndianMagic", [] { return "FUGG" + small_model().bytes().substr(4); }, {"big-endian"}},
      {"Version1",
       [] {
         GgufWriter writer = small_model();
         writer.version = 1;
         return writer.bytes();
       },
       {"version 1", "2 and 3", "0x4"}},
      {"Version4",
       [] {
         GgufWriter writer = small_model();
         writer.version = 4;
         return writer.bytes();
       },
       {"version 4"}},
      {"Claims2Pow60Tensors",
       [] {
         GgufWriter writer = small_model();
         writer.claimed_tensors = 1ull << 60;
         return writer.bytes();
       },
       {"1152921504606846976 tensors", "0x8"}},
      {"Claims2Pow60Keys",
       [] {
         GgufWriter writer = small_model();
         writer.claimed_keys = 1ull << 60;
         return writer.bytes();
       },
       {"1152921504606846976 key-values", "0x10"}},
      {"OneKeyTooMany",
       [] {
         GgufWriter writer = small_model();
         writer.claimed_keys = 5;
         return writer.bytes();
       },
       {"tensor 0 of 2"}},
      {"ArrayClaims2Pow60Elements",
       [] {
         return GgufWriter()
             .key_raw("huge", kTypeArray,
                      raw_bytes<uint32_t>(kTypeU32) + raw_bytes<uint64_t>(1ull << 60))
             .bytes();
       },
       {"'huge'", "1152921504606846976", "uint32", "0x2c"}},
      {"StringArrayClaims2Pow60Elements",
       [] {
         return GgufWriter()
             .key_raw("huge", kTypeArray,
                      raw_bytes<uint32_t>(kTypeString) + raw_bytes<uint64_t>(1ull << 60))
             .bytes();
       },
       {"'huge'", "1152921504606846976", "string"}},
      {"StringArrayElementTooLong",
       [] { return changed("test.words", 4 + 4 + 8 + 8 + 1, raw_bytes<uint64_t>(1ull << 40)); },
       {"'test.words'", "element 1 of 3", "1099511627776"}},
      {"ArrayOfArrays",
       [] {
         return GgufWriter()
             .key_raw("nested", kTypeArray,
                      raw_bytes<uint32_t>(kTypeArray) + raw_bytes<uint64_t>(1) +
                          raw_bytes<uint32_t>(kTypeU8) + raw_bytes<uint64_t>(0))
             .bytes();
       },
       {"'nested'", "array of arrays", "0x"}},
      {"UnknownValueType",
       [] { return GgufWriter().key_raw("odd", 13, "xxxxxxxx").bytes(); },
       {"'odd'", "type number 13", "0 to 12"}},
      {"UnknownArrayType",
       [] {
         return GgufWriter()
             .key_raw("odd", kTypeArray, raw_bytes<uint32_t>(77) + raw_bytes<uint64_t>(0))
             .bytes();
       },
       {"'odd'", "type number 77"}},
      {"BoolOfTwo",
       [] { return GgufWriter().key<uint8_t>("b", kTypeBool, 2).bytes(); },
       {"'b'", "bool of 2"}},
      {"BoolInArrayOfTwo",
       [] {
         return GgufWriter().key_array<uint8_t>("b", kTypeBool, {1, 0, 2}).bytes();
       },
       {"'b'", "bool of 2"}},
      {"EmptyKey",
       [] { return GgufWriter().key<uint8_t>("", kTypeU8, 2).bytes(); },
       {"key 0 of 1"}},
      {"KeyTooLong",
       [] { return GgufWriter().key<uint8_t>(std::string(65536, 'k'), kTypeU8, 2).bytes(); },
       {"65536", "65535"}},
      {"KeyTwice",
       [] {
         return GgufWriter().key<uint8_t>("k", kTypeU8, 1).key<uint8_t>("k", kTypeU8, 2).bytes();
       },
       {"'k'", "twice"}},
      {"AlignmentZero",
       [] { return GgufWriter().key<uint32_t>("general.alignment", kTypeU32, 0).bytes(); },
       {"general.alignment", "multiple of 8"}},
      {"AlignmentSeven",
       [] { return GgufWriter().key<uint32_t>("general.alignment", kTypeU32, 7).bytes(); },
       {"general.alignment", "7"}},
      {"AlignmentText",
       [] { return GgufWriter().key_string("general.alignment", "32").bytes(); },
       {"general.alignment", "string"}},
      {"FiveDimensions",
       [] {
         return with_tensor({"deep", {1, 1, 1, 1, 1}, 0, std::string(4, '\0'), {}});
       },
       {"'deep'", "5 dimensions", "at most 4"}},
      {"TooManyDimensions",
       [] { return changed("first.weight", 0, raw_bytes<uint32_t>(0xffffffffu)); },
       {"'first.weight'", "4294967295 dimensions"}},
      {"ZeroDimension",
       [] {
         return with_tensor({"none", {4, 0}, 0, "", {}});
       },
       {"'none'", "dimension 1 is 0"}},
      {"DimensionsOverflow",
       [] {
         return with_tensor({"wide", {1ull << 32, 1ull << 32}, 0, "xxxx", {}});
       },
       {"'wide'", "dimension 1 is 4294967296"}},
      {"DimensionAbove2Pow63",
       [] {
         return with_tensor({"wide", {1ull << 63}, 0, "xxxx", {}});
       },
       {"'wide'", "9223372036854775808"}},
      {"BytesOverflow",
       [] {
         return with_tensor({"wide", {(1ull << 62) + 1}, 0, "xxxx", {}});
       },
       {"'wide'"}},
      {"ClaimsMoreBytesThanTheFile",
       [] {
         return with_tensor({"wide", {1ull << 60}, 0, "xxxx", {}});
       },
       {"'wide'", "4611686018427387904 bytes"}},
      {"UnknownTensorType",
       [] {
         return with_tensor({"odd", {32}, 200, std::string(32, '\0'), {}});
       },
       {"'odd'", "type number 200"}},
      {"RemovedTensorType",
       [] {
         return with_tensor({"old", {32}, 4, std::string(32, '\0'), {}});
       },
       {"'old'", "type number 4", "removed"}},
      {"RowIsNoWholeNumberOfBlocks",
       [] {
         return with_tensor({"q", {48, 2}, 2, std::string(54, '\0'), {}});
       },
       {"'q'", "48", "multiple of 32", "Q4_0"}},
      {"RowIsNoWholeNumberOfSuperBlocks",
       [] {
         return with_tensor({"q", {128, 2}, 12, std::string(144, '\0'), {}});
       },
       {"'q'", "128", "multiple of 256", "Q4_K"}},
      {"OffsetOffTheAlignment",
       [] {
         return with_tensor({"t", {1}, 0, "xxxx", 68});
       },
       {"'t'", "68", "alignment 32"}},
      {"OffsetPastTheEnd",
       [] {
         return with_tensor({"t", {1}, 0, "xxxx", 1ull << 40});
       },
       {"'t'", "1099511627776", "do not fit"}},
      {"OffsetOverflows",
       [] {
         return with_tensor({"t", {1}, 0, "xxxx", UINT64_MAX - 31});
       },
       {"'t'", "do not fit"}},
      {"Overlap",
       [] {
         return with_tensor({"t", {1}, 0, "xxxx", 0});
       },
       {"'first.weight'", "'t'", "overlap"}},
      {"TensorNameTooLong",
       [] { return changed("first.weight", -12 - 8, raw_bytes<uint64_t>(1ull << 50)); },
       {"name of tensor 0 of 2", "1125899906842624"}},
      {"TensorWithoutName",
       [] {
         return with_tensor({"", {1}, 0, "xxxx", {}});
       },
       {"tensor 2 of 3", "no name"}},
      {"NameWithControlBytes",
       [] {
         return with_tensor({"a\n\x1b[31m", {1}, 99, "xxxx", {}});
       },
       {"a\\x0a\\x1b[31m"}},
  };
  return kDamages;
}

class GgufDamage : public ::testing::TestWithParam<Damage> {};

TEST_P(GgufDamage, IsRefusedWithFilePlaceAndReason) {
  const TempDir dir;
  const std::string path = dir.write("broken.gguf", GetParam().make());
  const auto begin = std::chrono::steady_clock::now();
  const auto model = ModelFile::open(path);
  const auto elapsed = std::chrono::steady_clock::now() - begin;
  ASSERT_FALSE(model);
  const std::string text = model.error().text();
  EXPECT_THAT(text, HasSubstr(path));
  for (const std::string& reason : GetParam().reasons)
    EXPECT_THAT(text, HasSubstr(reason));
  EXPECT_LT(elapsed, std::chrono::milliseconds(500));
}
INSTANTIATE_TEST_SUITE_P(Kinds, GgufDamage, ::testing::ValuesIn(damages()),
                         [](const auto& info) { return info.param.name; });

TEST(GgufCorrupt, TensorTwice) {
  const TempDir dir;
  GgufWriter writer = small_model();
  writer.tensor_f32("first.weight", {1}, {1});
  const auto model = ModelFile::open(dir.write("m.gguf", writer.bytes()));
  ASSERT_FALSE(model);
  EXPECT_THAT(model.error().text(),
              AllOf(HasSubstr("m.gguf"), HasSubstr("'first.weight'"), HasSubstr("twice")));
}

TEST(GgufCorrupt, PlainTensorNamedLikeAnother) {
  const TempDir dir;
  GgufWriter writer = small_model();
  writer.tensor({"first.weight", {1}, 24, "x", {}});
  const auto model = ModelFile::open(dir.write("m.gguf", writer.bytes()));
  ASSERT_FALSE(model);
  EXPECT_THAT(model.error().text(), HasSubstr("twice"));
}

TEST(GgufCorrupt, EveryShorterPrefixIsAnError) {
  const std::string whole = small_model().bytes();
  ASSERT_TRUE(GgufReader::parse(as_bytes(whole), "whole.gguf"));
  for (size_t length = 0; length < whole.size(); ++length) {
    // A copy of its own, so that a read past the end is seen by the sanitizer.
    const std::vector<char> prefix(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(length));
    const auto part = GgufReader::parse(as_bytes({prefix.data(), prefix.size()}), "cut.gguf");
    ASSERT_FALSE(part) << length;
    EXPECT_THAT(part.error().text(), HasSubstr("cut.gguf")) << length;
  }
}

// Any one byte changed: either an error, or tables that still point into the file.
TEST(GgufCorrupt, EveryChangedByteLeavesTablesInsideTheFile) {
  const std::string whole = small_model().bytes();
  const size_t table_bytes = small_model().head().size();
  for (size_t at = 0; at < table_bytes; ++at) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::string file = whole;
      file[at] = static_cast<char>(file[at] ^ flip);
      const auto part = GgufReader::parse(as_bytes(file), "flip.gguf");
      if (!part)
        continue;
      for (const Tensor& tensor : part->tensors) {
        ASSERT_LE(tensor.file_offset + tensor.bytes, file.size()) << at;
        ASSERT_EQ(static_cast<int64_t>(tensor.bytes),
                  tensor.rows() * row_bytes(tensor.format, tensor.cols()));
      }
      for (const auto& entry : part->meta.entries()) {
        if (const auto* array = std::get_if<GgufArray>(&entry.value)) {
          if (array->element_type == GgufType::kString)
            EXPECT_TRUE(array->strings());
          else
            EXPECT_TRUE(array->numbers() || array->integers());
        }
      }
    }
  }
}

} // namespace
} // namespace pinhole
