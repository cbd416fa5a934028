#include "text/grammar/program.h"

#include <algorithm>
#include <deque>
#include <fmt/format.h>
#include <map>

namespace pinhole::grammar {

Builder::Builder() {
  program_.nodes.push_back({NodeKind::kEnd, 0, 0});
  program_.nodes.push_back({NodeKind::kFail, 0, 0});
}

NodeId Builder::add(const Node& node) {
  if (program_.nodes.size() >= kMaxNodes) {
    full_ = true;
    return kFailNode;
  }
  program_.nodes.push_back(node);
  return static_cast<NodeId>(program_.nodes.size() - 1);
}

NodeId Builder::bytes(const ByteSet& set, NodeId next) {
  if (set.none() || next == kFailNode)
    return kFailNode;
  if (full_)
    return kFailNode;
  const auto [it, is_new] = set_index_.emplace(set, program_.sets.size());
  if (is_new)
    program_.sets.push_back(set);
  return add({NodeKind::kBytes, it->second, next});
}

NodeId Builder::byte(uint8_t value, NodeId next) { return bytes(ByteSet().set(value), next); }

NodeId Builder::range(uint8_t first, uint8_t last, NodeId next) {
  ByteSet set;
  for (int i = first; i <= last; ++i)
    set.set(static_cast<size_t>(i));
  return bytes(set, next);
}

NodeId Builder::literal(std::string_view text, NodeId next) {
  for (size_t i = text.size(); i-- > 0 && !full_;)
    next = byte(static_cast<uint8_t>(text[i]), next);
  return next;
}

NodeId Builder::literals(std::vector<std::string> texts, NodeId next) {
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  return texts.empty() ? kFailNode : literals(texts, 0, texts.size(), 0, next);
}

// Of texts[begin, end), which share their first `depth` bytes, what follows these.
NodeId Builder::literals(const std::vector<std::string>& texts, size_t begin, size_t end,
                         size_t depth, NodeId next) {
  const std::string& first = texts[begin];
  const std::string& last = texts[end - 1];
  size_t split = depth; // sorted: what the first and the last share, all share
  while (split < first.size() && split < last.size() && first[split] == last[split])
    ++split;
  NodeId alternatives = kFailNode;
  for (size_t group = end; group > begin && texts[group - 1].size() > split && !full_;) {
    const char byte_value = texts[group - 1][split];
    size_t at = group;
    while (at > begin && texts[at - 1].size() > split && texts[at - 1][split] == byte_value)
      --at;
    const NodeId rest = literals(texts, at, group, split + 1, next);
    alternatives = either(byte(static_cast<uint8_t>(byte_value), rest), alternatives);
    group = at;
  }
  if (first.size() == split)
    alternatives = either(next, alternatives);
  return literal(std::string_view(first).substr(depth, split - depth), alternatives);
}

NodeId Builder::either(NodeId a, NodeId b) {
  if (a == kFailNode || a == b)
    return b;
  return b == kFailNode ? a : add({NodeKind::kEither, a, b});
}

NodeId Builder::forward() { return add({NodeKind::kEither, kFailNode, kFailNode}); }

void Builder::resolve(NodeId forward, NodeId a, NodeId b) {
  if (forward != kFailNode)
    program_.nodes[forward] = {NodeKind::kEither, a, b};
}

RuleId Builder::add_rule() {
  if (program_.rules.size() >= kMaxNodes) {
    full_ = true;
    return 0;
  }
  program_.rules.push_back(kFailNode);
  return static_cast<RuleId>(program_.rules.size() - 1);
}

NodeId Builder::call(RuleId rule, NodeId next) {
  return next == kFailNode ? kFailNode : add({NodeKind::kCall, rule, next});
}

NodeId Builder::repeat(RuleId rule, int64_t min, int64_t max, NodeId next) {
  NodeId at = next;
  if (max < 0) {
    const NodeId loop = forward();
    resolve(loop, call(rule, loop), next);
    at = loop;
  } else {
    for (int64_t i = min; i < max && !full_; ++i)
      at = either(call(rule, at), next);
  }
  for (int64_t i = 0; i < min && !full_; ++i)
    at = call(rule, at);
  return at;
}

Result<std::shared_ptr<const Program>> Builder::finish(RuleId root) {
  if (full_) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("the grammar needs more than {} nodes", kMaxNodes), {},
                "make lengths and lists shorter");
  }
  program_.start = program_.rules[root];
  find_needs();
  if (program_.need[program_.start] == kNever)
    return fail(ErrorCode::kInvalidInput, "no text can satisfy it");
  find_classes();
  return std::make_shared<const Program>(std::move(program_));
}

