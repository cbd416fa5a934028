// One or more sequences on one model: encodes pictures, fills the caches in chunks, gives logits;
// one run takes the next tokens of several sequences and reads the weights once for all. All memory
// is reserved when it is created, as planned; afterwards nothing is allocated per token.
#pragma once

#include "base/function_ref.h"
#include "base/memory_pressure.h"
#include "base/result.h"
#include "base/sha256.h"
#include "engine/cpu.h"
#include "engine/expert_cache.h"
#include "engine/kv_cache.h"
#include "engine/weight_stream.h"
#include "model/model.h"
#include "model/vision_inputs.h"
#include "plan/memory.h"
#include "plan/residency.h"

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace pinhole {

// One position of a prompt: a text token, or one row of a picture's features. Where pictures are
// attended to from cross-attention layers, a picture is one token without such a row.
struct PromptToken {
  int32_t id = 0;
  std::array<int32_t, 3> position{}; // (time, height, width); plain models read the first
  int32_t feature_row = -1;          // row in the session's feature store, -1 for text
  uint64_t picture_key = 0;          // start of the picture's digest, 0 for text

  bool is_picture() const { return feature_row >= 0; }
  bool same_as(const PromptToken& other) const {
    return id == other.id && position == other.position && picture_key == other.picture_key;
  }
};

struct SessionOptions {
  RunShape shape;
  KernelChoice kernels;
  // Memory that all of this process may take; 0: no limit. What does not stay in it is streamed
  // from `files`, which hold the model's weights and outlive the session; so are rows of an
  // embedding that are only looked up.
  int64_t limit_bytes = 0;
  std::vector<const MappedFile*> files = {};
  MemoryWatchOptions watch = {};
};

class Session {
 public:
  // Plans, then reserves. `model` (and its files) must outlive the session.
  static Result<std::unique_ptr<Session>> create(const Model& model, const SessionOptions& options);

  const MemoryPlan& plan() const { return plan_; }
  const Residency& residency() const { return residency_; }
  // All that this session may take of anonymous memory.
  int64_t anonymous_bytes() const {
    return plan_.anonymous_bytes() + residency_.window_bytes + residency_.expert_cache_bytes;
  }
  const KernelChoice& kernels() const { return kernels_; }
  CpuBackend& backend() { return backend_; }
  int64_t held_expert_bytes() const { return experts_ == nullptr ? 0 : experts_->held_bytes(); }

  // --- memory that others need ---
  // Before a question: where memory is short, gives back what it does not need (pictures that are
  // not in `keep`, weights read ahead, most experts); refuses it where that is not enough. Runs
  // that follow are not refused.
  Status admit(std::span<const Sha256Digest> keep);

  // --- pictures ---
  struct EncodedPicture {
    int32_t first_row = 0; // in the feature store
    int32_t tokens = 0;
    bool from_cache = false;
  };
  // Features of a picture that was encoded before and is still held.
  std::optional<EncodedPicture> find_picture(const Sha256Digest& digest) const;
  // Runs the vision tower. `write_patches(row_begin, row_end, out)` fills rows of the patch input
  // and is called by several threads at once. The features stay until the store is needed for
  // others; pictures named by `keep` are not dropped. Where yields_in_encode(), `between` is called
  // after every block of layers and may run() sequences.
  Result<EncodedPicture> encode(
      const Sha256Digest& digest, const PatchGrid& grid,
      FunctionRef<void(int64_t, int64_t, float*)> write_patches, std::span<const Sha256Digest> keep,
      const std::atomic<bool>* cancel = nullptr, FunctionRef<void()> between = [] {});
  // Sessions of several sequences, unless weights are streamed: the vision part's memory is its
  // own.
  bool yields_in_encode() const {
    return plan_.vision_offset_bytes > 0 && vision_stream_ == nullptr;
  }
  void forget_pictures(std::span<const Sha256Digest> keep); // all others
  // What the tower gave for the picture that was encoded last, until anything else is run.
  std::span<const float> encoded_row(int64_t row) const;
  // Features of a picture: slot, row relative to the store.
  std::span<const float> feature_row(int32_t slot, int64_t row) const {
    return {features_view_.row(slot, row), static_cast<size_t>(features_view_.size)};
  }

  // --- text ---
  // What names no sequence is about the first.
  int32_t num_sequences() const { return static_cast<int32_t>(histories_.size()); }

  // The next tokens of a sequence; of the last `outputs` of them logits are wanted.
  struct Part {
    int32_t sequence = 0;
    std::span<const PromptToken> tokens;
    int64_t outputs = 0;
  };
  // Appends tokens to sequences, each named once, shape.chunk_tokens at most in all. Returns the
  // logits [sum of outputs, vocab_size] in the order of the parts, valid until the next run. After
  // an error no sequence has changed.
  Result<std::span<const float>> run(std::span<const Part> parts,
                                     const std::atomic<bool>* cancel = nullptr);
  // The error that run() would give for a part.
  Status check(const Part& part) const;
  // How many of `rest` to run next: about `wanted`, never more than `most`, and no picture that
  // sees itself whole is cut.
  Result<size_t> next_chunk(std::span<const PromptToken> rest, int64_t wanted, int64_t most) const;
  // How many tokens of `prompt`, all but its last one at most, a sequence holds ready.
  int64_t common_prefix(std::span<const PromptToken> prompt, int32_t sequence = 0) const;
  // The first tokens of one sequence, of a length that common_prefix() gave, take the place of
  // another's.
  void copy_prefix(int32_t from, int32_t to, int64_t length);

  // Before a prompt is run() on a session with cross-attention layers, which has one sequence:
  // which pictures it has. What was read with others is forgotten where it depends on them, which
  // is where text stands before the first one. Without such layers it does nothing.
  Status set_conversation(std::span<const PromptToken> prompt);

  // Makes the cache hold exactly `prompt`, reusing the longest common prefix, and returns the
  // logits [vocab_size] after its last token. `reused` tells how many tokens were already there.
  // With cross-attention layers text before the first picture depends on all of them: when they
  // are others than before, nothing is reused.
  Result<std::span<const float>> prefill(
      std::span<const PromptToken> prompt, const std::atomic<bool>* cancel = nullptr,
      int64_t* reused = nullptr,
      FunctionRef<void(int64_t done, int64_t total)> progress = [](int64_t, int64_t) {});
  // Appends one token; logits after it.
  Result<std::span<const float>> step(const PromptToken& token,
                                      const std::atomic<bool>* cancel = nullptr);
  // Appends tokens and hands out the logits of every row, chunk by chunk: for checking against a
  // reference. Needs shape.output_rows == shape.chunk_tokens.
  Status prefill_all_logits(std::span<const PromptToken> prompt,
                            FunctionRef<void(int64_t row, std::span<const float> logits)> visit);

  int64_t length(int32_t sequence = 0) const {
    return static_cast<int64_t>(history(sequence).size());
  }
  // Forgets later tokens; of a picture whose tokens see each other, none stays unless all do,
  // and none at all when the windows of sliding layers have passed what the rest would see.
  void truncate(int64_t length, int32_t sequence = 0);

 private:
  Session(const Model& model, MemoryPlan plan, const SessionOptions& options);
  void fit_experts(); // before every run: as many as memory is available for
  void unmap_tables() const;
  Status stream_weights(std::span<const MappedFile* const> files);

  // --- cross-attention (session_pictures.cc) ---
  // Which of the conversation's pictures a token sees: those that stood together before it.
  struct Sight {
    size_t begin = 0, end = 0; // in conversation_
    bool after_picture = false;
    void advance(const PromptToken& token);
  };
  Result<int32_t> make_cache_room(int64_t tokens, std::span<const Sha256Digest> keep);
  Status arrange_conversation();
  Result<int64_t> take_picture(uint64_t key); // for one place in the conversation
  void fill_picture_inputs(std::span<const PromptToken> tokens);
  bool in_conversation(const Sha256Digest& digest) const;

  Result<size_t> next_chunk(std::span<const PromptToken> rest) const {
    return next_chunk(rest, plan_.shape.chunk_tokens, plan_.shape.chunk_tokens);
  }
  // Where tokens[at] would part a picture that sees itself whole, its first token; else `at`.
  size_t cut_before(std::span<const PromptToken> tokens, size_t at) const;
  void fill_key_ranges(const Part& part, int64_t first_row) const;
  void fill_text_inputs(const Part& part, int64_t first_row) const;
  std::byte* text_input(InputKind kind) const;
  std::byte* vision_arena() const { return arena_.data() + plan_.vision_offset_bytes; }
  void fill_vision_inputs(const PatchGrid& grid);
  // False: cancelled.
  bool run_vision(const PatchGrid& grid, int32_t first_row, const std::atomic<bool>* cancel,
                  FunctionRef<void()> between);
  Result<int32_t> make_room(int64_t tokens, std::span<const Sha256Digest> keep);
  const std::vector<PromptToken>& history(int32_t sequence) const {
    return histories_[static_cast<size_t>(sequence)];
  }
  std::vector<PromptToken>& history(int32_t sequence) {
    return histories_[static_cast<size_t>(sequence)];
  }

  const Model& model_;
  MemoryPlan plan_;
  Residency residency_;
  AnonymousMemory window_;                                    // of the streams
  std::unique_ptr<WeightStream> text_stream_, vision_stream_; // null: all weights stay
  FileRange embedding_;           // when it does not stay in memory: rows are read from the file
  std::vector<FileRange> tables_; // the vision part's, unmapped after use when weights stream
  std::unique_ptr<ExpertCache> experts_; // null: all experts stay
  KernelChoice kernels_;
  CpuBackend backend_;
  AnonymousMemory arena_;
  AnonymousMemory features_;
  FeatureRows features_view_;
  KvCache cache_;
  PictureCache picture_cache_;
  std::vector<std::vector<PromptToken>> histories_; // by sequence
  std::vector<SequenceRows> sequence_rows_;         // of the run
  Windows windows_;                                 // of the picture that is encoded
  MemoryWatch watch_;

  struct StoredPicture {
    Sha256Digest digest;
    EncodedPicture rows;
    uint64_t last_use = 0;
    int64_t id = 0;     // in the picture cache
    bool taken = false; // by a place in the conversation, while it is arranged
  };
  std::vector<StoredPicture> pictures_;
  mutable uint64_t clock_ = 0;
  int64_t next_picture_id_ = 0;

  // Pictures of the prompt by the order of their tokens, as digests' starts and as ids, and where
  // in the picture cache the rows begin that hold each.
  std::vector<uint64_t> conversation_, next_conversation_;
  std::vector<int64_t> conversation_ids_, picture_begins_;
  int64_t conversation_rows_ = 0; // of all of them
  bool is_arranged_ = false;
  Sight sight_; // of the last token
};

} // namespace pinhole
