// GGUF models in parts: any part opens all; what does not belong together is named.
#include "file/gguf_reader.h"
#include "file/model_file.h"
#include "support/temp_dir.h"
#include "support/write_gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pinhole {
namespace {

using namespace pinhole::testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

GgufWriter part_writer(uint16_t no, uint16_t count, int32_t tensors) {
  GgufWriter writer;
  writer.key<uint16_t>("split.no", kTypeU16, no)
      .key<uint16_t>("split.count", kTypeU16, count)
      .key<int32_t>("split.tensors.count", kTypeI32, tensors);
  return writer;
}

struct SplitModel {
  TempDir dir;
  SplitModel() {
    GgufWriter first = part_writer(0, 3, 3);
    first.key_string("general.architecture", "test");
    write(0, first.tensor_f32("a", {1}, {10}));
    write(1, part_writer(1, 3, 3).tensor_f32("b", {1}, {20}));
    write(2, part_writer(2, 3, 3).tensor_f32("c", {1}, {30}));
  }
  void write(int no, const GgufWriter& writer) { dir.write(name(no), writer.bytes()); }
  static std::string name(int no) {
    return "big-model-Q4_K_M-0000" + std::to_string(no + 1) + "-of-00003.gguf";
  }
  std::string path(int no) const { return dir.file(name(no)); }
};

TEST(GgufSplit, AnyPartOpensAll) {
  const SplitModel model;
  for (int no = 0; no < 3; ++no) {
    const auto opened = ModelFile::open(model.path(no));
    ASSERT_TRUE(opened) << opened.error().text();
    EXPECT_EQ(opened->parts().size(), 3u);
    EXPECT_EQ(opened->gguf().string("general.architecture").value(), "test");
    const char* names[] = {"a", "b", "c"};
    for (uint32_t i = 0; i < 3; ++i) {
      const Tensor* tensor = opened->find(names[i]);
      ASSERT_NE(tensor, nullptr) << names[i];
      EXPECT_EQ(tensor->part, i);
      float value;
      std::memcpy(&value, tensor->data, 4);
      EXPECT_EQ(value, 10.0f * static_cast<float>(i + 1));
      // data is what the part's mapping holds at file_offset
      EXPECT_EQ(tensor->data, opened->parts()[i].bytes().data() + tensor->file_offset);
    }
  }
}

TEST(GgufSplit, AFolderWithTheFirstPartOpens) {
  const SplitModel model;
  const auto opened = ModelFile::open(model.dir.path());
  ASSERT_TRUE(opened) << opened.error().text();
  EXPECT_EQ(opened->tensors().size(), 3u);
}

TEST(GgufSplit, MissingPartIsNamed) {
  const SplitModel model;
  std::filesystem::remove(model.path(1));
  const auto opened = ModelFile::open(model.path(2));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(opened.error().text(), AllOf(HasSubstr(model.path(1)), HasSubstr("missing")));
}

TEST(GgufSplit, WrongNumberInAPart) {
  SplitModel model;
  model.write(1, part_writer(2, 3, 3).tensor_f32("b", {1}, {20}));
  const auto opened = ModelFile::open(model.path(0));
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().text(),
              AllOf(HasSubstr(model.path(1)), HasSubstr("split.no"), HasSubstr("expected 1")));
}

TEST(GgufSplit, WrongCountInAPart) {
  SplitModel model;
  model.write(2, part_writer(2, 4, 3).tensor_f32("c", {1}, {30}));
  const auto opened = ModelFile::open(model.path(0));
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().text(),
              AllOf(HasSubstr(model.path(2)), HasSubstr("split.count"), HasSubstr("4")));
}

TEST(GgufSplit, WrongNumberOfTensors) {
  SplitModel model;
  model.write(2, part_writer(2, 3, 3).tensor_f32("c", {1}, {30}).tensor_f32("d", {1}, {40}));
  const auto opened = ModelFile::open(model.path(0));
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().text(),
              AllOf(HasSubstr("split.tensors.count"), HasSubstr("is 3"), HasSubstr("4 tensors")));
}

TEST(GgufSplit, TensorInTwoParts) {
  SplitModel model;
  model.write(2, part_writer(2, 3, 3).tensor_f32("a", {1}, {30}));
  const auto opened = ModelFile::open(model.path(0));
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().text(), AllOf(HasSubstr("'a'"), HasSubstr("twice")));
}

TEST(GgufSplit, ARenamedPartSaysHowItMustBeCalled) {
  const TempDir dir;
  const auto path =
      dir.write("renamed.gguf", part_writer(0, 3, 3).tensor_f32("a", {1}, {1}).bytes());
  const auto opened = ModelFile::open(path);
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().text(),
              AllOf(HasSubstr(path), HasSubstr("split.count"), HasSubstr("-00001-of-0000N.gguf")));
}

TEST(GgufSplit, OnePartOfOneNeedsNoKeys) {
  const TempDir dir;
  const auto path =
      dir.write("m-00001-of-00001.gguf", GgufWriter().tensor_f32("a", {1}, {1}).bytes());
  const auto opened = ModelFile::open(path);
  ASSERT_TRUE(opened) << opened.error().text();
}

TEST(GgufSplit, NamesAreRecognisedExactly) {
  const auto name = parse_split_name("/x/NAME-00002-of-00010.gguf");
  ASSERT_TRUE(name);
  EXPECT_EQ(name->stem, "/x/NAME");
  EXPECT_EQ(name->no, 2u);
  EXPECT_EQ(name->count, 10u);
  EXPECT_EQ(split_part_path(name->stem, 3, 10), "/x/NAME-00003-of-00010.gguf");
  for (const char* other :
       {"NAME.gguf", "NAME-2-of-3.gguf", "NAME-00000-of-00003.gguf", "NAME-00004-of-00003.gguf",
        "NAME-00001-of-00003", "-00001-of-00003.gguf", "NAME-0000x-of-00003.gguf", ""}) {
    EXPECT_FALSE(parse_split_name(other)) << other;
  }
}

TEST(GgufSplit, AbsurdPartCountIsRefused) {
  const TempDir dir;
  const auto path = dir.write("m-00001-of-99999.gguf", GgufWriter().bytes());
  const auto opened = ModelFile::open(path);
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().text(), HasSubstr("99999"));
}

} // namespace
} // namespace pinhole