// The least fixpoint from kEnd backwards: a node is looked at again when one that it depends on got
// better, at most kMaxStackDepth times.
void Builder::find_needs() {
  const std::vector<Node>& nodes = program_.nodes;
  const auto start_of = [&](const Node& node) { return program_.rules[node.arg]; };
  const auto for_each_use = [&](const Node& node, auto&& use) {
    if (node.kind == NodeKind::kBytes || node.kind == NodeKind::kEither ||
        node.kind == NodeKind::kCall)
      use(node.next);
    if (node.kind == NodeKind::kEither)
      use(node.arg);
    if (node.kind == NodeKind::kCall)
      use(start_of(node));
  };
  // users[first_user[n] .. first_user[n + 1]) depend on n.
  std::vector<uint32_t> first_user(nodes.size() + 1, 0);
  for (const Node& node : nodes)
    for_each_use(node, [&](NodeId used) { ++first_user[used + 1]; });
  for (size_t i = 1; i < first_user.size(); ++i)
    first_user[i] += first_user[i - 1];
  std::vector<NodeId> users(first_user.back());
  std::vector<uint32_t> fill(first_user.begin(), first_user.end() - 1);
  for (size_t i = 0; i < nodes.size(); ++i)
    for_each_use(nodes[i], [&](NodeId used) { users[fill[used]++] = static_cast<NodeId>(i); });

  std::vector<uint16_t>& need = program_.need;
  need.assign(nodes.size(), kNever);
  need[kEndNode] = 0;
  std::deque<NodeId> queue{kEndNode};
  std::vector<bool> queued(nodes.size(), false);
  const auto value = [&](const Node& node) -> uint16_t {
    switch (node.kind) {
    case NodeKind::kEnd:
      return 0;
    case NodeKind::kFail:
      return kNever;
    case NodeKind::kBytes:
      return need[node.next];
    case NodeKind::kEither:
      return std::min(need[node.arg], need[node.next]);
    case NodeKind::kCall: {
      const uint16_t inside = need[start_of(node)];
      if (node.next == kEndNode || inside == kNever) // the last call of a rule replaces it
        return inside;
      return std::max<uint16_t>(static_cast<uint16_t>(inside + 1), need[node.next]);
    }
    }
    return kNever;
  };
  while (!queue.empty()) {
    const NodeId used = queue.front();
    queue.pop_front();
    queued[used] = false;
    for (uint32_t i = first_user[used]; i < first_user[used + 1]; ++i) {
      const NodeId user = users[i];
      const uint16_t better = value(nodes[user]);
      if (better >= need[user] || better > kMaxStackDepth)
        continue;
      need[user] = better;
      if (!queued[user]) {
        queued[user] = true;
        queue.push_back(user);
      }
    }
  }
}

// Splits the classes by one set after the other.
void Builder::find_classes() {
  std::array<uint16_t, 256> classes{};
  for (const ByteSet& set : program_.sets) {
    std::map<std::pair<uint16_t, bool>, uint16_t> seen;
    for (size_t byte = 0; byte < 256; ++byte) {
      const auto key = std::pair(classes[byte], set.test(byte));
      classes[byte] = seen.emplace(key, static_cast<uint16_t>(seen.size())).first->second;
    }
    if (seen.size() == 256)
      break;
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    program_.class_of[byte] = static_cast<uint8_t>(classes[byte]);
    if (classes[byte] >= program_.representative.size())
      program_.representative.resize(classes[byte] + 1u);
    program_.representative[classes[byte]] = static_cast<uint8_t>(byte);
  }
}

} // namespace pinhole::grammar
