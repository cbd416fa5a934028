// Descriptions of the families from both containers: the same model whatever the spelling, and
// errors that name what is wrong and where.
#include "model/model.h"

#include "support/describe.h"
#include "support/write_gguf.h"

#include <gmock/gmock.h>
#include <map>
#include <set>

namespace pinhole {
namespace {

using ::testing::AllOf;
using testing::Described;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// The error of describing `path`; empty when it succeeds.
std::string problem(const std::string& path, const std::string& mmproj = {}) {
  const auto files = ModelFiles::open(path, mmproj);
  if (!files)
    return files.error().text();
  const auto model = describe_model(*files);
  return model ? "" : model.error().text();
}

// Everything about a graph that decides what it computes, the file's addresses aside.
std::string fingerprint(const Graph& g) {
  std::string out;
  const auto add = [&](const auto&... values) {
    ((out += std::to_string(values) + ' '), ...);
    out += '\n';
  };
  for (const Buffer& b : g.buffers())
    add(static_cast<int>(b.rows.symbol), b.rows.divide, b.rows.plus, b.cols, b.is_input,
        b.is_output);
  for (const Value& v : g.values())
    add(v.buffer, v.rows.divide, v.cols, v.stride, v.offset);
  for (const Weight& w : g.weights()) {
    out += w.tensor->name + ' ' + std::to_string(w.data - w.tensor->data) + ' ';
    add(w.rows, w.cols, w.row_stride_bytes, static_cast<int>(w.role), w.experts, w.transposed);
  }
  for (const Op& op : g.ops()) {
    add(static_cast<int>(op.kind), op.x, op.y, op.a, op.b, op.c, op.weight, op.bias, op.gate, op.up,
        op.down, static_cast<int>(op.activation), op.residual, op.eps, op.scale, op.group, op.heads,
        op.kv_heads, op.head_dim, op.rot_dim, op.top_k, op.layer, op.slot, op.add, op.renormalise,
        op.block, op.interleaved, op.growth, op.growth_step);
    for (const MatmulPart& part : op.parts)
      add(part.weight, part.bias, part.y);
    for (const float f : op.inv_freq)
      add(f * 1e6f);
    for (const uint8_t axis : op.axis)
      add(axis);
  }
  for (const Input& i : g.inputs())
    add(static_cast<int>(i.kind), i.value, i.parameter);
  for (const Graph::Output& o : g.outputs())
    out += o.name + ' ' + std::to_string(o.value) + '\n';
  return out;
}

class Families : public ::testing::TestWithParam<const char*> {
 protected:
  std::string folder() const { return testing::golden(std::string(GetParam()) + "/tiny"); }
};

// Those whose weights are in one file, which a test can rewrite.
class WholeFiles : public Families {};

TEST_P(Families, ConfigOfTransformers5GivesTheSameModel) {
  REQUIRE_GOLDEN();
  const auto old = Described::open(folder());
  const testing::ModelCopy copy(folder());
  copy.replace("config.json", testing::read_file(copy.file("config.transformers5.json")));
  const auto now = Described::open(copy.path());
  EXPECT_EQ(fingerprint(old->model.text), fingerprint(now->model.text));
  EXPECT_EQ(fingerprint(old->model.vision), fingerprint(now->model.vision));
  EXPECT_EQ(old->model.vocab_size, now->model.vocab_size);
  EXPECT_EQ(old->model.hidden_size, now->model.hidden_size);
  EXPECT_EQ(old->model.context_length, now->model.context_length);
  EXPECT_EQ(old->model.position_axes, now->model.position_axes);
  EXPECT_EQ(old->model.eos_token_ids, now->model.eos_token_ids);
  EXPECT_EQ(old->model.cache.layers, now->model.cache.layers);
  EXPECT_EQ(old->model.cache.kv_heads, now->model.cache.kv_heads);
  EXPECT_EQ(old->model.cache.head_dim, now->model.cache.head_dim);
  EXPECT_EQ(old->model.pictures->window_size_px, now->model.pictures->window_size_px);
}

TEST_P(Families, NumbersAreTheConfigs) {
  REQUIRE_GOLDEN();
  const Json config = testing::load_json(folder() + "/config.json");
  const Json& text = config.contains("text_config") ? config["text_config"] : config;
  const Json& vision = config["vision_config"];
  const auto described = Described::open(folder());
  const Model& model = described->model;
  EXPECT_EQ(model.family, GetParam());
  EXPECT_EQ(model.hidden_size, text["hidden_size"]);
  EXPECT_EQ(model.vocab_size, text["vocab_size"]);
  EXPECT_EQ(model.context_length, text["max_position_embeddings"]);
  EXPECT_EQ(model.cache.layers, text["num_hidden_layers"]);
  EXPECT_EQ(model.cache.kv_heads, text["num_key_value_heads"]);
  EXPECT_EQ(model.cache.head_dim,
            text.value("head_dim", text["hidden_size"].get<int64_t>() /
                                       text["num_attention_heads"].get<int64_t>()));
  EXPECT_EQ(model.position_axes, 3);
  ASSERT_TRUE(model.pictures);
  EXPECT_EQ(model.pictures->patch_size, vision["patch_size"]);
  EXPECT_EQ(model.pictures->merge_size, vision["spatial_merge_size"]);
  EXPECT_EQ(model.pictures->feature_size, text["hidden_size"]);
  EXPECT_EQ(model.pictures->feature_slots,
            1 + vision.value("deepstack_visual_indexes", Json::array()).size());
  const Json processor = testing::load_json(folder() + "/preprocessor_config.json");
  // The two spellings of the bounds.
  const Json& size = processor.contains("size") ? processor["size"] : processor;
  const bool edges = processor.contains("size");
  EXPECT_EQ(model.pictures->min_pixels, size[edges ? "shortest_edge" : "min_pixels"]);
  EXPECT_EQ(model.pictures->max_pixels, size[edges ? "longest_edge" : "max_pixels"]);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_FLOAT_EQ(model.pictures->mean[i], processor["image_mean"][i].get<float>());
    EXPECT_FLOAT_EQ(model.pictures->std[i], processor["image_std"][i].get<float>());
  }
}

TEST_P(Families, EveryTensorIsUsedOnce) {
  REQUIRE_GOLDEN();
  const auto described = Described::open(folder());
  EXPECT_THAT(described->model.unused_tensors, IsEmpty());
  uint64_t bytes = 0;
  for (const Tensor& tensor : described->files.text.tensors())
    bytes += tensor.bytes;
  EXPECT_EQ(described->model.weight_bytes, bytes);
}

TEST_P(WholeFiles, EachMissingTensorIsNamed) {
  REQUIRE_GOLDEN();
  const auto whole = Described::open(folder());
  for (const Tensor& tensor : whole->files.text.tensors()) {
    const testing::ModelCopy copy(folder());
    copy.edit_safetensors("model.safetensors", [&](Json& header) {
      header["other"] = header[tensor.name]; // the bytes must stay accounted for
      header.erase(tensor.name);
    });
    const std::string text = problem(copy.path());
    EXPECT_THAT(text, AllOf(HasSubstr("missing"), HasSubstr(copy.path())));
    // A fused or renamed spelling may stand in the message; the module's last part is in each.
    const size_t dot = tensor.name.rfind('.', tensor.name.rfind('.') - 1);
    EXPECT_THAT(text, HasSubstr(tensor.name.substr(dot + 1))) << tensor.name;
  }
}

TEST_P(WholeFiles, EachWrongShapeIsNamed) {
  REQUIRE_GOLDEN();
  const auto whole = Described::open(folder());
  for (const Tensor& tensor : whole->files.text.tensors()) {
    // The same bytes as one row more of half the width (matrices), or half as many (vectors).
    const testing::ModelCopy copy(folder());
    copy.edit_safetensors("model.safetensors", [&](Json& header) {
      Json& row = header[tensor.name];
      if (row["shape"].size() == 1) {
        row["shape"] = {row["shape"][0].get<int64_t>() / 2, 2};
      } else {
        const auto rows = row["shape"][0].get<int64_t>();
        row["shape"] = {2 * rows, tensor.elements() / rows / 2};
      }
    });
    EXPECT_THAT(problem(copy.path()),
                AllOf(HasSubstr(tensor.name), HasSubstr("shape"), HasSubstr("expected")))
        << tensor.name;
  }
}

TEST_P(Families, UnusableNumbersAreErrors) {
  REQUIRE_GOLDEN();
  const Json config = testing::load_json(folder() + "/config.json");
  const bool nested = config.contains("text_config");
  const auto expect_error = [&](bool vision, const char* key, const Json& value) {
    const testing::ModelCopy copy(folder());
    copy.edit_json("config.json", [&](Json& json) {
      Json& part = vision ? json["vision_config"] : nested ? json["text_config"] : json;
      part[key] = value;
    });
    const std::string text = problem(copy.path());
    EXPECT_THAT(text, HasSubstr(key)) << value.dump();
    EXPECT_THAT(text, HasSubstr("config.json")) << key << " " << value.dump();
  };
  for (const char* key : {"hidden_size", "num_attention_heads", "num_key_value_heads",
                          "num_hidden_layers", "vocab_size"}) {
    for (const Json& value : {Json(0), Json(-1), Json(int64_t{1} << 40), Json("64"), Json(1.5)})
      expect_error(false, key, value);
  }
  for (const char* key :
       {"hidden_size", "num_heads", "depth", "patch_size", "spatial_merge_size"}) {
    for (const Json& value : {Json(0), Json(-1), Json(int64_t{1} << 40), Json("64"), Json(1.5)})
      expect_error(true, key, value);
  }
  // Heads that do not fall into groups.
  expect_error(false, "num_key_value_heads", 3 * 7);
}

TEST_P(Families, MissingNumbersAreErrors) {
  REQUIRE_GOLDEN();
  const bool nested = testing::load_json(folder() + "/config.json").contains("text_config");
  for (const char* key : {"hidden_size", "num_attention_heads", "num_hidden_layers"}) {
    const testing::ModelCopy copy(folder());
    copy.edit_json("config.json",
                   [&](Json& json) { (nested ? json["text_config"] : json).erase(key); });
    EXPECT_THAT(problem(copy.path()), AllOf(HasSubstr(key), HasSubstr("missing")));
  }
  const testing::ModelCopy copy(folder());
  copy.edit_json("config.json", [](Json& json) { json.erase("vision_config"); });
  EXPECT_THAT(problem(copy.path()), AllOf(HasSubstr("vision_config"), HasSubstr("missing")));
}

INSTANTIATE_TEST_SUITE_P(Family, Families,
                         ::testing::Values("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl"));

INSTANTIATE_TEST_SUITE_P(Family, WholeFiles, ::testing::Values("qwen3_vl", "qwen2_5_vl", "gemma3"));

TEST(DescribeModel, UnknownFamilyListsTheKnownOnes) {
  REQUIRE_GOLDEN();
  const testing::ModelCopy copy(testing::golden("qwen3_vl/tiny"));
  copy.edit_json("config.json", [](Json& json) { json["model_type"] = "llava_next"; });
  const auto files = testing::take(ModelFiles::open(copy.path()));
  const auto model = describe_model(files);
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(model.error().text(), AllOf(HasSubstr("llava_next"), HasSubstr("qwen3_vl"),
                                          HasSubstr("qwen2_5_vl"), HasSubstr(copy.path())));
}

TEST(DescribeModel, ConfigWithoutTypeIsAnError) {
  REQUIRE_GOLDEN();
  const testing::ModelCopy copy(testing::golden("qwen3_vl/tiny"));
  copy.edit_json("config.json", [](Json& json) { json.erase("model_type"); });
  EXPECT_THAT(problem(copy.path()), AllOf(HasSubstr("model_type"), HasSubstr("config.json")));
}

TEST(DescribeModel, TiedEmbeddingsNeedNoHead) {
  REQUIRE_GOLDEN();
  const auto head_tensor = [](const Described& described) {
    const Graph& g = described.model.text;
    return g.weight(g.ops().back().parts.front().weight).tensor->name;
  };
  // Whichever of the two configs says so, when the file has no lm_head.
  for (const auto& [outer, inner] : {std::pair(true, true), {true, false}, {false, true}}) {
    const testing::ModelCopy copy(testing::golden("qwen3_vl/tiny"));
    copy.edit_json("config.json", [&, o = outer, i = inner](Json& json) {
      json["tie_word_embeddings"] = o;
      json["text_config"]["tie_word_embeddings"] = i;
    });
    copy.edit_safetensors("model.safetensors", [](Json& header) {
      header["other"] = header["lm_head.weight"];
      header.erase("lm_head.weight");
    });
    EXPECT_THAT(head_tensor(*Described::open(copy.path())), HasSubstr("embed_tokens"));
  }
  EXPECT_EQ(head_tensor(*Described::open(testing::golden("qwen3_vl/tiny"))), "lm_head.weight");
}

TEST(DescribeModel, ProjectorAloneSaysWhatItIs) {
  REQUIRE_GOLDEN();
  EXPECT_THAT(problem(testing::golden("gguf/qwen3_vl/mmproj-qwen3_vl-f16.gguf"),
                      testing::golden("gguf/qwen3_vl/mmproj-qwen3_vl-f16.gguf")),
              HasSubstr("projector"));
}

TEST(DescribeModel, ProjectorOfAnotherModelIsRefused) {
  REQUIRE_GOLDEN();
  const std::string text = testing::golden("gguf/qwen3_vl/qwen3_vl-f32.gguf");
  for (const char* other : {"qwen2_5_vl", "gemma3", "internvl"}) {
    const std::string mmproj =
        testing::golden(std::string("gguf/") + other + "/mmproj-" + other + "-f32.gguf");
    const std::string error = problem(text, mmproj);
    EXPECT_THAT(error, AllOf(HasSubstr("qwen3vl_merger"), HasSubstr(mmproj))) << other;
  }
  // The right kind of projector, but for a text model of another width.
  const std::string wide = testing::golden("gguf/qwen3_vl/mmproj-qwen3_vl-f32.gguf");
  EXPECT_THAT(problem(testing::golden("gguf/qwen3_vl_moe/qwen3_vl_moe-f32.gguf"), wide),
              AllOf(HasSubstr("256"), HasSubstr("128"), HasSubstr(wide), HasSubstr("--mmproj")));
}

TEST(DescribeModel, GgufWithoutProjectorReadsTextOnly) {
  REQUIRE_GOLDEN();
  const testing::TempDir folder;
  std::filesystem::copy(testing::golden("gguf/qwen3_vl/qwen3_vl-q4_0.gguf"), folder.path());
  const auto described = Described::open(folder.file("qwen3_vl-q4_0.gguf"));
  EXPECT_FALSE(described->model.pictures);
  EXPECT_THAT(described->model.vision.ops(), IsEmpty());
}

// GGUF and folder hold the same model: the same ops on weights of the same shapes.
class BothContainers : public ::testing::TestWithParam<const char*> {};

TEST_P(BothContainers, CacheAndShapesAgree) {
  REQUIRE_GOLDEN();
  const std::string family = GetParam();
  const std::string folder = testing::golden("gguf/" + family);
  const auto gguf = Described::open(folder + "/" + family + "-f32.gguf",
                                    folder + "/mmproj-" + family + "-f32.gguf");
  const Json config = testing::load_json(folder + "/hf/config.json");
  const Json& text = config.contains("text_config") ? config["text_config"] : config;
  EXPECT_EQ(gguf->model.family, config["model_type"]);
  EXPECT_EQ(gguf->model.hidden_size, text["hidden_size"]);
  EXPECT_EQ(gguf->model.vocab_size, text["vocab_size"]);
  EXPECT_EQ(gguf->model.cache.layers, text["num_hidden_layers"]);
  EXPECT_EQ(gguf->model.cache.kv_heads, text["num_key_value_heads"]);
  EXPECT_EQ(gguf->model.pictures->patch_size, config["vision_config"]["patch_size"]);
  EXPECT_EQ(gguf->model.pictures->merge_size, config["vision_config"]["spatial_merge_size"]);
  EXPECT_EQ(gguf->model.eos_token_ids.front(), text["eos_token_id"]);
  EXPECT_THAT(gguf->model.unused_tensors, IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Family, BothContainers,
                         ::testing::Values("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl"));

TEST(DescribeModel, GgufErrorsNameTheKey) {
  const testing::TempDir folder;
  const auto write = [&](const std::function<void(testing::GgufWriter&)>& change) {
    testing::GgufWriter w;
    w.key_string("general.architecture", "qwen3vl");
    change(w);
    w.tensor_f32("token_embd.weight", {8, 4}, std::vector<float>(32));
    return problem(folder.write("a.gguf", w.bytes()));
  };
  EXPECT_THAT(write([](auto&) {}), AllOf(HasSubstr("embedding_length"), HasSubstr("a.gguf")));
  EXPECT_THAT(write([](auto& w) {
                w.template key<uint32_t>("qwen3vl.embedding_length", testing::kTypeU32, 8)
                    .template key<uint32_t>("qwen3vl.block_count", testing::kTypeU32, 1)
                    .template key<uint32_t>("qwen3vl.attention.head_count", testing::kTypeU32, 0);
              }),
              AllOf(HasSubstr("head_count"), HasSubstr("0"), HasSubstr("a.gguf")));
  EXPECT_THAT(write([](auto& w) {
                w.template key<uint32_t>("qwen3vl.embedding_length", testing::kTypeU32, 8)
                    .template key<uint32_t>("qwen3vl.block_count", testing::kTypeU32, 1u << 31);
              }),
              AllOf(HasSubstr("block_count"), HasSubstr("2147483648")));
  // Architecture of no family here, and none at all.
  testing::GgufWriter other;
  other.key_string("general.architecture", "mamba");
  EXPECT_THAT(problem(folder.write("b.gguf", other.bytes())),
              AllOf(HasSubstr("mamba"), HasSubstr("qwen3vl"), HasSubstr("b.gguf")));
  EXPECT_THAT(problem(folder.write("c.gguf", testing::GgufWriter().bytes())),
              AllOf(HasSubstr("general.architecture"), HasSubstr("c.gguf")));
}

} // namespace
} // namespace pinhole
