// Mixture of experts: however the tokens fall on the experts, their packed rows fit the workspace.
#include "kernels/select.h"
#include "plan/layout.h"
#include "support/golden.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <numeric>
#include <random>
#include <vector>

namespace pinhole {
namespace {

constexpr int64_t kCols = 512;

// Sizes of the experts' groups: each token takes `top_k` different experts.
std::vector<int64_t> random_groups(int64_t tokens, int64_t top_k, int64_t experts,
                                   std::mt19937& random) {
  std::vector<int64_t> groups(static_cast<size_t>(experts), 0);
  std::vector<size_t> order(groups.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // Between all tokens alike and each on its own.
  const bool alike = random() % 3 == 0;
  std::shuffle(order.begin(), order.end(), random);
  for (int64_t t = 0; t < tokens; ++t) {
    if (!alike)
      std::shuffle(order.begin(), order.end(), random);
    for (size_t j = 0; j < static_cast<size_t>(top_k); ++j)
      ++groups[order[j]];
  }
  return groups;
}

class MoeWorkspaces : public ::testing::TestWithParam<const char*> {};

TEST_P(MoeWorkspaces, HoldEveryGrouping) {
  std::mt19937 random(5);
  const FormatId format = *format_from_name(GetParam());
  for (const std::string_view isa : kernels::available()) {
    const kernels::Table* table = testing::take(kernels::find(isa));
    for (const bool exact : {true, false}) {
      const KernelChoice choice{table, exact, 2, kernels::KvType::kF16};
      for (const int64_t experts : {4, 128}) {
        Graph graph;
        Weight weight;
        weight.format = format;
        weight.rows = weight.cols = kCols;
        weight.experts = experts;
        Op op;
        op.kind = OpKind::kMoe;
        op.gate = graph.add_weight(weight);
        op.up = graph.add_weight(weight);
        op.down = graph.add_weight(weight);
        op.top_k = 3;
        for (const int64_t tokens : {1, 2, 7, 32, 33, 100, 300}) {
          const MoeWorkspace sizes = moe_workspace(graph, op, tokens, choice);
          for (int trial = 0; trial < 20; ++trial) {
            int64_t packed = 0;
            for (const int64_t m : random_groups(tokens, op.top_k, experts, random)) {
              if (m == 0)
                continue;
              const kernels::MatmulKernel* kernel = table->matmul(format, m, exact);
              packed += (kernel->x_bytes(m, kCols) + kAlignment - 1) / kAlignment * kAlignment;
              ASSERT_LE(kernel->scratch_bytes(m, kCols), sizes.scratch_bytes) << isa << " m " << m;
            }
            ASSERT_LE(packed, sizes.packed_bytes)
                << isa << " exact " << exact << " tokens " << tokens << " experts " << experts;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Format, MoeWorkspaces,
                         ::testing::Values("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K",
                                           "IQ4_XS", "MXFP4"));

} // namespace
} // namespace pinhole
