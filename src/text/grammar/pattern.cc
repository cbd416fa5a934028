#include "text/grammar/pattern.h"

#include "text/grammar/pattern_parser.h"

#include <fmt/format.h>
#include <unordered_map>

namespace pinhole::grammar {

namespace {

using Kind = PatternNode::Kind;

constexpr size_t kMaxStates = 1 << 15;

// A nondeterministic automaton over code points (Thompson's construction, from the end).
class Automaton {
 public:
  struct State {
    enum class Kind { kMatch, kSet, kSplit } kind = Kind::kMatch;
    uint32_t a = 0, b = 0; // kSet: the set and the next state; kSplit: two states
  };

  explicit Automaton(const PatternTree& tree) : tree_(tree) { states_.emplace_back(); }

  const std::vector<State>& states() const { return states_; }

  Result<uint32_t> build(PatternUse use, uint32_t any_set) {
    uint32_t start = 0;
    bool first = true;
    for (const uint32_t child : tree_.nodes[tree_.root].children) {
      PINHOLE_TRY(const uint32_t one, alternative(tree_.nodes[child], use, any_set));
      start = first ? one : split(one, start);
      first = false;
    }
    if (states_.size() > kMaxStates)
      return too_large();
    return start;
  }

 private:
  static tl::unexpected<Error> too_large() {
    return fail(ErrorCode::kTooLarge,
                fmt::format("the pattern has more than {} states", kMaxStates), {},
                "lower its repetitions");
  }

  uint32_t add(const State& state) {
    states_.push_back(state);
    return static_cast<uint32_t>(states_.size() - 1);
  }
  uint32_t split(uint32_t a, uint32_t b) { return a == b ? a : add({State::Kind::kSplit, a, b}); }

  // A whole alternative: anchors at its ends say where the text begins and ends.
  Result<uint32_t> alternative(const PatternNode& node, PatternUse use, uint32_t any_set) {
    size_t begin = 0, end = node.children.size();
    const auto kind = [&](size_t i) { return tree_.nodes[node.children[i]].kind; };
    bool holds_begin = use == PatternUse::kWhole, holds_end = holds_begin;
    for (; begin < end && kind(begin) == Kind::kBegin; ++begin)
      holds_begin = true;
    for (; begin < end && kind(end - 1) == Kind::kEnd; --end)
      holds_end = true;
    uint32_t at = 0;
    if (!holds_end)
      at = anything(any_set, at);
    for (size_t i = end; i-- > begin;) {
      PINHOLE_TRY(at, node_states(node.children[i], at));
    }
    return holds_begin ? at : anything(any_set, at);
  }

  uint32_t anything(uint32_t any_set, uint32_t next) {
    const uint32_t loop = add({State::Kind::kSplit, 0, next});
    states_[loop].a = add({State::Kind::kSet, any_set, loop});
    return loop;
  }

  Result<uint32_t> node_states(uint32_t index, uint32_t next) {
    if (states_.size() > kMaxStates || ++steps_ > 8 * kMaxStates)
      return too_large();
    const PatternNode& node = tree_.nodes[index];
    switch (node.kind) {
    case Kind::kSet:
      return add({State::Kind::kSet, node.set, next});
    case Kind::kSequence:
      for (size_t i = node.children.size(); i-- > 0;) {
        PINHOLE_TRY(next, node_states(node.children[i], next));
      }
      return next;
    case Kind::kAlternatives: {
      PINHOLE_TRY(uint32_t out, node_states(node.children.back(), next));
      for (size_t i = node.children.size() - 1; i-- > 0;) {
        PINHOLE_TRY(const uint32_t one, node_states(node.children[i], next));
        out = split(one, out);
      }
      return out;
    }
    case Kind::kRepeat:
      return repeat(node, next);
    case Kind::kBegin:
    case Kind::kEnd:
      break;
    }
    return fail(ErrorCode::kUnsupported,
                fmt::format("'{}' is supported only at the {} of the pattern or of one of its "
                            "alternatives",
                            node.kind == Kind::kBegin ? '^' : '$',
                            node.kind == Kind::kBegin ? "start" : "end"),
                fmt::format("byte {} of the pattern", node.at));
  }

  // A body that reads nothing gives back the state that follows it; then repeating it does too.
  Result<uint32_t> repeat(const PatternNode& node, uint32_t next) {
    const uint32_t body = node.children[0];
    uint32_t at = next;
    if (node.max < 0) {
      const uint32_t loop = add({State::Kind::kSplit, 0, next});
      PINHOLE_TRY(const uint32_t inside, node_states(body, loop));
      states_[loop].a = inside == loop ? next : inside;
      at = loop;
    } else {
      for (int64_t i = node.min; i < node.max; ++i) {
        PINHOLE_TRY(const uint32_t inside, node_states(body, at));
        if (inside == at)
          break;
        at = split(inside, next);
      }
    }
    for (int64_t i = 0; i < node.min; ++i) {
      PINHOLE_TRY(const uint32_t inside, node_states(body, at));
      if (inside == at)
        break;
      at = inside;
    }
    return at;
  }

  const PatternTree& tree_;
  std::vector<State> states_; // [0] is the match
  size_t steps_ = 0;
};

} // namespace

// Every state once for every length that still matters: with a maximum all up to it, else those up
// to the minimum.
Result<NodeId> pattern_nodes(std::string_view pattern, PatternUse use, Spelling spelling,
                             const LengthLimit& limit, Builder& builder,
                             CodePointNodes& code_points, NodeId next) {
  PINHOLE_TRY(PatternTree tree, parse_pattern(pattern));
  tree.sets.push_back(CodePointSet::all());
  Automaton automaton(tree);
  PINHOLE_TRY(const uint32_t start,
              automaton.build(use, static_cast<uint32_t>(tree.sets.size() - 1)));

  struct Item {
    uint32_t state;
    int64_t length;
    NodeId node;
  };
  std::vector<Item> waiting;
  std::unordered_map<uint64_t, NodeId> known;
  const auto node_of = [&](uint32_t state, int64_t length) {
    const uint64_t key = (uint64_t{state} << 32) | static_cast<uint64_t>(length);
    const auto [it, is_new] = known.try_emplace(key, kFailNode);
    if (is_new) {
      it->second = builder.forward();
      waiting.push_back({state, length, it->second});
    }
    return it->second;
  };
  const NodeId begin = node_of(start, 0);
  using State = Automaton::State;
  while (!waiting.empty() && !builder.full()) {
    const Item item = waiting.back();
    waiting.pop_back();
    const State& state = automaton.states()[item.state];
    switch (state.kind) {
    case State::Kind::kMatch: {
      const NodeId end = item.length >= limit.min ? next : kFailNode;
      builder.resolve(item.node, end, end);
      break;
    }
    case State::Kind::kSplit: {
      const NodeId a = node_of(state.a, item.length);
      builder.resolve(item.node, a, node_of(state.b, item.length));
      break;
    }
    case State::Kind::kSet: {
      NodeId read = kFailNode;
      if (limit.max < 0 || item.length < limit.max) {
        const int64_t length =
            limit.max >= 0 ? item.length + 1 : std::min(item.length + 1, limit.min);
        read = code_points.one_of(tree.sets[state.a], spelling, node_of(state.b, length));
      }
      builder.resolve(item.node, read, read);
      break;
    }
    }
  }
  return begin;
}

} // namespace pinhole::grammar
