// safetensors files and the index of sharded models: what is read, and what is refused and why.
#include "file/model_file.h"
#include "file/safetensors.h"
#include "support/temp_dir.h"
#include "support/write_safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pinhole {
namespace {

using namespace pinhole::testing;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Result<SafetensorsPart> parse(const std::string& bytes) {
  return parse_safetensors(as_bytes(bytes), "t.safetensors");
}

std::string small_file() {
  return SafetensorsWriter()
      .tensor_f32("model.a.weight", {2, 3}, {0, 1, 2, 3, 4, 5})
      .tensor("model.b.weight", "BF16", {4}, "\x80\x3f\x01\x40\x40\x40\x80\x40")
      .tensor("model.c.ids", "I64", {1}, std::string(8, '\7'))
      .bytes();
}

TEST(Safetensors, ReadsShapesTypesAndBytes) {
  const std::string bytes = SafetensorsWriter()
                                .tensor_f32("a", {2, 3}, {0, 1, 2, 3, 4, 5})
                                .tensor("h", "F16", {2, 1, 2}, "12345678")
                                .tensor("b", "BF16", {1}, "xy")
                                .tensor("scalar", "F32", {}, "abcd")
                                .bytes();
  const auto part = parse(bytes);
  ASSERT_TRUE(part) << part.error().text();
  ASSERT_EQ(part->tensors.size(), 4u);
  EXPECT_EQ(part->tensors[0].name, "a");
  EXPECT_EQ(part->tensors[0].format, FormatId::kF32);
  EXPECT_THAT(part->tensors[0].shape, ElementsAre(2, 3));
  EXPECT_EQ(part->tensors[1].format, FormatId::kF16);
  EXPECT_THAT(part->tensors[1].shape, ElementsAre(2, 1, 2));
  EXPECT_EQ(as_text({part->tensors[1].data, part->tensors[1].bytes}), "12345678");
  EXPECT_EQ(part->tensors[2].format, FormatId::kBF16);
  EXPECT_EQ(part->tensors[3].elements(), 1);
  EXPECT_EQ(bytes.substr(part->tensors[3].file_offset, 4), "abcd");
  float last;
  std::memcpy(&last, part->tensors[0].data + 20, 4);
  EXPECT_EQ(last, 5.0f);
}

TEST(Safetensors, KeepsOtherTypesAside) {
  const std::string bytes = SafetensorsWriter()
                                .tensor("w", "F32", {1}, "wwww")
                                .tensor("i", "I64", {2}, std::string(16, 'i'))
                                .tensor("f8", "F8_E4M3", {2, 2}, "8888")
                                .tensor("u", "U8", {3}, "uuu")
                                .tensor("f4", "F4", {4}, "44")
                                .tensor("new", "X9", {100}, "??")
                                .bytes();
  const auto part = parse(bytes);
  ASSERT_TRUE(part) << part.error().text();
  EXPECT_EQ(part->tensors.size(), 1u);
  ASSERT_EQ(part->others.size(), 5u);
  EXPECT_EQ(part->others[1].name, "f8");
  EXPECT_EQ(part->others[1].type, "F8_E4M3");
  EXPECT_THAT(part->others[1].shape, ElementsAre(2, 2));
  EXPECT_EQ(as_text({part->others[2].data, part->others[2].bytes}), "uuu");
  EXPECT_EQ(part->others[4].type, "X9");
  EXPECT_EQ(part->others[4].bytes, 2u);
}

TEST(Safetensors, AllowsMetadataAndUnknownFields) {
  const auto part = parse(safetensors_raw(
      R"({"__metadata__":{"format":"pt","note":"{}[]"},)"
      R"("t":{"extra":{"x":[1,{"y":[]}],"z":null},"data_offsets":[0,4],"shape":[1],"dtype":"F32"}}   )",
      "abcd"));
  ASSERT_TRUE(part) << part.error().text();
  EXPECT_EQ(part->tensors.size(), 1u);
}

TEST(Safetensors, EmptyTensorsAndEmptyFilesAreValid) {
  EXPECT_TRUE(parse(safetensors_raw("{}", "")));
  const auto part = parse(SafetensorsWriter()
                              .tensor("none", "F32", {0, 4}, "")
                              .tensor("one", "F32", {1}, "abcd")
                              .bytes());
  ASSERT_TRUE(part) << part.error().text();
  EXPECT_EQ(part->tensors[0].elements(), 0);
}

struct Damage {
  const char* name;
  std::string header, data;
  std::vector<std::string> reasons;
};
void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }

