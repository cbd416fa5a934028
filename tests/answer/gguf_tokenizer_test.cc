// The tokenizer of a model file: a GGUF and a folder of the same model agree, and what is missing
// or wrong is named.
#include "answer/gguf_tokenizer.h"

#include "support/golden.h"
#include "support/temp_dir.h"
#include "support/write_gguf.h"

#include <gmock/gmock.h>

namespace pinhole {
namespace {

using testing::golden;
using ::testing::HasSubstr;
using testing::take;

class SameModel : public ::testing::TestWithParam<const char*> {};

TEST_P(SameModel, GgufAndFolderAgree) {
  REQUIRE_GOLDEN();
  const std::string name = GetParam();
  const std::string folder = golden("gguf/" + name + "/hf");
  const ModelFile gguf = take(ModelFile::open(golden("gguf/" + name + "/" + name + "-f32.gguf")));
  const Tokenizer from_gguf = take(tokenizer_from_model(gguf));
  const Tokenizer from_json =
      take(Tokenizer::from_json(take(read_text_file(folder + "/tokenizer.json", 1u << 24)),
                                take(read_json_file(folder + "/tokenizer_config.json")), folder));
  EXPECT_EQ(from_gguf.eos(), from_json.eos());
  EXPECT_EQ(from_gguf.adds_bos(), from_json.adds_bos());
  for (const char* prompt :
       {"Describe the image.", "  two  spaces\n\n",
        "1234567 don't, \u043f\u0440\u0438\u0432\u0435\u0442 \u4f60\u597d \U0001F600",
        "<|im_start|>user\n<bos>[INST] hi [/INST]</s><end_of_turn>"}) {
    for (const bool special : {false, true}) {
      const std::vector<TokenId> ids = from_gguf.encode(prompt, special, true);
      EXPECT_EQ(ids, from_json.encode(prompt, special, true)) << prompt;
      for (const TokenId id : ids) {
        EXPECT_EQ(from_gguf.piece(id), from_json.piece(id));
        EXPECT_EQ(from_gguf.is_special(id), from_json.is_special(id));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, SameModel,
                         ::testing::Values("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl", "gemma3",
                                           "internvl", "mistral3"));

TEST(TokenizerFromModel, FolderWithoutTokenizerIsAnError) {
  REQUIRE_GOLDEN();
  const testing::ModelCopy copy(golden("qwen3_vl/tiny"));
  copy.remove("tokenizer.json");
  const auto tokenizer = tokenizer_from_model(take(ModelFile::open(copy.path())));
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(tokenizer.error().text(), HasSubstr("tokenizer.json"));
  EXPECT_THAT(tokenizer.error().text(), HasSubstr(copy.path()));
}

TEST(TokenizerFromModel, DamagedTokenizerIsAnErrorThatNamesTheFile) {
  REQUIRE_GOLDEN();
  const testing::ModelCopy copy(golden("qwen3_vl/tiny"));
  copy.replace("tokenizer.json", "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0");
  const auto tokenizer = tokenizer_from_model(take(ModelFile::open(copy.path())));
  ASSERT_FALSE(tokenizer);
  EXPECT_THAT(tokenizer.error().text(), HasSubstr(copy.path() + "/tokenizer.json"));
  EXPECT_THAT(tokenizer.error().text(), HasSubstr("not valid JSON"));
}

TEST(TokenizerFromModel, WrongMetadataIsAnErrorThatNamesTheKey) {
  const testing::TempDir folder;
  const auto error_of = [&](testing::GgufWriter& writer) {
    const std::string path = folder.write("m.gguf", writer.bytes());
    const auto tokenizer = tokenizer_from_model(take(ModelFile::open(path)));
    EXPECT_FALSE(tokenizer);
    return tokenizer ? std::string() : tokenizer.error().text();
  };
  testing::GgufWriter without;
  without.key_string("general.architecture", "qwen3vl");
  EXPECT_THAT(error_of(without), HasSubstr("tokenizer.ggml.model"));
  testing::GgufWriter numbers;
  numbers.key_string("tokenizer.ggml.model", "gpt2").key_string("tokenizer.ggml.pre", "qwen2");
  numbers.key_array<uint32_t>("tokenizer.ggml.tokens", testing::kTypeU32, {1, 2, 3});
  EXPECT_THAT(error_of(numbers), HasSubstr("string"));
  testing::GgufWriter huge;
  huge.key_string("tokenizer.ggml.model", "gpt2").key_string("tokenizer.ggml.pre", "qwen2");
  huge.key_strings("tokenizer.ggml.tokens", {"a"});
  huge.key<uint64_t>("tokenizer.ggml.eos_token_id", testing::kTypeU64, uint64_t{1} << 40);
  EXPECT_THAT(error_of(huge), HasSubstr("eos_token_id"));
}

} // namespace
} // namespace pinhole
