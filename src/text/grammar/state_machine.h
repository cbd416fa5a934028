// Runs a program on bytes as a deterministic automaton that is made while it runs.
//
// A state is the set of configurations (a node that reads a byte, the stack of calls below it) that
// the text so far can be in; stacks share their lower parts. States and their transitions are kept,
// so that a byte mostly costs one look-up. All of it is bounded: past the bounds a state is dead
// that need not be, never the other way round.
#pragma once

#include "text/grammar/program.h"

#include <span>

namespace pinhole::grammar {

// Open addressing over ids of things that are stored elsewhere.
class IdTable {
 public:
  IdTable() { clear(); }
  void clear();
  // The id with this hash that `equal` accepts; else `next_id`, which is then in the table.
  template <class Equal> uint32_t find_or_add(uint64_t hash, uint32_t next_id, Equal&& equal) {
    if (2 * (count_ + 1) > slots_.size())
      grow();
    for (size_t at = hash & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
      Slot& slot = slots_[at];
      if (slot.id == kFree) {
        slot = {hash, next_id};
        ++count_;
        return next_id;
      }
      if (slot.hash == hash && equal(slot.id))
        return slot.id;
    }
  }

 private:
  static constexpr uint32_t kFree = UINT32_MAX;
  struct Slot {
    uint64_t hash = 0;
    uint32_t id = kFree;
  };
  void grow();
  std::vector<Slot> slots_;
  size_t count_ = 0;
};

class StateMachine {
 public:
  using State = int32_t;
  static constexpr State kDead = -1;
  static constexpr size_t kMaxBytes = 11 << 20; // of all that it keeps

  explicit StateMachine(std::shared_ptr<const Program> program);

  State start();
  State step(State from, uint8_t byte) {
    const size_t cell = static_cast<size_t>(from) * num_classes_ + program_->class_of[byte];
    const State to = transitions_[cell];
    return to != kUnknown ? to : compute(from, cell);
  }
  bool accepts(State state) const { return states_[static_cast<size_t>(state)].accepts; }
  bool reads(State state) const { return states_[static_cast<size_t>(state)].count > 0; }

  // Half full: a good moment for keep_only(), which forgets all states but one and gives its new
  // name.
  bool crowded() const;
  State keep_only(State state);
  // A state was not made for want of room since the last call.
  bool lost_states();

 private:
  static constexpr State kUnknown = -2;
  using StackId = uint32_t; // 0: empty
  static constexpr StackId kNoStack = UINT32_MAX;
  struct Stack {
    NodeId back; // where the call returns to
    StackId below;
    uint32_t depth;
  };
  struct Config {
    NodeId node;
    StackId stack;
    bool operator==(const Config&) const = default;
    auto operator<=>(const Config&) const = default;
  };
  struct StateData {
    uint32_t first = 0, count = 0; // in configs_
    bool accepts = false;
  };

  State compute(State from, size_t cell);
  void close_over(Config config);
  StackId push(NodeId back, StackId below);
  State intern();
  bool visit(const Config& config);
  void clear();

  std::shared_ptr<const Program> program_;
  size_t num_classes_;
  std::vector<Stack> stacks_;
  IdTable stack_table_;
  std::vector<Config> configs_;
  std::vector<StateData> states_;
  IdTable state_table_;
  std::vector<State> transitions_; // [states, classes]
  bool lost_ = false;

  // Of the state that is being made.
  std::vector<Config> waiting_, found_;
  bool accepts_ = false;
  std::vector<std::pair<uint64_t, uint32_t>> visited_; // config and the round in which it was seen
  uint32_t round_ = 0;
  size_t num_visited_ = 0;
};

} // namespace pinhole::grammar