class SafetensorsDamage : public ::testing::TestWithParam<Damage> {};

TEST_P(SafetensorsDamage, IsRefusedWithFileAndReason) {
  const TempDir dir;
  const std::string path =
      dir.write("broken.safetensors", safetensors_raw(GetParam().header, GetParam().data));
  const auto model = ModelFile::open(path);
  ASSERT_FALSE(model);
  const std::string text = model.error().text();
  EXPECT_THAT(text, HasSubstr(path));
  for (const std::string& reason : GetParam().reasons)
    EXPECT_THAT(text, HasSubstr(reason));
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, SafetensorsDamage,
    ::testing::Values(
        Damage{"NotJson", R"({"t":})", "", {"JSON", "0x"}},
        Damage{"NotAnObject", "[]", "", {"an array"}},
        Damage{"TrailingGarbage", "{}x", "", {"JSON"}},
        Damage{"BadUtf8", "{\"\xff\":1}", "", {"JSON"}},
        Damage{"EntryIsNoObject", R"({"t":5})", "", {"'t'", "a number"}},
        Damage{"NoDtype", R"({"t":{"shape":[1],"data_offsets":[0,4]}})", "abcd", {"'t'", "dtype"}},
        Damage{
            "NoShape", R"({"t":{"dtype":"F32","data_offsets":[0,4]}})", "abcd", {"'t'", "shape"}},
        Damage{
            "NoOffsets", R"({"t":{"dtype":"F32","shape":[1]}})", "abcd", {"'t'", "data_offsets"}},
        Damage{"OneOffset",
               R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0]}})",
               "abcd",
               {"'t'", "data_offsets"}},
        Damage{"ThreeOffsets",
               R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})",
               "abcd",
               {"'t'", "data_offsets"}},
        Damage{"DtypeTwice",
               R"({"t":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}})",
               "abcd",
               {"'t'", "dtype", "twice"}},
        Damage{"NegativeDimension",
               R"({"t":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})",
               "abcd",
               {"'t'", "negative"}},
        Damage{"FractionalDimension",
               R"({"t":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})",
               "abcd",
               {"'t'", "fraction"}},
        Damage{"DimensionAbove64Bits",
               R"({"t":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4]}})",
               "abcd",
               {"'t'"}},
        Damage{"Shape2Pow60",
               R"({"t":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4]}})",
               "abcd",
               {"'t'", "4 bytes", "1152921504606846976"}},
        Damage{"ShapeOverflows",
               R"({"t":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})",
               "abcd",
               {"'t'", "dimension 1 is 4294967296"}},
        Damage{"TooManyDimensions",
               R"({"t":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})",
               "abcd",
               {"'t'", "8 dimensions"}},
        Damage{"SizeDoesNotMatch",
               R"({"t":{"dtype":"F16","shape":[3],"data_offsets":[0,4]}})",
               "abcd",
               {"'t'", "[0, 4]", "3 elements of F16"}},
        Damage{"OffsetsPastTheEnd",
               R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
               "abcd",
               {"'t'", "[0, 8]", "4 data bytes"}},
        Damage{"OffsetsReversed",
               R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})",
               "abcd",
               {"'t'", "[4, 0]"}},
        Damage{
            "OffsetsHuge",
            R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551615]}})",
            "abcd",
            {"'t'", "18446744073709551615"}},
        Damage{
            "Overlap",
            R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"u":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
            "abcdef",
            {"'u'", "overlap"}},
        Damage{
            "Gap",
            R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"u":{"dtype":"F16","shape":[1],"data_offsets":[6,8]}})",
            "abcdefgh",
            {"'u'", "gap"}},
        Damage{"BytesLeftOver",
               R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
               "abcdef",
               {"2 bytes after the last tensor"}},
        Damage{
            "NameTwice",
            R"({"t":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"t":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}})",
            "abcd",
            {"'t'", "twice"}},
        Damage{"EmptyName",
               R"({"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
               "abcd",
               {"name"}},
        Damage{"MetadataIsNoText", R"({"__metadata__":{"a":{"b":1}}})", "", {"__metadata__"}},
        Damage{"NestedDeep", std::string(100000, '['), "", {"array"}}),
    [](const auto& info) { return info.param.name; });

