// Arithmetic and bytes of a graph, counted again from the sizes in the files.
#include "plan/work.h"

#include "kernels/select.h"
#include "model/model.h"
#include "plan/machine.h"
#include "plan/memory.h"
#include "support/describe.h"
#include "support/write_safetensors.h"

#include <gmock/gmock.h>

namespace pinhole {
namespace {

using testing::Described;

Work total(const Graph& graph, const WorkShape& shape) {
  Work sum;
  for (const Op& op : graph.ops())
    sum += op_work(graph, op, shape);
  return sum;
}

WorkShape text_shape(int64_t tokens, int64_t outputs, int64_t past) {
  WorkShape shape;
  shape.rows = {tokens, outputs};
  shape.past_tokens = past;
  return shape;
}

// Of every matrix of the text layers, and of the one that gives logits.
struct TextSizes {
  double layers = 0, output = 0;             // elements
  double layers_bytes = 0, output_bytes = 0; // in the file
};

TextSizes text_sizes(const ModelFile& file) {
  TextSizes sizes;
  for (const Tensor& tensor : file.tensors()) {
    if (tensor.shape.size() != 2)
      continue;
    const auto elements = static_cast<double>(tensor.shape[0] * tensor.shape[1]);
    if (tensor.name.rfind("blk.", 0) == 0) {
      sizes.layers += elements;
      sizes.layers_bytes += static_cast<double>(tensor.bytes);
    } else if (tensor.name == "token_embd.weight" || tensor.name == "output.weight") {
      sizes.output = elements; // tied, or the later of the two: the same size
      sizes.output_bytes = static_cast<double>(tensor.bytes);
    }
  }
  return sizes;
}

TEST(Work, OneTokenReadsEveryMatrixOnce) {
  const auto described = Described::bundled();
  const TextSizes sizes = text_sizes(described->files.text);
  const Work work = total(described->model.text, text_shape(1, 1, 0));
  EXPECT_EQ(work.weight_bytes, sizes.layers_bytes + sizes.output_bytes);
  const CacheSpec& cache = described->model.cache;
  EXPECT_EQ(work.cache_bytes,
            static_cast<double>(kv_bytes_per_token(cache, kernels::KvType::kF16)));
  EXPECT_GT(work.flops, 2 * (sizes.layers + sizes.output));
}

TEST(Work, SlidingLayersSeeTheirWindow) {
  REQUIRE_GOLDEN();
  const auto described = Described::open(testing::golden("gemma3/tiny")); // a window of 12
  const Graph& text = described->model.text;
  for (const int64_t past : {0, 5, 11, 100}) {
    int64_t pairs = 0;
    for (int64_t i = 0; i < 40; ++i)
      pairs += std::min<int64_t>(past + i + 1, 12);
    const int64_t all = 40 * past + 40 * 41 / 2;
    int64_t sliding = 0;
    for (const Op& op : text.ops()) {
      if (op.kind != OpKind::kAttention)
        continue;
      const bool slides = described->model.cache.is_sliding(op.layer);
      sliding += slides;
      EXPECT_EQ(op_work(text, op, text_shape(40, 1, past)).flops,
                4.0 * static_cast<double>((slides ? pairs : all) * op.heads * op.head_dim));
    }
    EXPECT_EQ(sliding, 6);
  }
}

TEST(Work, PromptsReadAsMuchAndComputePerToken) {
  const auto described = Described::bundled();
  const TextSizes sizes = text_sizes(described->files.text);
  const Work work = total(described->model.text, text_shape(100, 1, 0));
  EXPECT_EQ(work.weight_bytes, sizes.layers_bytes + sizes.output_bytes);
  // Attention: queries of all heads with the keys up to themselves, and the sum of values.
  double attention = 0;
  for (const Op& op : described->model.text.ops()) {
    if (op.kind == OpKind::kAttention)
      attention += 100 * 101 / 2 * 4.0 * static_cast<double>(op.heads * op.head_dim);
  }
  EXPECT_GT(attention, 0);
  EXPECT_DOUBLE_EQ(work.flops, 2 * (100 * sizes.layers + sizes.output) + attention);
}

TEST(Work, ChunksOfAPromptComputeWhatTheWholeDoes) {
  const auto described = Described::bundled();
  const Graph& graph = described->model.text;
  Work chunks = total(graph, text_shape(60, 0, 0));
  chunks += total(graph, text_shape(40, 1, 60));
  EXPECT_DOUBLE_EQ(chunks.flops, total(graph, text_shape(100, 1, 0)).flops);
}

TEST(Work, WindowsAreCheaper) {
  REQUIRE_GOLDEN();
  const auto described = Described::open(testing::golden("qwen2_5_vl/tiny"));
  WorkShape shape;
  shape.rows = {256, 0};
  const double all = total(described->model.vision, shape).flops;
  shape.window_keys = 64;
  EXPECT_LT(total(described->model.vision, shape).flops, all);
}

TEST(Work, AClassTokenIsARowOfTheTower) {
  REQUIRE_GOLDEN();
  const auto described = Described::open(testing::golden("internvl/qwen2"));
  const Graph& vision = described->model.vision;
  WorkShape shape;
  shape.rows = {36, 0};
  double attention = 0;
  double mlp = 0;
  for (const Op& op : vision.ops()) {
    if (op.kind == OpKind::kAttention)
      attention += op_work(vision, op, shape).flops;
    if (op.kind == OpKind::kMatmul &&
        vision.weight(op.parts.front().weight).role == Role::kVisionMlp)
      mlp += op_work(vision, op, shape).flops;
  }
  // 3 layers of hidden_size 48 and intermediate_size 96; q k and p v, a multiply-add each
  EXPECT_DOUBLE_EQ(attention, 3.0 * 4 * 37 * 37 * 48);
  EXPECT_DOUBLE_EQ(mlp, 3.0 * 2 * 2 * 37 * 48 * 96);
}

TEST(Work, ManyTokensReadAllExperts) {
  REQUIRE_GOLDEN();
  const auto described = Described::open(testing::golden("qwen3_vl_moe/tiny"));
  for (const Op& op : described->model.text.ops()) {
    if (op.kind != OpKind::kMoe)
      continue;
    const Graph& graph = described->model.text;
    const auto bytes = [&](WeightId id) {
      const Weight& w = graph.weight(id);
      return static_cast<double>(w.experts * w.rows * row_bytes(w.format, w.cols));
    };
    const double all = bytes(op.gate) + bytes(op.up) + bytes(op.down);
    const double one = op_work(graph, op, text_shape(1, 1, 0)).weight_bytes;
    EXPECT_NEAR(one,
                all * static_cast<double>(op.top_k) /
                    static_cast<double>(graph.weight(op.gate).experts),
                1e-6 * all);
    EXPECT_NEAR(op_work(graph, op, text_shape(10000, 1, 0)).weight_bytes, all, 1e-6 * all);
    return;
  }
  FAIL() << "no experts in the mixture of experts";
}

TEST(Machine, MeasuresWhatTheTableHas) {
  const kernels::Table* table = testing::take(kernels::find("scalar"));
  ThreadPool threads(2);
  const Machine machine = measure_machine(*table, threads);
  EXPECT_EQ(machine.isa, "scalar");
  EXPECT_EQ(machine.num_threads, 2);
  EXPECT_GT(machine.read.one_thread, 0);
  EXPECT_GT(machine.read.all_threads, 0);
  ASSERT_EQ(machine.arithmetic.size(), static_cast<size_t>(table->num_peaks));
  EXPECT_GT(machine.ops("f32"), 0);
  EXPECT_EQ(machine.ops("bf16 tiles"), 0);
}

} // namespace
} // namespace pinhole
