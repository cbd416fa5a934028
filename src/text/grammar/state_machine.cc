#include "text/grammar/state_machine.h"

#include <algorithm>

namespace pinhole::grammar {

namespace {

// 4 MiB of transitions, 2 of configurations, 1.4 each of stacks and of states with their tables
// (half as much again while a table grows), 1 of what making a state takes.
constexpr size_t kMaxCells = 1 << 20;
constexpr size_t kMaxConfigs = 1 << 18;
constexpr size_t kMaxStacks = 1 << 15;
constexpr size_t kMaxStates = 1 << 15;
constexpr size_t kMaxVisited = 1 << 14; // while making one state

uint64_t mix(uint64_t value) { // the finaliser of MurmurHash3
  value = (value ^ (value >> 33)) * 0xff51afd7ed558ccdULL;
  value = (value ^ (value >> 33)) * 0xc4ceb9fe1a85ec53ULL;
  return value ^ (value >> 33);
}
uint64_t join(uint32_t a, uint32_t b) { return (uint64_t{a} << 32) | b; }

} // namespace

void IdTable::clear() {
  constexpr size_t kFirstSlots = 1024;
  slots_.assign(kFirstSlots, {});
  count_ = 0;
}

void IdTable::grow() {
  std::vector<Slot> old(slots_.size() * 2);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.id == kFree)
      continue;
    size_t at = slot.hash & (slots_.size() - 1);
    while (slots_[at].id != kFree)
      at = (at + 1) & (slots_.size() - 1);
    slots_[at] = slot;
  }
}

StateMachine::StateMachine(std::shared_ptr<const Program> program)
    : program_(std::move(program)), num_classes_(program_->num_classes()),
      visited_(2 * kMaxVisited) {
  // Address space; memory is taken as states are made.
  stacks_.reserve(kMaxStacks);
  configs_.reserve(kMaxConfigs);
  states_.reserve(kMaxStates);
  transitions_.reserve(kMaxCells);
  clear();
}

void StateMachine::clear() {
  stacks_.assign(1, {kEndNode, 0, 0});
  stack_table_.clear();
  configs_.clear();
  states_.clear();
  state_table_.clear();
  transitions_.clear();
}

StateMachine::State StateMachine::start() {
  ++round_;
  num_visited_ = 0;
  accepts_ = false;
  found_.clear();
  close_over({program_->start, 0});
  return intern();
}

bool StateMachine::crowded() const {
  return 2 * transitions_.size() > kMaxCells || 2 * configs_.size() > kMaxConfigs ||
         2 * stacks_.size() > kMaxStacks || 2 * states_.size() > kMaxStates;
}

bool StateMachine::lost_states() { return std::exchange(lost_, false); }

StateMachine::State StateMachine::keep_only(State state) {
  const StateData data = states_[static_cast<size_t>(state)];
  std::vector<Config> kept(configs_.begin() + data.first,
                           configs_.begin() + data.first + data.count);
  const std::vector<Stack> old = stacks_;
  clear();
  std::vector<NodeId> returns;
  for (Config& config : kept) {
    returns.clear();
    for (StackId at = config.stack; at != 0; at = old[at].below)
      returns.push_back(old[at].back);
    config.stack = 0;
    for (size_t i = returns.size(); i-- > 0 && config.stack != kNoStack;)
      config.stack = push(returns[i], config.stack);
  }
  std::erase_if(kept, [](const Config& config) { return config.stack == kNoStack; });
  found_ = std::move(kept);
  accepts_ = data.accepts;
  return intern();
}

StateMachine::StackId StateMachine::push(NodeId back, StackId below) {
  if (stacks_.size() >= kMaxStacks) {
    lost_ = true;
    return kNoStack;
  }
  const auto next = static_cast<StackId>(stacks_.size());
  const StackId id = stack_table_.find_or_add(mix(join(back, below)), next, [&](uint32_t other) {
    return stacks_[other].back == back && stacks_[other].below == below;
  });
  if (id == next)
    stacks_.push_back({back, below, stacks_[below].depth + 1});
  return id;
}

