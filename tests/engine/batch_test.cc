// Several sequences on one session: whatever is run beside a sequence, its logits are those that it
// has alone. Under every instruction set of this machine.
#include "fixture.h"

#include <algorithm>
#include <gmock/gmock.h>
#include <set>

namespace pinhole {
namespace {

using testing::copy_of;
using testing::Described;
using testing::encode;
using testing::FakePicture;
using testing::max_difference;
using testing::picture_prompt;
using testing::random_prompt;
using testing::shape_of;
using testing::take;
using testing::text_token;

using Rows = std::vector<std::vector<float>>; // logits after each token of a sequence

float largest(const Rows& rows) {
  float out = 1;
  for (const auto& row : rows) {
    for (const float value : row)
      out = std::max(out, std::abs(value));
  }
  return out;
}

size_t best_of(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// By how much the best logit leads.
float lead(std::span<const float> logits) {
  const size_t best = best_of(logits);
  float second = -INFINITY;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (i != best)
      second = std::max(second, logits[i]);
  }
  return logits[best] - second;
}

class Batches : public ::testing::TestWithParam<const char*> {
 protected:
  static constexpr int64_t kSequences = 3;

  void SetUp() override {
    const std::string name = GetParam();
    if (!name.empty())
      REQUIRE_GOLDEN();
    if (name.empty())
      described_ = Described::bundled();
    else if (name.ends_with(".gguf"))
      described_ = Described::open(testing::golden(name),
                                   testing::golden("gguf/qwen3_vl/mmproj-qwen3_vl-f16.gguf"));
    else
      described_ = Described::open(testing::golden(name));
    picture_ = std::make_unique<FakePicture>(model(), 8, 8, 1);
  }
  const Model& model() const { return described_->model; }

