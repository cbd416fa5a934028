// The promise of few touches: a family is one file and one row, an element type one header and one
// row. This program holds the real sources with such a family and such a type added (see
// CMakeLists.txt beside it), and runs them against arithmetic in double.
#include "engine/session.h"
#include "kernels/select.h"
#include "model/family.h"
#include "quant/formats.h"
#include "support/temp_dir.h"
#include "support/write_gguf.h"
#include "support/write_safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace pinhole {
namespace {

namespace fs = std::filesystem;
using testing::GgufWriter;
using testing::SafetensorsWriter;
using testing::TempDir;

constexpr uint32_t kQuinaryType = 7005;

// --- the element type, from its definition ---

// Halves that f16 holds exactly.
constexpr std::pair<float, uint16_t> kScales[] = {
    {0.125f, 0x3000}, {0.25f, 0x3400}, {0.1875f, 0x3200}, {0.0625f, 0x2c00}};

// A matrix as written to a file and as the numbers that it stands for.
struct Matrix {
  int64_t rows = 0, cols = 0;
  std::string bytes; // QUINARY blocks; empty for plain f32
  std::vector<float> values;
  float at(int64_t r, int64_t c) const { return values[static_cast<size_t>(r * cols + c)]; }
};

Matrix quinary_matrix(int64_t rows, int64_t cols, std::mt19937& random) {
  Matrix m{rows, cols, {}, {}};
  for (int64_t block = 0; block < rows * cols / 64; ++block) {
    const auto [scale, bits] = kScales[random() % 4];
    std::string bytes(24, '\0');
    std::memcpy(bytes.data(), &bits, 2);
    constexpr int kPlace[] = {1, 5, 25};
    for (int i = 0; i < 64; ++i) {
      const int digit = static_cast<int>(random() % 5);
      auto& byte = bytes[static_cast<size_t>(2 + i / 3)];
      byte = static_cast<char>(static_cast<uint8_t>(byte) + digit * kPlace[i % 3]);
      m.values.push_back(scale * static_cast<float>(digit - 2));
    }
    m.bytes += bytes;
  }
  return m;
}

Matrix f32_row(int64_t n, float mean, std::mt19937& random) {
  std::normal_distribution<float> normal(mean, 0.3f);
  Matrix m{1, n, {}, {}};
  for (int64_t i = 0; i < n; ++i)
    m.values.push_back(normal(random));
  return m;
}

TEST(ToyType, IsFoundByNumberAndName) {
  ASSERT_TRUE(format_from_gguf_type(kQuinaryType));
  EXPECT_EQ(*format_from_gguf_type(kQuinaryType), FormatId::kQuinary);
  EXPECT_EQ(format_from_name("quinary"), FormatId::kQuinary);
  EXPECT_EQ(format_info(FormatId::kQuinary).name, "QUINARY");
  EXPECT_EQ(row_bytes(FormatId::kQuinary, 128), 48);
  EXPECT_EQ(format_from_gguf_type(12), FormatId::kQ4_K) << "the real rows are still there";
}

TEST(ToyType, Decodes) {
  std::mt19937 random(1);
  const Matrix m = quinary_matrix(3, 320, random);
  std::vector<float> own(m.values.size());
  decode_to_f32(FormatId::kQuinary, m.bytes.data(), own.data(), 3 * 320);
  EXPECT_EQ(own, m.values);
  std::fill(own.begin(), own.end(), -1.0f);
  (*kernels::find("scalar"))->decode(FormatId::kQuinary, m.bytes.data(), own.data(), 3 * 320);
  EXPECT_EQ(own, m.values);
}

class Aligned {
 public:
  explicit Aligned(int64_t bytes) : data_(static_cast<size_t>(bytes) + 64) {}
  void* get() {
    const auto address = reinterpret_cast<uintptr_t>(data_.data());
    return data_.data() + (64 - address % 64) % 64;
  }

