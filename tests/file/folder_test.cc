// Folders: Hugging Face models and their side files, folders of GGUFs, and the choice of a
// projector.
#include "file/model_file.h"
#include "support/temp_dir.h"
#include "support/write_gguf.h"
#include "support/write_safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pinhole {
namespace {

using namespace pinhole::testing;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string one_tensor(std::string_view name) {
  return SafetensorsWriter().tensor(name, "F32", {1}, "abcd").bytes();
}
std::string one_gguf(const std::string& name) {
  return GgufWriter().tensor_f32(name, {1}, {1}).bytes();
}

TEST(HfFolder, ReadsWhatLiesBesideTheWeights) {
  const TempDir dir;
  dir.write("config.json", R"({"model_type":"toy","hidden_size":8})");
  dir.write("preprocessor_config.json", R"({"patch_size":14})");
  dir.write("processor_config.json", R"({"image_seq_length":16})");
  dir.write("generation_config.json", R"({"eos_token_id":[1,2]})");
  dir.write("tokenizer_config.json", R"({"chat_template":"from tokenizer"})");
  dir.write("tokenizer.json", R"({"model":{}})");
  dir.write("model.safetensors", one_tensor("w"));
  const auto model = ModelFile::open(dir.path());
  ASSERT_TRUE(model) << model.error().text();
  EXPECT_EQ(model->container(), Container::kHuggingFace);
  EXPECT_EQ(json_int(model->config(), "hidden_size", "").value(), 8);
  EXPECT_EQ(json_int(model->preprocessor_config(), "patch_size", "").value(), 14);
  EXPECT_EQ(json_int(model->processor_config(), "image_seq_length", "").value(), 16);
  EXPECT_EQ(model->generation_config()["eos_token_id"].size(), 2u);
  EXPECT_EQ(model->tokenizer_json(), R"({"model":{}})");
  EXPECT_EQ(model->chat_template(), "from tokenizer");
  ASSERT_NE(model->find("w"), nullptr);
  EXPECT_EQ(as_text({model->find("w")->data, 4}), "abcd");
  EXPECT_TRUE(model->gguf().entries().empty());
}

TEST(HfFolder, SideFilesMayBeAbsent) {
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("consolidated.safetensors", one_tensor("w")); // any single file
  const auto model = ModelFile::open(dir.path());
  ASSERT_TRUE(model) << model.error().text();
  EXPECT_TRUE(model->preprocessor_config().is_null());
  EXPECT_TRUE(model->generation_config().is_null());
  EXPECT_FALSE(model->tokenizer_json());
  EXPECT_FALSE(model->chat_template());
}

TEST(HfFolder, ChatTemplateComesFromTheFirstPlaceThatHasOne) {
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("model.safetensors", one_tensor("w"));
  dir.write(
      "tokenizer_config.json",
      R"({"chat_template":[{"name":"rag","template":"R"},{"name":"default","template":"D"}]})");
  EXPECT_EQ(ModelFile::open(dir.path()).value().chat_template(), "D");
  dir.write("chat_template.json", R"({"chat_template":"J"})");
  EXPECT_EQ(ModelFile::open(dir.path()).value().chat_template(), "J");
  dir.write("chat_template.jinja", "line 1\nline 2\n");
  EXPECT_EQ(ModelFile::open(dir.path()).value().chat_template(), "line 1\nline 2\n");
}

TEST(HfFolder, PictureSettingsInsideTheProcessorConfig) {
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("model.safetensors", one_tensor("w"));
  dir.write("processor_config.json", R"({"image_processor":{"patch_size":16}})");
  const auto model = ModelFile::open(dir.path());
  ASSERT_TRUE(model) << model.error().text();
  EXPECT_EQ(json_int(model->preprocessor_config(), "patch_size", "").value(), 16);
}

TEST(HfFolder, BrokenSideFileIsNamed) {
  for (const char* name : {"config.json", "preprocessor_config.json", "generation_config.json",
                           "tokenizer_config.json", "chat_template.json"}) {
    for (const char* text : {"{\"a\":", "[1]", "", "\"text\""}) {
      const TempDir dir;
      dir.write("config.json", "{}");
      dir.write("model.safetensors", one_tensor("w"));
      dir.write(name, text);
      const auto model = ModelFile::open(dir.path());
      ASSERT_FALSE(model) << name << " " << text;
      EXPECT_THAT(model.error().text(), HasSubstr(dir.file(name)));
    }
  }
}

TEST(HfFolder, Shards) {
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("model.safetensors.index.json",
            R"({"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}})");
  dir.write("m-1.safetensors", one_tensor("a"));
  const auto without = ModelFile::open(dir.path());
  ASSERT_FALSE(without);
  EXPECT_THAT(without.error().text(),
              AllOf(HasSubstr("m-2.safetensors"), HasSubstr("1 of 2 shards are missing")));
  dir.write("m-2.safetensors", one_tensor("b"));
  const auto model = ModelFile::open(dir.path());
  ASSERT_TRUE(model) << model.error().text();
  EXPECT_EQ(model->parts().size(), 2u);
  EXPECT_EQ(model->find("b")->part, 1u);
  EXPECT_EQ(model->mapped_bytes(), one_tensor("a").size() + one_tensor("b").size());
}