  std::unique_ptr<Session> session(int64_t parallel, int64_t context, int64_t chunk,
                                   const KernelChoice& kernels, int64_t outputs = 1) const {
    RunShape shape = shape_of(context, chunk, 64, 64);
    shape.parallel = parallel;
    shape.output_rows = outputs;
    return take(Session::create(model(), {shape, kernels}));
  }
  // Sequence 0 and 2 begin with the same picture.
  std::vector<PromptToken> tokens(Session& s, int64_t sequence, size_t length) const {
    const auto seed = static_cast<uint32_t>(40 + sequence);
    std::vector<PromptToken> out;
    if (sequence != 1)
      out = picture_prompt(model(), *picture_, encode(s, *picture_), seed);
    for (const PromptToken& token : random_prompt(model(), length, seed + 10)) {
      out.push_back(text_token(token.id, 100 + static_cast<size_t>(token.position[0]) +
                                             (sequence == 1 ? 7 : 0)));
    }
    return out;
  }
  std::vector<Rows> alone(const KernelChoice& kernels, size_t length) const {
    const auto context = static_cast<int64_t>(length) + 64;
    const auto one = session(1, context, context, kernels, context);
    std::vector<Rows> out;
    for (int64_t s = 0; s < kSequences; ++s) {
      one->truncate(0);
      out.emplace_back();
      take(one->prefill_all_logits(
          tokens(*one, s, length),
          [&](int64_t, std::span<const float> logits) { out.back().push_back(copy_of(logits)); }));
    }
    return out;
  }
  // The same token by token, as answers grow; nothing for rows inside a picture that is read at
  // once.
  std::vector<Rows> stepped(const KernelChoice& kernels, size_t length) const {
    const auto one = session(1, static_cast<int64_t>(length) + 64, 24, kernels);
    std::vector<Rows> out;
    for (int64_t s = 0; s < kSequences; ++s) {
      one->truncate(0);
      const auto all = tokens(*one, s, length);
      out.emplace_back(all.size());
      for (auto rest = std::span(all); !rest.empty();) {
        const size_t n = take(one->next_chunk(rest, 1, one->plan().shape.chunk_tokens));
        const Session::Part part{0, rest.first(n), 1};
        const auto logits = take(one->run({&part, 1}));
        out.back()[static_cast<size_t>(one->length()) - 1] = copy_of(logits);
        rest = rest.subspan(n);
      }
    }
    return out;
  }
  // All sequences in random parts, one to `most` tokens each; visit(sequence, row, logits) where
  // logits were asked for.
  template <class Visit>
  void interleave(Session& s, size_t length, uint32_t seed, size_t most, Visit visit) const {
    std::mt19937 random(seed);
    std::vector<std::vector<PromptToken>> all;
    for (int64_t i = 0; i < kSequences; ++i) {
      s.truncate(0, static_cast<int32_t>(i));
      all.push_back(tokens(s, i, length));
    }
    const auto vocab = static_cast<size_t>(model().vocab_size);
    while (true) {
      std::vector<Session::Part> parts;
      int64_t used = 0;
      const auto first = static_cast<int32_t>(random() % kSequences);
      for (int32_t i = 0; i < kSequences; ++i) {
        const int32_t sequence = (first + i) % kSequences;
        const auto& of = all[static_cast<size_t>(sequence)];
        const auto rest = std::span(of).subspan(static_cast<size_t>(s.length(sequence)));
        const int64_t room = s.plan().shape.chunk_tokens - used;
        if (rest.empty() || room == 0 || (!parts.empty() && random() % 4 == 0))
          continue;
        const int64_t wanted = random() % 2 == 0 ? 1 : 1 + random() % most;
        const auto count = s.next_chunk(rest, std::min(wanted, room), room);
        if (!count)
          continue; // a picture that must be read at once, beside too many others
        parts.push_back({sequence, rest.first(*count), random() % 3 == 0 ? 0 : 1});
        used += static_cast<int64_t>(*count);
      }
      if (parts.empty())
        break;
      const auto logits = take(s.run(parts));
      size_t row = 0;
      for (const Session::Part& part : parts) {
        if (part.outputs > 0)
          visit(part.sequence, static_cast<size_t>(s.length(part.sequence)) - 1,
                logits.subspan(vocab * row++, vocab));
      }
      EXPECT_EQ(logits.size(), row * vocab);
    }
    for (int32_t i = 0; i < kSequences; ++i)
      EXPECT_EQ(s.length(i), static_cast<int64_t>(all[static_cast<size_t>(i)].size()));
  }