 private:
  std::vector<std::byte> data_;
};

TEST(ToyType, MultipliesFewAndManyRows) {
  std::mt19937 random(2);
  const kernels::Table* table = *kernels::find("scalar");
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 7, 64}, {3, 33, 1088}, {40, 70, 192}}) {
    for (const bool exact : {true, false}) {
      const Matrix w = quinary_matrix(n, k, random);
      std::vector<float> x(static_cast<size_t>(m * k));
      std::normal_distribution<float> normal;
      std::generate(x.begin(), x.end(), [&] { return normal(random); });
      const kernels::MatmulKernel* kernel = table->matmul(FormatId::kQuinary, m, exact);
      Aligned packed(kernel->x_bytes(m, k));
      Aligned scratch(kernel->scratch_bytes(m, k));
      kernel->pack_x(x.data(), k, m, k, 0, m, packed.get());
      std::vector<float> y(static_cast<size_t>(m * n), NAN);
      kernels::MatmulArgs args{};
      args.x = packed.get();
      args.w = w.bytes.data();
      args.w_row_bytes = k / 64 * 24;
      args.y = y.data();
      args.y_stride = n;
      args.m = m;
      args.n = n;
      args.k = k;
      args.scratch = scratch.get();
      kernel->run(args);
      for (int64_t i = 0; i < m; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          double sum = 0;
          for (int64_t p = 0; p < k; ++p)
            sum += static_cast<double>(x[static_cast<size_t>(i * k + p)]) * w.at(j, p);
          ASSERT_NEAR(y[static_cast<size_t>(i * n + j)], sum, 2e-4)
              << kernel->name << " m " << m << " n " << n << " k " << k << " at " << i << ", " << j;
        }
      }
    }
  }
}

// --- the family ---

constexpr int64_t kHidden = 64, kFfn = 128, kHeads = 4, kVocab = 96, kLayers = 2;
constexpr int64_t kPatchElements = 192, kVisionSize = 64, kMerge = 4;

// One name for a tensor in both containers.
struct Spelling {
  std::string hf, gguf;
};

// The weights by their Hugging Face names.
using Weights = std::map<std::string, Matrix>;

std::string numbered(std::string pattern, int64_t layer) {
  if (const size_t at = pattern.find('#'); at != std::string::npos)
    pattern.replace(at, 1, std::to_string(layer));
  return pattern;
}

class ToyFamily : public ::testing::Test {
 protected:
  ToyFamily() : random_(7) {
    add("vision.patch_embed.weight", "v.patch_embd.weight", kVisionSize, kPatchElements);
    add_row("vision.patch_embed.bias", "v.patch_embd.bias", kVisionSize, 0);
    add("vision.project.weight", "mm.0.weight", kHidden, kMerge * kVisionSize);
    add("model.embed_tokens.weight", "token_embd.weight", kVocab, kHidden);
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const auto at = [layer](const char* pattern) { return numbered(pattern, layer); };
      add_row(at("model.layers.#.norm.weight"), at("blk.#.norm.weight"), kHidden, 1);
      add_row(at("model.layers.#.norm.bias"), at("blk.#.norm.bias"), kHidden, 0);
      add(at("model.layers.#.attn.qkv.weight"), at("blk.#.attn_qkv.weight"), 3 * kHidden, kHidden);
      add(at("model.layers.#.attn.out.weight"), at("blk.#.attn_out.weight"), kHidden, kHidden);
      add(at("model.layers.#.mlp.fc1.weight"), at("blk.#.ffn_up.weight"), kFfn, kHidden);
      add_row(at("model.layers.#.mlp.fc1.bias"), at("blk.#.ffn_up.bias"), kFfn, 0);
      add(at("model.layers.#.mlp.fc2.weight"), at("blk.#.ffn_down.weight"), kHidden, kFfn);
    }
    add_row("model.norm.weight", "output_norm.weight", kHidden, 1);
    add_row("model.norm.bias", "output_norm.bias", kHidden, 0);
    add("lm_head.weight", "output.weight", kVocab, kHidden);

