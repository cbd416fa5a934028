#include "text/grammar/matcher.h"

#include <algorithm>

namespace pinhole {

namespace {

constexpr size_t kMasks = 16; // kept; of 151936 tokens each has 19 KB

} // namespace

TokenPieces::TokenPieces(const Tokenizer& tokenizer, std::span<const TokenId> ends,
                         int64_t num_logits)
    : tokenizer_(tokenizer), ends_(ends.begin(), ends.end()),
      vocab_size_(static_cast<TokenId>(std::min(tokenizer.vocab_size(), num_logits))) {
  mask_words_ = (static_cast<size_t>(vocab_size_) + 63) / 64;
  std::erase_if(ends_, [&](TokenId id) { return id < 0 || id >= vocab_size_; });
  // The first bytes as a number decide most comparisons.
  std::vector<std::pair<uint64_t, TokenId>> sorted;
  sorted.reserve(static_cast<size_t>(vocab_size_));
  for (TokenId id = 0; id < vocab_size_; ++id) {
    const std::string_view piece = tokenizer.piece(id);
    if (piece.empty() || piece.size() > UINT16_MAX || tokenizer.is_special(id) ||
        std::find(ends_.begin(), ends_.end(), id) != ends_.end())
      continue;
    uint64_t key = 0;
    for (size_t i = 0; i < sizeof(key); ++i)
      key = key << 8 | (i < piece.size() ? static_cast<uint8_t>(piece[i]) : 0);
    sorted.emplace_back(key, id);
  }
  std::sort(sorted.begin(), sorted.end(), [&](const auto& a, const auto& b) {
    if (a.first != b.first)
      return a.first < b.first;
    const int order = tokenizer.piece(a.second).compare(tokenizer.piece(b.second));
    return order != 0 ? order < 0 : a.second < b.second;
  });
  ids_.reserve(sorted.size());
  for (const auto& [key, id] : sorted)
    ids_.push_back(id);
  suffix_begin_.reserve(ids_.size() + 1);
  shared_bytes_.reserve(ids_.size());
  std::string_view before;
  for (const TokenId id : ids_) {
    const std::string_view piece = tokenizer.piece(id);
    size_t shared = 0;
    while (shared < piece.size() && shared < before.size() && piece[shared] == before[shared])
      ++shared;
    shared_bytes_.push_back(static_cast<uint16_t>(shared));
    suffix_begin_.push_back(static_cast<uint32_t>(suffixes_.size()));
    suffixes_.append(piece.substr(shared));
    max_piece_bytes_ = std::max(max_piece_bytes_, piece.size());
    before = piece;
  }
  suffix_begin_.push_back(static_cast<uint32_t>(suffixes_.size()));
  suffixes_.shrink_to_fit();
}

size_t TokenPieces::memory_bytes() const {
  return ids_.size() * (sizeof(TokenId) + sizeof(uint32_t) + sizeof(uint16_t)) + suffixes_.size();
}

GrammarMatcher::GrammarMatcher(const Grammar& grammar, const TokenPieces& pieces)
    : pieces_(pieces), machine_(grammar.program()), state_(machine_.start()),
      path_(pieces.max_piece_bytes_ + 1) {
  masks_.reserve(kMasks);
}

int64_t GrammarMatcher::memory_bound(const Grammar& grammar, const Tokenizer& tokenizer) {
  constexpr int64_t kPieceBytes = 16; // of TokenPieces, a token; measured 11 to 13
  const int64_t tokens = tokenizer.vocab_size();
  const grammar::Program& program = *grammar.program();
  const size_t program_bytes = program.nodes.capacity() * sizeof(grammar::Node) +
                               program.rules.capacity() * sizeof(grammar::NodeId) +
                               program.sets.capacity() * sizeof(grammar::ByteSet) +
                               program.need.capacity() * sizeof(uint16_t);
  return static_cast<int64_t>(grammar::StateMachine::kMaxBytes + program_bytes) +
         tokens * kPieceBytes + static_cast<int64_t>(kMasks) * (tokens / 8 + 8);
}

// Names of states change: masks that are kept lose theirs.
void GrammarMatcher::make_room() {
  state_ = machine_.keep_only(state_);
  for (Mask& mask : masks_)
    mask.state = grammar::StateMachine::kDead;
}

std::span<const uint64_t> GrammarMatcher::allowed() {
  for (const Mask& mask : masks_) {
    if (mask.state == state_)
      return mask.words;
  }
  if (machine_.crowded())
    make_room();
  if (masks_.size() < kMasks)
    masks_.push_back({grammar::StateMachine::kDead, std::vector<uint64_t>(pieces_.mask_words_)});
  Mask& mask = masks_[next_mask_];
  next_mask_ = (next_mask_ + 1) % kMasks;
  fill(mask);
  return mask.words;
}

// Walks the sorted tokens: what two neighbours share is run once, and what follows a dead byte not
// at all.
void GrammarMatcher::fill(Mask& mask) {
  std::fill(mask.words.begin(), mask.words.end(), 0);
  machine_.lost_states();
  path_[0] = state_;
  size_t alive = 0; // bytes of the last token looked at that the grammar can read
  const size_t count = pieces_.ids_.size();
  for (size_t i = 0; i < count; ++i) {
    const size_t shared = pieces_.shared_bytes_[i];
    if (shared > alive)
      continue;
    const uint32_t begin = pieces_.suffix_begin_[i];
    bool whole =
        run(std::string_view(pieces_.suffixes_).substr(begin, pieces_.suffix_begin_[i + 1] - begin),
            alive = shared);
    if (machine_.lost_states()) { // once more with room for it, from the start
      make_room();
      path_[0] = state_;
      whole = run(pieces_.tokenizer_.piece(pieces_.ids_[i]), alive = 0);
      machine_.lost_states();
    }
    if (whole) {
      const auto id = static_cast<size_t>(pieces_.ids_[i]);
      mask.words[id / 64] |= uint64_t{1} << (id % 64);
    }
  }
  if (can_end()) {
    for (const TokenId end : pieces_.ends_)
      mask.words[static_cast<size_t>(end) / 64] |= uint64_t{1} << (end % 64);
  }
  mask.state = state_;
}

// Goes on from path_[alive] as far as the grammar can read; true: to the end.
bool GrammarMatcher::run(std::string_view bytes, size_t& alive) {
  State state = path_[alive];
  for (const char byte : bytes) {
    state = machine_.step(state, static_cast<uint8_t>(byte));
    if (state == grammar::StateMachine::kDead)
      return false;
    path_[++alive] = state;
  }
  return true;
}

bool GrammarMatcher::accept(TokenId id) {
  if (id < 0 || id >= pieces_.vocab_size_ || pieces_.tokenizer_.is_special(id) ||
      std::find(pieces_.ends_.begin(), pieces_.ends_.end(), id) != pieces_.ends_.end())
    return false;
  const std::string_view piece = pieces_.tokenizer_.piece(id);
  return !piece.empty() && accept(piece);
}

bool GrammarMatcher::accept(std::string_view bytes) {
  if (machine_.crowded())
    make_room();
  for (const bool again : {false, true}) {
    machine_.lost_states();
    State state = state_;
    for (size_t i = 0; i < bytes.size() && state != grammar::StateMachine::kDead; ++i)
      state = machine_.step(state, static_cast<uint8_t>(bytes[i]));
    if (state != grammar::StateMachine::kDead) {
      state_ = state;
      return true;
    }
    if (again || !machine_.lost_states())
      break;
    make_room();
  }
  return false;
}

} // namespace pinhole
