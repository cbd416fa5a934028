#include "plan/residency.h"

#include "base/checked.h"
#include "base/direct_file.h"
#include "base/units.h"

#include <algorithm>
#include <fmt/format.h>
#include <limits>
#include <numeric>
#include <optional>
#include <set>

namespace pinhole {

namespace {

constexpr int64_t kBlock = DirectFile::kBlockBytes;

// Memory for so many bytes of a file that are read in whole blocks.
int64_t in_blocks(int64_t bytes) { return round_up(bytes, kBlock) + kBlock; }

struct OpWeight {
  size_t op;
  int64_t bytes;
  int64_t slot_bytes; // in the window
};

int64_t slot_bytes(const Graph& graph, const Op& op) {
  int64_t bytes = 0;
  for (const MatmulPart& part : op.parts) {
    const Weight& weight = graph.weight(part.weight);
    bytes += in_blocks(row_bytes(weight.format, weight.cols) * weight.rows);
  }
  return bytes;
}

bool runs(const Op& op, const MemoryPlan& plan) {
  return !op.needs_pictures || plan.shape.max_patches > 0;
}

// The ops of this run that are mixtures of experts, or the others.
std::vector<OpWeight> ops_with_weights(const Graph& graph, bool experts, const MemoryPlan& plan) {
  std::vector<OpWeight> out;
  for (size_t i = 0; i < graph.ops().size(); ++i) {
    if ((graph.ops()[i].kind == OpKind::kMoe) != experts || !runs(graph.ops()[i], plan))
      continue;
    const int64_t bytes = op_weight_bytes(graph, graph.ops()[i]);
    if (bytes > 0)
      out.push_back({i, bytes, slot_bytes(graph, graph.ops()[i])});
  }
  return out;
}

// Norms, biases and gates.
int64_t vector_bytes(const Graph& graph, const MemoryPlan& plan) {
  std::set<WeightId> vectors;
  for (const Op& op : graph.ops()) {
    if (!runs(op, plan))
      continue;
    for_weights(op, [&](WeightId id) {
      if (graph.weight(id).rows == 1)
        vectors.insert(id);
    });
  }
  int64_t bytes = 0;
  for (const WeightId id : vectors)
    bytes += row_bytes(graph.weight(id).format, graph.weight(id).cols);
  return bytes;
}

// Of the vision part's tables, of which rows are looked up: they are unmapped after each picture.
int64_t table_bytes(const Graph& vision) {
  int64_t bytes = 0;
  for (const Op& op : vision.ops()) {
    if (!looks_up_table(vision, op))
      continue;
    const Weight& table = vision.weight(op.weight);
    bytes += row_bytes(table.format, table.cols) * table.rows;
  }
  return bytes;
}

std::string shown(int64_t bytes) { return format_bytes(static_cast<uint64_t>(bytes)); }

int64_t sum_of(const std::vector<OpWeight>& ops) {
  return std::accumulate(ops.begin(), ops.end(), int64_t{0},
                         [](int64_t sum, const OpWeight& op) { return sum + op.bytes; });
}

int64_t largest_slot(const std::vector<OpWeight>& ops) {
  int64_t largest = 0;
  for (const OpWeight& op : ops)
    largest = std::max(largest, op.slot_bytes);
  return largest;
}

} // namespace

int64_t op_weight_bytes(const Graph& graph, const Op& op) {
  int64_t bytes = 0;
  const auto add = [&](WeightId id) {
    if (id == kNoWeight)
      return;
    const Weight& weight = graph.weight(id);
    bytes += row_bytes(weight.format, weight.cols) * weight.rows * weight.experts;
  };
  for (const MatmulPart& part : op.parts)
    add(part.weight);
  for (const WeightId id : {op.gate, op.up, op.down})
    add(id);
  return bytes;
}

bool looks_up_table(const Graph& graph, const Op& op) {
  return (op.kind == OpKind::kGatherWeighted || op.kind == OpKind::kAddTableRows) &&
         graph.weight(op.weight).rows > 1;
}

int64_t expert_slot_bytes(const Graph& graph) {
  int64_t most = 0;
  for (const Op& op : graph.ops()) {
    if (op.kind != OpKind::kMoe)
      continue;
    int64_t bytes = 0;
    const Tensor* before = nullptr;
    for (const WeightId id : {op.gate, op.up, op.down}) {
      const Weight& weight = graph.weight(id);
      if (weight.tensor == before) // gate and up in one
        continue;
      before = weight.tensor;
      const int64_t elements = weight.tensor->elements() / weight.experts;
      bytes += in_blocks(row_bytes(weight.format, elements));
    }
    most = std::max(most, bytes);
  }
  return most;
}

int64_t Residency::peak_bytes(const MemoryPlan& plan) const {
  return plan.anonymous_bytes() + resident_bytes + window_bytes + expert_cache_bytes +
         plan.program_mapped_bytes;
}

Result<Residency> plan_residency(const Model& model, const MemoryPlan& plan, int64_t limit_bytes) {
  Residency out;
  out.limit_bytes = limit_bytes;
  out.text.assign(model.text.ops().size(), false);
  out.vision.assign(model.vision.ops().size(), false);
  const int64_t room = limit_bytes - plan.anonymous_bytes() - plan.program_mapped_bytes;
  std::vector<OpWeight> vision = ops_with_weights(model.vision, false, plan);
  if (plan.shape.max_patches == 0) // the vision part is not touched
    vision.clear();
  if (plan.mapped_bytes <= room) {
    out.resident_bytes = plan.mapped_bytes;
    return out;
  }
  std::vector<OpWeight> text = ops_with_weights(model.text, false, plan);
  const std::vector<OpWeight> experts = ops_with_weights(model.text, true, plan);
  // Room for the experts of one op, all of which a long prompt uses.
  const int64_t slot = expert_slot_bytes(model.text);
  int64_t most_of_op = 0, all_experts = 0;
  for (const OpWeight& op : experts) {
    const Graph& graph = model.text;
    const int64_t count = graph.weight(graph.ops()[op.op].gate).experts;
    most_of_op = std::max(most_of_op, count);
    all_experts += count;
  }
  const int64_t fewest_experts = slot * most_of_op;
  int64_t small = vector_bytes(model.text, plan);
  if (plan.shape.max_patches > 0)
    small += vector_bytes(model.vision, plan) + table_bytes(model.vision);
  // The largest stay first: the window must hold several of what is streamed. The earlier of equals
  // stays, so that the next run's first ops are there at once.
  std::stable_sort(text.begin(), text.end(),
                   [](const OpWeight& a, const OpWeight& b) { return a.bytes > b.bytes; });
  int64_t least = std::numeric_limits<int64_t>::max();
  std::optional<std::vector<OpWeight>> best; // that are streamed
  int64_t best_bytes = 0;
  const auto window_of = [&](const std::vector<OpWeight>& streamed) {
    return kWindowSlots * std::max(largest_slot(streamed), largest_slot(vision));
  };
  for (size_t stay = 0; stay <= text.size(); ++stay) {
    std::vector<OpWeight> streamed(text.begin() + static_cast<std::ptrdiff_t>(stay), text.end());
    int64_t window = window_of(streamed);
    int64_t left = room - window - small - fewest_experts - (sum_of(text) - sum_of(streamed));
    least = std::min(least, room - left);
    if (left < 0)
      continue;
    for (int64_t before = -1; before != window;) { // as many more stay as there is room for
      std::erase_if(streamed, [&](const OpWeight& op) {
        const bool stays = op.bytes <= left;
        left -= stays ? op.bytes : 0;
        return stays;
      });
      before = window;
      window = window_of(streamed);
      left += before - window;
    }
    const int64_t bytes = sum_of(streamed);
    const int64_t cache =
        experts.empty() ? 0 : std::min((fewest_experts + left) / slot, all_experts) * slot;
    if (best && (bytes > best_bytes || (bytes == best_bytes && cache <= out.expert_cache_bytes)))
      continue;
    best = std::move(streamed);
    best_bytes = bytes;
    out.window_bytes = window;
    out.expert_cache_bytes = cache;
  }
  if (best) {
    for (const OpWeight& op : *best)
      out.text[op.op] = true;
    for (const OpWeight& op : vision)
      out.vision[op.op] = true;
    out.streamed_text_bytes = best_bytes;
    out.streamed_vision_bytes = sum_of(vision);
    out.resident_bytes = small + sum_of(text) - best_bytes;
    out.expert_bytes = sum_of(experts);
    return out;
  }
  return fail(ErrorCode::kTooLarge,
              fmt::format("{} of memory, this run needs at least {}", shown(limit_bytes),
                          shown(limit_bytes - room + least)),
              {}, "lower --ctx or --max-image-tokens, or take a smaller model");
}

} // namespace pinhole
