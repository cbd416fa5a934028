// The reference files: every one opens, and holds the tensors and bytes that their makers wrote
// down.
#include "base/json.h"
#include "file/model_file.h"
#include "file/npy.h"
#include "support/golden.h"
#include "support/temp_dir.h"

#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pinhole {
namespace {

using namespace pinhole::testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kGolden = PINHOLE_GOLDEN_DIR;

TEST(GoldenFiles, EveryGgufOpens) {
  REQUIRE_GOLDEN();
  int count = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(kGolden)) {
    if (entry.path().extension() != ".gguf")
      continue;
    ++count;
    const auto model = ModelFile::open(entry.path().string());
    ASSERT_TRUE(model) << model.error().text();
    EXPECT_TRUE(model->gguf().string("general.architecture"));
    EXPECT_TRUE(model->other_tensors().empty());
    for (const Tensor& tensor : model->tensors())
      EXPECT_EQ(model->find(tensor.name), &tensor);
  }
  EXPECT_GE(count, 20);
}

TEST(GoldenFiles, EverySafetensorsFolderOpens) {
  REQUIRE_GOLDEN();
  int count = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(kGolden)) {
    if (entry.path().filename() != "config.json")
      continue;
    const std::string folder = entry.path().parent_path().string();
    if (entry.path().parent_path().filename() == "hf") { // the GGUF fixtures' configuration only
      EXPECT_THAT(ModelFile::open(folder).error().text(), HasSubstr("no weights"));
      continue;
    }
    ++count;
    const auto model = ModelFile::open(folder);
    ASSERT_TRUE(model) << model.error().text();
    EXPECT_TRUE(model->config().is_object());
    EXPECT_FALSE(model->tensors().empty());
  }
  EXPECT_GE(count, 11);
}

TEST(GoldenFiles, AllTypesHoldsTheBytesOfTheBinFiles) {
  REQUIRE_GOLDEN();
  const auto model = ModelFile::open(kGolden + "/dequant/all_types.gguf");
  ASSERT_TRUE(model) << model.error().text();
  const auto index = read_json_file(kGolden + "/dequant/index.json");
  ASSERT_TRUE(index) << index.error().text();
  const Json& entries = (*index)["entries"];
  EXPECT_EQ(model->tensors().size(), entries.size());
  for (const Json& entry : entries) {
    const std::string bin = entry["bin"];
    const Tensor* tensor = model->find(bin.substr(0, bin.size() - 4));
    ASSERT_NE(tensor, nullptr) << bin;
    EXPECT_EQ(format_info(tensor->format).name, entry["type"].get<std::string>());
    EXPECT_EQ(format_info(tensor->format).gguf_type, entry["ggml_type_id"].get<uint32_t>());
    EXPECT_THAT(tensor->shape,
                ElementsAre(entry["rows"].get<int64_t>(), entry["cols"].get<int64_t>()));
    EXPECT_EQ(as_text({tensor->data, tensor->bytes}), read_file(kGolden + "/dequant/" + bin))
        << bin;
  }
}

TEST(GoldenFiles, QuantisedModelsHaveTheTypesThatWereWrittenDown) {
  REQUIRE_GOLDEN();
  for (const char* name : {"f16", "q4_0", "q4_k", "q4_k_m", "q6_k", "q8_0"}) {
    const std::string stem = std::string("qwen3_vl-") + name;
    const auto model = ModelFile::open(kGolden + "/gguf/qwen3_vl/" + stem + ".gguf");
    ASSERT_TRUE(model) << model.error().text();
    const auto reference =
        read_json_file(kGolden + "/gguf/qwen3_vl/expected/" + stem + "/reference.json");
    ASSERT_TRUE(reference) << reference.error().text();
    const Json& types = (*reference)["tensor_types"];
    EXPECT_EQ(model->tensors().size(), types.size());
    for (const auto& [tensor_name, type] : types.items()) {
      const Tensor* tensor = model->find(tensor_name);
      ASSERT_NE(tensor, nullptr) << tensor_name;
      EXPECT_EQ(format_info(tensor->format).name, type.get<std::string>()) << tensor_name;
    }
    // First 3 rows of the embedding as the reference saw them: the shape is [vocab, hidden].
    const auto rows = NpyArray::open(kGolden + "/gguf/qwen3_vl/expected/" + stem +
                                     "/dequant_first3rows.token_embd.weight.npy");
    ASSERT_TRUE(rows) << rows.error().text();
    const Tensor* embed = model->find("token_embd.weight");
    EXPECT_EQ(embed->cols(), rows->shape[1]);
    EXPECT_EQ(embed->rows(), 512);
  }
}