    for (int i = 0; i < 8 * kPatchElements; ++i)
      patches_.push_back(std::uniform_real_distribution<float>(-1, 1)(random_));
    // Text, the picture's two tokens, text.
    for (const int32_t id : {5, 90, 17, 0, 0, 33, 8, 8, 61}) {
      PromptToken token;
      token.id = id;
      token.position[0] = static_cast<int32_t>(prompt_.size());
      if (prompt_.size() == 3 || prompt_.size() == 4)
        token.feature_row = static_cast<int32_t>(prompt_.size()) - 3;
      prompt_.push_back(token);
    }
  }

  void add(const std::string& hf, const std::string& gguf, int64_t rows, int64_t cols) {
    names_.push_back({hf, gguf});
    weights_[hf] = quinary_matrix(rows, cols, random_);
  }
  void add_row(const std::string& hf, const std::string& gguf, int64_t n, float mean) {
    names_.push_back({hf, gguf});
    weights_[hf] = f32_row(n, mean, random_);
  }

  // Text and projector as GGUF files, matrices as QUINARY.
  ModelFiles open_gguf() {
    GgufWriter text;
    text.key_string("general.architecture", "toyvl");
    const auto number = [&text](const char* key, int64_t value) {
      text.key(key, testing::kTypeU32, static_cast<uint32_t>(value));
    };
    number("toyvl.embedding_length", kHidden);
    number("toyvl.feed_forward_length", kFfn);
    number("toyvl.block_count", kLayers);
    number("toyvl.attention.head_count", kHeads);
    number("toyvl.context_length", 128);
    GgufWriter projector;
    projector.key_string("general.architecture", "clip");
    for (const Spelling& name : names_) {
      const Matrix& m = weights_[name.hf];
      GgufWriter& file = name.hf.starts_with("vision.") ? projector : text;
      const std::vector<uint64_t> dims =
          m.rows == 1
              ? std::vector<uint64_t>{static_cast<uint64_t>(m.cols)}
              : std::vector<uint64_t>{static_cast<uint64_t>(m.cols), static_cast<uint64_t>(m.rows)};
      if (m.bytes.empty())
        file.tensor_f32(name.gguf, dims, m.values);
      else
        file.tensor({name.gguf, dims, kQuinaryType, m.bytes, {}});
    }
    const std::string mmproj = folder_.write("mmproj-toy.gguf", projector.bytes());
    auto files = ModelFiles::open(folder_.write("toy.gguf", text.bytes()), mmproj);
    EXPECT_TRUE(files) << files.error().text();
    return std::move(*files);
  }

  // The same numbers as f32 in a Hugging Face folder.
  ModelFiles open_folder() {
    folder_.write("config.json",
                  R"({"model_type": "toy_vl", "hidden_size": 64, "intermediate_size": 128,
                      "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96,
                      "max_position_embeddings": 128})");
    SafetensorsWriter file;
    for (const Spelling& name : names_) {
      const Matrix& m = weights_[name.hf];
      file.tensor_f32(name.hf,
                      m.rows == 1 ? std::vector<int64_t>{m.cols}
                                  : std::vector<int64_t>{m.rows, m.cols},
                      m.values);
    }
    folder_.write("model.safetensors", file.bytes());
    auto files = ModelFiles::open(folder_.path());
    EXPECT_TRUE(files) << files.error().text();
    return std::move(*files);
  }

  // --- the reference: the family's definition in double ---

  using Rows = std::vector<std::vector<double>>;

  std::vector<double> apply(const std::string& name, const std::vector<double>& x) const {
    const Matrix& w = weights_.at(name + ".weight");
    const auto bias = weights_.find(name + ".bias");
    std::vector<double> y;
    for (int64_t r = 0; r < w.rows; ++r) {
      double sum = bias == weights_.end() ? 0.0 : bias->second.at(0, r);
      for (int64_t c = 0; c < w.cols; ++c)
        sum += x[static_cast<size_t>(c)] * w.at(r, c);
      y.push_back(sum);
    }
    return y;
  }
  std::vector<double> layer_norm(const std::string& name, const std::vector<double>& x) const {
    const auto n = static_cast<double>(x.size());
    double mean = 0, variance = 0;
    for (const double v : x)
      mean += v / n;
    for (const double v : x)
      variance += (v - mean) * (v - mean) / n;
    std::vector<double> y;
    for (size_t i = 0; i < x.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      y.push_back((x[i] - mean) / std::sqrt(variance + 1e-5) *
                      weights_.at(name + ".weight").at(0, at) +
                  weights_.at(name + ".bias").at(0, at));
    }
    return y;
  }
  static void add_to(std::vector<double>& x, const std::vector<double>& other) {
    for (size_t i = 0; i < x.size(); ++i)
      x[i] += other[i];
  }
  static double gelu_tanh(double x) {
    return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
  }
  static double gelu_erf(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }

  Rows picture_features() const {
    Rows features;
    for (size_t token = 0; token < 2; ++token) {
      std::vector<double> merged;
      for (size_t patch = 4 * token; patch < 4 * token + 4; ++patch) {
        const auto* begin = patches_.data() + patch * kPatchElements;
        for (const double v :
             apply("vision.patch_embed", std::vector<double>(begin, begin + kPatchElements)))
          merged.push_back(gelu_tanh(v));
      }
      features.push_back(apply("vision.project", merged));
    }
    return features;
  }

  // Rotates the pairs (i, i + 8) of one head of 16 numbers.
  static void rotate(double* head, size_t position) {
    for (size_t i = 0; i < 8; ++i) {
      const double angle = static_cast<double>(position) * std::pow(10000.0, -2.0 * i / 16.0);
      const double a = head[i], b = head[i + 8];
      head[i] = a * std::cos(angle) - b * std::sin(angle);
      head[i + 8] = b * std::cos(angle) + a * std::sin(angle);
    }
  }

  // Attention of the last row of q over all rows of k and v.
  static std::vector<double> attend(const std::vector<double>& q, const Rows& k, const Rows& v) {
    std::vector<double> out(kHidden, 0.0);
    for (size_t head = 0; head < kHidden; head += 16) {
      std::vector<double> weights;
      double sum = 0;
      for (const std::vector<double>& key : k) {
        double score = 0;
        for (size_t i = head; i < head + 16; ++i)
          score += q[i] * key[i];
        weights.push_back(std::exp(score / 4)); // sqrt(16)
        sum += weights.back();
      }
      for (size_t j = 0; j < v.size(); ++j)
        for (size_t i = head; i < head + 16; ++i)
          out[i] += weights[j] / sum * v[j][i];
    }
    return out;
  }

  Rows reference_logits(const std::vector<PromptToken>& prompt) const {
    const Rows features = picture_features();
    const Matrix& embedding = weights_.at("model.embed_tokens.weight");
    Rows x;
    for (const PromptToken& token : prompt) {
      if (token.feature_row >= 0) {
        x.push_back(features[static_cast<size_t>(token.feature_row)]);
        continue;
      }
      const auto* row = embedding.values.data() + token.id * kHidden;
      x.emplace_back(row, row + kHidden);
    }
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const std::string name = numbered("model.layers.#.", layer);
      Rows k, v;
      for (size_t i = 0; i < x.size(); ++i) {
        const std::vector<double> normed = layer_norm(name + "norm", x[i]);
        std::vector<double> qkv = apply(name + "attn.qkv", normed);
        for (size_t head = 0; head < 2 * kHidden; head += 16)
          rotate(qkv.data() + head, i);
        const auto part = [&qkv](size_t index) {
          const auto begin = qkv.begin() + static_cast<std::ptrdiff_t>(index * kHidden);
          return std::vector<double>(begin, begin + kHidden);
        };
        k.push_back(part(1));
        v.push_back(part(2));
        std::vector<double> hidden = apply(name + "mlp.fc1", normed);
        for (double& h : hidden)
          h = gelu_erf(h);
        add_to(x[i], apply(name + "attn.out", attend(part(0), k, v)));
        add_to(x[i], apply(name + "mlp.fc2", hidden));
      }
    }
    Rows logits;
    for (const std::vector<double>& row : x)
      logits.push_back(apply("lm_head", layer_norm("model.norm", row)));
    return logits;
  }

  // Describe, plan, reserve, run: every logit of the prompt, then one token more.
  void expect_reference(const ModelFiles& files, int threads) {
    const auto model = describe_model(files);
    ASSERT_TRUE(model) << model.error().text();
    EXPECT_EQ(model->family, "toy_vl");
    EXPECT_THAT(model->unused_tensors, ::testing::IsEmpty());
    KernelChoice kernels;
    kernels.table = *kernels::find("scalar");
    kernels.num_threads = threads;
    kernels.kv_type = kernels::KvType::kF32;
    RunShape shape;
    shape.context_tokens = 16;
    shape.chunk_tokens = 4; // the prompt crosses two borders of chunks
    shape.output_rows = 4;
    shape.max_patches = 8;
    shape.feature_tokens = 2;
    auto session = Session::create(*model, {shape, kernels});
    ASSERT_TRUE(session) << session.error().text();
    const auto encoded =
        (*session)->encode(Sha256Digest{1}, PatchGrid{2, 4, 2},
                           [&](int64_t begin, int64_t end, float* out) {
                             std::copy(patches_.begin() + begin * kPatchElements,
                                       patches_.begin() + end * kPatchElements, out);
                           },
                           {});
    ASSERT_TRUE(encoded) << encoded.error().text();
    ASSERT_EQ(encoded->tokens, 2);
    ASSERT_EQ(encoded->first_row, 0);

    std::vector<PromptToken> all = prompt_;
    PromptToken next;
    next.id = 44;
    next.position[0] = static_cast<int32_t>(all.size());
    all.push_back(next);
    const Rows expected = reference_logits(all);
    size_t rows = 0;
    const auto compare = [&](size_t row, std::span<const float> logits) {
      ASSERT_EQ(logits.size(), kVocab);
      ++rows;
      for (size_t i = 0; i < logits.size(); ++i)
        ASSERT_NEAR(logits[i], expected[row][i], 1e-4) << "row " << row << " logit " << i;
    };
    const Status status =
        (*session)->prefill_all_logits(prompt_, [&](int64_t row, std::span<const float> logits) {
          compare(static_cast<size_t>(row), logits);
        });
    ASSERT_TRUE(status) << status.error().text();
    const auto logits = (*session)->step(next);
    ASSERT_TRUE(logits) << logits.error().text();
    compare(prompt_.size(), *logits);
    EXPECT_EQ(rows, all.size());
  }

  std::mt19937 random_;
  TempDir folder_;
  std::vector<Spelling> names_;
  Weights weights_;
  std::vector<float> patches_; // [8, 192]
  std::vector<PromptToken> prompt_;
};