TEST(HfFolder, ShardsThatDisagreeWithTheIndex) {
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("m-1.safetensors", one_tensor("a"));
  dir.write("m-2.safetensors", one_tensor("b"));
  const auto error_with = [&](const std::string& map) {
    dir.write("model.safetensors.index.json", "{\"weight_map\":" + map + "}");
    const auto model = ModelFile::open(dir.path());
    return model ? "no error" : model.error().text();
  };
  EXPECT_THAT(error_with(R"({"a":"m-1.safetensors","b":"m-2.safetensors","c":"m-2.safetensors"})"),
              AllOf(HasSubstr("index.json"), HasSubstr("'c'"), HasSubstr("m-2.safetensors")));
  EXPECT_THAT(error_with(R"({"b":"m-1.safetensors","a":"m-2.safetensors"})"),
              AllOf(HasSubstr("'b'"), HasSubstr("m-1.safetensors"), HasSubstr("m-2.safetensors")));
  EXPECT_THAT(error_with(R"({"a":"../m-1.safetensors"})"), HasSubstr("../m-1.safetensors"));
  dir.write("m-2.safetensors", one_tensor("a"));
  EXPECT_THAT(error_with(R"({"a":"m-1.safetensors","b":"m-2.safetensors"})"),
              AllOf(HasSubstr("'a'"), HasSubstr("twice")));
}

TEST(HfFolder, MissingPartsOfAModelAreNamed) {
  const TempDir dir;
  EXPECT_THAT(ModelFile::open(dir.path()).error().text(),
              AllOf(HasSubstr(dir.path()), HasSubstr("config.json"), HasSubstr(".gguf")));
  dir.write("model.safetensors", one_tensor("w"));
  EXPECT_THAT(ModelFile::open(dir.path()).error().text(), HasSubstr("config.json is missing"));
  std::filesystem::remove(dir.file("model.safetensors"));
  dir.write("config.json", "{}");
  EXPECT_THAT(ModelFile::open(dir.path()).error().text(),
              AllOf(HasSubstr("no weights"), HasSubstr("model.safetensors.index.json")));
  dir.write("pytorch_model.bin", "pickle");
  EXPECT_THAT(ModelFile::open(dir.path()).error().text(), HasSubstr("pytorch_model.bin"));
  dir.write("a.safetensors", one_tensor("w"));
  dir.write("b.safetensors", one_tensor("v"));
  EXPECT_THAT(ModelFile::open(dir.path()).error().text(),
              AllOf(HasSubstr("2 .safetensors"), HasSubstr("index.json")));
  EXPECT_THAT(ModelFile::open(dir.file("nothing")).error().text(), HasSubstr(dir.file("nothing")));
  EXPECT_THAT(ModelFile::open(dir.file("config.json")).error().text(), HasSubstr("folder"));
}

TEST(HfFolder, HostileConfigIsRefused) {
  const TempDir dir;
  dir.write("model.safetensors", one_tensor("w"));
  std::string wide = "{\"a\":[0";
  for (int i = 0; i < 400000; ++i)
    wide += ",0";
  dir.write("config.json", wide + "]}");
  EXPECT_THAT(ModelFile::open(dir.path()).error().text(), HasSubstr("values"));
  dir.write("config.json", std::string(5000, '['));
  EXPECT_THAT(ModelFile::open(dir.path()).error().text(), HasSubstr("nested"));
}

TEST(GgufFolder, OneModelOpensSeveralAreListed) {
  const TempDir dir;
  dir.write("mmproj-toy-f16.gguf", one_gguf("projector"));
  EXPECT_THAT(ModelFile::open(dir.path()).error().text(),
              AllOf(HasSubstr("mmproj-toy-f16.gguf"), HasSubstr("projector")));
  dir.write("toy-q4_0.gguf", one_gguf("text"));
  const auto model = ModelFile::open(dir.path());
  ASSERT_TRUE(model) << model.error().text();
  EXPECT_EQ(model->container(), Container::kGguf);
  EXPECT_NE(model->find("text"), nullptr);
  EXPECT_EQ(model->path(), dir.file("toy-q4_0.gguf")); // find_mmproj starts from it
  dir.write("toy-q8_0.gguf", one_gguf("text"));
  EXPECT_THAT(
      ModelFile::open(dir.path()).error().text(),
      AllOf(HasSubstr("toy-q4_0.gguf"), HasSubstr("toy-q8_0.gguf"), Not(HasSubstr("mmproj"))));
}