// True the first time in this round.
bool StateMachine::visit(const Config& config) {
  if (num_visited_ >= kMaxVisited) {
    lost_ = true;
    return false;
  }
  const uint64_t key = join(config.node, config.stack);
  const size_t mask = visited_.size() - 1;
  for (size_t at = mix(key) & mask;; at = (at + 1) & mask) {
    auto& [seen, round] = visited_[at];
    if (round != round_) {
      seen = key;
      round = round_;
      ++num_visited_;
      return true;
    }
    if (seen == key)
      return false;
  }
}

// Follows everything that reads no byte.
void StateMachine::close_over(Config config) {
  waiting_.assign(1, config);
  const auto add = [&](NodeId node, StackId stack) {
    const uint16_t need = program_->need[node];
    if (need != kNever && stacks_[stack].depth + need <= kMaxStackDepth)
      waiting_.push_back({node, stack});
  };
  while (!waiting_.empty()) {
    const Config at = waiting_.back();
    waiting_.pop_back();
    if (!visit(at))
      continue;
    const Node& node = program_->nodes[at.node];
    switch (node.kind) {
    case NodeKind::kFail:
      break;
    case NodeKind::kBytes:
      found_.push_back(at);
      break;
    case NodeKind::kEither:
      add(node.next, at.stack);
      add(node.arg, at.stack);
      break;
    case NodeKind::kEnd:
      if (at.stack == 0)
        accepts_ = true;
      else
        add(stacks_[at.stack].back, stacks_[at.stack].below);
      break;
    case NodeKind::kCall: {
      const NodeId rule = program_->rules[node.arg];
      if (node.next == kEndNode) {
        add(rule, at.stack);
      } else if (const StackId stack = push(node.next, at.stack); stack != kNoStack) {
        add(rule, stack);
      }
      break;
    }
    }
  }
}

StateMachine::State StateMachine::compute(State from, size_t cell) {
  const size_t byte = program_->representative[cell % num_classes_];
  if (++round_ == 0) { // the counter went round: old marks could look new
    std::fill(visited_.begin(), visited_.end(), std::pair<uint64_t, uint32_t>());
    round_ = 1;
  }
  num_visited_ = 0;
  accepts_ = false;
  found_.clear();
  const StateData data = states_[static_cast<size_t>(from)];
  for (uint32_t i = data.first; i < data.first + data.count; ++i) {
    const Config config = configs_[i];
    const Node& node = program_->nodes[config.node];
    if (program_->sets[node.arg].test(byte))
      close_over({node.next, config.stack});
  }
  // Kept even when there was no room for the state: then keep_only() is due, and forgets it.
  const State to = found_.empty() && !accepts_ ? kDead : intern();
  transitions_[cell] = to;
  return to;
}

// The state of found_ and accepts_.
StateMachine::State StateMachine::intern() {
  std::sort(found_.begin(), found_.end());
  uint64_t hash = accepts_ ? 1 : 0;
  for (const Config& config : found_)
    hash = mix(hash * 31 + join(config.node, config.stack));
  if (configs_.size() + found_.size() > kMaxConfigs || states_.size() >= kMaxStates ||
      transitions_.size() + num_classes_ > kMaxCells) {
    lost_ = true;
    return kDead;
  }
  const auto next = static_cast<uint32_t>(states_.size());
  const uint32_t id = state_table_.find_or_add(hash, next, [&](uint32_t other) {
    const StateData& data = states_[other];
    return data.accepts == accepts_ && data.count == found_.size() &&
           std::equal(found_.begin(), found_.end(), configs_.begin() + data.first);
  });
  if (id == next) {
    states_.push_back(
        {static_cast<uint32_t>(configs_.size()), static_cast<uint32_t>(found_.size()), accepts_});
    configs_.insert(configs_.end(), found_.begin(), found_.end());
    transitions_.resize(transitions_.size() + num_classes_, kUnknown);
  }
  return static_cast<State>(id);
}

} // namespace pinhole::grammar