TEST_F(ToyFamily, RunsFromGgufInTheToyType) { expect_reference(open_gguf(), 1); }

TEST_F(ToyFamily, RunsFromAHuggingFaceFolderOnTwoThreads) { expect_reference(open_folder(), 2); }

TEST_F(ToyFamily, NamesAMissingTensorAsTheFileWouldSpellIt) {
  std::erase_if(names_, [](const Spelling& name) { return name.gguf == "blk.1.ffn_up.bias"; });
  const auto model = describe_model(open_gguf());
  ASSERT_FALSE(model);
  EXPECT_THAT(model.error().text(), ::testing::HasSubstr("blk.1.ffn_up.bias"));
}

// Two files each, and no other touch: whatever else lies here belongs to the test.
TEST(Touches, TwoFilesForAFamilyAndTwoForAType) {
  const fs::path folder = fs::path(PINHOLE_SOURCE_DIR) / "tests/extend";
  std::vector<std::string> found;
  for (const char* layer : {"model", "quant"}) {
    for (const auto& entry : fs::recursive_directory_iterator(folder / layer)) {
      if (entry.is_regular_file())
        found.push_back(fs::relative(entry.path(), folder).string());
    }
  }
  EXPECT_THAT(found,
              ::testing::UnorderedElementsAre("model/families.def", "model/families/toy_vl.cc",
                                              "quant/formats.def", "quant/quinary.h"));
  for (const char* def : {"model/families.def", "quant/formats.def"}) {
    const std::string text = testing::read_file((folder / def).string());
    size_t rows = 0;
    for (size_t at = text.find("\nPINHOLE_"); at != std::string::npos;
         at = text.find("\nPINHOLE_", at + 1))
      ++rows;
    EXPECT_EQ(rows, 1) << def;
    EXPECT_THAT(text, ::testing::HasSubstr("#include_next"));
  }
}

} // namespace
} // namespace pinhole
