// The program of a grammar: a graph of nodes that read bytes, branch, and call rules.
//
// It is a pushdown automaton: a call pushes the node to return to, kEnd pops it. `need` says how
// much deeper the stack gets at least before a node's rule can end, so that a matcher never goes
// where its depth, or the grammar, lets no text end. Graphs are built from the end to the start:
// each function takes the node that follows.
#pragma once

#include "base/result.h"

#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace pinhole::grammar {

using NodeId = uint32_t;
using RuleId = uint32_t;
using ByteSet = std::bitset<256>;

enum class NodeKind : uint8_t {
  kEnd,    // the rule ends
  kFail,   // nothing may follow
  kBytes,  // one byte of sets[arg], then next
  kEither, // arg or next
  kCall,   // rules[arg], then next
};

struct Node {
  NodeKind kind = NodeKind::kFail;
  uint32_t arg = 0;
  NodeId next = 0;
};

inline constexpr NodeId kEndNode = 0;
inline constexpr NodeId kFailNode = 1;
inline constexpr size_t kMaxNodes = 1 << 18;
inline constexpr int kMaxStackDepth = 120; // calls within calls: below parse_json's 128 levels
inline constexpr uint16_t kNever = UINT16_MAX;

struct Program {
  std::vector<Node> nodes;
  std::vector<NodeId> rules; // where each begins
  std::vector<ByteSet> sets;
  std::vector<uint16_t> need; // by node; kNever: no text leads to the rule's end
  // Bytes that no set tells apart are one class.
  std::array<uint8_t, 256> class_of{};
  std::vector<uint8_t> representative; // a byte of each class
  NodeId start = kFailNode;

  size_t num_classes() const { return representative.size(); }
};

class Builder {
 public:
  Builder();

  NodeId bytes(const ByteSet& set, NodeId next);
  NodeId byte(uint8_t value, NodeId next);
  NodeId range(uint8_t first, uint8_t last, NodeId next);
  NodeId literal(std::string_view text, NodeId next);
  // One of the texts, as a tree of their common beginnings.
  NodeId literals(std::vector<std::string> texts, NodeId next);
  NodeId either(NodeId a, NodeId b);

  // A node that is known later, for loops: it becomes `a` or `b`.
  NodeId forward();
  void resolve(NodeId forward, NodeId a, NodeId b);

  // A rule may be called before it is defined.
  RuleId add_rule();
  void define(RuleId rule, NodeId start) { program_.rules[rule] = start; }
  NodeId call(RuleId rule, NodeId next);
  // `rule` at least `min` times, at most `max` (below 0: without end).
  NodeId repeat(RuleId rule, int64_t min, int64_t max, NodeId next);

  bool full() const { return full_; } // past kMaxNodes; finish() says so

  Result<std::shared_ptr<const Program>> finish(RuleId root);

 private:
  NodeId add(const Node& node);
  NodeId literals(const std::vector<std::string>& texts, size_t begin, size_t end, size_t depth,
                  NodeId next);
  void find_needs();
  void find_classes();

  Program program_;
  std::unordered_map<ByteSet, uint32_t> set_index_;
  bool full_ = false;
};

} // namespace pinhole::grammar