TEST(GgufFolder, AConfigWithoutSafetensorsDoesNotHideTheGguf) {
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("toy.gguf", one_gguf("text"));
  const auto model = ModelFile::open(dir.path());
  ASSERT_TRUE(model) << model.error().text();
  EXPECT_EQ(model->container(), Container::kGguf);
}

struct Choice {
  const char* model;
  std::vector<const char*> projectors;
  const char* expected; // null: an error
};
void PrintTo(const Choice& choice, std::ostream* out) { *out << choice.model; }
class FindMmproj : public ::testing::TestWithParam<Choice> {};

TEST_P(FindMmproj, Chooses) {
  const TempDir dir;
  const std::string model = dir.write(GetParam().model, "GGUF");
  for (const char* name : GetParam().projectors)
    dir.write(name, "GGUF");
  const auto found = find_mmproj(model);
  if (GetParam().expected == nullptr) {
    ASSERT_FALSE(found);
    for (const char* name : GetParam().projectors) {
      EXPECT_THAT(found.error().text(), HasSubstr(name));
    }
    return;
  }
  ASSERT_TRUE(found) << found.error().text();
  ASSERT_TRUE(*found);
  EXPECT_EQ(**found, dir.file(GetParam().expected));
}

INSTANTIATE_TEST_SUITE_P(
    Names, FindMmproj,
    ::testing::Values(
        // one is taken whatever its name
        Choice{"Qwen3-VL-2B-Instruct-Q4_K_M.gguf", {"mmproj-F16.gguf"}, "mmproj-F16.gguf"},
        Choice{"a.gguf", {"vision.MMPROJ.gguf"}, "vision.MMPROJ.gguf"},
        // the one that is named after the model
        Choice{"gemma-3-4b-it-Q4_K_M.gguf",
               {"mmproj-gemma-3-12b-it-f16.gguf", "mmproj-gemma-3-4b-it-f16.gguf"},
               "mmproj-gemma-3-4b-it-f16.gguf"},
        Choice{"Qwen2.5-VL-7B-Instruct.Q4_K_M.gguf",
               {"Qwen2.5-VL-7B-Instruct.mmproj-f16.gguf", "Qwen2.5-VL-3B-Instruct.mmproj-f16.gguf"},
               "Qwen2.5-VL-7B-Instruct.mmproj-f16.gguf"},
        Choice{"Big-UD-Q4_K_XL-00001-of-00002.gguf",
               {"mmproj-Big-Q8_0.gguf", "mmproj-Other-F16.gguf"},
               "mmproj-Big-Q8_0.gguf"},
        Choice{"toy-q4_0.gguf",
               {"mmproj-toy-tall-f16.gguf", "mmproj-toy-f16.gguf"},
               "mmproj-toy-f16.gguf"},
        // one projector in several precisions
        Choice{"Qwen3-VL-2B-Q4_K_M.gguf",
               {"mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf"},
               "mmproj-F16.gguf"},
        Choice{
            "toy-f32.gguf", {"mmproj-toy-f16.gguf", "mmproj-toy-f32.gguf"}, "mmproj-toy-f32.gguf"},
        Choice{"toy-q8_0.gguf",
               {"mmproj-toy-f32.gguf", "mmproj-toy-q8_0.gguf"},
               "mmproj-toy-q8_0.gguf"},
        // nothing says which
        Choice{"toy-q4_0.gguf", {"mmproj-alpha-f16.gguf", "mmproj-beta-f16.gguf"}, nullptr},
        Choice{"toy-q4_0.gguf", {"mmproj-toy-a-f16.gguf", "mmproj-toy-b-f16.gguf"}, nullptr}));

TEST(FindMmprojAlone, NoneIsNoError) {
  const TempDir dir;
  const auto none = find_mmproj(dir.write("model.gguf", "GGUF"));
  ASSERT_TRUE(none) << none.error().text();
  EXPECT_FALSE(*none);
  // a projector has no projector
  dir.write("mmproj-a.gguf", "GGUF");
  const auto own = find_mmproj(dir.write("mmproj-b.gguf", "GGUF"));
  ASSERT_TRUE(own) << own.error().text();
  EXPECT_FALSE(*own);
}

} // namespace
} // namespace pinhole