TEST(GoldenFiles, MetadataOfAModel) {
  REQUIRE_GOLDEN();
  const auto model = ModelFile::open(kGolden + "/gguf/qwen3_vl/qwen3_vl-q4_k.gguf");
  ASSERT_TRUE(model) << model.error().text();
  const auto config = read_json_file(kGolden + "/gguf/qwen3_vl/hf/config.json");
  ASSERT_TRUE(config) << config.error().text();
  const Json& text = (*config)["text_config"];
  const GgufMeta& meta = model->gguf();
  EXPECT_EQ(meta.string("general.architecture").value(), "qwen3vl");
  EXPECT_EQ(meta.integer("qwen3vl.embedding_length").value(), text["hidden_size"].get<int64_t>());
  EXPECT_EQ(meta.integer("qwen3vl.block_count").value(), text["num_hidden_layers"].get<int64_t>());
  EXPECT_EQ(meta.integer("qwen3vl.attention.head_count_kv").value(),
            text["num_key_value_heads"].get<int64_t>());
  EXPECT_EQ(meta.array("qwen3vl.rope.dimension_sections").value()->integers().value().size(), 4u);
  EXPECT_EQ(meta.array("tokenizer.ggml.tokens").value()->strings().value()[0], "!");
  EXPECT_FALSE(meta.boolean_or("tokenizer.ggml.add_bos_token", true).value());
}

TEST(GoldenFiles, MixtureOfExpertsInFourShards) {
  REQUIRE_GOLDEN();
  const std::string folder = kGolden + "/qwen3_vl_moe/tiny";
  const auto model = ModelFile::open(folder);
  ASSERT_TRUE(model) << model.error().text();
  const auto index = read_json_file(folder + "/model.safetensors.index.json");
  ASSERT_TRUE(index) << index.error().text();
  EXPECT_EQ(model->parts().size(), 4u);
  const Json& map = (*index)["weight_map"];
  EXPECT_EQ(model->tensors().size(), map.size());
  uint64_t bytes = 0;
  for (const auto& [name, shard] : map.items()) {
    const Tensor* tensor = model->find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_THAT(model->parts()[tensor->part].path(), HasSubstr(shard.get<std::string>()));
    EXPECT_EQ(tensor->format, FormatId::kBF16);
    bytes += tensor->bytes;
  }
  EXPECT_EQ(bytes, (*index)["metadata"]["total_size"].get<uint64_t>());
}

TEST(GoldenFiles, SafetensorsShapesFollowTheConfig) {
  REQUIRE_GOLDEN();
  const auto model = ModelFile::open(kGolden + "/qwen3_vl/tiny");
  ASSERT_TRUE(model) << model.error().text();
  const Json& text = model->config()["text_config"];
  const Tensor* embed = model->find("model.language_model.embed_tokens.weight");
  ASSERT_NE(embed, nullptr);
  EXPECT_THAT(embed->shape,
              ElementsAre(text["vocab_size"].get<int64_t>(), text["hidden_size"].get<int64_t>()));
  EXPECT_TRUE(model->tokenizer_json());
  EXPECT_TRUE(model->preprocessor_config().is_object());
  EXPECT_TRUE(model->generation_config().is_object());
}

TEST(GoldenFiles, BitsAndBytesTensorsAreKeptAside) {
  REQUIRE_GOLDEN();
  const auto model = ModelFile::open(kGolden + "/bnb/bnb.safetensors");
  ASSERT_TRUE(model) << model.error().text();
  EXPECT_TRUE(model->config().is_null());
  const OtherTensor* packed = model->find_other("w0_nf4.weight");
  ASSERT_NE(packed, nullptr);
  EXPECT_EQ(packed->type, "U8");
  EXPECT_THAT(packed->shape, ElementsAre(48 * 80 / 2, 1)); // two values per byte
  const OtherTensor* state = model->find_other("w0_nf4.weight.quant_state.bitsandbytes__nf4");
  ASSERT_NE(state, nullptr);
  EXPECT_TRUE(parse_json(as_text({state->data, state->bytes}), "quant_state"));
  EXPECT_NE(model->find("w0_nf4.weight.absmax"), nullptr);
  EXPECT_EQ(model->find_other("w_int8.weight")->type, "I8");
}

TEST(GoldenFiles, ProjectorsAreFound) {
  REQUIRE_GOLDEN();
  const auto found = find_mmproj(kGolden + "/gguf/gemma3/gemma3-f32.gguf");
  ASSERT_TRUE(found) << found.error().text();
  EXPECT_EQ(*found, kGolden + "/gguf/gemma3/mmproj-gemma3-f32.gguf");
  const auto folder = ModelFile::open(kGolden + "/gguf/gemma3");
  ASSERT_TRUE(folder) << folder.error().text();
  EXPECT_NE(folder->find("token_embd.weight"), nullptr);
  EXPECT_THAT(ModelFile::open(kGolden + "/gguf/qwen3_vl").error().text(),
              HasSubstr("qwen3_vl-q4_k.gguf"));
}

} // namespace
} // namespace pinhole
