// The layout of every family's graphs: no two things that live at the same time share bytes, and
// whatever number of rows runs fits what was planned for the largest.
#include "plan/layout.h"

#include "kernels/select.h"
#include "model/model.h"
#include "support/describe.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <map>
#include <memory>

namespace pinhole {
namespace {

// The models whose graphs are laid out: every family from a folder, block formats from GGUF files.
const Model& model_of(const std::string& path) {
  static std::map<std::string, std::unique_ptr<testing::Described>> cache;
  auto& entry = cache[path];
  if (!entry)
    entry = testing::Described::open(path);
  return entry->model;
}

std::string bundled() { return testing::source_path("models/pinhole-mini/pinhole-mini-f16.gguf"); }

std::vector<std::string> models() {
  std::vector<std::string> out{bundled()};
  if (testing::have_golden()) {
    for (const char* name : {"qwen3_vl/tiny", "qwen3_vl_moe/tiny", "qwen2_5_vl/tiny", "gemma3/tiny",
                             "pixtral/llava", "mistral3/ministral3", "internvl/qwen2"})
      out.push_back(testing::golden(name));
  }
  return out;
}

std::vector<KernelChoice> choices() {
  std::vector<KernelChoice> out;
  for (const std::string_view isa : kernels::available()) {
    const kernels::Table* table = testing::take(kernels::find(isa));
    out.push_back({table, true, 1, kernels::KvType::kF32});
    out.push_back({table, false, 3, kernels::KvType::kF16});
  }
  return out;
}

struct Claim {
  std::string name;
  int64_t begin, end;  // bytes in the arena
  int64_t first, last; // ops; -1 before the run, num_ops after it
};

// Lifetimes worked out from the ops alone: from the first op that names a buffer to the last.
std::vector<Claim> claims_of(const Graph& graph, const Layout& layout, const RowBinding& rows) {
  const auto num_ops = static_cast<int64_t>(graph.ops().size());
  std::vector<Claim> claims;
  for (size_t b = 0; b < graph.buffers().size(); ++b) {
    const Buffer& buffer = graph.buffers()[b];
    int64_t first = buffer.is_input ? -1 : num_ops + 1;
    int64_t last = buffer.is_output ? num_ops : -2;
    for (int64_t i = 0; i < num_ops; ++i) {
      const Op& op = graph.ops()[static_cast<size_t>(i)];
      std::vector<ValueId> named{op.x, op.y, op.a, op.b, op.c, op.residual};
      for (const MatmulPart& part : op.parts)
        named.push_back(part.y);
      const bool touched = std::any_of(named.begin(), named.end(), [&](ValueId id) {
        return id != kNoValue && graph.value(id).buffer == static_cast<BufferId>(b);
      });
      if (touched) {
        first = std::min(first, i);
        last = std::max(last, i);
      }
    }
    if (first > last)
      continue;
    const int64_t offset = layout.buffer_offset_bytes[b];
    claims.push_back({"buffer " + std::to_string(b), offset,
                      offset + rows.count(buffer.rows) * buffer.cols * 4, first, last});
  }
  for (int64_t i = 0; i < num_ops; ++i) {
    const auto at = static_cast<size_t>(i);
    if (layout.workspace_bytes[at] > 0) {
      const int64_t offset = layout.workspace_offset_bytes[at];
      claims.push_back({"workspace of op " + std::to_string(i) + " " +
                            std::string(op_name(graph.ops()[at].kind)),
                        offset, offset + layout.workspace_bytes[at], i, i});
    }
  }
  return claims;
}

void expect_disjoint(const Graph& graph, const Layout& layout, const RowBinding& rows) {
  const std::vector<Claim> claims = claims_of(graph, layout, rows);
  for (size_t i = 0; i < claims.size(); ++i) {
    const Claim& a = claims[i];
    ASSERT_GE(a.begin, 0) << a.name;
    ASSERT_EQ(a.begin % kAlignment, 0) << a.name;
    ASSERT_LE(a.end, layout.arena_bytes) << a.name;
    for (size_t j = 0; j < i; ++j) {
      const Claim& b = claims[j];
      const bool alive_together = a.first <= b.last && b.first <= a.last;
      const bool share_bytes = a.begin < b.end && b.begin < a.end;
      ASSERT_FALSE(alive_together && share_bytes)
          << a.name << " [" << a.begin << ", " << a.end << ") and " << b.name << " [" << b.begin
          << ", " << b.end << ")";
    }
  }
}

class Layouts : public ::testing::TestWithParam<std::string> {
 protected:
  const Model& model() const { return model_of(GetParam()); }
  int64_t unit() const { return model().pictures->merge_size * model().pictures->merge_size; }
};

TEST_P(Layouts, WhatLivesTogetherSharesNoByte) {
  for (const KernelChoice& choice : choices()) {
    for (const RowBinding rows :
         {RowBinding{1, 1}, {2, 1}, {7, 7}, {24, 24}, {33, 1}, {100, 3}, {512, 1}}) {
      SCOPED_TRACE(std::string(choice.table->isa) + ", items " + std::to_string(rows.items));
      expect_disjoint(model().text, lay_out(model().text, rows, 4096, choice), rows);
    }
    for (const int64_t tokens : {1, 2, 5, 36, 300}) {
      const RowBinding rows{tokens * unit(), 0};
      SCOPED_TRACE(std::string(choice.table->isa) + ", patches " + std::to_string(rows.items));
      expect_disjoint(model().vision, lay_out(model().vision, rows, rows.items, choice), rows);
    }
  }
}

TEST_P(Layouts, EveryValueLiesInItsBuffer) {
  for (const Graph* graph : {&model().text, &model().vision}) {
    for (const RowBinding rows : {RowBinding{unit(), 1}, {unit() * 13, 5}}) {
      for (const Value& value : graph->values()) {
        const Buffer& buffer = graph->buffers()[static_cast<size_t>(value.buffer)];
        const int64_t last =
            (rows.count(value.rows) - 1) * value.stride + value.offset + value.cols;
        EXPECT_LE(last, rows.count(buffer.rows) * buffer.cols);
        EXPECT_GE(value.offset, 0);
      }
    }
  }
}

TEST_P(Layouts, FewerRowsFitThePlannedWorkspace) {
  constexpr int64_t kMaxItems = 260;
  constexpr int64_t kMaxKeys = 700;
  for (const KernelChoice& choice : choices()) {
    for (const int64_t max_outputs : {int64_t{1}, kMaxItems}) {
      const Graph& text = model().text;
      const Layout layout = lay_out(text, {kMaxItems, max_outputs}, kMaxKeys, choice);
      for (int64_t m = 1; m <= kMaxItems; ++m) {
        for (const int64_t outputs : {int64_t{1}, std::min(m, max_outputs)}) {
          for (const int64_t keys : {m, kMaxKeys}) {
            for (size_t i = 0; i < text.ops().size(); ++i) {
              ASSERT_LE(op_workspace_bytes(text, text.ops()[i], {m, outputs}, keys, choice),
                        layout.workspace_bytes[i])
                  << choice.table->isa << " " << op_name(text.ops()[i].kind) << " m " << m
                  << " outputs " << outputs << " keys " << keys;
            }
          }
        }
      }
    }
    const Graph& vision = model().vision;
    const Layout layout = lay_out(vision, {kMaxItems * unit(), 0}, kMaxItems * unit(), choice);
    for (int64_t tokens = 1; tokens <= kMaxItems; ++tokens) {
      const int64_t m = tokens * unit();
      for (size_t i = 0; i < vision.ops().size(); ++i) {
        ASSERT_LE(op_workspace_bytes(vision, vision.ops()[i], {m, 0}, m, choice),
                  layout.workspace_bytes[i])
            << choice.table->isa << " " << op_name(vision.ops()[i].kind) << " m " << m;
      }
    }
  }
}

TEST_P(Layouts, MoreRowsNeverTakeLessMemory) {
  for (const KernelChoice& choice : choices()) {
    int64_t before = 0;
    for (const int64_t items : {1, 2, 3, 8, 16, 31, 32, 33, 64, 100, 128, 256, 512, 1024, 4096}) {
      const int64_t bytes = lay_out(model().text, {items, 1}, 4096, choice).arena_bytes;
      EXPECT_GE(bytes, before) << choice.table->isa << " " << items;
      before = bytes;
    }
    before = 0;
    for (const int64_t tokens : {1, 2, 3, 4, 9, 64, 100, 256, 1000, 4096}) {
      const RowBinding rows{tokens * unit(), 0};
      const int64_t bytes = lay_out(model().vision, rows, rows.items, choice).arena_bytes;
      EXPECT_GE(bytes, before) << choice.table->isa << " " << tokens;
      before = bytes;
    }
    before = 0;
    for (const int64_t keys : {1, 100, 1000, 4096, 100'000}) {
      const int64_t bytes = lay_out(model().text, {64, 1}, keys, choice).arena_bytes;
      EXPECT_GE(bytes, before) << choice.table->isa << " keys " << keys;
      before = bytes;
    }
  }
}

TEST_P(Layouts, SameInputsSameLayout) {
  const KernelChoice choice = choices().back();
  const Layout a = lay_out(model().text, {100, 1}, 1000, choice);
  const Layout b = lay_out(model().text, {100, 1}, 1000, choice);
  EXPECT_EQ(a.arena_bytes, b.arena_bytes);
  EXPECT_EQ(a.buffer_offset_bytes, b.buffer_offset_bytes);
  EXPECT_EQ(a.workspace_offset_bytes, b.workspace_offset_bytes);
}

TEST_P(Layouts, MemoryIsReusedBetweenLayers) {
  // The sum of all buffers and workspaces grows with the number of layers; the arena must not.
  const Layout layout = lay_out(model().text, {256, 1}, 256, choices().back());
  int64_t sum = 0;
  for (const Buffer& buffer : model().text.buffers())
    sum += RowBinding{256, 1}.count(buffer.rows) * buffer.cols * 4;
  for (const int64_t bytes : layout.workspace_bytes)
    sum += bytes;
  EXPECT_LT(layout.arena_bytes, sum / 2);
}

INSTANTIATE_TEST_SUITE_P(Model, Layouts, ::testing::ValuesIn(models()), [](const auto& param_info) {
  return "Nr" + std::to_string(param_info.index);
});

} // namespace
} // namespace pinhole