TEST(SafetensorsCorrupt, HeaderLengthIsBounded) {
  for (const uint64_t length : {uint64_t{100}, uint64_t{1} << 40, UINT64_MAX}) {
    std::string bytes = small_file();
    bytes.resize(60);
    std::memcpy(bytes.data(), &length, 8);
    const auto part = parse(bytes);
    ASSERT_FALSE(part);
    EXPECT_THAT(
        part.error().text(),
        AllOf(HasSubstr("t.safetensors"), HasSubstr(std::to_string(length)), HasSubstr("52 more")));
  }
}

TEST(SafetensorsCorrupt, LfsPointerIsRecognised) {
  const auto part = parse("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
  ASSERT_FALSE(part);
  EXPECT_THAT(part.error().text(), HasSubstr("Git LFS"));
}

TEST(SafetensorsCorrupt, EveryShorterPrefixIsAnError) {
  const std::string whole = small_file();
  ASSERT_TRUE(parse(whole));
  for (size_t length = 0; length < whole.size(); ++length) {
    const std::vector<char> prefix(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(length));
    const auto part =
        parse_safetensors(as_bytes({prefix.data(), prefix.size()}), "cut.safetensors");
    ASSERT_FALSE(part) << length;
    EXPECT_THAT(part.error().text(), HasSubstr("cut.safetensors")) << length;
  }
}

TEST(SafetensorsCorrupt, EveryChangedByteLeavesTablesInsideTheFile) {
  const std::string whole = small_file();
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const int flip : {0x01, 0x10, 0x80}) {
      std::string file = whole;
      file[at] = static_cast<char>(file[at] ^ flip);
      const auto part = parse(file);
      if (!part)
        continue;
      for (const Tensor& tensor : part->tensors) {
        ASSERT_LE(tensor.file_offset + tensor.bytes, file.size()) << at;
        ASSERT_EQ(static_cast<int64_t>(tensor.bytes),
                  tensor.elements() * row_bytes(tensor.format, 1));
      }
    }
  }
}

std::vector<std::string> entries_of(std::string_view text) {
  std::vector<std::string> out;
  const auto status = for_each_index_entry(
      text, "i.json", [&](const std::string& t, const std::string& s) -> Status {
        out.push_back(t + "@" + s);
        return {};
      });
  if (!status)
    out = {"error: " + status.error().text()};
  return out;
}

TEST(SafetensorsIndex, ListsEntriesInOrder) {
  EXPECT_THAT(
      entries_of(R"({"metadata":{"total_size":12,"more":[1,[2.5,{"weight_map":{}}],null,true]},)"
                 R"("weight_map":{"b":"m-1.safetensors","a":"m-2.safetensors"},"later":-1})"),
      ElementsAre("b@m-1.safetensors", "a@m-2.safetensors"));
}

TEST(SafetensorsIndex, RefusesPathsOutOfTheFolder) {
  for (const char* shard :
       {"../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "a\\\\b.safetensors",
        "x\\u0000.safetensors", "", ".safetensors", "x.bin"}) {
    const auto got = entries_of(std::string(R"({"weight_map":{"t":")") + shard + "\"}}");
    ASSERT_EQ(got.size(), 1u);
    EXPECT_THAT(got[0],
                AllOf(HasSubstr("error: i.json"), HasSubstr("'t'"), HasSubstr("plain name")))
        << shard;
  }
}

TEST(SafetensorsIndex, RefusesWhatIsNoIndex) {
  EXPECT_THAT(entries_of("{}")[0], HasSubstr("weight_map"));
  EXPECT_THAT(entries_of("[]")[0], HasSubstr("error"));
  EXPECT_THAT(entries_of(R"({"weight_map":[]})")[0], HasSubstr("error"));
  EXPECT_THAT(entries_of(R"({"weight_map":{"t":1}})")[0], HasSubstr("'t'"));
  EXPECT_THAT(entries_of(R"({"weight_map":{"t":{}}})")[0], HasSubstr("'t'"));
  EXPECT_THAT(entries_of(R"({"weight_map":{}, "weight_map":{}})")[0], HasSubstr("twice"));
  EXPECT_THAT(entries_of(R"({"weight_map":{"t")")[0], HasSubstr("JSON"));
}

} // namespace
} // namespace pinhole