  std::unique_ptr<Described> described_;
  std::unique_ptr<FakePicture> picture_;
};

KernelChoice choice(std::string_view isa, bool exact, int threads = 1,
                    kernels::KvType kv_type = kernels::KvType::kF32) {
  return {take(kernels::find(isa)), exact, threads, kv_type};
}

TEST_P(Batches, ExactLogitsAreThoseOfTheSequenceAlone) {
  for (const std::string_view isa : kernels::available()) {
    SCOPED_TRACE(std::string(isa));
    const KernelChoice kernels = choice(isa, true);
    const std::vector<Rows> want = alone(kernels, 30);
    for (const int threads : {1, 2}) {
      const auto batch = session(kSequences, 110, 24, choice(isa, true, threads));
      int compared = 0;
      for (uint32_t seed = 1; seed <= 3; ++seed) {
        interleave(*batch, 30, seed, 9, [&](int32_t s, size_t row, std::span<const float> logits) {
          const auto& rows = want[static_cast<size_t>(s)];
          const float tolerance = 2e-5f * largest(rows);
          EXPECT_LE(max_difference(logits, rows[row]), tolerance)
              << "sequence " << s << ", token " << row;
          if (lead(rows[row]) > 2 * tolerance) {
            EXPECT_EQ(best_of(logits), best_of(rows[row]));
          }
          ++compared;
        });
      }
      EXPECT_GT(compared, 50);
    }
  }
}

// Activations rounded to int8 or bf16: what is run beside a sequence decides which kernels multiply
// its rows, and they round differently. None of them is further from exact numbers than twice what
// the sequence alone is.
TEST_P(Batches, NormalLogitsAreAsCloseToExactOnesAsAlone) {
  for (const std::string_view isa : kernels::available()) {
    SCOPED_TRACE(std::string(isa));
    const std::vector<Rows> exact = alone(choice(isa, true), 30);
    const std::vector<Rows> normal = stepped(choice(isa, false), 30);
    double alone_error = 0;
    double batch_error = 0;
    double count = 0;
    const auto add_squares = [](double& sum, std::span<const float> a, std::span<const float> b) {
      for (size_t i = 0; i < a.size(); ++i)
        sum += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    };
    int ids = 0;
    int other_ids = 0;
    const auto batch = session(kSequences, 110, 24, choice(isa, false, 2));
    for (uint32_t seed = 1; seed <= 3; ++seed) {
      interleave(*batch, 30, seed, 9, [&](int32_t s, size_t row, std::span<const float> logits) {
        const auto at = static_cast<size_t>(s);
        if (normal[at][row].empty())
          return;
        add_squares(alone_error, normal[at][row], exact[at][row]);
        add_squares(batch_error, logits, exact[at][row]);
        count += static_cast<double>(logits.size());
        ++ids;
        const float difference = std::max(max_difference(normal[at][row], exact[at][row]),
                                          max_difference(logits, exact[at][row]));
        other_ids +=
            best_of(logits) != best_of(exact[at][row]) && lead(exact[at][row]) > 2 * difference;
      });
    }
    EXPECT_LE(std::sqrt(batch_error / count),
              2 * std::sqrt(alone_error / count) + 1e-5 * largest(exact[0]));
    EXPECT_EQ(other_ids, 0) << "of " << ids;
  }
}

// Where a run holds a single sequence, nothing is different, to the last bit.
TEST_P(Batches, OneSequenceOfManyIsBitIdenticalToASessionOfOne) {
  const KernelChoice kernels = testing::kernel_choice(false, 2, kernels::KvType::kF16);
  const auto one = session(1, 110, 24, kernels);
  const auto many = session(kSequences, 110, one->plan().shape.chunk_tokens, kernels);
  const auto prompt = tokens(*one, 0, 40);
  ASSERT_EQ(tokens(*many, 0, 40).size(), prompt.size());
  std::vector<Rows> logits(2);
  const auto begin = std::span(prompt).first(50);
  take(one->prefill(begin));
  for (auto rest = begin; !rest.empty();) {
    const size_t n = take(
        many->next_chunk(rest, one->plan().shape.chunk_tokens, one->plan().shape.chunk_tokens));
    const Session::Part part{2, rest.first(n), 0};
    take(many->run({&part, 1}));
    rest = rest.subspan(n);
  }
  for (size_t i = 50; i < prompt.size(); ++i) {
    const Session::Part part{2, {&prompt[i], 1}, 1};
    const auto want = copy_of(take(one->step(prompt[i])));
    EXPECT_EQ(copy_of(take(many->run({&part, 1}))), want) << i;
  }
}

TEST_P(Batches, PrefixesAreCopiedFromOtherSequences) {
  const KernelChoice kernels = testing::kernel_choice(true);
  const std::vector<Rows> want = alone(kernels, 30);
  const auto batch = session(kSequences, 110, 24, kernels);
  const auto prompt = tokens(*batch, 0, 30);
  take(batch->prefill(prompt));
  EXPECT_EQ(batch->common_prefix(prompt, 1), 0);
  EXPECT_EQ(batch->common_prefix(prompt), static_cast<int64_t>(prompt.size()) - 1);
  const int64_t common = 35; // behind the picture
  batch->copy_prefix(0, 1, common);
  EXPECT_EQ(batch->length(1), common);
  EXPECT_EQ(batch->common_prefix(prompt, 1), common);
  batch->truncate(0, 0); // the copy is its own
  take(batch->prefill(tokens(*batch, 1, 30)));
  for (size_t i = common; i < prompt.size(); ++i) {
    const Session::Part part{1, {&prompt[i], 1}, 1};
    EXPECT_LE(max_difference(take(batch->run({&part, 1})), want[0][i]), 2e-5f * largest(want[0]));
  }
}

TEST_P(Batches, CancelledRunsChangeNoSequence) {
  const KernelChoice kernels = testing::kernel_choice(true);
  const std::vector<Rows> want = alone(kernels, 30);
  const auto batch = session(kSequences, 110, 24, kernels);
  const auto a = tokens(*batch, 0, 30);
  const auto b = tokens(*batch, 1, 30);
  const auto at = static_cast<size_t>(take(batch->next_chunk(a, 20, 24)));
  const Session::Part begin{0, std::span(a).first(at), 0};
  take(batch->run({&begin, 1}));
  const std::atomic<bool> cancel{true};
  const Session::Part parts[] = {{0, std::span(a).subspan(at, 1), 1},
                                 {1, std::span(b).first(5), 1}};
  const size_t next = a[at].is_picture() ? 0 : 1;
  const auto refused = batch->run(std::span(parts).subspan(1 - next), &cancel);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(batch->length(0), static_cast<int64_t>(at));
  EXPECT_EQ(batch->length(1), 0);
  const auto logits = copy_of(take(batch->run({&parts[1], 1})));
  EXPECT_LE(max_difference(logits, want[1][4]), 2e-5f * largest(want[1]));
}

// Text that is run between the layers of a picture disturbs neither.
TEST_P(Batches, OthersGoOnWhileAPictureIsEncoded) {
  const KernelChoice kernels = testing::kernel_choice(true, 2);
  const std::vector<Rows> want = alone(kernels, 30);
  const auto one = session(1, 110, 24, kernels);
  EXPECT_FALSE(one->yields_in_encode());
  const auto batch = session(kSequences, 110, 24, kernels);
  ASSERT_TRUE(batch->yields_in_encode());
  const auto text = tokens(*batch, 1, 30);
  const FakePicture other(model(), 8, 8, 9);
  size_t at = 0;
  const auto encoded = take(batch->encode(
      other.digest, other.grid,
      [&](int64_t begin, int64_t end, float* out) { other.write(begin, end, out); }, {}, nullptr,
      [&] {
        if (at == text.size())
          return;
        const Session::Part part{1, {&text[at], 1}, 1};
        EXPECT_LE(max_difference(take(batch->run({&part, 1})), want[1][at]),
                  2e-5f * largest(want[1]));
        ++at;
      }));
  std::set<int32_t> blocks;
  for (const Op& op : model().vision.ops())
    blocks.insert(op.block);
  EXPECT_GE(at, blocks.size() - 1);
  const auto alone_encoded = encode(*one, other);
  for (int32_t slot = 0; slot < model().pictures->feature_slots; ++slot) {
    for (int32_t row = 0; row < encoded.tokens; ++row) {
      EXPECT_EQ(copy_of(batch->feature_row(slot, encoded.first_row + row)),
                copy_of(one->feature_row(slot, alone_encoded.first_row + row)));
    }
  }
  // Cancelled in the middle.
  const FakePicture third(model(), 8, 8, 10);
  std::atomic<bool> cancel{false};
  const auto stopped = batch->encode(
      third.digest, third.grid,
      [&](int64_t begin, int64_t end, float* out) { third.write(begin, end, out); }, {}, &cancel,
      [&] { cancel = true; });
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  EXPECT_FALSE(batch->find_picture(third.digest));
}

TEST_P(Batches, ThePlanCountsEverySequence) {
  const KernelChoice kernels = testing::kernel_choice(false);
  const auto one = session(1, 110, 40, kernels);
  const auto batch = session(kSequences, 110, 40, kernels);
  EXPECT_EQ(batch->plan().kv_cache_bytes, kSequences * one->plan().kv_cache_bytes);
  EXPECT_GE(batch->plan().arena_bytes,
            batch->plan().text.arena_bytes + batch->plan().vision.arena_bytes);
  EXPECT_EQ(one->plan().arena_bytes,
            std::max(one->plan().text.arena_bytes, one->plan().vision.arena_bytes));
}

// Sequences that are several times as long as the caches of sliding layers, and copies of them.
TEST(SlidingBatches, EachSequenceHasAWindowOfItsOwn) {
  REQUIRE_GOLDEN();
  const auto described = Described::open(testing::golden("gemma3/tiny"));
  const Model& model = described->model;
  const KernelChoice kernels = testing::kernel_choice(true);
  constexpr int64_t kLength = 700;
  const auto prompt_of = [&](int32_t s) {
    return random_prompt(model, kLength - 100 * static_cast<size_t>(s),
                         static_cast<uint32_t>(70 + s));
  };
  const auto alone = [&](std::span<const PromptToken> prompt) {
    const auto fresh = take(Session::create(model, {shape_of(kLength, 64), kernels}));
    return copy_of(take(fresh->prefill(prompt)));
  };
  RunShape shape = shape_of(kLength, 40);
  shape.parallel = 3;
  const auto batch = take(Session::create(model, {shape, kernels}));
  std::mt19937 random(5);
  std::vector<std::vector<PromptToken>> all{prompt_of(0), prompt_of(1), prompt_of(2)};
  for (bool any = true; any;) {
    any = false;
    std::vector<Session::Part> parts;
    for (int32_t s = 0; s < 3; ++s) {
      const auto rest =
          std::span(all[static_cast<size_t>(s)]).subspan(static_cast<size_t>(batch->length(s)));
      if (rest.empty())
        continue;
      parts.push_back({s, rest.first(std::min<size_t>(rest.size(), 1 + random() % 13)), 1});
      any = true;
    }
    if (!any)
      break;
    const auto logits = take(batch->run(parts));
    for (size_t i = 0; i < parts.size(); ++i) {
      const auto& prompt = all[static_cast<size_t>(parts[i].sequence)];
      if (batch->length(parts[i].sequence) == static_cast<int64_t>(prompt.size())) {
        const auto vocab = static_cast<size_t>(model.vocab_size);
        EXPECT_LE(max_difference(logits.subspan(i * vocab, vocab), alone(prompt)), 2e-5f);
      }
    }
  }
  // What the windows have passed cannot be taken over, the rest can.
  auto other = all[0];
  other.resize(kLength - 50);
  other.push_back(text_token(3, other.size()));
  EXPECT_EQ(batch->common_prefix(other, 0), kLength - 50);
  EXPECT_EQ(batch->common_prefix(std::span(all[0]).first(200), 0), 0);
  batch->copy_prefix(0, 2, kLength - 50);
  const Session::Part last{2, {&other.back(), 1}, 1};
  EXPECT_LE(max_difference(take(batch->run({&last, 1})), alone(other)), 2e-5f);
}

INSTANTIATE_TEST_SUITE_P(Model, Batches,
                         ::testing::Values("", "qwen3_vl/tiny", "qwen3_vl_moe/tiny",
                                           "qwen2_5_vl/tiny", "gemma3/tiny",
                                           "gguf/qwen3_vl/qwen3_vl-q4_0.gguf",
                                           "gguf/qwen3_vl/qwen3_vl-q4_k_m.gguf"),
                         [](const auto& param_info) -> std::string {
                           const std::string name = param_info.param;
                           if (name.ends_with(".gguf"))
                             return name.ends_with("q4_0.gguf") ? "q4_0" : "q4_k_m";
                           return name.empty() ? "bundled" : name.substr(0, name.find('/'));
                         });

} // namespace
} // namespace pinhole
